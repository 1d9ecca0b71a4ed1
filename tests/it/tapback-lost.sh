# SPDX-License-Identifier: LGPL-2.1-or-later
# A tapdisk that dies and gets no successor: the disk fails, or, where the host is told so, its guest waits.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/it/xs.sh" || exit 99
xs_start
standin_start 1
standin_start 2
tapback_start --timeout=2
D=1/51712 B=$(be 1/51712)
disk_up $D 1
kill -KILL "${standin[1]}"
wait_key $B/state 5
has "why" "$(get $B/tapdisk-error)" "tapdisk ${standin[1]} is not running any more, and no other takes its place: "
ask_to_close $D
wait_key $B/state 6
tapback_stop TERM

for w in perhaps hold:0 hold:x hold:3601 holding; do
	expect 22 "$top_builddir/bin/tapback" -d --when-lost=$w
	has "what it takes" "$ERR" "hold:SECONDS (1 to 3600), not '$w'"
done
tapback_start --timeout=2 --when-lost=hold:1
D=2/51712 B=$(be 2/51712)
disk_up $D 2
kill -KILL "${standin[2]}"
wait_key $B/tapdisk-state lost
# once a second there is a try, with words of its own
until_true 20 eval '[[ $(get $B/tapdisk-error) = *"no other takes its place: "* ]]'
until_true 20 eval '[[ $(get $B/reason) = *"its guest'"'"'s requests are held"* ]]'
stays $B/state 4
# another is tried for, again and again: a try is no death, of which there may be five in a minute
until_true 20 eval '[ "$(grep -c "starting another" "$WORK/tapback.log")" -ge 7 ]'
wait_key $B/tapdisk-state lost # between two tries; in one it is `died'
stays $B/state 4
# the guest, or its toolstack, may give it up
guest $D state=6
wait_key $B/state 6
tapback_stop TERM

# A successor that dies while it takes the ring is one more dead tapdisk: the next is tried, and the guest's disk stays.  Which one
# is next, this stand-in for tap-ctl says.
mkdir "$WORK/beside"
cp -L "$top_builddir/bin/tapback" "$WORK/beside/tapback"
cat >"$WORK/beside/tap-ctl" <<-END
	#!/bin/sh
	echo "ld.so: a warning" >&2
	sed -n 1p "$WORK/next"
	sed -i 1d "$WORK/next"
END
chmod +x "$WORK/beside/tap-ctl"
echo '{"die": ["connect"]}' >"$WORK/conf.4"
for n in 3 4 5; do standin_start $n; done
printf '%s\n' "${standin[4]}" "${standin[5]}" >"$WORK/next"
"$WORK/beside/tapback" -d -v --timeout=2 >"$WORK/tapback.log" 2>&1 &
TAPBACK=$!
at_exit 'kill -KILL $TAPBACK 2>/dev/null'
until_true 5 grep -q serving "$WORK/tapback.log"
D=3/51712 B=$(be 3/51712)
disk_up $D 3
kill -KILL "${standin[3]}"
wait_asked 4 connect
wait_key $B/kthread-pid "${standin[5]}"
stays $B/state 4
is "no error" "$(get $B/tapdisk-error)" -
tapback_stop TERM

# What a guest waits for ends with its ring: of the next one, a tapdisk that dies has its successor at once.
for n in 6 7 8; do standin_start $n; done
: >"$WORK/next"
"$WORK/beside/tapback" -d -v --timeout=2 --when-lost=hold:600 >"$WORK/tapback.log" 2>&1 &
TAPBACK=$!
until_true 5 grep -q serving "$WORK/tapback.log"
D=4/51712 B=$(be 4/51712)
disk_up $D 6
kill -KILL "${standin[6]}"
wait_key $B/tapdisk-state lost
guest $D state=6
wait_key $B/state 6
hotplug $D "${standin[7]}"
guest $D state=1
wait_key $B/state 2
guest_ring $D
wait_key $B/state 4
echo "${standin[8]}" >"$WORK/next"
kill -KILL "${standin[7]}"
wait_key $B/kthread-pid "${standin[8]}"
stays $B/state 4
tapback_stop TERM
