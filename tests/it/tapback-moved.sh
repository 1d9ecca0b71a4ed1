# SPDX-License-Identifier: LGPL-2.1-or-later
# A disk that has gone to another tapdisk (tap-ctl upgrade): the daemon follows, and does not count it as a death.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/it/xs.sh" || exit 99
xs_start
for n in 1 2 3 4 5 6 7 8; do standin_start $n; done
tapback_start --timeout=2
D=1/51712 B=$(be 1/51712)

moves() # N M: as the tapdisk N leaves it
{
	ln -s "nbd${standin[$2]}.$(minor $D)" "$TAPDISK_CONTROL_DIR/nbd${standin[$1]}.$(minor $D)"
	kill -KILL "${standin[$1]}"
	until_true 5 gone "${standin[$1]}"
}

# under a guest that runs: more often than tapdisks may die
disk_up $D 1
watch_start $B/state
for n in 1 2 3 4 5 6; do
	moves $n $((n + 1))
	wait_key $B/kthread-pid "${standin[$((n + 1))]}"
	until_true 5 grep -q "tapdisk ${standin[$((n + 1))]} has taken the ring over" "$WORK/tapback.log"
done
wait_key $B/pid "${standin[7]}"
is "where the remove script looks" "$(get $B/physical-device-path)" "$TAPDISK_CONTROL_DIR/nbd${standin[7]}.$(minor $D)"
has "taken over" "$(cat "$WORK/log.7")" '"take-over":true'
stays $B/state 4
is "the guest saw nothing" "$(wc -l <"$WORK/watched")" 1 # the one that a watch starts with
! grep -q "starting another" "$WORK/tapback.log" || fail "counted as a death: $(grep starting "$WORK/tapback.log")"

# while nobody was there; and the guest detaches right then
tapback_stop KILL
moves 7 8
guest $D state=6
tapback_start --timeout=2
wait_key $B/state 6
has "let go by who has it" "$(asked 8)" disconnect

# between the hotplug script and the guest's start
D=2/51712 B=$(be 2/51712)
standin_start 1
disk $D script=/x
wait_key $B/state 2
hotplug $D "${standin[1]}"
moves 1 8
guest_ring $D
wait_key $B/state 4
wait_key $B/kthread-pid "${standin[8]}"
has "a new ring, not another's" "$(tail -1 "$WORK/log.8")" '"beside":false'
! tail -1 "$WORK/log.8" | grep -q take-over || fail "a ring that nobody had was taken over"
