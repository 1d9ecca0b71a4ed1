# SPDX-License-Identifier: LGPL-2.1-or-later
# A tapdisk killed with SIGKILL under load, and another that takes its ring over: the guest sees a pause and nothing else.
. "$top_srcdir/tests/it/lib.sh"


seed=${SEED:-$RANDOM}
echo "SEED=$seed KILLS=${KILLS:-25}"
for mode in none writeback directsync; do
	rm -f "$WORK/d.img"
	truncate -s 8M "$WORK/d.img"
	run timeout 250 "$top_builddir/tests/support/tdsurvive" "$top_builddir/bin/tap-ctl" "aio:$WORK/d.img" $mode "${KILLS:-25}" "$seed"
	[ "$RC" = 0 ] || fail "$mode: exit $RC: $OUT $ERR"
	has "$mode" "$OUT" "every byte right"
	echo "$mode: $(tail -1 <<<"$OUT"); pauses (us): $(sed -n 's/^pause //p' <<<"$OUT" | sort -n | awk '{ p[NR] = $1 } END { print "median", p[int((NR + 1) / 2)], "longest", p[NR] }')"
	is "records left" "$(entries "$TAPDISK_CONTROL_DIR" "ring*")" ""
done

# a device of three queues: all its rings go over together
for how in "10 kill" "3 upgrade"; do
	rm -f "$WORK/d.img"
	truncate -s 8M "$WORK/d.img"
	expect 0 timeout 250 "$top_builddir/tests/support/tdsurvive" "$top_builddir/bin/tap-ctl" "aio:$WORK/d.img" none "${how% *}" "$seed" "${how#* }" 3
	has "three queues, ${how#* }" "$OUT" "every byte right"
done
is "records left" "$(entries "$TAPDISK_CONTROL_DIR" "ring*")" ""

# what the successor finds: the same options, a pause that lasts, and nothing of a disk that was closed
truncate -s 8M "$WORK/e.img"
marker=$(tap_ctl create -a "aio:$WORK/e.img" -o cache=writethrough -o on-enospc=report -d carol) || fail "create"
minor=${marker##*-}
holder() { tap_ctl list -m "$minor" | sed -n 's/^pid=\([0-9]*\) .*/\1/p'; }
old=$(holder)
kill -KILL "$old"
until_true 10 gone "$old"
new=$(tap_ctl revive -m "$minor") || fail "revive"
[ "$new" != "$old" ] && [ "$new" = "$(holder)" ] || fail "revive printed $new; $(tap_ctl list -m "$minor") serves it"
is "the one that lives is told again" "$(tap_ctl revive -m "$minor")" "$new"
has "the mode and the name of before" "$(tap_ctl list -m "$minor" --json | tr -d ' \n')" '"writethrough"'
has "the name" "$(tap_ctl list -n carol)" "pid=$new"
tap_ctl pause -p "$new" -m "$minor" || fail "pause"
kill -KILL "$new"
until_true 10 gone "$new"
mv "$WORK/e.img" "$WORK/f.img" # it is not opened before the unpause
pid=$(tap_ctl revive -m "$minor") || fail "revive of a paused disk"
has "still paused" "$(tap_ctl list -p "$pid")" "state=0x2a"
expect 2 tap_ctl unpause -p "$pid" -m "$minor"
expect 0 tap_ctl unpause -p "$pid" -m "$minor" -a "aio:$WORK/f.img"
has "running" "$(tap_ctl list -p "$pid")" "state=0 args=aio:$WORK/f.img"
tap_ctl destroy -p "$pid" -m "$minor" || fail "destroy"
expect 19 tap_ctl revive -m "$minor"
has "what is missing" "$ERR" "nothing is known of how minor $minor was open"
is "left" "$(ls "$TAPDISK_CONTROL_DIR")" tapdisk
