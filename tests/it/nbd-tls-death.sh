# SPDX-License-Identifier: LGPL-2.1-or-later
# Disks of NBD servers behind TLS whose connections end anywhere under load: servers, relays and links die.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/it/nbd-lib.sh"
. "$top_srcdir/tests/it/nbd-tls-lib.sh"

# --- servers that are killed under load; and relays, which end with nothing said, while the servers go on
survives() # HOW NAME: a client verifies every byte meanwhile
{
	expect 0 timeout 250 $nbd_python "$top_srcdir/tests/support/nbd-survive.py" "$URI" $SIZE "${KILLS:-3}" "${SEED:-$RANDOM}" "$WORK/$1.pid" "$WORK/$1" "${@:2}"
	has "$*" "$OUT" "every byte right"
	echo "$*: $OUT"
}
fresh()
{
	truncate -s 0 d.img
	truncate -s $SIZE d.img
	start "$1"
}
kill_relays()
{
	local n=0 p

	while [ $n -lt 5 ] && [ ! -e enough ]; do
		sleep "$((RANDOM % 2)).$((RANDOM % 10))"
		for p in $(relays); do kill -KILL "$p" && n=$((n + 1)); done
		echo $n >killed
	done
}
for how in qemu-x509 nbdkit-psk; do
	fresh $how
	nbd_disk "$(uri $how "$KEYS")"
	survives start $how "$KEYS"
	nbd_destroy
	stop
	[ -z "${TD_SANITIZED:-}" ] || continue # no processes there
	fresh $how
	nbd_disk "$(uri $how "$KEYS")"
	kill_relays &
	killer=$!
	at_exit "kill $killer 2>/dev/null"
	survives start $how "$KEYS"
	touch enough
	wait $killer
	rm enough
	echo "and $(cat killed) kills of relays"
	nbd_destroy
	stop
done

# --- a relay that ends while the server holds a write: nothing is sent again before the server has closed that connection
if [ -z "${TD_SANITIZED:-}" ]; then
	$nbd_python "$top_srcdir/tests/support/nbd-server.py" "$WORK/slow" all $SIZE slow.log 2>slow.err &
	at_exit "kill -KILL $! 2>/dev/null"
	until_true 10 test -S slow
	nbdkit -f -i 127.0.0.1 -p "$PORT" --tls=require --tls-certificates="$KEYS" nbd socket="$WORK/slow" &
	echo $! >start.pid
	disown
	until_true 10 listens 127.0.0.1 "$PORT"
	nbd_disk "nbds://127.0.0.1:$PORT/?tls-certificates=$KEYS"
	touch slow.hold
	"$guest" "$PID" "$MINOR" write 0 4096 7 >/dev/null &
	writer=$!
	until_true 10 test -e slow.holds
	before=$(grep -c '^write ' slow.log)
	kill -KILL "$(relays)"
	until_true 10 says "has not closed the connection before"
	is "writes that were sent again" "$(grep -c '^write ' slow.log)" "$before"
	rm slow.holds
	wait $writer || fail "a write failed when its relay had ended"
	ring verify 0 4096 7
	nbd_destroy
	stop
fi

# --- a link that is cut in the middle: the server hears of it late, or never
fresh nbdkit-x509
RELAY=$(free_port)
cat >./link <<END
#!/bin/sh
echo \$\$ >"$WORK/link.pid.new"
mv "$WORK/link.pid.new" "$WORK/link.pid"
exec $nbd_python "$top_srcdir/tests/support/tcp-relay.py" $RELAY $PORT
END
chmod +x link
./link &
disown
at_exit 'kill -KILL $(cat "$WORK/link.pid") 2>/dev/null'
until_true 10 listens 127.0.0.1 "$RELAY"
nbd_disk "nbds://127.0.0.1:$RELAY/disk?tls-certificates=$KEYS"
survives link
nbd_destroy
stop
