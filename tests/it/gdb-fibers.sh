#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# gdb shows where a tapdisk's fibers wait (tests/support/fibers.py): a pause waits for a flush that the store does not answer.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
command -v gdb >/dev/null || skip "gdb is not installed"
[ "$(uname -m)" = x86_64 ] || skip "fibers.py knows x86-64 alone"
! grep -q __asan_init "$top_builddir/tapdisk/tapdisk" || skip "sanitizers look at the process as gdb does"

cat >"$WORK/td" <<E2
#!/bin/sh
export STUCK_SYNC=$WORK/stuck LD_PRELOAD=$(readlink -f "$top_builddir/tests/support/stuck-sync.so")
exec "$(realpath "${TAPDISK:-$top_builddir/tapdisk/tapdisk}")" "\$@"
E2
chmod +x "$WORK/td"
truncate -s 1M "$WORK/d.img"
TAPDISK_IO=threads TAPDISK=$WORK/td expect 0 tap_ctl create -a "aio:$WORK/d.img"
P=$(procs tapdisk)
"$top_builddir/tests/support/tdguest" "$P" 0 write 0 4096 1 >/dev/null || fail "write" # or a pause has nothing to flush
touch "$WORK/stuck"
tap_ctl pause -p "$P" -m 0 >/dev/null 2>&1 &
asker=$!
cd "$top_srcdir" || exit 99
# its root is empty: the files are those of this process
waits() { gdb -iex 'set sysroot /' -p "$P" -batch -ex 'source tests/support/fibers.py' -ex fibers >"$WORK/gdb" 2>&1; grep -q 'vbd_pause' "$WORK/gdb"; }
until_true 3 waits || { [ "$(grep -c 'ptrace: Operation not permitted' "$WORK/gdb")" = 0 ] || skip "gdb may not attach here"; cat "$WORK/gdb"; fail "no fiber waits in vbd_pause"; }
has "its stack" "$(cat "$WORK/gdb")" "td_fiber_wait"
rm "$WORK/stuck"
wait $asker || fail "pause: $?"
expect 0 tap_ctl destroy -p "$P" -m 0
