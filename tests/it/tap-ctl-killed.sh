# SPDX-License-Identifier: LGPL-2.1-or-later
# tap-ctl killed at any point of a create leaves nothing that stays; a tapdisk that nobody wants ends by itself.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99

truncate -s 1M "$WORK/a.img"
none() { [ -z "$(procs tapdisk)$(procs tap-ctl)" ]; } # the child of a killed one is a tapdisk soon
nothing_left()
{
	until_true 20 none
	expect 0 tap_ctl list
	is "list ($1)" "$OUT" ""
	is "files ($1)" "$(find "$TAPDISK_CONTROL_DIR" ! -type d)" ""
}

# at points all over it: how many of them hit the middle depends on the machine, that nothing is left does not
made=0
for i in $(seq 30); do
	setsid "$top_builddir/control/tap-ctl" create -a "aio:$WORK/a.img" >"$WORK/out" 2>/dev/null &
	p=$!
	sleep "0.0$(printf %02d $((i * 2 % 50)))"
	kill -KILL $p 2>/dev/null && wait $p 2>/dev/null
	if [ -s "$WORK/out" ]; then
		# the name was printed: then the disk is there, or its tapdisk has given up; both are whole
		row=$(tap_ctl list -m 0)
		case $row in
		*args=*)
			made=$((made + 1))
			row=${row#pid=}
			expect 0 tap_ctl destroy -p "${row%% *}" -m 0
			;;
		esac
	fi
	nothing_left "killed, $i"
done
echo "30 killed creates, $made were done before"

# before the tapdisk listens
cat >"$WORK/slow-tapdisk" <<E
#!/bin/sh
echo \$\$ >"$WORK/started"
until [ -e "$WORK/go" ]; do sleep 0.05; done
exec "$(realpath "$top_builddir/tapdisk/tapdisk")" "\$@"
E
chmod +x "$WORK/slow-tapdisk"
TAPDISK=$WORK/slow-tapdisk setsid "$top_builddir/control/tap-ctl" create -a "aio:$WORK/a.img" >/dev/null 2>&1 &
p=$!
until_true 5 test -s "$WORK/started"
is "the marker while it is made" "$(cat "$TAPDISK_CONTROL_DIR/tapdisk/tapdisk-0")" $p
expect 0 tap_ctl list
is "list while it is made" "$OUT" "minor=0"
kill -KILL $p
wait $p 2>/dev/null
touch "$WORK/go"
until_true 20 gone "$(cat "$WORK/started")"
nothing_left "killed before the tapdisk listened"

# its reader is gone when it has its result
"$top_builddir/control/tap-ctl" create -a "aio:$WORK/a.img" 2>"$WORK/err" | true
nothing_left "nobody heard the result"

# let go of, it is as any other: the end of tap-ctl means nothing to it
expect 0 tap_ctl create -a "aio:$WORK/a.img"
sleep 0.5
expect 0 tap_ctl list
has "a disk that was made" "$OUT" "minor=0 state=0"
expect 0 tap_ctl destroy -p "$(procs tapdisk)" -m 0

# spawned, and then nobody came
"$top_builddir/tapdisk/tapdisk" --spawn-fd 9 --orphan 1 9>"$WORK/report" &
until_true 10 none
wait
nothing_left "an orphan"
