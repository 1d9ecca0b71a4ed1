# SPDX-License-Identifier: LGPL-2.1-or-later
# Disks of NBD servers on other hosts: by name and address, each kind of URI, what goes through a relay that stops, servers that are
# killed, and what the sandbox allows.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/it/nbd-lib.sh"
command -v nbdkit >/dev/null || skip "no nbdkit"

guest="$top_builddir/tests/support/tdguest"
SIZE=$((8 << 20))
cd "$WORK" || exit 99
export TAPDISK_CONF=$WORK/conf
echo "sandbox = yes" >conf
truncate -s $SIZE d.img
free_port() { $nbd_python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
PORT=$(free_port)
listens() { $nbd_python -c "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 1)" "$1" "$2" 2>/dev/null; }
cat >start <<END
#!/bin/sh
# HOW: a server at port $PORT, whose process is this one
echo \$\$ >"$WORK/pid.new"
mv "$WORK/pid.new" "$WORK/pid"
case \$1 in
qemu) exec qemu-nbd -t -f raw -b 127.0.0.1 -p $PORT -x 'vm 1/a' --cache=writeback "$WORK/d.img" 2>/dev/null ;;
*) exec nbdkit -f -i 127.0.0.1 -p $PORT -e 'vm 1/a' file "$WORK/d.img" ;;
esac
END
chmod +x start
at_exit 'kill -KILL $(cat "$WORK/pid") 2>/dev/null'
start()
{
	./start "$1" &
	disown
	until_true 10 listens 127.0.0.1 "$PORT"
}
stop()
{
	local p

	p=$(cat pid)
	kill -KILL "$p"
	until_true 10 gone "$p"
}
ring() { expect 0 timeout 250 "$guest" --order 2 "$PID" "$MINOR" "$@"; }
line() { tap_ctl list --json -m "$MINOR"; }
says() { line | grep -q "$1"; }
refused() # RC TEXT ARG...: create fails, says why, and leaves nothing
{
	local rc=$1 text=$2

	shift 2
	expect "$rc" timeout 250 "$top_builddir/bin/tap-ctl" create -a "$@"
	has "why" "$ERR" "$text"
	is "left by $*" "$(tap_ctl list)" ""
}

# --- by name and by address; data by a guest and by nbdcopy; under each promise
start qemu
for host in localhost 127.0.0.1; do
	nbd_disk "nbd://$host:$PORT/vm%201/a" -o cache=writethrough
	[ -n "${TD_SANITIZED:-}" ] || has "the sandbox" "$(line)" '"sandbox": "'
	ring full 3
	ring flush 2
	expect 0 qemu-io -f raw -c 'write -P 7 1M 1M' -c flush -c 'read -P 7 1M 1M' "$URI"
	# small packets go at once, and a peer that vanishes is looked for
	! command -v ss >/dev/null || has "keepalive" "$(ss -tnoH state established "dport = $PORT")" "keepalive"
	tap_ctl pause -p "$PID" -m "$MINOR" && tap_ctl unpause -p "$PID" -m "$MINOR" || fail "pause, unpause"
	expect 0 tap_ctl upgrade -p "$PID"
	PID=$(tap_ctl list -m "$MINOR" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
	expect 0 qemu-io -f raw -c 'read -P 7 1M 1M' "$URI"
	# one writer, by whatever name
	expect 16 tap_ctl create -a "nbd://127.0.0.1:$PORT/vm%201/a"
	has "why" "$ERR" "one writer"
	nbd_destroy
done
dd if=/dev/urandom of=src.img bs=1M count=8 status=none
nbd_disk "nbd:127.0.0.1:$PORT:exportname=vm 1/a"
expect 0 nbdcopy src.img "$URI"
nbd_destroy
cmp src.img d.img || fail "what was written is not in the server's file"
# a death
nbd_disk "nbd://127.0.0.1:$PORT/vm%201/a"
ring write 0 65536 1
ring flush
kill -KILL "$PID"
until_true 10 gone "$PID"
expect 0 tap_ctl revive -m "$MINOR"
PID=$OUT
ring verify 0 65536 1
nbd_destroy
# as a mirror
truncate -s $SIZE leaf.img
nbd_disk "aio:$WORK/leaf.img" -o cache=writeback -o "mirror=nbd://localhost:$PORT/vm%201/a"
ring write 0 65536 4
nbd_destroy
nbd_disk "nbd://localhost:$PORT/vm%201/a" -R
ring verify 0 65536 4
nbd_destroy
refused 111 "vm 2" "nbd://127.0.0.1:$PORT/vm%202"
stop

# --- a Unix socket's URI
nbdkit -U "$WORK/a sock" -P "$WORK/k.pid" -e disk memory $SIZE
at_exit 'kill $(cat "$WORK/k.pid") 2>/dev/null'
until_true 10 test -S "$WORK/a sock"
nbd_disk "nbd+unix:///disk?socket=$WORK/a%20sock"
ring full 3
has "its name" "$(line)" "nbd+unix:///disk?socket="
nbd_destroy
nbd_disk "nbd:unix:$WORK/a sock:exportname=disk"
ring write 0 4096 1
nbd_destroy

# --- what is no server
refused 111 "cannot connect to an NBD server at 127.0.0.1 port $PORT" "nbd://127.0.0.1:$PORT"
run timeout 250 "$top_builddir/bin/tap-ctl" create -a "nbd://no.such.host.invalid/x" # 2, or 11 without a name service
has "a host that is not known" "$RC $ERR" "cannot look up the host no.such.host.invalid"
refused 22 "a port is a number" "nbd://127.0.0.1:port/x"
refused 22 "socket= is missing" "nbd+unix:///x"

# --- servers that are killed and started again, under load
for how in qemu nbdkit; do
	truncate -s 0 d.img
	truncate -s $SIZE d.img
	start $how
	nbd_disk "nbd://127.0.0.1:$PORT/vm%201/a"
	expect 0 timeout 250 $nbd_python "$top_srcdir/tests/support/nbd-survive.py" "$URI" $SIZE "${KILLS:-3}" "${SEED:-$RANDOM}" "$WORK/pid" "$WORK/start" $how
	has "$how" "$OUT" "every byte right"
	echo "$how: $OUT"
	nbd_destroy
	stop
done

# --- a relay that stops is a pause; one that ends is a new connection through the next
start qemu
RELAY=$(free_port)
relay()
{
	$nbd_python "$top_srcdir/tests/support/tcp-relay.py" "$RELAY" "$PORT" &
	R=$!
	disown
	at_exit "kill -KILL $R 2>/dev/null"
	until_true 10 listens 127.0.0.1 "$RELAY"
}
relay
nbd_disk "nbd://127.0.0.1:$RELAY/vm%201/a"
ring write 0 65536 5
kill -STOP $R
"$guest" "$PID" "$MINOR" write 65536 65536 6 >/dev/null &
writer=$!
sleep 0.5
kill -0 $writer || fail "a write did not wait for a relay that was stopped"
kill -CONT $R
wait $writer || fail "a write failed behind a relay that was stopped"
ring verify 0 65536 5
kill -KILL $R
until_true 10 says "reconnecting since"
"$guest" "$PID" "$MINOR" verify 65536 65536 6 >/dev/null &
reader=$!
relay
wait $reader || fail "a read did not wait for the relay"
ring verify 0 65536 5
ring flush
nbd_destroy
stop
