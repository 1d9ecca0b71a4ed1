# SPDX-License-Identifier: LGPL-2.1-or-later
# A frontend that closes and starts again and again is made to wait; its toolstack is not, and neither are other guests.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/it/xs.sh" || exit 99
xs_start
standin_start 1
tapback_start
D=1/51712 B=$(be 1/51712)
disk $D script=/x
wait_key "$B/state" 2
hotplug $D "${standin[1]}"
# one life: connected, and closed
live()
{
	guest_ring $D
	wait_key "$B/state" 4
	guest $D state=5
	wait_key "$B/state" 5
	guest $D state=6
	wait_key "$B/state" 6
}
again()
{
	guest $D state=1
	wait_key "$B/state" 2
}
slow() { grep -q "$1: the frontend keeps closing" "$WORK/tapback.log"; }

# a guest that starts a few times in a row, as one with a boot loader does, does not notice
live
for _ in 1 2 3 4 5; do again && live; done
slow 1/51712 && fail "made to wait after 5 times"

# many of them have to wait: each start is worth a second, and 20 are had in advance
start=$(date +%s%N) n=0
while ! slow 1/51712; do
	again && live
	if [ $((++n)) -ge 200 ]; then
		took=$((($(date +%s%N) - start) / 1000000 / n))
		[ $took -lt 800 ] && fail "$n lives of $took ms, and none had to wait"
		skip "a life takes $took ms here, which is not too fast for anybody"
	fi
done

# other guests do not wait
guest $D state=1
disk_up 9/51712 1
# nor does the toolstack
put "$B" online=0
wait_key "$B/state" 6
xenstore-rm "$(fe $D)"
xenstore-rm "$B"
until_true 10 grep -q "vbd3/1/51712: removed" "$WORK/tapback.log"
lines=$(grep -c "vbd3/1/51712" "$WORK/tapback.log")
connects=$(grep -c "vbd3/1/51712: connected to" "$WORK/tapback.log")
# TD_LOG_BURST of them in each TD_LOG_WINDOW
[ "$connects" -le $((10 * (SECONDS / 60 + 1))) ] || fail "$connects of $lines lines say the same, in $SECONDS s"
kill -0 "$TAPBACK" || fail "tapback is gone"
