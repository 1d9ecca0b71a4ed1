# SPDX-License-Identifier: LGPL-2.1-or-later
# Statistics where dom0's tools look for them.

xentop_of() { TERM=dumb xentop -b -f -i 1 2>/tmp/xentop.err | awk -v name="$1" '$1 == name { print $(NF - 5), $(NF - 4), $(NF - 3), $(NF - 2), $(NF - 1) }'; } # VBD_OO RD WR RSECT WSECT

# What the guest does shows in tap-ctl stats, in the file that libxenstat reads, and in xentop's columns; and the file goes with the disk.
case_xentop() {
	plug_guest
	local img pid b f field before after; img=$(image top.img)
	timeout 60 tap-vbd attach p1 "format=raw,vdev=xvdk,access=rw,target=$img" >/tmp/attach.out 2>&1 || { sed 's/^/# | /' /tmp/attach.out; die "tap-vbd attach failed"; }
	g p1 60 "disk_there xvdk 20" || die "the guest does not have the disk"
	b=$(be p1 xvdk vbd3); pid=$(disk_pid p1 xvdk vbd3)
	f=/dev/shm/td3-$pid/vbd-$(cat /tmp/p1.id)-$(devid xvdk)
	[ -s "$f" ] || die "there is no $f: $(echo /dev/shm/*)"
	say "sysfs: $(echo /sys/bus/xen-backend/devices/*); $(command -v xentop || echo 'no xentop that knows vbd3')"
	before=$(xentop_of p1)
	g p1 90 "dd if=/dev/zero of=/dev/xvdk bs=64k count=32 oflag=direct 2>/dev/null && dd if=/dev/xvdk of=/dev/null bs=64k count=16 iflag=direct 2>/dev/null && sync_writes xvdk 5" || die "the guest's I/O failed"
	# version, outstanding, reads submitted, completed, sectors, ticks, writes the same, errors, flags
	read -r -a field < <(od -An -v -t u8 -N 96 "$f" | tr '\n' ' ')
	say "the file: ${field[*]}"
	[ "${field[0]}" = 1 ] && [ "${field[1]}" = 0 ] && [ "${field[4]}" -ge 2048 ] && [ "${field[8]}" -ge $((4096 + 5 * 8)) ] && [ "${field[10]}" = 0 ] || die "the file is not what the guest did"
	[ "${field[3]}" -le "${field[2]}" ] && [ "${field[5]}" -gt 0 ] && [ "${field[9]}" -gt 0 ] || die "the file makes no sense"
	tap-ctl stats -p "$pid" -m "$(disk_minor_of "$pid")" | grep -q "\"sectors\": ${field[8]}," || die "tap-ctl stats tells something else"
	tap-ctl top -b -n 1 -d 0.2 | grep -q "$(cat /tmp/p1.id)/$(devid xvdk)" || die "tap-ctl top does not show the guest"
	if command -v xentop >/dev/null; then
		after=$(xentop_of p1)
		say "xentop (VBD_OO RD WR RSECT WSECT): $before > $after"
		[ -n "$after" ] || { sed 's/^/# | xentop: /' /tmp/xentop.err; die "xentop does not show the guest"; }
		read -r -a field <<<"$before $after"
		[ $((field[8] - field[3])) -ge 2048 ] && [ $((field[9] - field[4])) -ge 4136 ] && [ "${field[6]}" -gt "${field[1]}" ] || die "xentop's columns did not move as the guest did"
	fi
	timeout 60 tap-vbd detach p1 xvdk >/tmp/detach.out 2>&1 || { sed 's/^/# | /' /tmp/detach.out; die "tap-vbd detach failed"; }
	taken_away xvdk "$pid" vbd3
	wait_for 10 absent_file "/dev/shm/td3-$pid" || die "/dev/shm/td3-$pid is left"
}
absent_file() { [ ! -e "$1" ]; }
disk_minor_of() { tap-ctl list -p "$1" | sed -n 's/.*minor=\([0-9]*\) .*/\1/p' | head -1; }
