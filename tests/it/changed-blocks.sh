# SPDX-License-Identifier: LGPL-2.1-or-later
# The log of changed blocks of a running disk (tap-ctl -C, unpause -c), in the order in which XenServer's storage manager uses it: what
# differs from before has its bit, after a kill under load too; and the header is the storage manager's alone.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99

cbt() { "$top_builddir/bin/cbt-util" "$@"; }
guest() { timeout 250 "$top_builddir/tests/support/tdguest" "$pid" "$minor" "$@"; }
cd "$WORK" || exit 99
SIZE=$((64 << 20))

new_log() { expect 0 cbt create -n "$1" -s $SIZE; }
# the blocks whose bit is set in a log, and those in which two raw files differ: numbers, one a line
logged()
{
	cbt get -n "$1" -b | od -An -v -tu1 -w1 | awk '{ for (k = 0; k < 8; k++) if (int($1 / 2 ^ k) % 2) print (NR - 1) * 8 + k }'
}
differ() { cmp -l "$1" "$2" | awk '{ b = int(($1 - 1) / 65536); if (!(b in s)) print b; s[b] }' | sort -n; }
covered() # WHAT LOG OLD NEW: no changed block without its bit
{
	local missing

	missing=$(comm -23 <(differ "$3" "$4" | sort) <(logged "$2" | sort) | tr '\n' ' ')
	is "$1: changed, without a bit" "$missing" ""
}
same_head() { is "$1: the header" "$(head -c 48 "$2" | od -An -v -tx1)" "$(head -c 48 "$3" | od -An -v -tx1)"; }

# as sm opens it: made, marked as not clean, given to the tapdisk
truncate -s $SIZE a.img
new_log a.cbtlog
expect 0 cbt set -n a.cbtlog -p 11111111-2222-3333-4444-555555555555 -f 0
cp a.cbtlog log0
start -a "aio:$WORK/a.img" -C a.cbtlog
expect 0 guest write 65536 512 1
expect 0 guest write $((10 * 65536 - 512)) 1024 2
expect 0 guest write $((100 * 65536)) 1048576 3
is "the bits, before anything is closed" "$(logged a.cbtlog | tr '\n' ' ')" "1 9 10 $(seq -s ' ' 100 115) "
expect 0 tap_ctl stats -p "$pid" -m "$minor"
has "stats" "$OUT" '"changed_blocks": {"log": "'"$WORK"'/a.cbtlog", "set": 19}'
guest read 0 $((10 * 65536)) >/dev/null || fail "read"
expect 0 guest verify 65536 512 1

# a kill under load, and a successor: the log goes along
cp a.img before.img
"$top_builddir/tests/support/tdguest" "$pid" "$minor" load 100000 8 >/dev/null 2>&1 &
load=$!
many() { [ "$(logged a.cbtlog | wc -l)" -ge 60 ]; }
until_true 30 many
kill -KILL "$pid"
until_true 10 gone "$pid"
kill -KILL $load
{ wait $load; } 2>/dev/null
covered "after a kill" a.cbtlog before.img a.img
cp a.cbtlog killed
expect 0 tap_ctl revive -m "$minor"
find_pid
expect 0 guest write $((700 * 65536)) 4096 4
is "the successor's" "$(comm -13 <(logged killed | sort) <(logged a.cbtlog | sort) | grep -cx 700)" "$(logged killed | grep -cx 700 | sed 's/1/x/; s/0/1/; s/x/0/')"
expect 0 tap_ctl upgrade -p "$pid"
find_pid
expect 0 guest write $((1000 * 65536)) 4096 5
logged a.cbtlog | grep -qx 1000 || fail "not logged after an upgrade"
same_head "so far" a.cbtlog log0

# a snapshot, in sm's order: pause, the log is renamed and marked, a new one, linked; unpause -c
expect 0 tap_ctl pause -p "$pid" -m "$minor"
covered "paused" a.cbtlog before.img a.img
mv a.cbtlog snap.cbtlog
expect 0 cbt set -n snap.cbtlog -f 1
new_log a.cbtlog
expect 0 cbt set -n a.cbtlog -f 0
cp a.img snap.img
expect 0 tap_ctl unpause -p "$pid" -m "$minor" -a "aio:$WORK/a.img" -c "$WORK/a.cbtlog"
cp snap.cbtlog old
expect 0 guest write $((3 * 65536)) 512 6
is "in the new one" "$(logged a.cbtlog | tr '\n' ' ')" "3 "
cmp snap.cbtlog old || fail "the snapshot's log has changed"
expect 0 tap_ctl unpause -p "$pid" -m "$minor" # it runs: nothing to do
expect 0 guest write $((4 * 65536)) 512 6
is "goes on" "$(logged a.cbtlog | tr '\n' ' ')" "3 4 "

# by NBD: writes, zeroes, discards
if command -v qemu-io >/dev/null; then
	uri="nbd+unix:///?socket=$TAPDISK_CONTROL_DIR/nbd$pid.$minor"
	expect 0 qemu-io -f raw -c 'write 1280k 4k' -c 'write -z 1344k 4k' -c 'discard 1408k 4k' -c 'read 2M 64k' "$uri"
	is "by NBD" "$(logged a.cbtlog | tr '\n' ' ')" "3 4 20 21 22 "
fi

# without -c, it ends
expect 0 tap_ctl pause -p "$pid" -m "$minor"
cp a.cbtlog old
expect 0 tap_ctl unpause -p "$pid" -m "$minor"
expect 0 guest write $((50 * 65536)) 512 7
cmp a.cbtlog old || fail "it was logged after the end"
[ -z "$(find "/proc/$pid/fd" -lname "*cbtlog")" ] || fail "the log is still open"

# sm makes it longer under a pause when the disk grows; live, what fits is logged
expect 0 tap_ctl pause -p "$pid" -m "$minor"
expect 0 tap_ctl unpause -p "$pid" -m "$minor" -c a.cbtlog
truncate -s $((SIZE + 1048576)) a.img
expect 0 tap_ctl resize -p "$pid" -m "$minor"
expect 0 guest write $((SIZE + 65536)) 512 8
expect 0 guest write $((60 * 65536)) 512 8
logged a.cbtlog | grep -qx 60 || fail "what fits is not logged"
expect 0 tap_ctl pause -p "$pid" -m "$minor"
expect 22 tap_ctl unpause -p "$pid" -m "$minor" -c a.cbtlog
has "too short" "$ERR" "cbt-util set -s"
expect 0 cbt set -n a.cbtlog -s $((SIZE + 1048576))
expect 0 tap_ctl unpause -p "$pid" -m "$minor" -c a.cbtlog
expect 0 guest write $((SIZE + 65536)) 512 9
logged a.cbtlog | grep -qx 1025 || fail "the grown part is not logged"
stop

# what cannot be
expect 2 tap_ctl create -a "aio:$WORK/a.img" -C none.cbtlog
head -c 100 a.cbtlog >short
expect 22 tap_ctl create -a "aio:$WORK/a.img" -C short
expect 22 tap_ctl create -a "aio:$WORK/a.img" -o changed-blocks=relative
is "no disk is left" "$(tap_ctl list)" ""

# several rings, each with a thread of its own: they write past the main thread where the bits are there already
truncate -s 0 q.img
truncate -s $SIZE q.img
cp --sparse=always q.img before.img
new_log q.cbtlog
TAPDISK_THREADS=4 start -a "aio:$WORK/q.img" -C q.cbtlog
expect 0 "$top_builddir/tests/support/tdqueues" --queues 4 "$pid" "$minor" load 0.5 24
expect 0 tap_ctl stats -p "$pid" -m "$minor"
if grep -q '"in_threads": \[[0-9]*, 0\]' <<<"$OUT"; then fail "no write went past the main thread: $OUT"; fi
covered "several rings" q.cbtlog before.img q.img
stop

# on a VHD and its parent: the disk's blocks, not the file's
expect 0 "$top_builddir/bin/vhd-util" create -n b.vhd -s 64
expect 0 "$top_builddir/bin/vhd-util" snapshot -n c.vhd -p b.vhd
new_log c.cbtlog
start -a "vhd:$WORK/c.vhd" -C c.cbtlog -o cache=writethrough -D
expect 0 guest write $((500 * 65536)) 131072 1
is "a VHD's" "$(logged c.cbtlog | tr '\n' ' ')" "500 501 "
stop
exit 0
