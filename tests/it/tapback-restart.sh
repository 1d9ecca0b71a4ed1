# SPDX-License-Identifier: LGPL-2.1-or-later
# The daemon goes and comes at any moment; guests do not notice.  And fifty disks.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/it/xs.sh" || exit 99
xs_start
standin_start 1
standin_start 2
tapback_start --timeout=2
D=1/51712 B=$(be 1/51712)
disk_up $D 1

for sig in TERM KILL; do
	watch_start $B/state
	tapback_stop $sig
	is "state without a daemon" "$(get $B/state)" 4
	case " $(asked 1)" in *disconnect*) fail "SIG$sig disconnected a ring" ;; esac
	: >"$WORK/log.1"
	tapback_start --timeout=2
	until_true 5 grep -q '1/51712: taken over' "$WORK/tapback.log"
	sleep 0.3
	kill $WATCHER
	is "asked by the next" "$(asked 1)" "watch info "
	is "the guest saw nothing" "$(sort -u "$WORK/watched")" $B/state
	is "events" "$(wc -l <"$WORK/watched")" 1 # the one that a watch starts with
done

# killed after a successor has the ring, before that was written down
tapback_stop KILL
put $B kthread-pid=1
watch_start $B/state
tapback_start --timeout=2
wait_key $B/kthread-pid "${standin[1]}"
until_true 5 grep -q '1/51712: taken over' "$WORK/tapback.log"
kill $WATCHER
is "a successor that nobody had noted: events of the state" "$(wc -l <"$WORK/watched")" 1

# a disk that grows while nobody is there: the guest is told by the next daemon
tapback_stop KILL
echo '{"info": {"sectors": 4096}}' >"$WORK/conf.1"
tapback_start --timeout=2
wait_key $B/sectors 4096
is "and nothing else" "$(get $B/state)" 4
echo '{}' >"$WORK/conf.1"

# a tapdisk that hangs while the daemon is away and comes back: its guest is left alone
tapback_stop KILL
echo '{"hang": ["info"]}' >"$WORK/conf.1"
tapback_start --timeout=1
sleep 2.5
is "hung at the restart" "$(get $B/state)" 4
echo '{}' >"$WORK/conf.1"
until_true 6 grep -q '1/51712: taken over' "$WORK/tapback.log"

# the toolstack closes while nobody is there; the guest closes while nobody is there
tapback_stop KILL
ask_to_close $D
tapback_start --timeout=2
stays $B/state 5
tapback_stop KILL
guest $D state=6
tapback_start --timeout=2
wait_key $B/state 6
has "and the ring is let go" "$(asked 1)" disconnect

# killed between the handshake's steps
D=1/51728 B=$(be 1/51728)
tapback_stop KILL
disk $D script=/x
tapback_start --timeout=2
wait_key $B/state 2
tapback_stop KILL
hotplug $D "${standin[1]}"
guest_ring $D
tapback_start --timeout=2
wait_key $B/state 4
guest $D state=4
# after the tapdisk has connected, before the guest was told: as if killed right there
tapback_stop KILL
put $B state=2
: >"$WORK/log.1"
tapback_start --timeout=2
wait_key $B/state 4
is "connected anew" "$(asked 1)" "watch info disconnect watch info connect "

# the ring got lost while the daemon was away: connected again, the guest's state left alone
tapback_stop KILL
kill -KILL "${standin[1]}"
tapback_start --timeout=2
wait_key $B/state 5
has "dead meanwhile" "$(get $B/tapdisk-error)" "is not running"
ask_to_close $D
wait_key $B/state 6

# removed while nobody is there
disk_up 2/51712 2
tapback_stop KILL
xenstore-rm "$(be 2/51712)"
xenstore-rm "$(fe 2/51712)"
tapback_start --timeout=2

# --- fifty disks of ten domains, up, over a restart, and down
t=${EPOCHREALTIME/./}
all=()
for dom in {11..20}; do
	for dev in 51712 51728 51744 51760 51776; do all+=("$dom/$dev"); done
done
for d in "${all[@]}"; do disk $d script=/x; done
for d in "${all[@]}"; do wait_key "$(be $d)/state" 2; hotplug $d "${standin[2]}"; done
for d in "${all[@]}"; do guest_ring $d; done
for d in "${all[@]}"; do wait_key "$(be $d)/state" 4; guest $d state=4; done
tapback_stop KILL
: >"$WORK/log.2"
tapback_start --timeout=2
for d in "${all[@]}"; do until_true 5 grep -q "$d: taken over" "$WORK/tapback.log"; done
has "none connected again" "-$(asked 2 | tr ' ' '\n' | sort -u | tr '\n' ' ')-" "-info watch -"
for d in "${all[@]}"; do guest $d state=6; done
for d in "${all[@]}"; do wait_key "$(be $d)/state" 6; done
tapback_stop TERM
tapback_start --timeout=2
for d in "${all[@]}"; do guest $d state=1; done
for d in "${all[@]}"; do wait_key "$(be $d)/state" 2; done
for d in "${all[@]}"; do ask_to_close $d; done
for d in "${all[@]}"; do wait_key "$(be $d)/state" 6; done
echo "50 disks: $(((${EPOCHREALTIME/./} - t) / 1000)) ms"
rss=$(awk '/VmRSS/ {print $2}' /proc/$TAPBACK/status)
echo "tapback with 50 disks: $rss KiB resident"
grep -q __asan_init "$top_builddir/bin/tapback" || [ "$rss" -lt 8192 ] || fail "$rss KiB resident"

# xenstored lost: says so and ends; the rings are nobody else's business
kill -KILL $XENSTORED
wait $TAPBACK
is "exit code without xenstored" $? 5
grep -q "xenstored is lost" "$WORK/tapback.log" || fail "not said: $(cat "$WORK/tapback.log")"
