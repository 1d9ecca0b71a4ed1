#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A log daemon that stands still, its socket full, holds up neither tapdisk nor tapback nor the hotplug script; what it has missed is
# counted, and the count stands in the log when it goes on.
[ -n "${IN_NS:-}" ] || [ "$(id -u)" != 0 ] || IN_NS=1 exec unshare -m --propagation private bash "$0" "$@"
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
[ -n "${IN_NS:-}" ] || skip "a /dev of its own needs root"
. "$top_srcdir/tests/it/xs.sh" || exit 99
command -v python3 >/dev/null || skip "python3 is not installed"
command -v qemu-io >/dev/null || skip "no qemu-io here"
LIMIT=100 # s; only what hangs takes longer

# a /dev of our own, with a log daemon that stands still from `stuck' to `go'
mkdir "$WORK/dev"
mount -t tmpfs tmpfs "$WORK/dev" && cp -a /dev/null /dev/zero /dev/urandom /dev/full "$WORK/dev/" && mkdir -m 1777 "$WORK/dev/shm" &&
	ln -s /proc/self/fd "$WORK/dev/fd" && mount --bind "$WORK/dev" /dev || skip "cannot mount here"
at_exit "umount -l /dev $WORK/dev"
cat >"$WORK/logd.py" <<'P'
import os, socket, sys, time
os.chdir(sys.argv[1])
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind('/dev/log')
s.settimeout(.1)
log = open('logged', 'w')
def read_until(file):
    while not os.path.exists(file):
        try:
            log.write(s.recv(9000).decode() + '\n')
            log.flush()
        except TimeoutError:
            pass
read_until('stuck')
clients, sent = [], 1
while sent: # one's own buffer may be full before the daemon's queue is (net.unix.max_dgram_qlen)
    c = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    c.setblocking(False)
    c.connect('/dev/log')
    clients.append(c)
    sent = 0
    try:
        while True:
            c.send(b'<13>filler')
            sent += 1
    except BlockingIOError:
        pass
open('full', 'w').close()
while not os.path.exists('go'):
    time.sleep(.1)
read_until('end')
P
python3 "$WORK/logd.py" "$WORK" &
LOGD=$!
disown $LOGD
at_exit "kill -KILL $LOGD 2>/dev/null"
until_true 10 test -S /dev/log

create() # NAME: $PID, $MINOR, $URI
{
	truncate -s 64M "$WORK/$1"
	expect 0 timeout $LIMIT "$top_builddir/bin/tap-ctl" create -a "aio:$WORK/$1" -o cache=writeback
	MINOR=${OUT##*-}
	PID=$(tap_ctl list -m "$MINOR" | sed 's/pid=\([0-9]*\) .*/\1/')
	URI="nbd+unix:///?socket=$TAPDISK_CONTROL_DIR/nbd$PID.$MINOR"
}
io()
{
	run timeout $LIMIT qemu-io -f raw -c 'write -P 2 0 1M' -c 'read -P 2 0 1M' "$URI"
	has "$1" "$OUT" "read 1048576/1048576"
	! grep -qi 'error\|failed' <<<"$OUT$ERR" || fail "$1: $OUT $ERR"
}

xs_start
tapback_start
standin_start 1
create a.img
PID1=$PID MINOR1=$MINOR
until_true 10 grep -q "tapdisk\[$PID\]: .*is ready" "$WORK/logged"
touch "$WORK/stuck"
until_true 10 test -e "$WORK/full"

# tapdisk, which logs a pause
io "a disk's I/O"
expect 0 timeout $LIMIT "$top_builddir/bin/tap-ctl" pause -p "$PID" -m "$MINOR"
expect 0 timeout $LIMIT "$top_builddir/bin/tap-ctl" unpause -p "$PID" -m "$MINOR"
io "its I/O after a pause"
create b.img
io "another disk's I/O"
expect 0 timeout $LIMIT "$top_builddir/bin/tap-ctl" destroy -p "$PID" -m "$MINOR"

# tapback, which logs each step
disk_up 1/51712 1
ask_to_close 1/51712
wait_key "$(be 1/51712)/state" 5

# the hotplug script, whose error must get through to the toolstack
xenstore-write /local/domain/0/backend/vbd3/1/1/params aio:relative /local/domain/0/backend/vbd3/1/1/frontend /x
if command -v logger >/dev/null; then
	run env XENBUS_PATH=/local/domain/0/backend/vbd3/1/1 TAP_CTL="$top_builddir/bin/tap-ctl" timeout $LIMIT bash "$top_builddir/bin/block-tap" add
	is "the script's exit code" "$RC" 1
	key_is /local/domain/0/backend/vbd3/1/1/hotplug-status error || fail "no error for the toolstack: $ERR"
fi

# it goes on
touch "$WORK/go"
told()
{
	tap_ctl pause -p "$PID1" -m "$MINOR1" && tap_ctl unpause -p "$PID1" -m "$MINOR1" &&
		grep -q "tapdisk\[$PID1\]: [0-9]* log lines\? w[aeres]* lost here: the log daemon did not take" "$WORK/logged"
}
until_true 60 told
guest 1/51712 state=6
until_true 60 grep -q "tapback\[$TAPBACK\]: [0-9]* log lines\? w[aeres]* lost here" "$WORK/logged"
touch "$WORK/end"
