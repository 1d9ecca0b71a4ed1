# SPDX-License-Identifier: LGPL-2.1-or-later
# Block devices of dom0 as disks, and other kinds of guests.

# A guest with one disk on a bare disk of dom0.
device_guest() { guests_only; guest_start d1 pv "$(disk xvda "$(target "$1" "$2")")" || die "xl create failed"; }
# flush commands that the kernel sent to a disk of dom0, from its block layer's trace
flushes_watch() { # flushes_watch MAJOR MINOR
	local t=/sys/kernel/tracing/events/block/block_rq_issue
	echo "dev == $((($1 << 20) + $2))" >$t/filter && echo >/sys/kernel/tracing/trace && echo 1 >$t/enable
}
flushes_seen() { echo 0 >/sys/kernel/tracing/events/block/block_rq_issue/enable; grep -c ' F[A-Z]* 0 ()' /sys/kernel/tracing/trace; }

# The guest's fsync reaches the disk itself: dom0's block layer sends it a flush for each.
case_blockdev() {
	device_guest none /dev/vdb
	g d1 150 "fs_write xvda 4" >/tmp/sums || { tail -5 /tmp/sums | sed 's/^/# | /'; die "the guest's file system is not right"; }
	flushes_watch "$(printf %d "0x$(stat -c %t /dev/vdb)")" "$(printf %d "0x$(stat -c %T /dev/vdb)")" || die "no block trace"
	g d1 60 "sync_writes xvda 10" >/tmp/sent || die "writing and syncing failed"
	local n seen; n=$(sed -n 's/^sent .*flushes=\([0-9]*\).*/\1/p' /tmp/sent); seen=$(flushes_seen)
	say "the guest sent $n flushes; dom0 sent its disk $seen"
	[ "$n" -ge 10 ] && [ "$seen" -ge "$n" ] || { tail -5 /sys/kernel/tracing/trace | sed 's/^/# | /'; die "$seen flushes reached the disk, for $n of the guest"; }
	guest_stop d1; nothing_left || die "something is left"
}

# 4096-byte sectors below, 512-byte ones above.
case_blockdev_4k() {
	device_guest none /dev/vdc
	local s; s=$(key "$(be d1 xvda)" sector-size)
	g d1 150 "fs_write xvda 4" >/tmp/sums || { tail -5 /tmp/sums | sed 's/^/# | /'; die "the guest's file system is not right (sector-size $s)"; }
	say "sector-size $s, physical $(key "$(be d1 xvda)" physical-sector-size)"
	if [ "$s" = 512 ]; then
		g d1 60 "dd if=/dev/urandom of=/tmp/p bs=512 count=5 2>/dev/null; dd if=/tmp/p of=/dev/xvda bs=512 seek=260097 oflag=direct 2>/dev/null && dd if=/dev/xvda bs=512 skip=260097 count=5 iflag=direct 2>/dev/null | cmp - /tmp/p" || die "512-byte writes on 4096-byte sectors are wrong"
	fi
	guest_stop d1; image_holds /dev/vdc /tmp/sums || die "the disk is not what the guest wrote"
}

# A PVH guest: other page tables, the same ring.  QEMU's emulation of a processor that runs an HVM guest now and then stays in it for good, with
# dom0's own waiting behind it: a guest that does not come up, or falls silent, is made anew, twice at most.  What it says counts at once.
case_pvh() {
	local try rc=125
	for try in 1 2 3; do
		guests_only
		[ $try = 1 ] || say "the guest hangs; once more"
		UPLIMIT=30 guest_start d1 pvh "$(disk xvda "$(target none "$(image pvh.img)")")" && { g d1 50 "fs_write xvda 4" >/tmp/sums; rc=$?; }
		[ $rc = 125 ] || break
	done
	[ $rc = 0 ] || { tail -5 /tmp/sums | sed 's/^/# | /'; die "the guest's file system is not right"; }
	guest_stop d1; image_holds /data/pvh.img /tmp/sums || die "the image is not what the guest wrote"
}
