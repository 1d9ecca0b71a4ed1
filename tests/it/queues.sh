# SPDX-License-Identifier: LGPL-2.1-or-later
# A device of several rings, each with a thread of its own: what one ring has written another reads; a FLUSH on one covers what was
# answered on another; and pauses, discards, kills and upgrades come in between.
. "$top_srcdir/tests/it/lib.sh"
command -v python3 >/dev/null || skip "python3 is not installed"

export TAPDISK_THREADS=4 # whatever this machine has
guest="$top_builddir/tests/support/tdqueues"
secs=${SECS:-0.5} # of each load

# open TYPE:PATH [OPTION...]: sets pid, minor
open()
{
	marker=$(tap_ctl create -a "$@") || fail "create $1"
	minor=${marker##*-}
	pid=$(tap_ctl list -m "$minor" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
}
close() { tap_ctl destroy -p "$pid" -m "$minor" || fail "destroy"; }
stat() { tap_ctl stats -p "$pid" -m "$minor" | python3 -c "import json,sys; s = json.load(sys.stdin); print($1)"; }
loads() { expect 0 "$guest" --queues 4 "$@" "$pid" "$minor" load "$secs" 24; }

truncate -s 32M "$WORK/d.img"
"$top_builddir/bin/vhd-util" create -n "$WORK/d.vhd" -s 32 || fail "vhd-util create"
"$top_builddir/bin/td-qcow" create "$WORK/d.qcow2" 32M >/dev/null || fail "td-qcow create"
for disk in "aio:$WORK/d.img none" "aio:$WORK/d.img writeback" "aio:$WORK/d.img writethrough" "aio:$WORK/d.img directsync" "vhd:$WORK/d.vhd none" "qcow2:$WORK/d.qcow2 none" "qcow2:$WORK/d.qcow2 writeback"; do
	open "${disk% *}" -o cache="${disk#* }"
	# where the data are is known from the first request on
	expect 0 "$guest" --queues 2 "$pid" "$minor" write 1 0 8192 5 , write 1 0 8192 6 , verify 1 0 8192 6 , verify 0 0 8192 6
	[ "$(stat 'sum(s["cache"]["in_threads"])')" -gt 0 ] || fail "$disk: all requests went through the main thread"
	loads
	loads --flush --barrier --discard --persistent
	loads --polling 1000
	is "$disk: the rings' threads" "$(cat "/proc/$pid/task/"*/comm 2>/dev/null | grep ring | sort | tr '\n' ' ')" "tapdisk-ring1 tapdisk-ring2 tapdisk-ring3 "
	close
done
run "$top_builddir/bin/td-qcow" check "$WORK/d.qcow2"
is "td-qcow check" "$RC" 0
run "$top_builddir/bin/vhd-util" check -n "$WORK/d.vhd"
is "vhd-util check" "$RC" 0

# each FLUSH on ring 0 finds the write that ring 1, 2 or 3 had answered, and goes to the disk; one with nothing new does not
open "aio:$WORK/d.img"
before=$(stat 's["engine"]["fdatasyncs"]')
expect 0 "$guest" --queues 4 "$pid" "$minor" order 100
is "fdatasyncs" "$(stat 's["engine"]["fdatasyncs"]')" $((before + 100))
expect 0 "$guest" --queues 2 "$pid" "$minor" flush 1 , flush 0
is "fdatasyncs with nothing new" "$(stat 's["engine"]["fdatasyncs"]')" $((before + 100))

works() { [ "$(stat 's["requests"]["write"]["completed"]')" -gt "$before" ]; } # the load has begun
# a pause and an unpause, again and again, under load
before=$(stat 's["requests"]["write"]["completed"]')
"$guest" --queues 4 --flush --barrier "$pid" "$minor" load 10000 24 >"$WORK/load" 2>&1 &
load=$!
until_true 10 works
for i in 1 2 3 4 5 6; do
	sleep 0.2
	expect 0 tap_ctl pause -p "$pid" -m "$minor"
	expect 0 tap_ctl unpause -p "$pid" -m "$minor"
done
kill $load
wait $load || fail "pauses: $(cat "$WORK/load")"
# a guest that dies with requests under way
before=$(stat 's["requests"]["write"]["completed"]')
"$guest" --queues 4 "$pid" "$minor" load 10000 24 >/dev/null 2>&1 &
load=$!
until_true 10 works
sleep 0.2
kill -KILL $load
wait $load
expect 0 tap_ctl close -f -p "$pid" -m "$minor" # its rings are there still
expect 0 tap_ctl detach -p "$pid" -m "$minor"
expect 0 tap_ctl free -m "$minor"

# a tapdisk that dies, or is upgraded: its rings come back with their threads
survive() # SPEC KILLS HOW
{
	rm -f "$WORK"/s.*
	truncate -s 8M "$WORK/s.img"
	"$top_builddir/bin/vhd-util" create -n "$WORK/s.vhd" -s 8 || fail "vhd-util create"
	"$top_builddir/bin/td-qcow" create "$WORK/s.qcow2" 8M >/dev/null || fail "td-qcow create"
	expect 0 timeout 250 "$top_builddir/tests/support/tdsurvive" "$top_builddir/bin/tap-ctl" "$1" none "$2" "${SEED:-$RANDOM}" "$3" 4
	has "$1, $3" "$OUT" "every byte right"
}
survive "aio:$WORK/s.img" 4 kill
survive "qcow2:$WORK/s.qcow2" 4 kill
survive "vhd:$WORK/s.vhd" 4 kill
survive "qcow2:$WORK/s.qcow2" 1 upgrade

# one ring: no thread, and nothing is said of any
open "aio:$WORK/d.img"
expect 0 "$top_builddir/tests/support/tdguest" "$pid" "$minor" write 0 65536 1
is "requests of threads" "$(stat 's["cache"]["in_threads"]')" "[0, 0]"
close
