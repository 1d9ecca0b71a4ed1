# SPDX-License-Identifier: LGPL-2.1-or-later
# For tests/xen/demo: a guest's writes and fsyncs in each mode, and what dom0's kernel was asked to do for them.
per() { [ "$2" = 0 ] && echo - || awk "BEGIN { printf \"%.2f\", $1 / $2 }"; }
case_demo() {
	modes_guest
	local mode v promise
	say "the guest writes 4 KiB and fsyncs, 20 times, on a disk of each mode"
	echo "= | mode         | guest writes | guest FLUSHes | fdatasyncs per FLUSH | durable writes per write | promise |"
	echo "= |--------------|-------------:|--------------:|---------------------:|-------------------------:|---------|"
	for mode in $MODES; do
		v=$(vdev_of $mode); count m1 "$v" 20 "$(disk_pid m1 "$v")"
		case $mode in
		none | writeback) promise="all before a completed flush" ;; unsafe) promise="nothing" ;; *) promise="every acknowledged write" ;;
		esac
		printf '= | %-12s | %12s | %13s | %20s | %24s | %s |\n' $mode "$SENT_WRITES" "$SENT_FLUSHES" "$(per "$SYNCS" "$SENT_FLUSHES")" "$(per "$DURABLE" "$SENT_WRITES")" "$promise"
	done
}
