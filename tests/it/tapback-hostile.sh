# SPDX-License-Identifier: LGPL-2.1-or-later
# A frontend that writes nonsense: refused with a reason in the error node, and nothing of it reaches the tapdisk.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/it/xs.sh" || exit 99
xs_start
standin_start 1
tapback_start
disk_up 9/51712 1 # a good neighbour
n=0
# KEY=VALUE... WHY: over a good set of keys; - as VALUE leaves the key out
refused()
{
	local d=1/$((51712 + 16 * n++)) b e why=${*: -1} kv

	b=$(be $d) e=/local/domain/0/error/backend/vbd3/$d/error
	disk $d script=/x
	wait_key $b/state 2
	hotplug $d "${standin[1]}"
	: >"$WORK/log.1"
	put "$(fe $d)" ring-ref=8 event-channel=5 protocol=x86_64-abi
	for kv in "${@:1:$#-1}"; do
		case $kv in *=-) xenstore-rm "$(fe $d)/${kv%=-}" ;; *) put "$(fe $d)" "$kv" ;; esac
	done
	guest $d state=3
	wait_key $b/state 5
	has "$1" "$(get $e)" "$why"
	has "$1, for admins" "$(get $b/tapdisk-error)" "$why"
	case " $(asked 1)" in *connect*) fail "$1 reached the tapdisk" ;; esac
	# the guest gives up, and the disk can be taken away
	guest $d state=6
	wait_key $b/state 6
	xenstore-rm "$(fe $d)"
	xenstore-rm $b
	wait_key $e -
}
refused ring-ref=- "not written ring-ref"
refused ring-ref=0 "ring-ref"
refused ring-ref=-1 "ring-ref"
refused ring-ref=0x8 "ring-ref"
refused ring-ref=08 "ring-ref"
refused "ring-ref= 8" "ring-ref"
refused ring-ref= "ring-ref"
refused ring-ref=4294967296 "ring-ref"
refused ring-ref=99999999999999999999999999 "ring-ref"
refused ring-ref=../../../../local/domain/0/name "ring-ref"
refused event-channel=- "event-channel"
refused event-channel=0 "event-channel"
refused event-channel=200000 "event-channel"
refused event-channel=5x "event-channel"
refused protocol=vax-abi "protocol"
refused protocol= "protocol"
refused ring-page-order=5 "ring-page-order"
refused ring-page-order=-1 "ring-page-order"
refused ring-page-order=64 "ring-page-order"
refused ring-page-order=1 ring-ref0=8 "ring-ref1"
refused ring-page-order=1 ring-ref0=8 ring-ref1=8 "two pages"
refused ring-page-order=2 ring-ref0=1 ring-ref1=2 ring-ref2=3 ring-ref3=2 "two pages"
refused multi-queue-num-queues=5 "from 1 to 4"
refused multi-queue-num-queues=0 "multi-queue"
refused multi-queue-num-queues=2 "queue-0/ring-ref"
refused multi-queue-num-queues=2 queue-0/ring-ref=8 queue-0/event-channel=5 "queue-1/ring-ref"
refused multi-queue-num-queues=2 queue-0/ring-ref=8 queue-0/event-channel=5 queue-1/ring-ref=9 "queue-1/event-channel"
refused multi-queue-num-queues=2 queue-0/ring-ref=8 queue-0/event-channel=5 queue-1/ring-ref=8 queue-1/event-channel=6 "two pages"
refused multi-queue-num-queues=2 queue-0/ring-ref=8 queue-0/event-channel=5 queue-1/ring-ref=9 queue-1/event-channel=5 "two rings"
refused multi-queue-num-queues=x "multi-queue"
refused "protocol=$(printf '%02000d' 1)" "protocol"

# states that make no sense, and a storm of them
D=2/51712 B=$(be 2/51712)
disk $D script=/x
wait_key $B/state 2
hotplug $D "${standin[1]}"
for s in 7 8 9 -1 "" x 99999999999 3x; do guest $D "state=$s"; done
sleep 0.2
is "nonsense states" "$(get $B/state)" 2
cost() { awk '{ print $14 + $15 }' /proc/$TAPBACK/stat; }     # ticks of CPU
storm() { awk '{ print $16 + $17 }' /proc/$$/stat; } # of those who make the storm
before=$(cost) made=$(storm)
for i in {1..200}; do guest $D state=$((i % 9)); done
guest $D state=6
until_true 5 key_is $B/state 6
cost=$(($(cost) - before)) made=$(($(storm) - made))
[ $cost -lt $((50 + 5 * made)) ] || fail "a storm that was made with $made ticks of CPU cost $cost"

# the toolstack's own keys, wrong: a frontend path outside of the guest's home is never watched
for path in /local/domain/0/name /local/domain/22/device/vbd/1 /local/domain/2/../0/x /local/domain/2//x /local/domain/2/ relative; do
	B=$(be 2/51760)
	put $B frontend="$path" frontend-id=2 online=1 script=/x state=1
	wait_key $B/state 6
	has "$path" "$(get /local/domain/0/error/backend/vbd3/2/51760/error)" "not inside /local/domain/2/"
	xenstore-rm $B
	wait_key /local/domain/0/error/backend/vbd3/2/51760/error -
done
B=$(be 2/51776)
put $B frontend="$(fe 3/51776)" frontend-id=3 online=1 script=/x state=1
wait_key $B/state 6
has "another domain's" "$(get $B/tapdisk-error)" "frontend-id"
# names that are no disks
put "$(be x/y)" frontend=/x frontend-id=1 state=1
put "$(be 1/51712x)" frontend=/x frontend-id=1 state=1
put "$(be 99999999999/1)" frontend=/x frontend-id=1 state=1
stays "$(be 1/51712x)/state" 1
# a tapdisk named with nonsense
for path in "" /run/nbd /run/nbd1 /run/nbd.1 /run/nbd0.1 /run/nbd1.99999 /run/nbdx.y /run/nbd1.1.1; do
	D=3/51712 B=$(be 3/51712)
	disk $D script=/x "physical-device-path=$path" hotplug-status=connected
	wait_key $B/state 2
	guest_ring $D
	wait_key $B/state 5
	has "'$path'" "$(get $B/tapdisk-error)" "no tapdisk"
	xenstore-rm "$(fe $D)"
	wait_key $B/state 6
	xenstore-rm $B
	until_true 5 grep -q 'vbd3/3/51712: removed' "$WORK/tapback.log"
	: >"$WORK/tapback.log"
done
is "the good neighbour" "$(get "$(be 9/51712)/state")" 4
kill -0 "$TAPBACK" || fail "tapback is gone"
