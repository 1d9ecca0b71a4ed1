# SPDX-License-Identifier: LGPL-2.1-or-later
# xapi's storage migration of a VHD, in its order of calls, under a guest's load, from one tapdisk to another: snapshot, mirror, copy,
# compose; then the two chains show the same, to the byte, and the guest goes on with the copy.  And what it finds where the other end is
# full.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/it/mirror-lib.sh"

command -v nbdcopy >/dev/null || skip "no nbdcopy"
vhd_util() { "$top_builddir/bin/vhd-util" "$@"; }
cd "$WORK" || exit 99
MB=32
mkdir src dst
uri() { local p=PID_$1 m=MINOR_$1; echo "nbd+unix:///?socket=$TAPDISK_CONTROL_DIR/nbd${!p}.${!m}"; }
content() # VHD RAW: what it shows with all beneath it
{
	disk x -a "vhd:$1" -R
	guest x read 0 $((MB << 20)) >"$2" || fail "reading $1"
	drop x
}
# as sm does it: pause, the leaf becomes the parent of a new one, unpause with and without a mirror
snapshot() # UNPAUSE-ARG...
{
	expect 0 of a pause
	expect 0 mv src/leaf.vhd "src/$snapshots.vhd"
	expect 0 vhd_util snapshot -n src/leaf.vhd -p "src/$snapshots.vhd"
	snapshots=$((snapshots + 1))
	expect 0 of a unpause -a "vhd:$WORK/src/leaf.vhd" "$@"
}
snapshots=1

expect 0 vhd_util create -n src/leaf.vhd -s $MB
disk a -a "vhd:$WORK/src/leaf.vhd"
expect 0 guest a full 1
load a 16 "$WORK/written"

# 1. the destination: a leaf upon a blank parent, attached; and a parent of its own for the copy
expect 0 vhd_util create -n dst/blank.vhd -s $MB
expect 0 vhd_util snapshot -n dst/leaf.vhd -p dst/blank.vhd
expect 0 vhd_util create -n dst/copy.vhd -s $MB
disk b -a "vhd:$WORK/dst/leaf.vhd"
disk c -a "vhd:$WORK/dst/copy.vhd"
# 3. the connection; 4. the snapshot with a mirror
between a b MIR_DP
snapshot -2 nbd:MIR_DP
failed a 0 || fail "the mirror: $(of a stats)"
is "its images" "$(images a)" "vhd nbd vhd"
# 6. sparse_dd: the snapshot into the destination's parent, while the guest writes
disk s -a "vhd:$WORK/src/1.vhd" -R
expect 0 timeout 250 nbdcopy --flush "$(uri s)" "$(uri c)"
drop s
# a snapshot of the user's meanwhile, whose unpause names no mirror: it goes on
snapshot
failed a 0 || fail "after a snapshot: $(of a stats)"
until_true 10 copied a 1000
# 5., 7. the VM moves: its disk is quiet, and the mirror is judged
load_end
until_true 10 test "$(stat_of a reqs_outstanding)" = 0
failed a 0 || fail "the mirror: $(of a stats)"
expect 0 of a pause
expect 0 of a unpause -2 null
drop a
# 8. the destination: parent and leaf are composed
drop b
drop c
expect 0 vhd_util modify -n dst/leaf.vhd -p dst/copy.vhd
expect 0 vhd_util check -n dst/leaf.vhd
content "$WORK/src/leaf.vhd" src.raw
content "$WORK/dst/leaf.vhd" dst.raw
same src.raw dst.raw
# and the guest, which knows what it has written, goes on there
disk d -a "vhd:$WORK/dst/leaf.vhd"
expect 0 guest d loaded "$WORK/written"
expect 0 guest d load 0.3 16 "$WORK/written"
expect 0 guest d loaded "$WORK/written"
drop d
expect 0 vhd_util check -n dst/leaf.vhd
# which it would notice if a byte of it were lost
disk a -a "vhd:$WORK/src/leaf.vhd"
expect 1 guest a loaded "$WORK/written"
has "what it says" "$OUT" "wrong data"
drop a

# --- the destination has no space: it waits for some, as any disk of ours, and the guest with it; one that reports it fails the mirror
if [ "$(id -u)" = 0 ] && mkdir small && mount -t tmpfs -o size=6m none small 2>/dev/null; then
	at_exit "umount -l '$WORK/small'"
	expect 0 vhd_util create -n small/leaf.vhd -s $MB
	disk b -a "vhd:$WORK/small/leaf.vhd" -o cache=writeback -o on-enospc=report
	disk a -a "vhd:$WORK/src/leaf.vhd"
	between a b MIR2
	mirror a nbd:MIR2
	expect 0 guest a full 5
	failed a 1 || fail "a full destination is good: $(of a stats)"
	expect 0 guest a verify 0 $((MB << 20)) 5
	# cancelled: MIRROR_FAILED, and the disk stays
	mirror a null
	failed a 0 || fail "cancelled"
	drop a
	run of b destroy
fi
exit 0
