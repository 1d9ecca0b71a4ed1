# SPDX-License-Identifier: LGPL-2.1-or-later
# A mirror (tap-ctl -2): what the guest writes is at both ends, to the byte; and whatever happens to the other end, the guest goes on, and
# nbd_mirror_failed tells the truth.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/it/mirror-lib.sh"

cd "$WORK" || exit 99
SIZE=$((24 << 20))
new() { rm -f "$@" && truncate -s $SIZE "$@"; }
b_socket() { [ -S "$WORK/b.sock" ]; }

# --- both ends ours, over a connection that is passed
new a b
disk b -a "aio:$WORK/b"
disk a -a "aio:$WORK/a"
failed a 0 || fail "a disk without a mirror: $(of a stats)"
between a b dp/1
mirror a nbd:dp/1
failed a 0 || fail "a new mirror: $(of a stats)"
is "its images" "$(images a)" "aio nbd"
expect 0 guest a full 1
expect 0 guest a discard 1048576 1048576
expect 0 guest a barrier 65536 4096 2
expect 0 guest a flush 3
same a b
# a guest under load, a pause that keeps the mirror, and an upgrade that hands the connection over
load a
copied_more() { copied a $(($1 * 8)); }
until_true 10 copied_more 500
expect 0 of a pause
same a b
expect 0 of a unpause
failed a 0 || fail "after a pause"
old=$PID_a
expect 0 tap_ctl upgrade -p "$PID_a"
find_pid a
[ "$PID_a" != "$old" ] || fail "it is the same tapdisk"
until_true 10 copied_more 200
load_end
failed a 0 || fail "after an upgrade: $(of a stats)"
is "its images" "$(images a)" "aio nbd"
expect 0 of a pause
same a b
# the end of a disk is the end of the connection; an open takes one, too
expect 0 of a close -f
until_true 10 clients b 0
between a b dp3
expect 0 of a open -a "aio:$WORK/a" -2 nbd:dp3
# NBD's clients, with zeroes and discards, and writes that overlap while both are under way
if command -v qemu-io >/dev/null; then
	aio=()
	for i in $(seq 60); do aio+=(-c "aio_write -P $i $((i % 3 * 512 + 1048576)) $((i % 7 * 4096 + 512))"); done
	expect 0 qemu-io -f raw "${aio[@]}" -c aio_flush -c 'write -P 9 4M 1M' -c 'write -z 4200k 64k' -c 'write -zu 4400k 64k' -c 'discard 4600k 64k' -c 'write -f -P 3 6M 4k' \
		-c flush "nbd+unix:///?socket=$TAPDISK_CONTROL_DIR/nbd$PID_a.$MINOR_a"
	same a b
fi
# none any more: the connection ends, and what is written is the leaf's alone
mirror a null
failed a 0 || fail "without a mirror"
is "its images" "$(images a)" aio
until_true 10 clients b 0
expect 0 guest a write 0 4096 77
cmp -s a b && fail "the mirror goes on"
# another that is no such name: the disk goes on, and says so, until it has one that is good
mirror a nbd:nobody
failed a 1 || fail "a mirror of no name: $(of a stats)"
is "its images" "$(images a)" aio
expect 0 of a pause
expect 0 of a unpause
failed a 1 || fail "a pause has healed it"
cp --sparse=always a copy
cat copy >b
between a b dp2
mirror a nbd:dp2
failed a 0 || fail "a good one after one that had failed"
expect 0 guest a write 65536 65536 5
same a b
expect 16 of a unpause -2 nbd:other
has "running" "$ERR" "pause it"

# --- the destination is killed under load
load a
until_true 10 copied_more 300
kill -KILL "$PID_b"
until_true 10 failed a 1
is "its images" "$(images a)" aio
sleep 0.3
load_end
has "reason" "$(of a stats)" '"reason": "'
expect 0 guest a full 8
expect 0 of a pause
expect 0 of a unpause
failed a 1 || fail "a pause has healed it"
drop a
expect 0 tap_ctl free -m "$MINOR_b"

# --- it stops: the guest is held, stats answer, and after mirror-timeout it goes on
new a b
disk b -a "aio:$WORK/b"
disk a -a "aio:$WORK/a" -o mirror-timeout=3
between a b dp
mirror a nbd:dp
load a
until_true 10 copied_more 100
kill -STOP "$PID_b"
held() { [ "$(of a stats | sed -n 's/.*"under_way": \([0-9]*\).*/\1/p')" -gt 0 ] && [ "$(stat_of a reqs_outstanding)" -gt 0 ]; }
until_true 10 held
expect 110 of a pause -t 1
until_true 10 failed a 1
load_end
has "reason" "$(of a stats)" "has not answered for 3 s"
kill -CONT "$PID_b"
drop a
drop b

# --- we are killed under load: the successor tells that nobody knows what the other end has
new a b
disk b -a "aio:$WORK/b"
disk a -a "aio:$WORK/a"
between a b dp
mirror a nbd:dp
load a
until_true 10 copied_more 100
kill -KILL "$PID_a"
until_true 10 gone "$PID_a"
kill -KILL $LOAD
expect 0 tap_ctl revive -m "$MINOR_a"
find_pid a
failed a 1 || fail "a successor says that the mirror is good: $(of a stats)"
mirror a null
failed a 0 || fail "without a mirror"
# paused when it dies: both were the same, but the connection is gone
between a b dp
mirror a nbd:dp
failed a 0 || fail "a new one"
expect 0 of a pause
kill -KILL "$PID_a"
until_true 10 gone "$PID_a"
expect 0 tap_ctl revive -m "$MINOR_a"
find_pid a
expect 0 of a unpause
failed a 1 || fail "without its connection: $(of a stats)"
drop a
drop b

# --- an image of this host, of any type; one of another size, or none, is refused
new a b
expect 0 "$top_builddir/bin/vhd-util" create -n m.vhd -s 24
expect 0 "$top_builddir/bin/td-qcow" create m.qcow2 24M
for spec in "aio:$WORK/b" "vhd:$WORK/m.vhd" "qcow2:$WORK/m.qcow2"; do
	new a
	disk a -a "aio:$WORK/a" -2 "$spec"
	is "its images" "$(images a)" "aio ${spec%%:*}"
	expect 0 guest a full 4
	expect 0 guest a discard 65536 131072
	expect 0 guest a load 0.3 16
	expect 0 of a pause
	expect 0 of a unpause
	expect 0 guest a write 1024 2048 6
	failed a 0 || fail "$spec"
	drop a
	disk c -a "$spec" -R
	guest c read 0 $SIZE >seen || fail "reading $spec"
	drop c
	same a seen
done
truncate -s 1M small
expect 22 tap_ctl create -a "aio:$WORK/a" -2 "aio:$WORK/small"
has "size" "$ERR" "one size"
expect 2 tap_ctl create -a "aio:$WORK/a" -2 "aio:$WORK/none"
expect 16 tap_ctl create -a "aio:$WORK/a" -2 "aio:$WORK/a"
expect 22 tap_ctl create -a "aio:$WORK/a" -2 nothing
expect 22 tap_ctl create -a "aio:$WORK/a" -2 "aio:$WORK/b" -o shared=yes
is "no disk is left" "$(tap_ctl list)" ""
disk b -a "aio:$WORK/small"
disk a -a "aio:$WORK/a"
between a b dp
expect 0 of a pause
expect 22 of a unpause -2 nbd:dp
expect 0 of a unpause -2 null
# a disk that grows leaves its mirror behind
mirror a "aio:$WORK/b"
truncate -s $((SIZE + 1048576)) a
expect 0 of a resize
failed a 1 || fail "a disk has grown, and its mirror is good"
expect 0 guest a write $SIZE 4096 1
drop a
drop b

# --- several rings, each with a thread of its own: reads pass, writes are mirrored
new a b
TAPDISK_THREADS=4 disk a -a "aio:$WORK/a" -2 "aio:$WORK/b"
expect 0 "$top_builddir/tests/support/tdqueues" --queues 4 "$PID_a" "$MINOR_a" load 0.5 24
[ "$(of a stats | sed -n 's/.*"in_threads": \[\([0-9]*\), [0-9]*\].*/\1/p')" -gt 0 ] || fail "no read went past the main thread"
drop a
same a b
exit 0
