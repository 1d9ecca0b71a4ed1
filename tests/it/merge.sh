# SPDX-License-Identifier: LGPL-2.1-or-later
# Requests of a guest that continue each other are one call to the kernel, behind each engine; and every byte is right.
. "$top_srcdir/tests/it/lib.sh"
command -v strace >/dev/null || skip "no strace"
strace -o "$WORK/log" true 2>/dev/null || skip "strace may not trace here"

guest=$top_builddir/tests/support/tdguest
truncate -s 24M "$WORK/d.img"

# traced CMD...: what the tapdisk asks of the kernel meanwhile, into $WORK/log
traced()
{
	local tracer

	strace -f -v -s 0 -p "$pid" -o "$WORK/log" -e trace=io_submit,pread64,preadv,pwritev2 2>"$WORK/err" </dev/null &
	tracer=$!
	until_true 20 grep -q attached "$WORK/err"
	expect 0 "$@"
	end_strace $tracer
}
merged() { tap_ctl stats -p "$pid" -m "$minor" | sed -n 's/.*"merged": \([0-9]*\).*/\1/p'; }

for how in "none libaio" "writeback threads" "directsync libaio"; do
	export TAPDISK_IO=${how#* }
	mode=${how% *}
	run tap_ctl create -a "aio:$WORK/d.img" -o cache=$mode
	[ "$RC" = 0 ] || { has "why" "$ERR" O_DIRECT; continue; }
	minor=${OUT##*-}
	pid=$(tap_ctl list -m "$minor" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
	expect 0 "$guest" "$pid" "$minor" stream 5
	[ "$(merged)" -gt 0 ] || fail "$how: nothing was merged"
	traced "$top_builddir/bench/ringbench" --rw read --bs 4096 --depth 32 --seconds 0.3 "$pid" "$minor"
	# one preadv of at least eight pieces of memory
	grep -qE 'aio_lio_opcode=IOCB_CMD_PREADV, [^}]*aio_buf=\[(\{[^}]*\}, ){7}|preadv\([0-9]+, \[(\{[^}]*\}, ){7}' "$WORK/log" ||
		fail "$how: no call of eight requests: $(head -c 1500 "$WORK/log")"
	if [ $mode = directsync ]; then # and each of them is durable
		traced "$top_builddir/bench/ringbench" --rw write --bs 4096 --depth 32 --seconds 0.3 "$pid" "$minor"
		grep -q IOCB_CMD_PWRITEV "$WORK/log" || fail "$how: no write"
		is "$how: durable writes" "$(grep -o RWF_DSYNC "$WORK/log" | wc -l)" "$(grep -o IOCB_CMD_PWRITEV "$WORK/log" | wc -l)"
	fi
	# what is far apart goes alone
	before=$(merged)
	expect 0 "$top_builddir/bench/ringbench" --rw randread --bs 4096 --depth 1 --seconds 0.2 "$pid" "$minor"
	is "$how: merged at depth 1" "$(merged)" "$before"
	expect 0 "$guest" "$pid" "$minor" stream 6
	expect 0 tap_ctl destroy -p "$pid" -m "$minor"
done
exit 0
