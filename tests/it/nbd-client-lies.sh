# SPDX-License-Identifier: LGPL-2.1-or-later
# Disks that NBD servers hold which lie, or break the protocol.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/it/nbd-lib.sh"
. "$top_srcdir/tests/it/nbd-client-lib.sh"

SIZE=$((8 << 20))
# --- one that says nothing, which is waited for: meanwhile the others, in a control directory of its own
S=$WORK/silent
server silence
SILENT=$SERVER
mkdir "$WORK/silent.ctl"
(
	TAPDISK_CONTROL_DIR=$WORK/silent.ctl
	rc=0 # without run, whose file the others write meanwhile
	said=$(timeout 250 "$top_builddir/bin/tap-ctl" create -a "nbd:$S" 2>&1) || rc=$?
	[ $rc != 0 ] && [ $rc != 124 ] || fail "silence: exit code $rc"
	has "silence" "$said" "$S"
	is "left by silence" "$(tap_ctl list)" ""
) &
silence=$!
at_exit "kill $silence 2>/dev/null"
S=$WORK/s

# --- servers that lie: none is opened, or all its requests fail; the tapdisk lives, and closes
for how in $($nbd_python "$top_srcdir/tests/support/nbd-server.py" list hostile-open); do
	[ "$how" != silence ] || continue
	server "$how"
	run timeout 250 "$top_builddir/bin/tap-ctl" create -a "nbd:$S"
	[ "$RC" != 0 ] && [ "$RC" != 124 ] || fail "$how: exit code $RC"
	has "$how" "$ERR" "$S"
	case $ERR in *$'\e'*) fail "$how: a server's escapes get to the terminal" ;; esac
	is "left by $how" "$(tap_ctl list)" ""
	server_end
done
for how in $($nbd_python "$top_srcdir/tests/support/nbd-server.py" list hostile-talk); do
	server "$how"
	nbd_disk "nbd:$S" -o reconnect-limit=no
	ring write 4096 4096 1
	run timeout 250 "$guest" "$PID" "$MINOR" read 0 4096
	case $RC,$how in
	1,* | 0,twice) ;;
	*) fail "$how: a read gives $RC $ERR" ;;
	esac
	until_true 20 sh -c "! '$guest' $PID $MINOR read 8192 512 >/dev/null"
	# what was written is not known to be on disk, and the guest is told
	expect 1 timeout 250 "$guest" "$PID" "$MINOR" flush
	has "$how" "$(tap_ctl list)" "state=0x800"
	expect 5 tap_ctl destroy -p "$PID" -m "$MINOR" -t 60
	server_end
done

# an answer to a write that is still being sent: its data is in use until it has been, whoever thinks that it is done with
SIZE=$((48 << 20))
server early
nbd_disk "nbd:$S" -o reconnect-limit=no
ring write 4096 4096 1
run timeout 250 qemu-io -f raw -c 'aio_write -P 1 0 12M' -c 'aio_write -P 2 12M 12M' -c 'aio_write -P 3 24M 12M' -c aio_flush "$URI"
has "an early answer" "$OUT$ERR" "failed: Input/output error"
until_true 20 sh -c "! '$guest' $PID $MINOR read 8192 512 >/dev/null"
expect 5 tap_ctl destroy -p "$PID" -m "$MINOR"
server_end

wait $silence || fail "a server that says nothing"
kill $SILENT
