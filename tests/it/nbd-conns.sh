# SPDX-License-Identifier: LGPL-2.1-or-later
# Reads of a disk on an NBD server are spread over several connections, where the server allows it (KC1 to KC4 in
# drivers/nbd/nbd-more.h); a connection that ends is made again.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/it/nbd-lib.sh"
command -v nbdkit >/dev/null || skip "no nbdkit"

guest="$top_builddir/tests/support/tdguest"
SIZE=$((32 << 20))
S=$WORK/s
truncate -s $SIZE "$WORK/d.img"
start() # COMMAND...: a server at $S
{
	rm -f "$S"
	"$@" 2>/dev/null &
	SERVER=$!
	at_exit "kill $SERVER 2>/dev/null"
	until_true 10 test -S "$S"
}
stop()
{
	kill $SERVER
	wait $SERVER 2>/dev/null || true
}
kit() { start nbdkit -f -U "$S" "$@" file "$WORK/d.img"; }
qemu() { start qemu-nbd -t -f raw -k "$S" "$@" "$WORK/d.img"; }
# connections that the server has let in
conns() { awk -v s="$S" '$8 == s && $6 == "03" && $7 != 0' /proc/net/unix | wc -l; }
are() { [ "$(conns)" = "$1" ]; }
ring() { expect 0 timeout 250 "$guest" --order 2 "$PID" "$MINOR" "$@"; }
line() { tap_ctl list --json -m "$MINOR"; }
holds()
{
	for _ in {1..10}; do
		are "$1" || return 1
		sleep 0.1
	done
}
stays() { until_true 30 holds "$1"; } # NUMBER: of connections; on the way there may be one more, for a moment
by() { echo "nbd+unix:///?socket=$S&connections=$1"; }

# --- as many as are asked for, one by default; data by a guest and by nbdcopy
expect 0 dd if=/dev/urandom of="$WORK/src.img" bs=1M count=32 status=none
for n in 2 4 16 default; do
	kit
	name=$(by $n)
	[ $n != default ] || name=nbd:$S
	nbd_disk "$name"
	until_true 20 are "${n/default/1}"
	ring full 3
	expect 0 nbdcopy "$WORK/src.img" "$URI"
	expect 0 nbdcopy "$URI" "$WORK/back.img"
	cmp "$WORK/src.img" "$WORK/back.img" || fail "$n: what was read is not what was written"
	stays "${n/default/1}"
	# over a pause and an upgrade
	tap_ctl pause -p "$PID" -m "$MINOR" && tap_ctl unpause -p "$PID" -m "$MINOR" || fail "pause, unpause"
	expect 0 tap_ctl upgrade -p "$PID"
	PID=$(tap_ctl list -m "$MINOR" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
	stays "${n/default/1}"
	nbd_destroy
	until_true 10 are 0
	stop
	cmp "$WORK/src.img" "$WORK/d.img" || fail "$n: what was written is not in the server's file"
done
expect 22 tap_ctl create -a "$(by 17)"
has "why" "$ERR" "from 1 to 16"

# --- the same as a word of the disk and of the host, over which the URI counts, over a pause, a death and an upgrade
echo "connections = 6" >"$WORK/conf"
kit
TAPDISK_CONF=$WORK/conf nbd_disk "nbd:$S"
stays 6
nbd_destroy
nbd_disk "$(by 3)" -o connections=2
stays 3
nbd_destroy
nbd_disk "nbd:$S" -o connections=2
stays 2
expect 0 tap_ctl upgrade -p "$PID"
PID=$(tap_ctl list -m "$MINOR" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
stays 2
kill -KILL "$PID"
until_true 10 gone "$PID"
expect 0 tap_ctl revive -m "$MINOR"
PID=$OUT
stays 2
expect 0 tap_ctl pause -p "$PID" -m "$MINOR"
expect 0 tap_ctl unpause -p "$PID" -m "$MINOR" -o connections=5
stays 5
nbd_destroy
until_true 10 are 0
stop
expect 22 tap_ctl create -a "nbd:$S" -o connections=17
has "why" "$ERR" "from 1 to 16"

# --- a server that allows one has one; and one that takes few has as many as it takes
qemu
nbd_disk "$(by 4)"
stays 1
nbd_destroy
stop
for most in 2 3; do
	qemu -e $most
	nbd_disk "$(by 4)"
	ring full 3
	stays $most
	ring full 3
	nbd_destroy
	stop
done

# --- a server that dies under load
kit
nbd_disk "$(by 4)" -o cache=writeback
until_true 20 are 4
ring write 0 1048576 5
"$guest" "$PID" "$MINOR" load 4 32 >"$WORK/load.out" &
load=$!
for _ in 1 2 3; do
	sleep 0.7
	kill -KILL $SERVER
	wait $SERVER 2>/dev/null || true
	kit
done
wait $load || fail "a guest has noticed that its server died: $(cat "$WORK/load.out")"
until_true 20 are 4
case $(line) in *reconnecting*) fail "it still reconnects: $(line)" ;; esac
ring flush
nbd_destroy
stop

# --- a tapdisk that dies, and its successor
kit
nbd_disk "$(by 4)"
until_true 20 are 4
ring write 0 65536 6
ring flush
kill -KILL "$PID"
until_true 10 gone "$PID"
expect 0 tap_ctl revive -m "$MINOR"
PID=$OUT
ring verify 0 65536 6
until_true 20 are 4
nbd_destroy
stop
