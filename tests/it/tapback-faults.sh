# SPDX-License-Identifier: LGPL-2.1-or-later
# Tapdisks that die, hang, refuse or are not there; directories that vanish.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/it/xs.sh" || exit 99
xs_start
for n in 1 2 3 4 5 6; do standin_start $n; done
tapback_start --timeout=2
disk_up 9/51712 2 # a good neighbour

# --- killed: noticed at once, said everywhere, and the pieces can be taken away
D=1/51712 B=$(be 1/51712) E=/local/domain/0/error/backend/vbd3/1/51712/error
dies() # N: and its disk is taken away again
{
	disk_up $D $1
	t=${EPOCHREALTIME/[.,]/}
	kill -KILL "${standin[$1]}"
	wait_key $B/state 5
	t=$(((${EPOCHREALTIME/[.,]/} - t) / 1000))
	echo "tapdisk's death noticed after $t ms"
	has "error node" "$(get $E)" "tapdisk ${standin[$1]} is not running"
	grep -q "tapdisk ${standin[$1]} is not running" "$WORK/tapback.log" || fail "the log does not say it"
	# the guest has it mounted and does not close: taken away all the same
	ask_to_close $D
	wait_key $B/state 6
	xenstore-rm "$(fe $D)"
	xenstore-rm $B
	wait_key $E -
}
for n in 1 3 4 5 6; do # at once, unless this machine is held up just then
	dies $n
	[ $t -ge 1000 ] || break
done
[ $t -lt 1000 ] || fail "no death was noticed within a second, the last after $t ms"
is "the neighbour" "$(get "$(be 9/51712)/state")" 4

# --- refused, with the tapdisk's own text
echo '{"fail": {"connect": [22, "grant 8 cannot be mapped"]}}' >"$WORK/conf.1"
standin_start 1
D=1/51728 B=$(be 1/51728)
disk $D script=/x
wait_key $B/state 2
hotplug $D "${standin[1]}"
guest_ring $D
wait_key $B/state 5
is "its own text" "$(get $B/tapdisk-error)" "grant 8 cannot be mapped"
# the guest tries again, and then it works: nothing of the error is left
echo '{}' >"$WORK/conf.1"
guest $D state=6
wait_key $B/state 6
guest $D state=1
wait_key $B/state 2
guest $D state=3
wait_key $B/state 4
is "error gone" "$(get $B/tapdisk-error) $(get /local/domain/0/error/backend/vbd3/1/51728/error)" "- -"
guest $D state=6
wait_key $B/state 6

# --- read-only in xenstore, writable in the tapdisk; no image; no such process
D=1/51744 B=$(be 1/51744)
for what in ro:mode=r:read-only closed:mode=w:"no image open" nobody:mode=w:"is not running"; do
	IFS=: read -r kind key why <<<"$what"
	[ $kind != closed ] || echo '{"info": {"state": 2}}' >"$WORK/conf.1"
	pid=${standin[1]}
	[ $kind != nobody ] || pid=4194303
	disk $D script=/x $key
	wait_key $B/state 2
	hotplug $D "$pid"
	guest_ring $D
	wait_key $B/state 5
	has $kind "$(get $B/tapdisk-error)" "$why"
	xenstore-rm "$(fe $D)"
	wait_key $B/state 6
	xenstore-rm $B
	wait_key /local/domain/0/error/backend/vbd3/1/51744/error -
	echo '{}' >"$WORK/conf.1"
done

# --- hangs: its own disk alone suffers
echo '{"hang": ["info"]}' >"$WORK/conf.1"
D=1/51760 B=$(be 1/51760)
for d in $D 9/51728; do
	disk $d script=/x
	wait_key "$(be $d)/state" 2
done
tapback_freeze # the hung one comes first, and both at once, however long this takes
hotplug $D "${standin[1]}"
guest_ring $D
hotplug 9/51728 "${standin[2]}"
guest_ring 9/51728
kill -CONT $TAPBACK
wait_key "$(be 9/51728)/state" 4
wait_key $B/state 5
has "hung" "$(get $B/tapdisk-error)" "did not answer in time"
is "what came first" "$(grep -o '9/51728: connected\|1/51760: .*did not answer in time' "$WORK/tapback.log" | sed 's/:.*//' | head -2 | tr '\n' ' ')" "9/51728 1/51760 "
# connect hangs: the ring counts as connected until the tapdisk has let go of it
echo '{"hang": ["connect", "disconnect"]}' >"$WORK/conf.1"
D=1/51776 B=$(be 1/51776)
disk $D script=/x
wait_key $B/state 2
hotplug $D "${standin[1]}"
guest_ring $D
wait_key $B/state 5
guest $D state=6
stays $B/state 5
echo '{}' >"$WORK/conf.1"
wait_key $B/state 6

# --- lives, and closes the connection in place of an answer: it may have the ring, which is not forgotten
for op in disconnect connect; do
	echo '{}' >"$WORK/conf.1"
	D=1/51792 B=$(be 1/51792)
	[ $op = connect ] || disk_up $D 1
	echo "{\"drop\": [\"$op\", \"disconnect\"], \"fail\": {\"disconnect\": [11, \"not yet\"]}}" >"$WORK/conf.1"
	if [ $op = connect ]; then
		disk $D script=/x
		wait_key $B/state 2
		hotplug $D "${standin[1]}"
		guest_ring $D
		wait_key $B/state 5
	fi
	: >"$WORK/log.1"
	guest $D state=6
	wait_key $B/state 5
	until_true 20 eval '[ "$(asked 1 | tr " " "\n" | grep -c disconnect)" -ge 3 ]'
	stays $B/state 5
	echo '{}' >"$WORK/conf.1"
	wait_key $B/state 6
	xenstore-rm "$(fe $D)"
	xenstore-rm $B
	wait_key $B -
done

# --- directories vanish at any point, and come back
D=3/51712 B=$(be 3/51712)
for step in 1 2 3 4 5 6; do
	: >"$WORK/log.1"
	disk $D script=/x
	wait_key $B/state 2
	[ $step -lt 2 ] || hotplug $D "${standin[1]}"
	if [ $step -ge 3 ]; then
		guest_ring $D
		[ $step -lt 4 ] || wait_key $B/state 4
		[ $step -lt 5 ] || ask_to_close $D
		[ $step -lt 6 ] || guest $D state=5
	fi
	: >"$WORK/tapback.log"
	xenstore-rm $B
	[ $((step % 2)) = 0 ] || xenstore-rm "$(fe $D)"
	until_true 5 grep -q 'vbd3/3/51712: removed' "$WORK/tapback.log"
	[ $step -lt 4 ] || wait_asked 1 disconnect
	stays $B -
	xenstore-rm "$(fe $D)" 2>/dev/null
done
# the frontend alone goes, as when the guest dies
disk_up $D 1
xenstore-rm "$(fe $D)"
wait_key $B/state 6
# gone and back so fast that nobody sees it gone
disk 3/51728 script=/x
disk_up 3/51744 1
B=$(be 3/51744)
tapback_freeze
xenstore-rm $B
disk 3/51744 script=/x
kill -CONT $TAPBACK
wait_key $B/state 2
wait_asked 1 disconnect # the old ring
# all disks of a domain, and the whole type
xenstore-rm /local/domain/0/backend/vbd3/3
until_true 5 grep -q 'vbd3/3/51728: removed' "$WORK/tapback.log"
is "the neighbour" "$(get "$(be 9/51712)/state")" 4
xenstore-rm /local/domain/0/backend/vbd3
until_true 5 grep -q 'vbd3/9/51712: removed' "$WORK/tapback.log"
disk 9/51712 script=/x
wait_key "$(be 9/51712)/state" 2
