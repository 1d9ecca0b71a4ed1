# SPDX-License-Identifier: LGPL-2.1-or-later
# What the tests of disks that an NBD server holds share; sourced after nbd-lib.sh.
#
#   server HOW, server_end    a server of nbd-server.py at $S, whose pid is $SERVER; its log is $WORK/log

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
