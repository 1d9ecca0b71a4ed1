# SPDX-License-Identifier: LGPL-2.1-or-later
# One guest, made by the stock `xl create' with five disks, one for each cache mode.

modes_guest() {
	if guest_alive m1; then guests_only m1; return; fi
	guests_only
	local disks=() v=a mode
	for mode in $MODES; do
		disks+=("$(disk xvd$v "$(target "$mode" "$(image "$mode.img")")")")
		v=$(tr a-e b-f <<<$v)
	done
	GUEST_ARGS="xen_blkfront.max_ring_page_order=4" guest_start m1 pv "${disks[@]}" || die "xl create failed"
}
vdev_of() { local i=0 m; for m in $MODES; do i=$((i + 1)); [ "$m" != "$1" ] || echo "xvd$(cut -c$i <<<abcde)"; done; }

# Whether the file system that the guest has made and verified is in the image, read from outside.
image_holds() { # image_holds PATH SUMS
	local bad; mkdir -p /mnt/outside
	e2fsck -fn "$1" >/tmp/fsck 2>&1 || { sed 's/^/# | /' /tmp/fsck; return 1; }
	# through a loop device also for a disk: its sectors may be larger than the file system's blocks
	local loop; loop=$(losetup -r -f --show "$1") || return 1
	mount -t ext4 -o ro "$loop" /mnt/outside || { losetup -d "$loop"; echo "# $1 cannot be mounted"; return 1; }
	bad=$(cd /mnt/outside && sed -n 's/^sum //p' "$2" | sha256sum -c 2>&1 | grep -v ': OK$')
	umount /mnt/outside; losetup -d "$loop"
	[ -z "$bad" ] || { sed 's/^/# | /' <<<"$bad"; return 1; }
}

disk_case() { # disk_case MODE
	modes_guest
	local v img=/data/$1.img; v=$(vdev_of "$1")
	g m1 150 "fs_write $v 6" >/tmp/sums || { tail -5 /tmp/sums | sed 's/^/# | /'; die "the guest's file system on $v is not right"; }
	[ "$(grep -c '^sum ' /tmp/sums)" -ge 42 ] || die "the guest verified too few files"
	[ "$(key "$(be m1 "$v")" cache-mode)" = "$1" ] || die "xenstore says cache-mode=$(key "$(be m1 "$v")" cache-mode)"
	tap-ctl stats -p "$(disk_pid m1 "$v")" -m "$(disk_minor m1 "$v")" | grep -q "\"$1\"" || die "tap-ctl stats does not tell the mode $1"
	# the promise not to cache, as the kernel sees it: pages of the image in dom0's page cache
	local pages; pages=$(fincore -n -o PAGES "$img" | tr -d ' '); say "$1: $pages pages of the image are in dom0's page cache"
	case $1 in
	none | directsync) [ "$pages" -lt 16 ] || die "$1 left $pages pages in the page cache" ;;
	*) [ "$pages" -gt 1000 ] || die "$1 has only $pages pages in the page cache: is it $1?" ;;
	esac
	image_holds "$img" /tmp/sums || die "the image is not what the guest wrote"
}
case_disk_none() { disk_case none; }
case_disk_writethrough() { disk_case writethrough; }
case_disk_writeback() { disk_case writeback; }
case_disk_directsync() { disk_case directsync; }
case_disk_unsafe() { disk_case unsafe; }

# Durable writes that went within another's call.
merged_of() { tap-ctl stats -p "$1" -m "$2" | sed -n 's/.*"merged": \([0-9]*\).*/\1/p'; }

# What the guest's kernel sent, and what dom0's kernel was asked for: sets SENT_WRITES, SENT_FLUSHES, CACHE, SYNCS, DURABLE.
count() { # count GUEST VDEV N PID
	local merged; merged=$(merged_of "$4" "$(disk_minor "$1" "$2")")
	trace_start "$4"
	g "$1" 120 "sync_writes $2 $3" >/tmp/sent || { sed 's/^/# | /' /tmp/sent; die "writing and syncing failed in the guest"; }
	trace_stop
	[ "$DURABLE" = 0 ] || DURABLE=$((DURABLE + $(merged_of "$4" "$(disk_minor "$1" "$2")") - merged))
	SENT_WRITES=$(sed -n 's/^sent writes=\([0-9]*\).*/\1/p' /tmp/sent)
	SENT_FLUSHES=$(sed -n 's/^sent .*flushes=\([0-9]*\).*/\1/p' /tmp/sent)
	CACHE=$(sed -n 's/^sent .*cache=\(.*\)/\1/p' /tmp/sent)
}
count_case() { # count_case MODE
	modes_guest
	local v n=20; v=$(vdev_of "$1")
	count m1 "$v" $n "$(disk_pid m1 "$v")"
	say "$1: the guest sees a cache '$CACHE' and sent $SENT_WRITES writes, $SENT_FLUSHES flushes; dom0's kernel saw $SYNCS fdatasyncs, $DURABLE durable writes"
	[ "$SENT_WRITES" -ge $n ] || die "the guest sent only $SENT_WRITES writes"
	case $1 in
	none | writeback)
		[ "$SENT_FLUSHES" -ge $n ] || die "the guest sent $SENT_FLUSHES flushes for $n fsyncs"
		[ "$SYNCS" = "$SENT_FLUSHES" ] || die "$SYNCS fdatasyncs for $SENT_FLUSHES flushes" ;;
	writethrough | directsync)
		[ "$CACHE" = write-through ] || die "the guest was told of a volatile cache"
		[ $((DURABLE + SYNCS)) -ge "$SENT_WRITES" ] || die "$DURABLE durable writes and $SYNCS fdatasyncs for $SENT_WRITES writes" ;;
	unsafe)
		[ "$SENT_FLUSHES" -ge $n ] || die "the guest sent $SENT_FLUSHES flushes for $n fsyncs"
		[ "$SYNCS$DURABLE" = 00 ] || die "$SYNCS fdatasyncs and $DURABLE durable writes in unsafe" ;;
	esac
}
case_count_none() { count_case none; }
case_count_writethrough() { count_case writethrough; }
case_count_writeback() { count_case writeback; }
case_count_directsync() { count_case directsync; }
case_count_unsafe() { count_case unsafe; }

# The guest asked for rings of 16 pages, and they were used above.
case_ring_order() {
	modes_guest
	local f; f=$(fe m1 xvda)
	[ "$(key "$f" ring-page-order)" = 4 ] || die "the guest has ring-page-order=$(key "$f" ring-page-order)"
	[ -n "$(key "$f" ring-ref15)" ] || die "the guest has no ring-ref15"
	state_is "$(be m1 xvda)" 4 || die "the backend is in state $(key "$(be m1 xvda)" state)"
}

# A tapdisk at rest: no wake-ups, by the kernel's count of context switches, and little memory.
case_idle() {
	modes_guest
	local pid before after rss; sleep 3
	for v in xvda xvdb xvdc xvdd xvde; do
		pid=$(disk_pid m1 $v)
		for _ in 1 2 3; do # a guest that is late may still have had something to do
			before=$(cat /proc/"$pid"/task/*/status | awk '/ctxt_switches/ { n += $2 } END { print n }')
			sleep 4
			after=$(cat /proc/"$pid"/task/*/status | awk '/ctxt_switches/ { n += $2 } END { print n }')
			[ "$after" != "$before" ] || break
		done
		rss=$(awk '/^VmRSS/ { print $2 }' "/proc/$pid/status")
		say "$v: $((after - before)) wake-ups in 4 s, $rss KiB resident, $(grep -c . <(printf '%s\n' /proc/"$pid"/task/*)) threads"
		[ "$after" = "$before" ] || die "tapdisk $pid of $v woke up $((after - before)) times in 4 s"
		[ "$rss" -lt 8192 ] || die "tapdisk $pid of $v has $rss KiB resident"
	done
}

# Gone with the guest: xl destroy takes all five away.
case_destroy() {
	modes_guest
	guest_stop m1 || { sed 's/^/# | /' /tmp/m1.out; die "xl destroy failed"; }
	wait_for 15 eval '[ "$(tapdisks)" = 0 ]'
	nothing_left || die "xl destroy left something behind"
}
