# SPDX-License-Identifier: LGPL-2.1-or-later
# A tapdisk's opener may be slow: no thread that serves guests asks it for anything, whatever happens to a disk.  strace sees who asks.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99

command -v strace >/dev/null && strace -o /dev/null true 2>/dev/null || skip "no strace, or it may trace nothing"
cd "$WORK" || exit 99
export TAPDISK_CONF=$WORK/conf TAPDISK_THREADS=2 TAPDISK_IO=threads
echo "sandbox = yes" >conf
real=$(readlink -f "$top_builddir/tapdisk/tapdisk")
preload=$(readlink -f "$top_builddir/tests/support/signal-after.so")
tdguest() { timeout 250 "$top_builddir/tests/support/tdguest" "$@"; }

truncate -s 8M a.img
marker=$(FAIL_SYNC=$WORK/fail LD_PRELOAD=$preload ASAN_OPTIONS=verify_asan_link_order=0:${ASAN_OPTIONS-} tap_ctl create -a "aio:$WORK/a.img" -o cache=writeback) || fail create
minor=${marker##*-}
pid=$(tap_ctl list -m "$minor" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
case $(tap_ctl list --json) in
*'"sandbox": "yes"'*) ;;
*) skip "this tapdisk has no opener" ;;
esac
"$top_builddir/tests/support/tdguest" "$pid" "$minor" load 1000 8 >told 2>&1 &
load=$!
: >traced
strace -f -p "$pid" -o asked -e trace=%file,socket,connect,bind,pidfd_open,pidfd_send_signal -e signal=none 2>traced </dev/null &
tracer=$!
at_exit "kill -INT $tracer 2>/dev/null"
until_true 10 grep -q attached traced
serving() # the main thread, and those of rings
{
	echo "$pid"
	grep -ls "^tapdisk-ring" "/proc/$pid/task/"*/comm | sed 's|.*/task/||; s|/comm||'
}
unasked() # WHAT: of what is caught, no more than fstat(), which it makes itself
{
	local by

	by=$(awk 'NR == FNR { serves[$1]; next } $1 in serves && /^[0-9]+ +[a-z0-9_]+\(/' <(serving) asked | grep -v 'newfstatat(.*, "", .*AT_EMPTY_PATH')
	[ -z "$by" ] || fail "$1: a thread that serves guests asked the opener: $by"
}

other=$(tap_ctl allocate) || fail allocate
other=${other##*-}
expect 0 tap_ctl attach -p "$pid" -m "$other"
unasked attach
of() # COMMAND ARG...
{
	local command=$1

	shift
	expect 0 tap_ctl "$command" -p "$pid" -m "$other" "$@"
	unasked "$command $*"
}
"$top_builddir/bin/vhd-util" create -n b.vhd -s 8 || fail "vhd-util create"
"$top_builddir/bin/td-qcow" create c.qcow2 8M >/dev/null || fail "td-qcow create"
"$top_builddir/bin/cbt-util" create -n log -s 8388608 || fail "cbt-util create"
for disk in "aio:$WORK/a2.img" "vhd:$WORK/b.vhd" "qcow2:$WORK/c.qcow2"; do
	truncate -s 8M a2.img
	of open -a "$disk" -C "$WORK/log"
	expect 0 tdguest "$pid" "$other" write 0 1048576 1
	unasked "$disk: a guest comes and goes"
	expect 0 "$top_builddir/tests/support/tdqueues" --queues 2 "$pid" "$other" write 1 0 8192 5 , verify 0 0 8192 5
	unasked "$disk: a guest of two rings comes and goes"
	of pause
	of unpause
	of limit -o limit-iops=100000
	case $disk in aio:*) of resize ;; esac
	of stats
	of list
	of close
done
grep -q 'openat(' asked || fail "strace saw no thread that asked"

# a flush that fails is recorded
of open -a "aio:$WORK/a2.img" -o cache=writeback
sticky() { grep -q '"sticky": *5' "$TAPDISK_CONTROL_DIR/disk$other"; }
expect 0 tdguest "$pid" "$other" write 0 8192 1
touch fail
run tdguest "$pid" "$other" flush
is "a flush that fails" "$RC" 1
rm fail
until_true 10 sticky
unasked "a flush that fails"
run tap_ctl close -p "$pid" -m "$other"
unasked "close of a disk that has failed"

# an image of an NBD server, which goes away
server=$(tap_ctl create -a "aio:$WORK/a2.img" -o cache=writeback) || fail "create, of a server"
far=$(tap_ctl list -m "${server##*-}" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
of open -a "nbd:$TAPDISK_CONTROL_DIR/nbd$far.${server##*-}" -o reconnect-limit=0
kill -KILL "$far"
until_true 10 gone "$far"
until_true 10 eval 'tap_ctl list -p "$pid" -m "$other" --json | grep -q reconnecting'
unasked "a server that goes away"
run tap_ctl close -f -p "$pid" -m "$other"
unasked "close -f of a disk whose server is away"

# its successor dies, and it takes the disks back
cat >next <<E2
#!/bin/sh
export SIGNAL_AFTER="9 disk" LD_PRELOAD=$preload
exec $real "\$@"
E2
chmod 755 next
TAPDISK=$WORK/next run tap_ctl upgrade -p "$pid"
has "an upgrade to one that dies" "$ERR" "continues as before"
unasked "an upgrade to one that dies"
expect 0 tap_ctl detach -p "$pid" -m "$other"
unasked detach
end_strace $tracer
kill -TERM $load
wait $load || fail "the guest: $(cat told)"
expect 0 tap_ctl destroy -p "$pid" -m "$minor"
