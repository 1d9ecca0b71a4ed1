# SPDX-License-Identifier: LGPL-2.1-or-later
# A guest that goes away in the middle of its work and comes back as another domain: its program, which knows what every block must hold,
# goes on where it was.

# Saved under load: nothing of the disk is left on the host, so that another may have it; restored, it gets a new tapdisk.
case_save_restore() {
	local old pid; guests_only
	UPLIMIT=150 guest_start v1 pv "$(disk xvda "$(target none "$(image v1.img 32)")")" || die "xl create failed"
	g v1 30 "load_start xvda 8" || die "no load"
	old=$(cat /tmp/v1.id); pid=$(disk_pid v1 xvda)
	timeout 150 xl save v1 /data/v1.save >/tmp/save.out 2>&1 </dev/null || { tail -5 /tmp/save.out | sed 's/^/# | /'; die "xl save failed"; }
	rm /tmp/v1.id
	wait_for 20 gone "$pid" || die "the saved guest's tapdisk stays"
	nothing_left || die "something of the saved guest is left"
	timeout 150 xl restore /data/v1.save >/tmp/save.out 2>&1 </dev/null || { tail -5 /tmp/save.out | sed 's/^/# | /'; die "xl restore failed"; }
	xl domid v1 >/tmp/v1.id; [ "$(cat /tmp/v1.id)" != "$old" ] || die "it is the same domain"
	[ "$(disk_pid v1 xvda)" != "$pid" ] || die "it has the same tapdisk"
	sleep 2; g v1 120 "load_stop xvda" >/tmp/load || { tail -5 /tmp/load | sed 's/^/# | /'; die "the guest saw errors or other bytes than it wrote"; }
	say "$(tail -1 /tmp/load)"
	g v1 60 "sync_writes xvda 3" >/dev/null || die "the guest cannot write any more"
	rm /data/v1.save; guest_stop v1 || die "xl destroy failed"; nothing_left || die "something is left"
}
