# SPDX-License-Identifier: LGPL-2.1-or-later
# A tapdisk that lives and does not serve: told of within seconds, with what it waits for; one at rest is never asked.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/it/xs.sh" || exit 99
command -v python3 >/dev/null || skip "python3 is not installed"
xs_start
standin_start 1
tapback_start --timeout=2
D=1/51712 B=$(be 1/51712)
disk_up $D 1
pid=${standin[1]}
state_is() { key_is $B/tapdisk-state "$1"; }
counters() # OUTSTANDING COMPLETED: as a tapdisk publishes them (lib/shm-dir.h)
{
	local dir=$TAPDISK_CONTROL_DIR/td3-$pid

	mkdir -p "$dir"
	python3 -c 'import struct, sys
o, c = map(int, sys.argv[1:3])
sys.stdout.buffer.write(struct.pack("<IIQ4Q4QQQ", 1, 0, o, o + c, c, 8 * c, 0, 0, 0, 0, 0, 0, 0))' "$1" "$2" >"$dir/.vbd"
	mv "$dir/.vbd" "$dir/vbd-1-51712"
}

# at rest, and at work: requests that come and go
counters 0 100
sleep 5
! asked 1 | grep -q ping || fail "one at rest was asked: $(asked 1)"

# stopped, while nobody waits for it
kill -STOP "$pid"
until_true 20 state_is hung
has "why" "$(get $B/reason)" "tapdisk $pid does not run: it is stopped (kill -CONT $pid lets it go on)"
has "in the log" "$(cat "$WORK/tapback.log")" "hung: tapdisk $pid does not run"
is "the guest's disk stays" "$(get $B/state)" 4
run tap_ctl list --json
has "in the list" "$OUT" "it does not answer: it is stopped"
run tap_ctl list
is "for scripts" "$OUT" "pid=$pid"
kill -CONT "$pid"
until_true 20 state_is running
is "no reason any more" "$(get $B/reason)" -

# its guest waits, and it does not answer
echo '{"hang": ["ping"]}' >"$WORK/conf.1"
counters 3 100
until_true 30 state_is hung
has "why" "$(get $B/reason)" "tapdisk $pid does not answer: its main thread"
counters 0 103
until_true 20 state_is running

# it answers, and does nothing: its store; not so when it is paused, or something gets done that the counters do not show
echo '{"ping": {"err": 0, "state": 42, "answered": 7}}' >"$WORK/conf.1"
counters 3 103
: >"$WORK/log.1"
until_true 20 eval '[ "$(asked 1 | tr " " "\n" | grep -c ping)" -ge 4 ]'
state_is running || fail "a paused disk is $(get $B/tapdisk-state)"
echo '{"ping": {"err": 0, "state": 0, "answered": 7}}' >"$WORK/conf.1"
until_true 30 state_is stalled
has "why" "$(get $B/reason)" "the store of tapdisk $pid does not answer"
echo '{"ping": {"err": 0, "state": 0, "answered": 8}}' >"$WORK/conf.1"
until_true 20 state_is running
kill -KILL "$pid"
