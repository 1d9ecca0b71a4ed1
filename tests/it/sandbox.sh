# SPDX-License-Identifier: LGPL-2.1-or-later
# In the sandbox a tapdisk does all that it does outside: each engine and format, pauses, deaths, upgrades, an NBD client's turn.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99

guest() { "$top_builddir/tests/support/tdguest" "$@"; }
cd "$WORK" || exit 99
export TAPDISK_CONF=$WORK/conf
: >conf
find_pid() { pid=$(tap_ctl list -m "$minor" | sed -n 's/^pid=\([0-9]*\) .*/\1/p'); }
create() # TYPE:PATH ARG...: pid, minor
{
	local marker

	marker=$(tap_ctl create -a "$@") || fail "create $*"
	minor=${marker##*-}
	find_pid
}
inside()
{
	# what a thread that serves looks at again and again is open: it waits for no opener
	readlink "/proc/$pid"/fd/* | grep -qx /proc/stat || fail "/proc/stat is not open"
	[ -z "${whole:-}" ] || grep -q '^Seccomp:.2$' "/proc/$pid/status" || fail "no filter: $(grep Seccomp "/proc/$pid/status")"
	grep -q '^NoNewPrivs:.1$' "/proc/$pid/status" || fail "new privileges"
	# without an opener, as in a build with sanitizers, it keeps the two that it opens files by, and the one that ends a successor
	grep -qE "^CapEff:.0*(${whole:+no }80022)?$" "/proc/$pid/status" || [ "$(id -u)" != 0 ] || fail "capabilities: $(grep CapEff "/proc/$pid/status")"
}

truncate -s 8M a.img
"$top_builddir/bin/vhd-util" create -n v.vhd -s 8 && "$top_builddir/bin/vhd-util" snapshot -n w.vhd -p v.vhd || fail "vhd-util"
"$top_builddir/bin/td-qcow" create q.qcow2 8M && "$top_builddir/bin/td-qcow" snapshot q.qcow2 r.qcow2 || fail "td-qcow"
# nobody's word: on, but for a build with sanitizers, which says so
create "aio:$WORK/a.img" -o cache=writeback
case $(tap_ctl list --json) in
*'"sandbox": "yes"'*) inside ;;
*'"sandbox": "no: a build with sanitizers"'*) grep -q 'TD_SANITIZED 1' "$top_builddir/config.h" || fail "it has none" ;;
*'"sandbox": "partly: '*) ;;
*) fail "by default: $(tap_ctl list --json)" ;;
esac
tap_ctl destroy -p "$pid" -m "$minor" || fail destroy
echo "sandbox = yes" >conf
create "aio:$WORK/a.img" -o cache=writeback
case $(tap_ctl list --json) in
*'"sandbox": "yes"'*) whole=yes ;;
*'"sandbox": "partly'*) [ -n "${TD_SANITIZED:-}" ] || grep -q 'TD_SANITIZED 1' "$top_builddir/config.h" || skip "this host has no filter" ;;
*) fail "not shown: $(tap_ctl list --json)" ;;
esac
has "stats" "$(tap_ctl stats -p "$pid" -m "$minor")" '"sandbox": "'
inside
tap_ctl destroy -p "$pid" -m "$minor" || fail destroy

for engine in libaio io_uring threads; do
	for image in "aio:$WORK/a.img" "vhd:$WORK/w.vhd" "qcow2:$WORK/r.qcow2"; do
		export TAPDISK_IO=$engine
		create "$image" -o cache=writeback
		unset TAPDISK_IO
		guest "$pid" "$minor" write 0 1048576 3 && guest "$pid" "$minor" verify 0 1048576 3 || fail "$engine, $image: a ring"
		tap_ctl pause -p "$pid" -m "$minor" && tap_ctl unpause -p "$pid" -m "$minor" || fail "$engine, $image: a pause"
		expect 0 tap_ctl upgrade --all -f
		find_pid
		inside
		kill -KILL "$pid"
		until_true 5 gone "$pid"
		expect 0 tap_ctl revive -m "$minor"
		find_pid
		inside
		guest "$pid" "$minor" verify 0 1048576 3 || fail "$engine, $image: after a death"
		tap_ctl destroy -p "$pid" -m "$minor" || fail destroy
	done
done
# who has an image is told from within
create "aio:$WORK/a.img" -o cache=writeback
expect 16 tap_ctl create -a "aio:$WORK/a.img" -o cache=writeback
has "the holder" "$ERR" "tapdisk (pid $pid)"
if command -v qemu-io >/dev/null; then
	expect 0 qemu-io -f raw -c "write -P 5 0 1M" -c flush -c "discard 0 64k" "nbd+unix:///?socket=$TAPDISK_CONTROL_DIR/nbd$pid.$minor"
fi
tap_ctl destroy -p "$pid" -m "$minor" || fail destroy
echo "sandbox = no" >conf
create "aio:$WORK/a.img" -o cache=writeback
has "switched off" "$(tap_ctl list --json)" '"sandbox": "no"'
tap_ctl destroy -p "$pid" -m "$minor" || fail destroy
# an upgrade leads into it and out of it, under a ring
create "aio:$WORK/a.img" -o cache=writeback
guest "$pid" "$minor" write 0 1048576 4 || fail "a ring outside"
echo "sandbox = yes" >conf
expect 0 tap_ctl upgrade --all -f
find_pid
inside
guest "$pid" "$minor" verify 0 1048576 4 || fail "after an upgrade into it"
echo "sandbox = no" >conf
expect 0 tap_ctl upgrade --all -f
find_pid
grep -q '^Seccomp:.0$' "/proc/$pid/status" || fail "an upgrade does not lead out"
guest "$pid" "$minor" verify 0 1048576 4 || fail "after an upgrade out of it"
tap_ctl destroy -p "$pid" -m "$minor" || fail destroy
# without its opener it serves what is open, says so, and gives the disk to a successor that has one
echo "sandbox = yes" >conf
create "aio:$WORK/a.img" -o cache=writeback
if [ -n "${whole:-}" ]; then
	opener=$(procs td-opener)
	[ -n "$opener" ] || fail "it has no opener"
	case " $(pidof tapdisk 2>/dev/null) " in *" $opener "*) fail "pidof tapdisk counts an opener" ;; esac
	"$top_builddir/tests/support/tdguest" "$pid" "$minor" load 1000 8 >told 2>&1 &
	load=$!
	until_true 10 eval 'tap_ctl list --json | grep -q "\"ring\": \"connected\""'
	# shellcheck disable=SC2086
	kill -KILL $opener
	until_true 5 eval 'tap_ctl list --json | grep -q "\"sandbox\": \"partly: its opener"'
	expect 0 tap_ctl stats -p "$pid" -m "$minor"
	# what could not be undone, or not be told to a successor, is not done
	expect 5 tap_ctl pause -p "$pid" -m "$minor"
	has "a pause without it" "$ERR" "opener of files has died"
	expect 3 tap_ctl upgrade -p "$pid"
	has "it serves" "$(tap_ctl list)" "state=0"
	kill -TERM $load
	wait $load || fail "a guest without its opener: $(cat told)"
	cp a.img kept.img
	kill -KILL "$pid"
	until_true 5 gone "$pid"
	expect 0 tap_ctl revive -m "$minor"
	find_pid
	inside
	cmp a.img kept.img || fail "after its opener's death"
	has "its successor" "$(tap_ctl list --json)" '"sandbox": "yes"'
	# one that dies while the disk is paused: the unpause fails, and a successor has it paused
	tap_ctl pause -p "$pid" -m "$minor" || fail pause
	kill -KILL "$(procs td-opener)"
	until_true 5 eval 'tap_ctl list --json | grep -q "\"sandbox\": \"partly: its opener"'
	expect 5 tap_ctl unpause -p "$pid" -m "$minor"
	kill -KILL "$pid"
	until_true 5 gone "$pid"
	expect 0 tap_ctl revive -m "$minor"
	find_pid
	has "paused still" "$(tap_ctl list)" "state=0x2a"
	tap_ctl unpause -p "$pid" -m "$minor" || fail unpause
	# and a disk is closed without it, of which nothing comes back
	kill -KILL "$(procs td-opener)"
	until_true 5 eval 'tap_ctl list --json | grep -q "\"sandbox\": \"partly: its opener"'
	expect 0 tap_ctl destroy -p "$pid" -m "$minor"
	is "a destroyed disk" "$(tap_ctl list)" ""
	is "what is left of it" "$(cd "$TAPDISK_CONTROL_DIR" && find . -type f)" ""
	create "aio:$WORK/a.img" -o cache=writeback
fi
tap_ctl destroy -p "$pid" -m "$minor" || fail destroy
# no tapdisk runs a program: revive and upgrade do it in tap-ctl.  It makes one process, its opener, before it gives up the right to
if command -v nm >/dev/null; then
	is "functions that start programs" "$(nm -D --undefined-only "$top_builddir/tapdisk/tapdisk" | grep -cE ' U (exec[vl]|fexecve|vfork@|posix_spawn|popen|system@)')" 0
fi
echo "sandbox = perhaps" >conf
expect 22 tap_ctl create -a "aio:$WORK/a.img" -o cache=writeback
has "a word that is neither" "$ERR" "yes or no"
exit 0
