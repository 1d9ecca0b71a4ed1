# SPDX-License-Identifier: LGPL-2.1-or-later
# An NBD server that goes away and comes back is a pause for the guest: nothing is lost that was acknowledged, whatever the server
# has lost (K8 to K13 in drivers/nbd/nbd.h).  KILLS and SEED: how often, under load, in each case.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/it/nbd-lib.sh"

guest="$top_builddir/tests/support/tdguest"
SIZE=$((8 << 20))
S=$WORK/s
cat >"$WORK/start" <<END
#!/bin/sh
# HOW: a server at $S, whose process is this one
rm -f "$S"
echo \$\$ >"$WORK/pid.new"
mv "$WORK/pid.new" "$WORK/pid"
case \$1 in
qemu) exec qemu-nbd -t -f raw -k "$S" --cache=writeback "$WORK/d.img" 2>/dev/null ;;
nbdkit) exec nbdkit -f -U "$S" file "$WORK/d.img" ;;
slow) exec nbdkit -f -U "$S" --filter=delay file "$WORK/d.img" rdelay=3ms wdelay=10ms ;;
*) exec $nbd_python "$top_srcdir/tests/support/nbd-server.py" "$S" \$1 \${2:-$SIZE} "$WORK/log" ;;
esac
END
chmod +x "$WORK/start"
at_exit 'kill -KILL $(cat "$WORK/pid") 2>/dev/null'
start()
{
	"$WORK/start" "$@" &
	disown
	until_true 10 test -S "$S"
}
stop()
{
	local p

	p=$(cat "$WORK/pid")
	kill -KILL "$p"
	until_true 10 gone "$p"
	rm -f "$S"
}
did() { grep -c "^$1" "$WORK/log" || true; }
line() { tap_ctl list --json -m "$MINOR"; }
state() { tap_ctl list -m "$MINOR" | sed 's/.*state=\([^ ]*\) .*/\1/'; }
says() { line | grep -q "$1"; }
is_away() { says "reconnecting since"; }
is_there() { ! is_away; }
wr() { "$guest" "$PID" "$MINOR" write "$@" >/dev/null; }
ok() { expect 0 timeout 250 "$guest" "$PID" "$MINOR" "$@"; }

# --- under load, with a client that verifies; then what a flush has promised is in the server's disk
truncate -s $SIZE "$WORK/d.img"
for how in volatile apart qemu nbdkit slow; do
	case $how in
	nbdkit | slow) command -v nbdkit >/dev/null || continue ;;
	esac
	start $how
	nbd_disk "nbd:$S" -o cache=none
	expect 0 timeout 250 $nbd_python "$top_srcdir/tests/support/nbd-survive.py" "$URI" $SIZE "${KILLS:-4}" "${SEED:-$RANDOM}" "$WORK/pid" "$WORK/start" $how
	has "$how" "$OUT" "every byte right"
	echo "$how: $OUT"
	stop # as a power cut, for the one that keeps nothing
	nbd_destroy
	image=$WORK/d.img
	case $how in volatile | apart) image=$S.disk ;; esac
	$nbd_python -c "
import sys
want = [int(x) for x in open(sys.argv[1]).read().split()]
with open(sys.argv[2], 'rb') as f:
    for i, n in enumerate(want):
        assert f.read(4096) == n.to_bytes(8, 'little') * 512, 'block %d' % i" "$WORK/pid.content" "$image" || fail "$how: what was flushed is not in the server's disk"
	rm -f "$S.disk"
	truncate -s 0 "$WORK/d.img"
	truncate -s $SIZE "$WORK/d.img"
done

# --- the server is away: what is said of the disk; a read waits, and gets its data
rm -f "$S.disk"
start volatile
nbd_disk "nbd:$S"
wr 0 65536 1 || fail "write"
stop
until_true 10 is_away
until_true 10 says "cannot connect to an NBD server at $S"
has "metrics" "$(tap_ctl metrics)" "tapdisk_disk_reconnecting{minor=\"$MINOR\""
ok read 0 4096 &
reader=$!
# it cannot be paused meanwhile, and goes on
expect 110 tap_ctl pause -p "$PID" -m "$MINOR" -t 1
has "why" "$ERR" "reconnecting since"
start volatile
until_true 20 is_there
wait $reader || fail "a read did not wait for the server"
ok verify 0 65536 1
ok flush
is "the state" "$(state)" 0
# without a request under way a pause and a close wait too, since they must flush
wr 0 65536 2 || fail "write"
stop
until_true 10 is_away
expect 110 tap_ctl close -p "$PID" -m "$MINOR" -t 1
has "why" "$ERR" "reconnecting since"
expect 110 tap_ctl pause -p "$PID" -m "$MINOR" -t 1
tap_ctl pause -p "$PID" -m "$MINOR" &
pauser=$!
start volatile
wait $pauser || fail "a pause did not wait for the server"
stop
start volatile
expect 0 tap_ctl unpause -p "$PID" -m "$MINOR"
ok verify 0 65536 2

# --- closed by force: what was not flushed is given up, and said to be
wr 0 65536 3 || fail "write"
stop
until_true 10 is_away
expect 5 tap_ctl close -p "$PID" -m "$MINOR" -f
has "why" "$ERR" "check the disk's contents"
start volatile
expect 0 tap_ctl open -p "$PID" -m "$MINOR" -a "nbd:$S"
ok verify 0 65536 2

# --- the tapdisk dies as well: its successor says that something is lost, and does not take a flush for the lost one
wr 0 65536 4 || fail "write"
stop
until_true 10 is_away
kill -KILL "$PID"
until_true 10 gone "$PID"
start multi
expect 0 tap_ctl revive -m "$MINOR"
PID=$OUT
is "the state of its successor" "$(state)" 0x800
expect 5 tap_ctl destroy -p "$PID" -m "$MINOR"
stop

# --- a server that comes back as another is refused, and the disk stays as after a failed flush
rm -f "$S.disk"
start volatile
nbd_disk "nbd:$S"
wr 0 65536 5 || fail "write"
stop
start volatile $((SIZE / 2))
until_true 20 says "it is another disk"
expect 1 timeout 250 "$guest" "$PID" "$MINOR" flush
expect 5 tap_ctl destroy -p "$PID" -m "$MINOR"
stop

# --- the limit
rm -f "$S.disk"
start volatile
nbd_disk "nbd:$S" -o reconnect-limit=1
stop
expect 1 timeout 250 "$guest" "$PID" "$MINOR" read 0 4096
has "the limit" "$(line)" "away for more than 1 s"
tap_ctl destroy -p "$PID" -m "$MINOR" >/dev/null 2>&1

# --- a new tapdisk takes the disks over while the server is there, as ever; while it is away, all are taken back
start volatile
nbd_disk "nbd:$S"
wr 0 65536 6 || fail "write"
stop
until_true 10 is_away
run tap_ctl upgrade -p "$PID" -t 1
[ "$RC" != 0 ] || fail "an upgrade left acknowledged data behind"
start volatile
until_true 20 is_there
ok verify 0 65536 6
expect 0 tap_ctl upgrade -p "$PID"
PID=$(tap_ctl list -m "$MINOR" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
ok verify 0 65536 6
nbd_destroy
