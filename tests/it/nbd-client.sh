# SPDX-License-Identifier: LGPL-2.1-or-later
# Disks that NBD servers hold: other people's servers, passed sockets, servers of few abilities, and those that die or lie.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/it/nbd-lib.sh"

guest="$top_builddir/tests/support/tdguest"
SIZE=$((48 << 20))
S=$WORK/s SERVER=

server() # HOW: ours
{
	rm -f "$S" "$S.room"
	: >"$WORK/log"
	$nbd_python "$top_srcdir/tests/support/nbd-server.py" "$S" "$1" $SIZE "$WORK/log" 2>"$WORK/server.err" &
	SERVER=$!
	at_exit "kill $SERVER 2>/dev/null"
	until_true 10 test -S "$S"
}
server_end()
{
	kill -0 $SERVER 2>/dev/null || fail "the server has ended: $(cat "$WORK/server.err")"
	kill $SERVER
	wait $SERVER 2>/dev/null || true
}
did() { grep -c "^$1 " "$WORK/log" || true; } # how often the server was asked
ring() { expect 0 timeout 250 "$guest" --order 2 "$PID" "$MINOR" "$@"; }
exercise() # a guest, and the commands that a guest has not
{
	ring full 3
	ring load 0.3 32
	ring write 1024 90112 5
	ring verify 1024 90112 5
	ring flush 2
	expect 0 timeout 250 qemu-io -f raw -c 'write -P 7 1M 3M' -c 'write -z 2M 256k' -c 'write -zu 3M 256k' -c 'discard 1M 64k' -c 'read -P 0 2M 256k' \
		-c 'read -P 7 2304k 768k' -c 'read -P 0 3M 256k' -c 'read -P 7 3328k 512k' -c 'aio_write -P 9 0 1M' -c 'aio_write -P 8 4M 1M' -c aio_flush -c flush \
		-c 'read -P 9 0 1M' -c 'read -P 8 4M 1M' "$URI"
	case $OUT in *"verification failed"*) fail "$OUT" ;; esac
}
commands() # every command that there is, with every flag
{
	expect 0 timeout 250 $nbd_python "$top_srcdir/tests/support/nbd-commands.py" "$URI" -
}
refused() # RC TEXT ARG...: create fails, says why, and leaves nothing
{
	local rc=$1 text=$2

	shift 2
	expect "$rc" timeout 250 "$top_builddir/bin/tap-ctl" create -a "$@"
	has "why" "$ERR" "$text"
	is "left by $*" "$(tap_ctl list)" ""
}
pass() { expect 0 $nbd_python "$top_srcdir/tests/support/nbd-pass.py" "$@"; }

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
for how in all oldstyle nofixed nogo nofua bare small backwards dribble unwilling; do
	server $how
	nbd_disk "nbd:$S" -o cache=none
	exercise
	nbd_destroy
	is "$how: says good-bye" "$(tail -1 "$WORK/log")" disc
	server_end
done
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

# --- servers that lie: none is opened, or all its requests fail; the tapdisk lives, and closes
for how in $($nbd_python "$top_srcdir/tests/support/nbd-server.py" list hostile-open); do
	server "$how"
	run timeout 250 "$top_builddir/bin/tap-ctl" create -a "nbd:$S"
	[ "$RC" != 0 ] && [ "$RC" != 124 ] || fail "$how: exit code $RC"
	has "$how" "$ERR" "$S"
	case $ERR in *$'\e'*) fail "$how: a server's escapes get to the terminal" ;; esac
	is "left by $how" "$(tap_ctl list)" ""
	server_end
done
for how in $($nbd_python "$top_srcdir/tests/support/nbd-server.py" list hostile-talk); do
	server "$how"
	nbd_disk "nbd:$S" -o reconnect-limit=no
	ring write 4096 4096 1
	run timeout 250 "$guest" "$PID" "$MINOR" read 0 4096
	case $RC,$how in
	1,* | 0,twice) ;;
	*) fail "$how: a read gives $RC $ERR" ;;
	esac
	until_true 20 sh -c "! '$guest' $PID $MINOR read 8192 512 >/dev/null"
	# what was written is not known to be on disk, and the guest is told
	expect 1 timeout 250 "$guest" "$PID" "$MINOR" flush
	has "$how" "$(tap_ctl list)" "state=0x800"
	expect 5 tap_ctl destroy -p "$PID" -m "$MINOR" -t 60
	server_end
done

# an answer to a write that is still being sent: its data is in use until it has been, whoever thinks that it is done with
SIZE=$((48 << 20))
server early
nbd_disk "nbd:$S" -o reconnect-limit=no
ring write 4096 4096 1
run timeout 250 qemu-io -f raw -c 'aio_write -P 1 0 12M' -c 'aio_write -P 2 12M 12M' -c 'aio_write -P 3 24M 12M' -c aio_flush "$URI"
has "an early answer" "$OUT$ERR" "failed: Input/output error"
until_true 20 sh -c "! '$guest' $PID $MINOR read 8192 512 >/dev/null"
expect 5 tap_ctl destroy -p "$PID" -m "$MINOR"
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
