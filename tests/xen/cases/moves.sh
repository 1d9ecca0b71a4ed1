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

# Migrated to the host that it is on, under load: for a moment both of its domains have the disk,
# and one tapdisk serves them.
migrate() { # migrate TYPE: under the environment's LIBXL_SAVE_HELPER
	local old pid; guests_only
	UPLIMIT=150 guest_start v1 "$1" "$(disk xvda "$(target none "$(image v1.img 32)")")" || die "xl create failed"
	g v1 60 "load_start xvda 8" || die "no load"
	old=$(cat /tmp/v1.id); pid=$(disk_pid v1 xvda)
	rm -f "$(guest_log v1--incoming)" # another run's
	timeout 300 xl migrate -s '' v1 'xl migrate-receive' >/tmp/migrate.out 2>&1 </dev/null || { tail -20 /tmp/migrate.out | sed 's/^/# | /'; die "xl migrate failed"; }
	xl domid v1 >/tmp/v1.id; [ "$(cat /tmp/v1.id)" != "$old" ] || die "it is the same domain"
	# its console's log has the name that it came under
	ln -sf "$(basename "$(guest_log v1--incoming)")" "$(guest_log v1)"
	[ "$(disk_pid v1 xvda)" = "$pid" ] || die "the disk has another tapdisk: $(disk_pid v1 xvda), not $pid"
	absent "/local/domain/0/backend/$TYPE/$old" || die "the old domain's directory is left"
	sleep 2; g v1 100 "load_stop xvda" >/tmp/load || { tail -5 /tmp/load | sed 's/^/# | /'; die "the guest saw errors or other bytes than it wrote"; }
	say "$(tail -1 /tmp/load)"
	g v1 60 "sync_writes xvda 3" >/dev/null || die "the guest cannot write any more"
	guest_stop v1 || die "xl destroy failed"
	wait_for 15 gone "$pid" || die "the tapdisk stays"
	nothing_left || die "something is left"
}
case_migrate() { LIBXL_SAVE_HELPER=/lab/save-helper migrate pv; }
# As xl has it by itself, with a copy of the running guest: see save-helper why it is asked for by name.
case_migrate_live() { migrate pvh; }
