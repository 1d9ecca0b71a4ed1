# SPDX-License-Identifier: LGPL-2.1-or-later
# The signals of a host's status report end no tapdisk: it writes its state to the log, in the sandbox too, and while its store hangs.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
cd "$WORK" || exit 99

export TAPDISK_CONF=$WORK/conf
cat >tapdisk-logged <<P
#!/bin/bash
exec -a tapdisk "$(realpath "$top_builddir/tapdisk/tapdisk")" --foreground "\$@" 2>>"$WORK/log"
P
chmod +x tapdisk-logged
export TAPDISK=$WORK/tapdisk-logged
create() # TYPE:PATH: pid, minor
{
	local marker

	marker=$(tap_ctl create -a "$@") || fail "create $*"
	minor=${marker##*-}
	pid=$(tap_ctl list -m "$minor" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
}
logged() { [ "$(grep -c "$1" log)" -ge "$2" ]; }

truncate -s 8M a.img
for sandbox in no yes; do
	echo "sandbox = $sandbox" >conf
	: >log
	create "aio:$WORK/a.img"
	n=0
	for signal in USR1 USR2 HUP USR1; do
		kill -$signal "$pid"
		[ $signal = HUP ] || until_true 10 logged 'end of the state' $((++n))
		! gone "$pid" || fail "sandbox=$sandbox: SIG$signal has ended it"
	done
	has "its disk" "$(cat log)" "minor $minor: aio:$WORK/a.img: state 0, cache=none, 16384 sectors"
	has "its statistics" "$(cat log)" "minor $minor: stats {\"name\":\"aio:$WORK/a.img\""
	expect 0 "$top_builddir/tests/support/tdguest" "$pid" "$minor" write 0 4096 1
	expect 0 tap_ctl pause -p "$pid" -m "$minor"
	: >log
	kill -USR2 "$pid"
	until_true 10 logged 'end of the state' 1
	has "paused" "$(cat log)" "state 0x2a"
	expect 0 tap_ctl destroy -p "$pid" -m "$minor"
done

# the store is a tapdisk that stands still
create "aio:$WORK/a.img"
store=$pid store_minor=$minor
create "nbd:$TAPDISK_CONTROL_DIR/nbd$store.$store_minor"
kill -STOP "$store"
"$top_builddir/tests/support/tdguest" "$pid" "$minor" write 0 4096 2 &
guest=$!
asked()
{
	: >log
	kill -USR1 "$pid"
	until_true 10 logged 'end of the state' 1
	logged 'sectors, [1-9][0-9]* requests not answered' 1
}
until_true 10 asked
has "its ring" "$(cat log)" "queue 0: "
kill -CONT "$store"
wait "$guest" || fail "the guest's write: $?"
expect 0 tap_ctl destroy -p "$pid" -m "$minor"
expect 0 tap_ctl destroy -p "$store" -m "$store_minor"

# a tapdisk that has just been started may be met too
for _ in 1 2 3 4 5 6 7 8; do
	expect 0 tap_ctl spawn
	kill -USR1 "$OUT"
	expect 0 tap_ctl list -p "$OUT"
	has "it lives" "$OUT" "pid="
	kill -TERM "${OUT#pid=}"
done
exit 0
