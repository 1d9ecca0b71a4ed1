# SPDX-License-Identifier: LGPL-2.1-or-later
# What a tapdisk that dies has with an NBD server: a write that the server carries out late does not land over a newer one (K5 in
# drivers/nbd/nbd.h), and what was acknowledged and not flushed is not lost in silence (K6, K7).
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/it/nbd-lib.sh"

S=$WORK/s SERVER=
server() # HOW: ours, with a disk of zeroes
{
	[ -z "$SERVER" ] || { kill $SERVER && wait $SERVER; } 2>/dev/null
	rm -f "$S" "$S".hold*
	: >"$WORK/log"
	$nbd_python "$top_srcdir/tests/support/nbd-server.py" "$S" "$1" 8388608 "$WORK/log" 2>"$WORK/server.err" &
	SERVER=$!
	at_exit "kill $SERVER 2>/dev/null"
	until_true 10 test -S "$S"
}
did() { grep -c "^$1" "$WORK/log" || true; }
die()
{
	kill -KILL "$PID"
	until_true 10 gone "$PID"
}
revive()
{
	expect 0 tap_ctl revive -m "$MINOR"
	PID=$OUT SOCK=$TAPDISK_CONTROL_DIR/nbd$OUT.$MINOR
	URI="nbd+unix:///?socket=$SOCK"
}
io() { expect 0 timeout 250 qemu-io -f raw "$@" "$URI"; }
reads() # PATTERN: the first 64 KiB
{
	io -c "read -P $1 0 64k"
	case $OUT in *"verification failed"*) fail "the first bytes are not those of pattern $1" ;; esac
}
state() { tap_ctl list -m "$MINOR" | sed 's/.*state=\([^ ]*\) .*/\1/'; }

# --- a write that the server has not carried out when the tapdisk dies
for mode in none "unsafe -o unsafe=yes"; do
	server multi
	# shellcheck disable=SC2086
	nbd_disk "nbd:$S" -o cache=$mode
	: >"$S.hold"
	qemu-io -f raw -c "write -P 1 0 64k" "$URI" >/dev/null 2>&1 &
	until_true 10 test -e "$S.holds"
	die
	wait $! 2>/dev/null
	expect 16 tap_ctl revive -m "$MINOR"
	has "$mode: the server is not done with it" "$ERR" "still executes requests of a client that has died"
	if [ "$mode" = none ]; then
		expect 16 tap_ctl create -a "nbd:$S"
		has "whoever else comes" "$ERR" "still executes requests of a client that has died"
	fi
	tap_ctl revive -m "$MINOR" >"$WORK/pid" & # it waits: the server is done before it gives up
	waiter=$!
	rm "$S.holds"
	wait $waiter || fail "$mode: revive does not wait for the server"
	is "$mode: the old write is over" "$(did written)" 1
	revive
	io -c "write -P 2 0 64k" -c flush
	reads 2
	is "$mode: nothing came after it" "$(tail -1 <(grep '^written' "$WORK/log")) $(did written)" "written 0 2"
	is "$mode: nothing is lost" "$(state)" 0
	nbd_destroy
done

# --- acknowledged, and not flushed: where the server covers it, a successor's flush does
server multi
nbd_disk "nbd:$S"
$nbd_python -c "
import nbd, sys
h = nbd.NBD(); h.connect_uri(sys.argv[1]); h.pwrite(b'\\1' * 65536, 0)" "$URI" || fail "a write without a flush"
die
revive
is "a server that flushes for all" "$(state)" 0
reads 1
[ "$(did flush)" -ge 1 ] || fail "a successor's open makes nothing durable"
nbd_destroy

# --- and that of another process, though it offers the same, covers nothing of what the first one had
nbd_disk "nbd:$S"
$nbd_python -c "
import nbd, sys
h = nbd.NBD(); h.connect_uri(sys.argv[1]); h.pwrite(b'\\1' * 65536, 0)" "$URI" || fail "a write without a flush"
kill -STOP "$PID" # it dies before it notices
server multi
die
revive
is "a server that was started anew" "$(state)" 0x800
expect 5 tap_ctl destroy -p "$PID" -m "$MINOR"
has "closing it says so" "$ERR" "may be lost"
nbd_disk "nbd:$S"
$nbd_python -c "
import nbd, sys
h = nbd.NBD(); h.connect_uri(sys.argv[1]); h.pwrite(b'\\1' * 65536, 0); h.flush()" "$URI" || fail "a write and a flush"
kill -STOP "$PID"
server multi
die
revive
is "all was flushed to the first one" "$(state)" 0
nbd_destroy

# --- where it does not, the guest hears of it, and of nothing else
server all
nbd_disk "nbd:$S"
$nbd_python -c "
import nbd, sys
h = nbd.NBD(); h.connect_uri(sys.argv[1]); h.pwrite(b'\\1' * 65536, 0)" "$URI" || fail "a write without a flush"
die
revive
is "a server that flushes for each alone" "$(state)" 0x800
reads 1
expect 1 timeout 250 qemu-io -f raw -c "write -P 2 0 64k" "$URI"
$nbd_python -c "
import nbd, sys
h = nbd.NBD(); h.connect_uri(sys.argv[1])
try:
    h.flush()
except nbd.Error:
    sys.exit(0)
sys.exit(1)" "$URI" || fail "a flush of what may be lost is answered"
reads 1
die # the next one knows it too
revive
is "after another death" "$(state)" 0x800
expect 5 tap_ctl destroy -p "$PID" -m "$MINOR"
has "closing it says so" "$ERR" "may be lost"
server all
nbd_disk "nbd:$S"
io -c "write -P 1 0 64k" -c flush
die
revive
is "all was flushed" "$(state)" 0
io -c "write -P 2 0 64k" -c flush
reads 2
nbd_destroy
nbd_disk "nbd:$S" -o cache=directsync
io -c "write -P 3 0 64k"
die
revive
is "each write was durable" "$(state)" 0
nbd_destroy

# --- a mode that drops flushes is left with one, on the connection that wrote
server all
nbd_disk "nbd:$S" -o cache=unsafe -o unsafe=yes
io -c "write -P 4 0 64k" -c flush
is "unsafe flushes nothing" "$(did flush)" 0
expect 0 tap_ctl pause -p "$PID" -m "$MINOR"
is "before the connection ends" "$(did flush)" 1
expect 0 tap_ctl unpause -p "$PID" -m "$MINOR" -o cache=none -o unsafe=no
is "nothing is lost" "$(state)" 0
reads 4
nbd_destroy
is "files left" "$(entries "$TAPDISK_CONTROL_DIR" 'left*')" ""

# --- a guest's ring, over many deaths
server multi
expect 0 timeout 250 "$top_builddir/tests/support/tdsurvive" "$top_builddir/bin/tap-ctl" "nbd:$S" none "${KILLS:-5}" "${SEED:-$RANDOM}"
has "a guest over nbd:" "$OUT" "every byte right"
kill -0 $SERVER || fail "the server has ended: $(cat "$WORK/server.err")"
