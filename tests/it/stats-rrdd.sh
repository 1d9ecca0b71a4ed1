# SPDX-License-Identifier: LGPL-2.1-or-later
# XenServer's rrdd sees each guest's disk come, go, and pass to another process: by a directory that is made anew each time.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
command -v python3 >/dev/null || skip "python3 is not installed"

guest=$top_builddir/tests/support/tdguest
dir=$TAPDISK_CONTROL_DIR
mkdir -p "$dir"

watch() # FILE: what rrdd sees from now on
{
	python3 "$top_srcdir/tests/it/rrdd-watch.py" "$dir" >"$1" 2>&1 &
	watcher=$!
	until_true 10 grep -qs ready "$1"
}

# alternate FILE TIMES: made and removed in turn, that often, and each time with the counters of one process there
alternate()
{
	local events

	events=$(grep -v '^ready$' "$1" | sed 's/ .*//' | tr '\n' ' ')
	is "events" "$events" "$(for ((i = 0; i < $2; i++)); do printf 'make remove '; done)"
	if grep '^make' "$1" | grep -vqE '^make vbd3-([0-9]+-[0-9]+) td3-[0-9]+/vbd-\1$'; then
		fail "no counters, or those of two processes, were there: $(cat "$1")"
	fi
}
made() { [ "$(grep -c ^make "$1")" -ge "$2" ]; }
removed() { [ "$(grep -c ^remove "$1")" -ge "$2" ]; }
any() { [ -n "$(entries "$dir" "vbd3-*")" ]; }
none() { ! any; }

# a guest connects, and leaves
truncate -s 8M "$WORK/a.img"
expect 0 tap_ctl create -a "aio:$WORK/a.img"
P=$(procs tapdisk)
is "without a guest" "$(entries "$dir" "vbd3-*")" ""
watch "$WORK/one"
"$guest" "$P" 0 load 10000 4 >/dev/null &
load=$!
until_true 10 any
D=$(entries "$dir" "vbd3-*")
is "of the device that has counters" "vbd-${D#vbd3-}" "$(cd "$dir/td3-$P" && ls -d vbd-*)"
is "its mode" "$(stat -c '%F %a' "$dir/$D")" "directory 700"
expect 0 tap_ctl pause -p "$P" -m 0
[ -d "$dir/$D" ] || fail "a paused disk has lost its directory"
expect 0 tap_ctl unpause -p "$P" -m 0
kill $load
wait $load || fail "the guest's load failed"
until_true 10 removed "$WORK/one" 1
kill "$watcher"
alternate "$WORK/one" 1
none || fail "left: $(entries "$dir" "vbd3-*")"

# what a killed one leaves is swept with its counters
"$guest" "$P" 0 load 10000 4 >/dev/null 2>&1 &
load=$!
until_true 10 any
kill -KILL "$P"
until_true 10 gone "$P"
any || fail "the killed one has taken it away?"
kill -KILL $load
wait $load 2>/dev/null
expect 0 tap_ctl list
none || fail "a dead tapdisk's directory is left: $(ls "$dir")"
is "and its counters" "$(entries "$dir" "td3-*")" ""
expect 0 tap_ctl free -m 0 -f

# another process has the ring: made anew, and the old one's counters are gone by then
for how in kill upgrade; do
	truncate -s 0 "$WORK/b.img"
	truncate -s 8M "$WORK/b.img"
	watch "$WORK/$how"
	expect 0 timeout 250 "$top_builddir/tests/support/tdsurvive" "$top_builddir/bin/tap-ctl" "aio:$WORK/b.img" none 3 1 $how 2
	until_true 10 removed "$WORK/$how" 4
	kill "$watcher"
	alternate "$WORK/$how" 4
	is "$how: left" "$(entries "$dir" "vbd3-*")" ""
done
exit 0
