# SPDX-License-Identifier: LGPL-2.1-or-later
# A storage migration (xapi's order, as sm-migrate.sh has it) whose destination stops, dies or is full while the guest writes.  The guest
# keeps all that it wrote and sees no error; and once a mirror has failed, nothing that is called later says that it is whole.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/it/mirror-lib.sh"

vhd_util() { "$top_builddir/bin/vhd-util" "$@"; }
cd "$WORK" || exit 99
MB=32

# Disk a is mirrored to disk b, and a guest is at work.
begin() # FOLDER-OF-B OPTION-OF-A... [-- OPTION-OF-B...]
{
	local folder=$1 options=()

	shift
	while [ $# != 0 ] && [ "$1" != -- ]; do options+=(-o "$1") && shift; done
	[ $# = 0 ] || shift
	rm -rf src written && mkdir -p src "$folder" && rm -f "$folder"/*.vhd
	expect 0 vhd_util create -n src/leaf.vhd -s $MB
	expect 0 vhd_util create -n "$folder/leaf.vhd" -s $MB
	disk a -a "vhd:$WORK/src/leaf.vhd" "${options[@]}"
	disk b -a "vhd:$WORK/$folder/leaf.vhd" "$@"
	load a 16 "$WORK/written"
	between a b dp
	snapshots=1
	snapshot -2 nbd:dp
	failed a 0 || fail "the mirror: $(of a stats)"
}
snapshot() # UNPAUSE-ARG...: as sm does it
{
	expect 0 of a pause
	expect 0 mv src/leaf.vhd "src/$snapshots.vhd"
	expect 0 vhd_util snapshot -n src/leaf.vhd -p "src/$snapshots.vhd"
	snapshots=$((snapshots + 1))
	expect 0 of a unpause -a "vhd:$WORK/src/leaf.vhd" "$@"
}
under_way() { [ "$(of a stats | sed -n 's/.*"under_way": \([0-9]*\).*/\1/p')" -gt 0 ]; }
held() { under_way && [ "$(stat_of a reqs_outstanding)" -gt 0 ]; }
lost() # AFTER-WHAT
{
	failed a 1 || fail "$1: nbd_mirror_failed is 0"
	case " $(images a) " in *" nbd "*) fail "$1: the mirror is among the images: $(images a)" ;; esac
}
# All that may happen to the disk afterwards, until the migration is cancelled.
stays_lost() # WHAT
{
	until_true 10 failed a 1
	lost "$1"
	expect 0 of a pause
	lost "$1, paused"
	expect 0 of a unpause
	lost "$1, unpaused"
	snapshot
	lost "$1, after a snapshot"
	expect 0 of a limit -o limit-iops-read=100000
	lost "$1, after a limit"
	expect 95 of a resize
	lost "$1, after a resize"
	expect 0 tap_ctl upgrade -p "$PID_a"
	find_pid a
	lost "$1, after an upgrade"
	load_end
	kill -KILL "$PID_a"
	until_true 10 gone "$PID_a"
	expect 0 tap_ctl revive -m "$MINOR_a"
	find_pid a
	lost "$1, revived"
	expect 0 guest a loaded "$WORK/written"
	expect 0 of a pause
	expect 0 of a unpause -2 null
	failed a 0 || fail "$1: cancelled"
	expect 0 guest a loaded "$WORK/written"
	drop a
	expect 0 vhd_util check -n src/leaf.vhd
}

# --- it stops for a while: the guest waits, stats are answered, and then all goes on, and is whole
begin dst
until_true 10 copied a 300
kill -STOP "$PID_b"
until_true 10 held
failed a 0 || fail "one that is only slow has failed"
expect 0 tap_ctl list -m "$MINOR_a"
kill -CONT "$PID_b"
more=$(of a stats | grep -o '"hits": \[[0-9]*, [0-9]*' | sed -n '2s/.* //p')
until_true 10 copied a $((more + 300))
load_end
failed a 0 || fail "one that was only slow has failed: $(of a stats)"
# what the guest wrote since the snapshot is in both leaves, the same
expect 0 of a pause
expect 0 of a unpause -2 null
drop a
drop b
for side in src dst; do
	expect 0 vhd_util create -n $side/zero.vhd -s $MB
	expect 0 vhd_util modify -n $side/leaf.vhd -p $side/zero.vhd
	disk x -a "vhd:$WORK/$side/leaf.vhd" -R
	guest x read 0 $((MB << 20)) >$side.raw || fail "reading $side"
	drop x
done
same src.raw dst.raw

# --- it stops for longer than mirror-timeout
begin dst mirror-timeout=2
until_true 10 copied a 300
kill -STOP "$PID_b"
until_true 10 failed a 1
has "reason" "$(of a stats)" "has not answered for 2 s"
kill -CONT "$PID_b"
stays_lost "stopped"
drop b

# --- it is killed, and comes again, which changes nothing
begin dst
until_true 10 copied a 300
kill -KILL "$PID_b"
until_true 10 failed a 1
until_true 10 gone "$PID_b"
expect 0 tap_ctl revive -m "$MINOR_b"
find_pid b
stays_lost "killed"
drop b

# --- it is full: as any disk of ours it waits for space, and so does the guest, until there is some, or mirror-timeout is over
[ "$(id -u)" = 0 ] && mkdir small && mount -t tmpfs -o size=6m none small 2>/dev/null || exit 0
at_exit "umount -l '$WORK/small'"
no_space() { of b stats | grep -q '"no_space": true'; }
begin small -- -o cache=writeback
until_true 10 no_space
failed a 0 || fail "one that waits for space has failed"
mount -o remount,size=100m small || fail "remount"
more=$(of a stats | grep -o '"hits": \[[0-9]*, [0-9]*' | sed -n '2s/.* //p')
until_true 20 copied a $((more + 300))
failed a 0 || fail "there is space again: $(of a stats)"
load_end
expect 0 of a pause
expect 0 of a unpause -2 null
expect 0 guest a loaded "$WORK/written"
drop a
drop b
rm -f small/*
mount -o remount,size=6m small || fail "remount"
begin small mirror-timeout=2 -- -o cache=writeback
stays_lost "full"
run of b destroy
kill -KILL "$PID_b" 2>/dev/null
until_true 10 gone "$PID_b"
run tap_ctl free -f -m "$MINOR_b"
# and one that reports it fails the mirror at once
rm -f small/*
begin small -- -o cache=writeback -o on-enospc=report
stays_lost "full, reported"
exit 0
