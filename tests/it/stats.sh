# SPDX-License-Identifier: LGPL-2.1-or-later
# What `tap-ctl stats' and the shared counters say is what a guest did; and the files go with the disk, the guest and the process.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
command -v python3 >/dev/null || skip "python3 is not installed"

guest=$top_builddir/tests/support/tdguest
truncate -s 8M "$WORK/a.img"
expect 0 tap_ctl create -a "aio:$WORK/a.img" -o cache=writeback
P=$(procs tapdisk)
SHM=$TAPDISK_CONTROL_DIR/td3-$P

# shm FILE: its fields in order, as libxenstat takes them
shm() { python3 -c 'import struct, sys; print(*struct.unpack("<II11Q", open(sys.argv[1], "rb").read(96)))' "$SHM/$1"; }
# key PATH: a number out of $OUT
key() { printf '%s' "$OUT" | python3 -c 'import json, sys
v = json.load(sys.stdin)
for k in sys.argv[1].split("/"): v = v[int(k)] if isinstance(v, list) else v[k]
print(v)' "$1"; }

is "a fresh disk's counters" "$(shm vdi-0)" "1 0 0 0 0 0 0 0 0 0 0 0 0"
is "their directory" "$(stat -c '%a' "$SHM")" 700
expect 0 "$guest" "$P" 0 write 0 90112 1
expect 0 "$guest" "$P" 0 verify 0 90112 1
expect 0 "$guest" "$P" 0 flush 3
expect 0 tap_ctl stats -p "$P" -m 0
for k in submitted completed; do
	[ "$(key requests/write/$k)" -ge 2 ] || fail "write/$k: $OUT"
	is "flush/$k" "$(key requests/flush/$k)" 3
done
is "sectors" "$(key requests/write/sectors) $(key requests/read/sectors) $(key secs)" "200 176 [176, 200]" # a flush comes with a write of 4096 bytes
is "errors" "$(key requests/write/errors)$(key requests/read/errors)$(key requests/flush/errors)" 000
is "queue" "$(key queue/now)" 0
[ "$(key queue/most)" -ge 1 ] || fail "queue: $OUT"
for k in read write flush; do
	p50=$(key requests/$k/latency_ns/p50) p99=$(key requests/$k/latency_ns/p99) p999=$(key requests/$k/latency_ns/p99.9) max=$(key requests/$k/latency_ns/max)
	[ 0 -lt "$p50" ] && [ "$p50" -le "$p99" ] && [ "$p99" -le "$p999" ] && [ "$p999" -le "$max" ] || fail "$k: $p50 $p99 $p999 $max"
done
is "what clients read" "$(key name) $(key images/0/driver/name) $(key nbd_mirror_failed) $(key reqs_outstanding)" "aio:$WORK/a.img aio 0 0"
read -r version _ outstanding rd_sub rd_done rd_sect rd_ticks wr_sub wr_done wr_sect _ errors _ <<<"$(shm vdi-0)"
is "vdi-0" "$version $outstanding $rd_sect $wr_sect $errors" "1 0 176 200 0"
is "vdi-0, requests" "$rd_sub $rd_done $wr_sub $wr_done" "$(key requests/read/submitted) $(key requests/read/completed) $(key requests/write/submitted) $(key requests/write/completed)"
is "vdi-0, microseconds" "$rd_ticks" "$(($(key requests/read/latency_ns/sum) / 1000))"

# the guest that is connected has a file of its own, which goes with it
"$guest" "$P" 0 load 10000 4 >/dev/null &
load=$!
dead() { [ -z "$(procs tapdisk)" ]; }
no_ring() { [ -z "$(entries "$SHM" "vbd-*")" ]; }
no_dir() { [ ! -e "$SHM" ]; }
until_true 10 sh -c "ls '$SHM' | grep -q ^vbd-"
V=$(cd "$SHM" && ls -d vbd-*)
expect 0 tap_ctl stats -p "$P" -m 0
is "limit of the rings' memory" "$(key memory/limit)" $((64 << 20))
[ "$(key memory/used)" -gt 0 ] || fail "no memory under load: $OUT"
moved() { [ "$(shm "$V" | cut -d' ' -f 10)" -gt 100 ]; }
until_true 20 moved
# a pause keeps the numbers
expect 0 tap_ctl stats -p "$P" -m 0
before=$(key requests/write/completed)
expect 0 tap_ctl pause -p "$P" -m 0
expect 0 tap_ctl unpause -p "$P" -m 0
expect 0 tap_ctl stats -p "$P" -m 0
[ "$(key requests/write/completed)" -ge "$before" ] || fail "the pause has lost numbers: $before, $OUT"
kill $load
wait $load || fail "the guest's load failed"
until_true 10 no_ring
expect 0 tap_ctl destroy -p "$P" -m 0
until_true 5 no_dir

# a dead one's are removed by who meets it
expect 0 tap_ctl create -a "aio:$WORK/a.img"
P=$(procs tapdisk)
SHM=$TAPDISK_CONTROL_DIR/td3-$P
[ -e "$SHM/vdi-0" ] || fail "no counters of a second disk"
kill -KILL "$P"
until_true 5 dead
expect 0 tap_ctl list
[ ! -e "$SHM" ] || fail "a dead tapdisk's counters are left: $(ls "$SHM")"

exit 0
