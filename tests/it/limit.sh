# SPDX-License-Identifier: LGPL-2.1-or-later
# A disk's limits: who has to wait, waits in the ring or the socket and holds nothing up; set at create, live, by the host's
# configuration and by words for an image; kept over pause, death and upgrade.  Judged by counters: rates are such that nothing that
# waits goes before it is let.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99

guest() { timeout 250 "$top_builddir/tests/support/tdguest" "$pid" "$minor" "$@"; }
limit() { tap_ctl limit -p "$pid" -m "$minor" "$@"; }
says() # WHAT WORD...
{
	expect 0 limit
	is "$1" "$(tr '\n' ' ' <<<"$OUT")" "${*:2} "
}
waits() # AT-LEAST
{
	local n

	n=$(limit --json | sed -n 's/.*"waits": \([0-9]*\).*/\1/p')
	[ "${n:-0}" -ge "$1" ]
}
truncate -s 16M "$WORK/a.img"

# a guest waits, and nobody else
start -a "aio:$WORK/a.img" -o limit-bytes=4096
says "as created" limit-bytes=4096
guest write 0 1048576 1 >"$WORK/said" 2>&1 &
load=$!
until_true 20 waits 1
expect 0 tap_ctl stats -p "$pid" -m "$minor"
has "nothing is held for it" "$OUT" '"reqs_outstanding": 0'
expect 0 tap_ctl pause -p "$pid" -m "$minor"
says "paused" limit-bytes=4096
expect 0 tap_ctl unpause -p "$pid" -m "$minor"
kill -0 $load || fail "the write that was to wait has ended: $(cat "$WORK/said")"
expect 0 tap_ctl top -b -n 1 -p "$pid" --json
has "top" "$OUT" '"limit_waits_per_s"'
expect 0 limit -o limit=none
is "lifted" "$OUT" ""
wait $load || fail "the write that waited: $(cat "$WORK/said")"
expect 0 guest verify 0 1048576 1

# live, and kept: over a death, an upgrade, and pauses; until somebody lifts it
expect 0 limit -o limit-iops=100K -o limit-bytes-write=50M -o limit-burst=2000
words="limit-iops=102400 limit-bytes-write=52428800 limit-burst=2000"
says "set" "$words"
expect 0 limit --json
has "as JSON" "$OUT" '"iops": [102400, 0, 0], "bytes": [0, 0, 52428800], "burst_ms": 2000, "on": true'
expect 0 guest write 0 1048576 2
kill -KILL "$pid"
until_true 10 gone "$pid"
expect 0 tap_ctl revive -m "$minor"
find_pid
says "revived" "$words"
expect 0 tap_ctl upgrade -p "$pid"
find_pid
says "upgraded" "$words"
expect 0 guest verify 0 1048576 2
expect 0 tap_ctl pause -p "$pid" -m "$minor"
expect 0 limit -o limit-iops=0
words="limit-bytes-write=52428800 limit-burst=2000"
expect 0 tap_ctl unpause -p "$pid" -m "$minor" -o cache=writeback
says "with other options" "$words"
expect 0 tap_ctl pause -p "$pid" -m "$minor"
expect 0 tap_ctl unpause -p "$pid" -m "$minor" -o limit=none
expect 0 limit
is "lifted by an unpause" "$OUT" ""

# what makes no sense
for word in limit-iops=many limit-bytes=1 limit-burst=0 limit=all limit-iops=-5; do
	expect 22 limit -o $word
	expect 22 tap_ctl create -a "aio:$WORK/a.img" -o $word
done
expect 22 limit -o cache=none
has "what there is" "$ERR" limit-iops-read
expect 22 limit -o limit-iops
expect 0 limit
is "nothing has changed" "$OUT" ""
expect 19 tap_ctl limit -p "$pid" -m 999 -o limit-iops=5
stop

# the host's default, and a disk's own word
echo "limit-iops-read = 7" >"$WORK/conf"
mkdir "$WORK/disks"
export TAPDISK_CONF=$WORK/conf TAPDISK_DISKS=$WORK/run:$WORK/disks
start -a "aio:$WORK/a.img"
says "the host's" limit-iops-read=7
stop
start -a "aio:$WORK/a.img" -o limit=none
says "none for this one"
stop
expect 0 tap_ctl mode -a "$WORK/a.img" -o limit-bytes=1G -o limit-iops-write=9
start -a "aio:$WORK/a.img"
says "the image's own" limit-iops-read=7 limit-iops-write=9 limit-bytes=1073741824
stop
expect 0 tap_ctl mode -a "$WORK/a.img" --clear
expect 22 tap_ctl mode -a "$WORK/a.img" -o limit-bytes=often
unset TAPDISK_CONF TAPDISK_DISKS

# an NBD client waits too
if command -v qemu-io >/dev/null; then
	start -a "aio:$WORK/a.img" -o limit-bytes-write=4096
	uri="nbd+unix:///?socket=$TAPDISK_CONTROL_DIR/nbd$pid.$minor"
	qemu-io -f raw -c 'write -P 5 0 1M' -c 'read 4M 64k' -c 'write -P 6 1M 64k' "$uri" >"$WORK/nbd" 2>&1 &
	load=$!
	until_true 20 waits 1
	kill -0 $load || fail "the client has not waited: $(cat "$WORK/nbd")"
	expect 0 tap_ctl pause -p "$pid" -m "$minor"
	expect 0 tap_ctl unpause -p "$pid" -m "$minor"
	expect 0 limit -o limit=none
	wait $load || fail "the client: $(cat "$WORK/nbd")"
	expect 0 guest read 1048576 512
	stop
	expect 0 qemu-io -f raw -r -c 'read -P 5 0 1M' -c 'read -P 6 1M 64k' "$WORK/a.img"
	case $OUT in *"verification failed"*) fail "$OUT" ;; esac
else
	echo "no qemu-io: the case of an NBD client is not tried"
fi
exit 0
