# SPDX-License-Identifier: LGPL-2.1-or-later
# A tapdisk killed with SIGKILL under load, and another that takes its ring over: the guest sees a pause and nothing else.
. "$top_srcdir/tests/it/lib.sh"

seed=${SEED:-$RANDOM}
echo "SEED=$seed KILLS=${KILLS:-25}"
for mode in none writeback directsync; do
	rm -f "$WORK/d.img"
	truncate -s 8M "$WORK/d.img"
	run timeout 250 "$top_builddir/tests/support/tdsurvive" "$top_builddir/control/tap-ctl" "aio:$WORK/d.img" $mode "${KILLS:-25}" "$seed"
	[ "$RC" = 0 ] || fail "$mode: exit $RC: $OUT $ERR"
	has "$mode" "$OUT" "every byte right"
	echo "$mode: $(tail -1 <<<"$OUT"); pauses (us): $(sed -n 's/^pause //p' <<<"$OUT" | sort -n | awk '{ p[NR] = $1 } END { print "median", p[int((NR + 1) / 2)], "longest", p[NR] }')"
	is "records left" "$(ls "$TAPDISK_CONTROL_DIR" | grep -c '^ring')" 0
done
