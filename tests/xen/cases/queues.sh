# SPDX-License-Identifier: LGPL-2.1-or-later
# A guest with two processors has two rings for its disk.

# Both carry its requests, and both go over to a successor.
case_queues() {
	local be old reqs
	guests_only
	GUEST_VCPUS=2 guest_start d1 pv "$(disk xvda "$(target none "$(image queues.img 96)")")" || die "xl create failed"
	be=$(be d1 xvda)
	say "offered $(key "$be" multi-queue-max-queues), taken $(key "$(fe d1 xvda)" multi-queue-num-queues)"
	[ "$(key "$(fe d1 xvda)" multi-queue-num-queues)" = 2 ] || die "the guest takes no second queue"
	old=$(disk_pid d1 xvda)
	tap-ctl stats -p "$old" -m "$(disk_minor d1 xvda)" | grep -q '"queues": *2' || die "the tapdisk has not got two rings: $(tap-ctl stats -p "$old" -m "$(disk_minor d1 xvda)")"
	g d1 150 "fs_write xvda 4" >/tmp/sums || { tail -5 /tmp/sums | sed 's/^/# | /'; die "the guest's file system is not right"; }
	g d1 100 "for cpu in 0 1; do taskset \$((1 << cpu)) dd if=/dev/xvda of=/dev/null bs=64k count=64 iflag=direct 2>/dev/null || exit 1; done; cat /proc/interrupts" >/tmp/int || die "a processor cannot read"
	reqs=$(grep -c blkif /tmp/int); say "event channels of the disk in the guest: $reqs"
	grep blkif /tmp/int | sed 's/^/# | /'
	[ "$reqs" = 2 ] && ! grep blkif /tmp/int | grep -qE '^ *[0-9]+: +0 +0 ' || die "a ring of the guest has had no answer"
	kill -KILL "$old"
	wait_for 20 gone "$old" && wait_for 30 changed_pid "$old" || die "no successor"
	g d1 100 "for cpu in 0 1; do taskset \$((1 << cpu)) dd if=/dev/xvda of=/dev/null bs=64k count=64 iflag=direct 2>/dev/null || exit 1; done; dmesg | grep -ci 'i/o error'" >/tmp/errors
	[ "$(tail -1 /tmp/errors)" = 0 ] || { sed 's/^/# | /' /tmp/errors; die "the guest has seen errors"; }
	# the second ring's thread went to the disk by itself
	if [ "$(nproc)" -gt 1 ]; then
		tap-ctl stats -p "$(disk_pid d1 xvda)" -m "$(disk_minor d1 xvda)" | grep -o '"in_threads": [^]]*]' | tee /tmp/threads | sed 's/^/# | /'
		[ -s /tmp/threads ] && ! grep -q '\[0, 0\]' /tmp/threads || die "no request went through the second ring's own thread"
	fi
	guest_stop d1; image_holds /data/queues.img /tmp/sums || die "the image is not what the guest wrote"
	nothing_left || die "something is left"
}
changed_pid() { local now; now=$(disk_pid d1 xvda); [ -n "$now" ] && [ "$now" != "$1" ]; }
