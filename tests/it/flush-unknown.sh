# SPDX-License-Identifier: LGPL-2.1-or-later
# A tapdisk dies in a flush: its successor makes a young one again, and does not take the disk for sound after one that had hung, or failed.
. "$top_srcdir/tests/it/lib.sh"
command -v python3 >/dev/null || skip "python3 is not installed"

cat >"$WORK/tapdisk" <<E2
#!/bin/sh
export STUCK_SYNC=$WORK/stuck LD_PRELOAD=$(readlink -f "$top_builddir/tests/support/stuck-sync.so") ASAN_OPTIONS=verify_asan_link_order=0:\$ASAN_OPTIONS
exec $(readlink -f "$top_builddir/tapdisk/tapdisk") "\$@"
E2
chmod 755 "$WORK/tapdisk"
export TAPDISK=$WORK/tapdisk TAPDISK_IO=threads
state() { tap_ctl list -m "$minor" | sed -n 's/.* state=\([^ ]*\) .*/\1/p'; }
guest() { timeout 250 "$top_builddir/tests/support/tdguest" "$(cat "$marker")" "$minor" "$@"; }
# how the page begins: magic, size, begun, ended, failed, since
page() # begun|ended|failed|since [+N]
{
	python3 - "$TAPDISK_CONTROL_DIR/flush$minor" "$@" <<'E2'
import struct, sys
f = open(sys.argv[1], "r+b")
at = 8 + 8 * ["begun", "ended", "failed", "since"].index(sys.argv[2])
f.seek(at)
n = struct.unpack("<Q", f.read(8))[0]
if len(sys.argv) > 3:
    f.seek(at)
    f.write(struct.pack("<Q", n + int(sys.argv[3])))
else:
    print(n)
E2
}
under_way() { [ "$(page begun)" = $(($(page ended) + 1)) ]; }
die_in_a_flush()
{
	guest write 0 4096 1 >/dev/null || fail "write"
	touch "$WORK/stuck"
	guest flush >/dev/null 2>&1 &
	g=$!
	until_true 20 under_way
	pid=$(cat "$marker")
	kill -KILL "$pid" $g
	until_true 10 gone "$pid"
	rm "$WORK/stuck"
}

truncate -s 1M "$WORK/d.img"
for mode in writeback none; do
	marker=$(tap_ctl create -a "aio:$WORK/d.img" -o cache=$mode) || fail "create"
	minor=${marker##*-}

	guest flush >/dev/null || fail flush
	is "$mode: all came back" "$(page begun)" "$(page ended)"
	die_in_a_flush
	tap_ctl revive -m "$minor" >/dev/null || fail revive
	is "$mode: a young one" "$(state)" 0
	rm -f "$TAPDISK_CONTROL_DIR"/ring* # that guest is dead
	guest flush >/dev/null || fail "$mode: a flush after that"

	die_in_a_flush
	page since -21000000000 # ns
	tap_ctl revive -m "$minor" >/dev/null || fail revive
	is "$mode: one that had hung" "$(state)" 0x800
	rm -f "$TAPDISK_CONTROL_DIR"/ring*
	guest write 0 4096 2 >/dev/null 2>&1 && fail "$mode: a write succeeds after a flush that may have failed"
	# it stays so over the next death, and ends with the disk
	pid=$(cat "$marker")
	kill -KILL "$pid"
	until_true 10 gone "$pid"
	tap_ctl revive -m "$minor" >/dev/null || fail revive
	is "$mode: the next" "$(state)" 0x800
	expect 5 tap_ctl destroy -p "$(cat "$marker")" -m "$minor"
	has "$mode: closing it says so" "$ERR" "may be lost"
	is left "$(ls "$TAPDISK_CONTROL_DIR")" tapdisk

	# told by the kernel, and the process died before it could write that down
	marker=$(tap_ctl create -a "aio:$WORK/d.img" -o cache=$mode) || fail "create"
	pid=$(cat "$marker")
	page failed +1
	kill -KILL "$pid"
	until_true 10 gone "$pid"
	tap_ctl revive -m "$minor" >/dev/null || fail revive
	is "$mode: one that had failed" "$(state)" 0x800
	expect 5 tap_ctl destroy -p "$(cat "$marker")" -m "$minor"

	# nobody has revived it: a look at it keeps that record, and whoever takes the disk away is told
	for how in free destroy close "free -f"; do
		marker=$(tap_ctl create -a "aio:$WORK/d.img" -o cache=$mode) || fail "create"
		minor=${marker##*-} pid=$(cat "$marker")
		page failed +1
		kill -KILL "$pid"
		until_true 10 gone "$pid"
		expect 0 tap_ctl list
		[ -e "$TAPDISK_CONTROL_DIR/flush$minor" ] || fail "$mode: list takes the note of a failed flush away"
		case $how in
		free) expect 5 tap_ctl free -m "$minor" ;;
		"free -f") expect 0 tap_ctl free -f -m "$minor" ;;
		*) expect 5 tap_ctl $how -p "$pid" -m "$minor" ;;
		esac
		has "$mode: $how of a dead disk that has failed" "$ERR" "may be lost"
		is "$mode: what $how leaves" "$(find "$TAPDISK_CONTROL_DIR" -name "*$minor" ! -type d)" ""
	done
done
