# SPDX-License-Identifier: LGPL-2.1-or-later
# What is told of a mirror is true, also where nothing is written meanwhile; and a mirror never holds the disk for good.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/it/mirror-lib.sh"
command -v python3 >/dev/null || skip "no python3"

cd "$WORK" || exit 99
SIZE=$((8 << 20))
new() { rm -f "$@" && truncate -s $SIZE "$@"; }
server() # HOW
{
	rm -f s s.hush
	python3 "$top_srcdir/tests/support/nbd-server.py" "$WORK/s" "$1" $SIZE 2>server.err &
	S=$!
	at_exit "kill -KILL $S 2>/dev/null"
	until_true 10 test -S s
}
server_end()
{
	kill -KILL $S
	wait $S 2>/dev/null
}

# --- one that ends while nothing is written: nobody knows what it still has of what it had taken
server noflush
new a
disk a -a "aio:$WORK/a" -2 "nbd:$WORK/s"
expect 0 guest a write 0 4096 1
expect 0 guest a flush
server_end
until_true 10 failed a 1
server noflush
expect 0 of a pause
expect 0 of a unpause
failed a 1 || fail "another server is taken for the one that has the data"
drop a
server_end

# --- one that answers nothing: neither a pause nor an unpause waits for it for ever
server all
for mode in none unsafe; do
	words=(-o "cache=$mode")
	[ $mode = none ] || words+=(-o unsafe=yes)
	new a
	disk a -a "aio:$WORK/a" "${words[@]}" -o mirror-timeout=2 -2 "nbd:$WORK/s"
	failed a 0 || fail "$mode: $(of a stats)"
	expect 0 guest a write 0 4096 1
	: >s.hush
	expect 0 timeout 60 "$top_builddir/bin/tap-ctl" pause -p "$PID_a" -m "$MINOR_a"
	expect 0 of a stats
	rm s.hush
	expect 0 of a unpause -2 "nbd:$WORK/s" # the pause has ended it
	expect 0 of a pause
	: >s.hush
	expect 0 timeout 60 "$top_builddir/bin/tap-ctl" unpause -p "$PID_a" -m "$MINOR_a"
	expect 0 guest a write 0 4096 2
	failed a 1 || fail "$mode: one that answers nothing is good"
	rm s.hush
	drop a
done
server_end
exit 0
