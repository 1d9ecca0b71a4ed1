# SPDX-License-Identifier: LGPL-2.1-or-later
# What happens to a disk while a guest keeps it busy.

# pause and unpause hold the ring, and lose nothing
case_pause() {
	plug_guest
	local pid minor i; pid=$(disk_pid p1 xvda); minor=$(disk_minor p1 xvda)
	g p1 30 "load_start xvda 8" || die "no load"
	for i in 1 2 3; do
		sleep 1
		tap-ctl pause -p "$pid" -m "$minor" || die "tap-ctl pause failed"
		tap-ctl list -p "$pid" | grep -q 'state=0x2a' || die "paused, it lists as: $(tap-ctl list -p "$pid")"
		sleep 2
		tap-ctl unpause -p "$pid" -m "$minor" || die "tap-ctl unpause failed"
		tap-ctl list -p "$pid" | grep -q 'state=0 ' || die "unpaused, it lists as: $(tap-ctl list -p "$pid")"
	done
	g p1 90 "load_stop xvda" >/tmp/load || { sed 's/^/# | /' /tmp/load; die "the guest saw errors or other bytes than it wrote"; }
	say "$(tail -1 /tmp/load)"
	[ "$(sed -n 's/.*longest \([0-9]*\) ms.*/\1/p' /tmp/load)" -ge 1500 ] || die "no request waited while the disk was paused: was it?"
}

# The daemon killed under load: guests do not notice, and it finds its devices again.
case_restart() {
	plug_guest
	local old pid b i; b=$(be p1 xvdf)
	attach "$(disk xvdf "$(target none "$(image again.img)")")" || { sed 's/^/# | /' /tmp/attach.out; die "xl block-attach failed"; }
	pid=$(disk_pid p1 xvdf)
	g p1 30 "load_start xvda 8; load_start xvdf 8" || die "no load"
	for i in 1 2; do
		old=$(tapback_pid vbd)
		kill -9 "$old"; wait_for 5 gone "$old"; sleep 1; rm -f /run/tapback-vbd.pid
		tapback_start vbd || die "tapback does not start again"
		sleep 1
		state_is "$b" 4 || die "after the restart the backend is in state $(key "$b" state)"
		[ "$(disk_pid p1 xvdf)" = "$pid" ] || die "the disk has another tapdisk"
	done
	g p1 90 "load_stop xvda; load_stop xvdf" >/tmp/load || { sed 's/^/# | /' /tmp/load; die "the guest saw errors or other bytes than it wrote"; }
	sed -n 's/^load/# &/p' /tmp/load
	[ "$(grep -c ' 0 errors, 0 wrong' /tmp/load)" = 2 ] || die "the guest saw errors or other bytes than it wrote"
	detach xvdf || { sed 's/^/# | /' /tmp/detach.out; die "xl block-detach after the restart failed"; }
	taken_away xvdf "$pid" vbd
	# and what happens while there is no daemon is found when there is one again
	attach "$(disk xvdf "$(target none /data/again.img)")" || die "xl block-attach after the restart failed"
	pid=$(disk_pid p1 xvdf)
	kill -TERM "$(tapback_pid vbd)"; sleep 1; rm -f /run/tapback-vbd.pid
	state_is "$b" 4 || die "ending the daemon changed the state to $(key "$b" state)"
	(sleep 3; tapback_start vbd) &
	detach xvdf || { sed 's/^/# | /' /tmp/detach.out; die "xl block-detach, begun without a daemon, failed"; }
	wait
	taken_away xvdf "$pid" vbd
}
