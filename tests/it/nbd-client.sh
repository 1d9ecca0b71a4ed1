# SPDX-License-Identifier: LGPL-2.1-or-later
# Disks that NBD servers hold: other people's servers, passed sockets, servers of few abilities, and one that dies.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/it/nbd-lib.sh"
. "$top_srcdir/tests/it/nbd-client-lib.sh"

# --- servers of others, under each promise; what is written is there for everybody
truncate -s $SIZE "$WORK/d.img"
qemu-nbd -t -f raw -k "$WORK/q" --cache=writeback --discard=unmap "$WORK/d.img" &
Q=$!
at_exit "kill $Q 2>/dev/null"
until_true 10 test -S "$WORK/q"
for mode in none writethrough; do
	nbd_disk "nbd:$WORK/q" -o cache=$mode
	exercise
	[ $mode != none ] || commands
	nbd_destroy
done
nbd_disk "nbd:$WORK/q"
expect 0 qemu-img create -q -f raw "$WORK/src.img" $SIZE
expect 0 dd if=/dev/urandom of="$WORK/src.img" bs=1M seek=3 count=5 conv=notrunc status=none
expect 0 nbdcopy "$WORK/src.img" "$URI"
cmp "$WORK/src.img" "$WORK/d.img" || fail "what was written through nbd: is not in the server's file"
nbd_destroy
kill $Q
wait $Q 2>/dev/null
if command -v nbdkit >/dev/null; then
	nbdkit -U "$WORK/k" -P "$WORK/k.pid" memory $SIZE
	at_exit 'kill $(cat "$WORK/k.pid") 2>/dev/null'
	until_true 10 test -S "$WORK/k"
	nbd_disk "nbd:$WORK/k"
	exercise
	commands
	nbd_destroy
fi

# --- a connection that is passed; our own servers at its other end, in both styles; it outlives a pause
tap_ctl create -a "aio:$WORK/d.img" -o cache=writeback >/dev/null || fail "create"
FAR=$(procs tapdisk)
for style in nbd nbd-old; do
	PID=$(tap_ctl spawn) && MINOR=$(tap_ctl allocate) || fail "spawn, allocate"
	MINOR=${MINOR##*-}
	expect 0 tap_ctl attach -p "$PID" -m "$MINOR"
	expect 2 tap_ctl open -p "$PID" -m "$MINOR" -a nbd:mirror
	has "who it is to be passed to" "$ERR" "nbdclient$PID"
	pass "$TAPDISK_CONTROL_DIR/$style$FAR.0" "$TAPDISK_CONTROL_DIR/nbdclient$PID" mirror
	expect 0 tap_ctl open -p "$PID" -m "$MINOR" -a nbd:mirror
	ring full 8
	expect 0 tap_ctl pause -p "$PID" -m "$MINOR"
	expect 0 tap_ctl unpause -p "$PID" -m "$MINOR"
	ring verify 0 $SIZE 8
	expect 0 tap_ctl close -p "$PID" -m "$MINOR"
	# opened again on the same connection, without one it cannot be
	expect 0 tap_ctl open -p "$PID" -m "$MINOR" -a nbd:mirror -R
	ring verify 0 65536 8
	expect 1 "$guest" "$PID" "$MINOR" write 0 512 1
	expect 0 tap_ctl destroy -p "$PID" -m "$MINOR"
done
"$guest" "$FAR" 0 verify 0 $SIZE 8 || fail "what the near disk wrote is not on the far one"
expect 0 tap_ctl destroy -p "$FAR" -m 0

SIZE=$((8 << 20))
# --- servers that can do less; each asserts that it is asked nothing else
for how in all oldstyle nofixed nogo nofua bare small backwards dribble unwilling chunked scattered; do
	server $how
	nbd_disk "nbd:$S" -o cache=none
	exercise
	nbd_destroy
	is "$how: says good-bye" "$(tail -1 "$WORK/log")" disc
	server_end
done
# what is sent twice is not taken for what is not sent: nothing of the memory's past is read
server gap
nbd_disk "nbd:$S"
expect 0 timeout 250 qemu-io -f raw -c 'write -P 7 1M 64k' -c 'read -P 7 -l 2k 1M 4k' -c 'read -P 0 -s 2k -l 2k 1M 4k' "$URI"
case $OUT in *"verification failed"*) fail "a gap: $OUT" ;; esac
nbd_destroy
server_end
# holes are known, and a copy leaves them out
server chunked
nbd_disk "nbd:$S"
expect 0 qemu-io -f raw -c 'write -P 7 1M 64k' -c 'write -P 8 3M 512' "$URI"
expect 0 nbdinfo --map "$URI"
is "the map" "$(printf %s "$OUT" | awk '{print $1, $2, $3}' | tr '\n' ';')" "0 1048576 3;1048576 65536 0;1114112 2031616 3;3145728 512 0;3146240 5242368 3;"
expect 0 nbdcopy "$URI" "$WORK/copy.img"
expect 0 qemu-io -f raw -c 'read -P 0 0 1M' -c 'read -P 7 1M 64k' -c 'read -P 8 3M 512' -c 'read -P 0 4M 4M' "$WORK/copy.img"
case $OUT in *"verification failed"*) fail "a copy: $OUT" ;; esac
[ "$(stat -c %b "$WORK/copy.img")" -lt 4096 ] || fail "a copy has no holes"
nbd_destroy
server_end
# one writer, or any number of readers
server all
nbd_disk "nbd:$S"
expect 16 tap_ctl create -a "nbd:$S"
has "why" "$ERR" "one writer"
expect 16 tap_ctl create -a "nbd:$S" -R
expect 0 tap_ctl pause -p "$PID" -m "$MINOR"
expect 0 tap_ctl unpause -p "$PID" -m "$MINOR" -a "nbd:$S"
ring write 0 4096 1
nbd_destroy
expect 0 tap_ctl create -a "nbd:$S" -R
nbd_disk "nbd:$S" -R
expect 16 tap_ctl create -a "nbd:$S"
nbd_destroy
expect 0 tap_ctl destroy -p "$(procs tapdisk)" -m 0
server_end
# a write that must be durable: by FUA, or else by a flush behind it
server nofua
nbd_disk "nbd:$S" -o cache=directsync
ring single 10 1
[ "$(did flush)" -ge 10 ] || fail "ten durable writes without FUA: $(did flush) flushes"
nbd_destroy
server_end
server all
nbd_disk "nbd:$S" -o cache=writethrough
is "what was there is durable before the first promise" "$(did flush)" 1
ring single 10 1
is "writes with FUA" "$(grep -c '^write .* 1$' "$WORK/log")" 10
is "flushes" "$(did flush)" 1
nbd_destroy
server_end
server all
nbd_disk "nbd:$S" -o cache=unsafe -o unsafe=yes
ring single 10 1
ring flush 3
is "flushes under unsafe" "$(did flush)" 0
nbd_destroy
server_end
# not to be had: to write where nobody may, or without a flush
server readonly
refused 30 "-R" "nbd:$S"
nbd_disk "nbd:$S" -R
expect 0 "$guest" "$PID" "$MINOR" read 0 65536
nbd_destroy
server_end
for how in noflush noflags; do
	server $how
	refused 95 "not support flush" "nbd:$S"
	nbd_disk "nbd:$S" -o cache=unsafe -o unsafe=yes
	ring full 2
	nbd_destroy
	nbd_disk "nbd:$S" -R
	expect 0 "$guest" "$PID" "$MINOR" read 0 65536
	nbd_destroy
	server_end
done
server big
refused 22 "4096 bytes" "nbd:$S"
server_end
refused 111 "$S" "nbd:$S" # nobody listens any more
refused 2 "$WORK/none" "nbd:$WORK/none"
# errors are the guest's, where they are; a full server makes the disk wait, and go on
server failing
nbd_disk "nbd:$S"
expect 1 "$guest" "$PID" "$MINOR" write 1048576 4096 1
ring write 4194304 4096 1
nbd_destroy
server_end
server full
nbd_disk "nbd:$S"
"$guest" "$PID" "$MINOR" write 1048576 4096 1 &
until_true 20 sh -c "'$top_builddir/bin/tap-ctl' list | grep -q state=0x400"
: >"$S.room"
wait $! || fail "a write did not go on when there was space"
nbd_destroy
server_end

# --- a server that dies under load, and is not waited for: errors, no hang; a new one is found when the disk is opened again
server all
nbd_disk "nbd:$S" -o reconnect-limit=no
"$guest" "$PID" "$MINOR" load 10000 64 >"$WORK/load.out" &
until_true 20 sh -c "[ \$(wc -l <'$WORK/log') -gt 200 ]"
kill -KILL $SERVER
wait $! && fail "a guest has not noticed that its server died"
wait $SERVER 2>/dev/null
expect 1 "$guest" "$PID" "$MINOR" flush
tap_ctl close -p "$PID" -m "$MINOR" >/dev/null 2>&1
server all
expect 0 tap_ctl open -p "$PID" -m "$MINOR" -a "nbd:$S"
exercise
nbd_destroy
server_end
