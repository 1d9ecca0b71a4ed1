# SPDX-License-Identifier: LGPL-2.1-or-later
# What no honest NBD client sends: the disk goes on for the others, and the tapdisk neither dies nor grows.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/it/nbd-lib.sh"

truncate -s 8M "$WORK/d.img"
nbd_disk "aio:$WORK/d.img" -o cache=writeback
for case in $($nbd_python "$top_srcdir/tests/support/nbd-hostile.py" list); do
	expect 0 timeout 250 $nbd_python "$top_srcdir/tests/support/nbd-hostile.py" "$case" "$TAPDISK_CONTROL_DIR" "$PID" "$MINOR"
	expect 0 tap_ctl list -p "$PID"
	has "after $case" "$OUT" "state=0 "
done
[ "$(stat_of dropped)" -gt 10 ] || fail "nobody was dropped"
nbd_destroy
