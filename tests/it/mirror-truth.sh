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

# --- nor one that is another after a pause, be it in another tapdisk; itself it is
server noflush
new a
disk a -a "aio:$WORK/a" -2 "nbd:$WORK/s"
expect 0 guest a write 0 4096 1
expect 0 of a pause
expect 0 of a unpause
failed a 0 || fail "the same server after a pause: $(of a stats)"
expect 0 tap_ctl upgrade -p "$PID_a"
find_pid a
failed a 0 || fail "the same server after an upgrade: $(of a stats)"
expect 0 guest a write 4096 4096 2
expect 0 of a pause
kill -KILL "$PID_a"
until_true 10 gone "$PID_a"
expect 0 tap_ctl revive -m "$MINOR_a"
find_pid a
expect 0 of a unpause
failed a 0 || fail "the same server after a death: $(of a stats)"
expect 0 of a pause
server_end
server noflush
expect 0 of a unpause
failed a 1 || fail "a server that was started anew in a pause is taken for the one that has the data"
mirror a "nbd:$WORK/s" # whoever names it answers for it
failed a 0 || fail "named anew: $(of a stats)"
expect 0 of a pause
kill -KILL "$PID_a"
until_true 10 gone "$PID_a"
server_end
server noflush
expect 0 tap_ctl revive -m "$MINOR_a"
find_pid a
expect 0 of a unpause
failed a 1 || fail "a successor takes another server for it"
drop a
server_end
# one that can flush has done so before the pause was told of
server bare
new a
disk a -a "aio:$WORK/a" -2 "nbd:$WORK/s"
expect 0 guest a write 0 4096 1
expect 0 of a pause
server_end
server bare
expect 0 of a unpause
failed a 0 || fail "one that flushes: $(of a stats)"
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

# --- a commit that makes another image the leaf does not try a mirror again that had failed
expect 0 "$top_builddir/bin/td-qcow" create base.qcow2 8M
rm -f s
expect 0 "$top_builddir/bin/td-qcow" snapshot base.qcow2 top.qcow2
disk a -a "qcow2:$WORK/top.qcow2" -2 "nbd:$WORK/s"
failed a 1 || fail "nobody listens, and it is good"
expect 0 guest a write 0 4096 1
server all
expect 0 of a commit -a "$WORK/top.qcow2" -w
has "the leaf" "$(tap_ctl list -m "$MINOR_a")" "base.qcow2"
failed a 1 || fail "a commit has healed it"
drop a
server_end

# --- a copy that cannot be made durable when the disk is used again has failed: the kernel says so once
new a b
LD_PRELOAD=$(readlink -f "$top_builddir/tests/support/file-trouble.so") FILE_TROUBLE=$WORK/trouble TAPDISK_IO=threads \
	ASAN_OPTIONS=verify_asan_link_order=0:${ASAN_OPTIONS-} disk a -a "aio:$WORK/a" -2 "aio:$WORK/b"
expect 0 guest a write 0 4096 1
expect 0 of a pause
ln -s "sync 5 $(readlink -f b)" trouble
expect 0 of a unpause
failed a 1 || fail "a copy is good whose sync has failed"
rm trouble
expect 0 of a pause
expect 0 of a unpause
failed a 1 || fail "a copy is good again whose sync has failed"
drop a

# --- nor is one good whose sync has failed as a pause closed it
new a
expect 0 "$top_builddir/bin/td-qcow" create -o lazy_refcounts=on b.qcow2 8M
LD_PRELOAD=$(readlink -f "$top_builddir/tests/support/file-trouble.so") FILE_TROUBLE=$WORK/trouble TAPDISK_IO=threads \
	ASAN_OPTIONS=verify_asan_link_order=0:${ASAN_OPTIONS-} disk a -a "aio:$WORK/a" -2 "qcow2:$WORK/b.qcow2"
expect 0 guest a write 0 4096 1
expect 0 guest a flush
failed a 0 || fail "$(of a stats)"
ln -s "sync 5 $(readlink -f b.qcow2)" trouble
expect 0 of a pause
rm trouble
expect 0 of a unpause
failed a 1 || fail "a copy is good whose sync has failed as it was closed"
drop a

# --- a write that only the mirror took, and that is given up while the disk is paused: its failure outlives the tapdisk
new b
server full
disk a -a "nbd:$WORK/s" -2 "aio:$WORK/b"
"$top_builddir/tests/support/tdguest" "$PID_a" "$MINOR_a" write 1572864 4096 1 >/dev/null 2>&1 &
G=$!
at_exit "kill -KILL $G 2>/dev/null"
no_space() { of a stats | grep -q '"no_space": true'; }
until_true 10 no_space
expect 0 of a pause
failed a 0 || fail "it may still come to the disk"
kill -KILL $G
expect 0 python3 -c '
import json, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect(sys.argv[1])
s.send(json.dumps({"op": "disconnect", "minor": int(sys.argv[2]), "domid": 1, "devid": 51712}).encode())
assert json.loads(s.recv(65536))["err"] == 0' "$TAPDISK_CONTROL_DIR/ctl$PID_a" "$MINOR_a"
failed a 1 || fail "the guest heard an error, and the mirror is good"
kill -KILL "$PID_a"
until_true 10 gone "$PID_a"
expect 0 tap_ctl revive -m "$MINOR_a"
find_pid a
expect 0 of a unpause
failed a 1 || fail "a successor does not know that it has failed"
drop a
server_end

# --- a disk that has grown while it was paused, or was taken over, leaves its mirror behind
new a b
disk a -a "aio:$WORK/a" -2 "aio:$WORK/b"
expect 0 of a pause
truncate -s $((SIZE + 1048576)) a
expect 0 of a unpause
failed a 1 || fail "a disk has grown, and its mirror is good"
expect 0 of a unpause
mirror a null
truncate -s $((SIZE + 1048576)) b
mirror a "aio:$WORK/b"
failed a 0 || fail "a new one"
rm b
expect 0 tap_ctl upgrade -p "$PID_a"
find_pid a
failed a 1 || fail "what is not there any more is good"
expect 0 guest a write 0 4096 1
drop a
exit 0
