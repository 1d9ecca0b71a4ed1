# SPDX-License-Identifier: LGPL-2.1-or-later
# A disk's life with NBD clients on it: paused, closed, resized, killed; who flushes gets an fdatasync; sockets that are passed.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/it/nbd-lib.sh"

truncate -s 16M "$WORK/d.img"
client()
{
	expect 0 timeout 250 env TAP_CTL="$top_builddir/bin/tap-ctl" DIR="$TAPDISK_CONTROL_DIR" $nbd_python "$top_srcdir/tests/support/nbd-life.py" \
		"$1" "$PID" "$MINOR" "$WORK/d.img"
}
sockets()
{
	entries "$TAPDISK_CONTROL_DIR" "nbd*" | wc -l
}

export TAPDISK_CONF=$WORK/conf
: >"$TAPDISK_CONF"
for case in pauses hundred passed grows shrink_refused many_opens no_descriptors; do
	# who changes another user's limits needs CAP_SYS_RESOURCE, which containers are not given
	[ $case != no_descriptors ] || echo "sandbox-uids = no" >"$TAPDISK_CONF"
	nbd_disk "aio:$WORK/d.img" -o cache=writeback
	client $case
	nbd_destroy
	is "sockets after $case" "$(sockets)" 0
done
: >"$TAPDISK_CONF"

# a close answers what can be answered, and lets its clients go
nbd_disk "aio:$WORK/d.img" -o cache=writeback
client close_drains
expect 0 tap_ctl list
is "after a close" "$OUT" "pid=$PID minor=$MINOR state=0x2"
expect 0 tap_ctl detach -p "$PID" -m "$MINOR"
expect 0 tap_ctl free -m "$MINOR"
until_true 5 gone "$PID"

# what a flush is, in each mode; none and directsync where the store can do direct I/O
modes="writeback writethrough unsafe"
dd if="$WORK/d.img" of=/dev/null iflag=direct count=1 status=none 2>/dev/null && modes="$modes none directsync"
for mode in $modes; do
	more=
	[ $mode != unsafe ] || more="-o unsafe=yes"
	# shellcheck disable=SC2086
	nbd_disk "aio:$WORK/d.img" -o cache=$mode $more
	syncs=$(fdatasyncs) # the open has made durable what was there
	client flushes
	syncs=$(($(fdatasyncs) - syncs)) durable=$(stat_of durable_writes)
	case $mode in # ten times write, flush; ten flushes with nothing to flush; ten writes with FUA
	none | writeback) [ "$syncs" = 10 ] && [ "$durable" = 10 ] || fail "$mode: $syncs fdatasyncs, $durable durable writes" ;;
	writethrough | directsync) [ "$durable" = 20 ] || fail "$mode: $durable durable writes" ;;
	unsafe) [ "$syncs$durable" = 00 ] || fail "$mode: $syncs fdatasyncs, $durable durable writes" ;;
	esac
	nbd_destroy
done

# a signal does not take a disk that NBD clients use away from them
nbd_disk "aio:$WORK/d.img" -o cache=writeback
client sigterm
nbd_destroy

# a dead tapdisk's sockets go with the rest of it, and another's stay
nbd_disk "aio:$WORK/d.img" -o cache=writeback
tap_ctl create -a null:1M >/dev/null || fail "create null"
kill -KILL "$PID"
until_true 5 gone "$PID"
expect 0 tap_ctl list
is "sockets of the living" "$(sockets)" 7
OTHER=$(procs tapdisk)
[ -S "$TAPDISK_CONTROL_DIR/nbd$OTHER.1" ] || fail "the other's socket is gone: $(ls "$TAPDISK_CONTROL_DIR")"
expect 0 tap_ctl destroy -p "$OTHER" -m 1
is "sockets at the end" "$(sockets)" 0
