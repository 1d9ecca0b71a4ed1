# SPDX-License-Identifier: LGPL-2.1-or-later
# The engine over io_uring: asked for by the environment or the host's configuration, right in every mode, left aside where the kernel has
# none; and what a killed tapdisk has left in the kernel is over before another opens its image.
. "$top_srcdir/tests/it/lib.sh"

guest=$top_builddir/tests/support/tdguest
export TAPDISK_CONF=$WORK/conf
truncate -s 24M "$WORK/d.img"

open_disk() # IMAGE OPTION...: sets pid, minor, or fails as create does
{
	run tap_ctl create -a "aio:$1" "${@:2}"
	[ "$RC" = 0 ] || return 1
	minor=${OUT##*-}
	pid=$(tap_ctl list -m "$minor" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
}
engine() { tap_ctl stats -p "$pid" -m "$minor" | sed -n "s/.*\"engine\": {\([^}]*\)}.*/\1/p" | sed -n "s/.*\"$1\": \"\{0,1\}\([a-z_0-9]*\).*/\1/p"; }

# the host's word; one that is not known keeps the disk closed, and the environment comes first
echo "io = io_uring" >"$WORK/conf"
if ! open_disk "$WORK/d.img" -o cache=writeback; then
	has "the refusal" "$ERR" "no I/O engine is called 'io_uring': the engines are auto"
	skip "this build has no io_uring"
fi
name=$(engine name)
expect 0 tap_ctl destroy -p "$pid" -m "$minor"
[ "$name" = io_uring ] || skip "this kernel lets no io_uring be had: the engine is $name"
TAPDISK_IO=threads open_disk "$WORK/d.img" -o cache=writeback || fail "create: $ERR"
is "the environment's word" "$(engine name)" threads
expect 0 tap_ctl destroy -p "$pid" -m "$minor"
echo "io = fast" >"$WORK/conf"
expect 22 tap_ctl create -a "aio:$WORK/d.img" -o cache=writeback
has "the refusal" "$ERR" "auto, libaio, io_uring and threads"
expect 22 tap_ctl create -a "aio:$WORK/d.img" -o io=threads # not a disk's to say

# nobody's word: io_uring where there is a host cache, and libaio where there is none
echo "io = auto" >"$WORK/conf"
open_disk "$WORK/d.img" -o cache=writeback || fail "create: $ERR"
is "what suits a host cache" "$(engine name)" io_uring
expect 0 tap_ctl destroy -p "$pid" -m "$minor"
if open_disk "$WORK/d.img" -o cache=none; then
	is "what suits O_DIRECT" "$(engine name)" libaio
	expect 0 tap_ctl destroy -p "$pid" -m "$minor"
fi
: >"$WORK/conf"

# every mode: every byte, one fdatasync for a flush, and writes that are durable where that is promised
export TAPDISK_IO=io_uring
for mode in none directsync writethrough writeback unsafe; do
	open_disk "$WORK/d.img" -o cache=$mode -o unsafe=yes || { has "$mode" "$ERR" O_DIRECT; continue; }
	is "$mode: engine" "$(engine name)" io_uring
	expect 0 "$guest" "$pid" "$minor" stream 3
	expect 0 "$guest" --persistent --segs 64 "$pid" "$minor" stream 4
	expect 0 "$guest" "$pid" "$minor" load 0.4 32
	expect 0 "$guest" --polling 10000 "$pid" "$minor" load 0.4 4
	syncs=$(engine fdatasyncs)
	expect 0 "$guest" "$pid" "$minor" flush 20
	case $mode in
	unsafe) is "$mode: fdatasyncs for 20 flushes" $(($(engine fdatasyncs) - syncs)) 0 ;;
	*) is "$mode: fdatasyncs for 20 flushes" $(($(engine fdatasyncs) - syncs)) 20 ;;
	esac
	durable=$(engine durable_writes)
	expect 0 "$guest" "$pid" "$minor" single 30 9
	case $mode in
	directsync | writethrough) is "$mode: durable writes" $(($(engine durable_writes) - durable)) 30 ;;
	*) is "$mode: durable writes" $(($(engine durable_writes) - durable)) 0 ;;
	esac
	expect 0 tap_ctl destroy -p "$pid" -m "$minor"
done

# what makes a disk in the host's cache durable is a call that a tracer of the process sees
if command -v strace >/dev/null && strace -o "$WORK/log" true 2>/dev/null; then
	for mode in writeback writethrough unsafe; do
		open_disk "$WORK/d.img" -o cache=$mode -o unsafe=yes || fail "create: $ERR"
		strace -f -v -s 0 -p "$pid" -o "$WORK/log" -e trace=fdatasync,pwritev2,io_uring_enter 2>"$WORK/err" </dev/null &
		tracer=$!
		attached() { grep -q attached "$WORK/err"; }
		until_true 20 attached
		expect 0 "$guest" "$pid" "$minor" single 30 9
		expect 0 "$guest" "$pid" "$minor" flush 20
		# of writes alone: a file system that cannot read without blocking has reads made in a thread, too
		is "$mode: threads of the kernel's, which would stay" "$(cat "/proc/$pid/task/"*/comm | grep -c iou-wrk)" 0
		expect 0 "$top_builddir/bench/ringbench" --seconds 0.2 "$pid" "$minor"
		end_strace $tracer
		seen="$(grep -v resumed "$WORK/log" | grep -c 'fdatasync(') $(grep -v resumed "$WORK/log" | grep -c 'RWF_DSYNC')"
		case $mode in
		writeback) is "$mode: syncs and durable writes that strace sees" "$seen" "20 0" ;;
		writethrough) [ "${seen% *}" = 20 ] && [ "${seen#* }" -ge 30 ] || fail "$mode: syncs and durable writes that strace sees: $seen" ;;
		unsafe) is "$mode: syncs and durable writes that strace sees" "$seen" "0 0" ;;
		esac
		grep -q io_uring_enter "$WORK/log" || fail "$mode: nothing went by io_uring"
		expect 0 tap_ctl destroy -p "$pid" -m "$minor"
	done
fi

# a kernel that has none: another engine, and a word in the log
if command -v strace >/dev/null && strace -o "$WORK/log" true 2>/dev/null; then
	cat >"$WORK/tapdisk" <<END
#!/bin/sh
exec strace -D -f -qq -o "$WORK/log" -e trace=io_uring_setup -e inject=io_uring_setup:error=EPERM "$(realpath "${TAPDISK:-$top_builddir/tapdisk/tapdisk}")" "\$@"
END
	chmod +x "$WORK/tapdisk"
	for engine in io_uring auto; do
		TAPDISK_IO=$engine TAPDISK=$WORK/tapdisk open_disk "$WORK/d.img" -o cache=writeback || fail "create: $ERR"
		is "$engine without io_uring" "$(engine name)" threads
		expect 0 "$guest" "$pid" "$minor" stream 5
		expect 0 tap_ctl destroy -p "$pid" -m "$minor"
	done
fi

# A store that takes two seconds for a write, and a tapdisk that is killed meanwhile: the next one opens the image after that write.
for tool in nbdkit nbdfuse; do
	command -v $tool >/dev/null || { echo "left out, without $tool: writes of a killed tapdisk"; exit 0; }
done
nbdkit -P "$WORK/nbdkit.pid" -U "$WORK/slow.sock" --filter=delay memory 8M wdelay=2 || fail "nbdkit"
at_exit 'umount -l "$WORK/slow" 2>/dev/null; kill "$(cat "$WORK/nbdkit.pid")"'
touch "$WORK/slow"
nbdfuse "$WORK/slow" --unix "$WORK/slow.sock" 2>"$WORK/err" &
mounted() { grep -q " $WORK/slow fuse" /proc/mounts; }
end=$((SECONDS + 10))
until mounted; do
	[ $SECONDS -lt $end ] || { echo "left out, nothing can be mounted: $(cat "$WORK/err")"; exit 0; }
	sleep 0.1
done
open_disk "$WORK/slow" || fail "create: $ERR"
is "slow: engine" "$(engine name)" io_uring
"$guest" "$pid" "$minor" write 4096 8192 7 >/dev/null 2>&1 &
writer=$!
sent() { [ "$(engine writes)" -ge 1 ]; }
until_true 10 sent
kill -KILL "$pid"
until_true 10 gone "$pid"
open_disk "$WORK/slow" || fail "the image of one that was killed: $ERR"
expect 0 "$guest" "$pid" "$minor" verify 4096 8192 7
expect 0 tap_ctl destroy -p "$pid" -m "$minor"
kill $writer 2>/dev/null
exit 0
