# SPDX-License-Identifier: LGPL-2.1-or-later
# Mirrors on other people's NBD servers: slow ones, full ones, those that err, can do little, lie or die.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/it/mirror-lib.sh"

for tool in qemu-nbd nbdkit qemu-io python3; do command -v $tool >/dev/null || skip "no $tool"; done
cd "$WORK" || exit 99
SIZE=$((8 << 20))
new() { rm -f "$@" && truncate -s $SIZE "$@"; }
work() # A: a guest, and commands that a guest has not
{
	local p=PID_$1 m=MINOR_$1

	expect 0 guest "$1" load 0.3 16
	expect 0 guest "$1" discard 65536 131072
	expect 0 guest "$1" flush 2
	expect 0 timeout 250 qemu-io -f raw -c 'aio_write -P 1 1M 2M' -c 'aio_write -P 2 2M 2M' -c 'aio_write -P 3 1536k 1M' -c aio_flush -c 'write -z 2M 256k' \
		-c 'write -zu 3M 256k' -c 'write -f -P 5 5M 4k' -c flush "nbd+unix:///?socket=$TAPDISK_CONTROL_DIR/nbd${!p}.${!m}"
}
kit() # SIZE-OR-FILE-PLUGIN ARG...
{
	rm -f k k.pid
	nbdkit -U "$WORK/k" -P "$WORK/k.pid" "$@"
	until_true 10 test -s k.pid
	KIT=$(cat k.pid)
	at_exit "kill $KIT 2>/dev/null"
}
kit_end()
{
	kill "$KIT"
	until_true 10 gone "$KIT"
}
start() { # ARG...
	new a
	disk a -a "aio:$WORK/a" "$@"
}

# --- qemu-nbd, under two promises; and an own disk of ours goes through it, encrypted or not
for mode in none directsync; do
	new b
	qemu-nbd -t -f raw -k "$WORK/q" --cache=writeback --discard=unmap b &
	Q=$!
	at_exit "kill $Q 2>/dev/null"
	until_true 10 test -S q
	start -2 "nbd:$WORK/q" -o cache=$mode
	work a
	expect 0 of a pause
	same a b
	expect 0 of a unpause
	work a
	failed a 0 || fail "qemu-nbd: $(of a stats)"
	drop a
	same a b
	kill $Q
	wait $Q 2>/dev/null
done

# --- slow: the guest waits for it, and nothing fails
new b
kit --filter=delay file b wdelay=20ms
start -2 "nbd:$WORK/k" -o mirror-timeout=10
expect 0 guest a load 0.5 16
failed a 0 || fail "a slow one: $(of a stats)"
drop a
kit_end
same a b

# --- it errs, is full, cannot be written: the guest hears nothing of it
kit --filter=error memory $SIZE error-pwrite-rate=5% error=ENOSPC
start -2 "nbd:$WORK/k"
expect 0 guest a full 3
failed a 1 || fail "one that errs is good"
expect 0 guest a verify 0 $SIZE 3
drop a
kit_end
kit full $SIZE
start -2 "nbd:$WORK/k"
expect 0 guest a full 3
failed a 1 || fail "a full one is good"
has "reason" "$(of a stats)" "No space left"
drop a
kit_end
kit -r memory $SIZE
start -2 "nbd:$WORK/k"
failed a 1 || fail "a read-only one is good"
expect 0 guest a full 3
drop a
kit_end
# a flush that fails there is none of the disk's
kit eval get_size="echo $SIZE" can_write='exit 0' can_flush='exit 0' pread='head -c $3 /dev/zero' pwrite='cat >/dev/null' \
	flush="[ ! -e $WORK/err ] || { echo EIO a test >&2; exit 1; }"
start -2 "nbd:$WORK/k"
expect 0 guest a write 0 4096 1
failed a 0 || fail "it errs too early"
: >err
expect 0 guest a flush
failed a 1 || fail "a mirror whose flush has failed is good"
expect 0 guest a flush 3
drop a
rm -f err
kit_end
# killed under load
kit memory $SIZE
start -2 "nbd:$WORK/k"
load a
until_true 10 copied a 2000
kill -KILL "$KIT"
until_true 10 failed a 1
load_end
drop a

# --- one that can only read and write (it asserts that it is asked for nothing else): zeroes are written
S=$WORK/s
for how in noflags bare; do
	python3 "$top_srcdir/tests/support/nbd-server.py" "$S" $how $SIZE 2>server.err &
	Q=$!
	at_exit "kill $Q 2>/dev/null"
	until_true 10 test -S "$S"
	start -2 "nbd:$S" -o cache=directsync
	work a
	failed a 0 || fail "$how: $(of a stats) $(cat server.err)"
	drop a
	disk b -a "nbd:$S" -R
	guest b read 0 $SIZE >seen || fail "reading"
	drop b
	same a seen
	kill $Q
	wait $Q 2>/dev/null
	rm -f "$S"
done
# --- those that lie
for how in hugeold oddsize tls wrongoption; do
	python3 "$top_srcdir/tests/support/nbd-server.py" "$S" $how $SIZE &
	Q=$!
	at_exit "kill $Q 2>/dev/null"
	until_true 10 test -S "$S"
	start -2 "nbd:$S"
	failed a 1 || fail "$how is good"
	expect 0 guest a write 0 4096 1
	drop a
	kill $Q
	wait $Q 2>/dev/null
	rm -f "$S"
done
exit 0
