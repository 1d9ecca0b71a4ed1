# SPDX-License-Identifier: LGPL-2.1-or-later
# While a disk's store does not answer, its operations wait: of those whose callers have left too, so many and no more.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
command -v python3 >/dev/null || skip "python3 is not installed"
cd "$WORK" || exit 99

create() # TYPE:PATH: pid, minor
{
	local marker

	marker=$(tap_ctl create -a "$@") || fail "create $*"
	minor=${marker##*-} pid=$(cat "$marker")
}
fds() { find "/proc/$pid/fd" -mindepth 1 | wc -l; }

# the store is a tapdisk that stands still
truncate -s 8M a.img
create "aio:$WORK/a.img"
store=$pid store_minor=$minor
create "nbd:$TAPDISK_CONTROL_DIR/nbd$store.$store_minor"
at_exit "kill -CONT $store 2>/dev/null"
kill -STOP "$store"
"$top_builddir/tests/support/tdguest" "$pid" "$minor" write 0 4096 2 &
guest=$!
waits() { tap_ctl stats -p "$pid" -m "$minor" | grep -q '"reqs_outstanding": *[1-9]'; }
until_true 10 waits
before=$(fds)

# as clients with a time limit do: they ask, and leave
cat >ask.py <<'P'
import json, socket, sys
for i in range(300):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.connect(sys.argv[1])
    s.sendall(json.dumps({"op": "disconnect", "minor": int(sys.argv[2]), "domid": 2, "devid": 51712}).encode())
    s.close()
P
tap_ctl pause -p "$pid" -m "$minor" &
pause=$!
expect 0 python3 ask.py "$TAPDISK_CONTROL_DIR/ctl$pid" "$minor"
expect 0 tap_ctl list -p "$pid"
has "it is asked after" "$OUT" "minor=$minor "
[ "$(fds)" -le $((before + 70)) ] || fail "of 300 callers that have left, the tapdisk keeps $(fds) descriptors, of $before"
expect 16 tap_ctl resize -p "$pid" -m "$minor"
has "why" "$ERR" "63 operations on minor $minor wait for one before them that does not end"
expect 0 tap_ctl stats -p "$pid" -m "$minor"

# what was asked is done when it goes on, and the next is not refused
kill -CONT "$store"
wait $pause || fail "the pause: $?"
unpauses() { tap_ctl unpause -p "$pid" -m "$minor" 2>err; }
until_true 10 unpauses
wait $guest || fail "the guest's write: $?"
until_true 10 eval '[ "$(fds)" -le "$before" ]'
expect 0 tap_ctl resize -p "$pid" -m "$minor"
expect 0 tap_ctl destroy -f -p "$pid" -m "$minor"
expect 0 tap_ctl destroy -p "$store" -m "$store_minor"
exit 0
