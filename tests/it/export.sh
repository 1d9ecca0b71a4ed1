# SPDX-License-Identifier: LGPL-2.1-or-later
# tap-ctl export: a disk over TCP.  The usual clients; read-only, and how many; no plain connection by accident; what becomes of clients
# when the disk pauses, its tapdisk is replaced or dies, a client's process or the front is killed under load, or the disk is taken away.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/it/nbd-lib.sh"
cd "$WORK" || exit 99
. "$top_srcdir/tests/it/tls-lib.sh"
. "$top_srcdir/tests/it/export-lib.sh"

SIZE=$((8 << 20))
export TAPDISK_CONF=$WORK/conf
: >conf
truncate -s $SIZE d.img
disk() { nbd_disk "aio:$WORK/d.img" -o cache=writeback; }
verified() { case $OUT in *"verification failed"*) fail "$OUT" ;; esac }
pid_of() { tap_ctl list -m "$1" | sed -n 's/^pid=\([0-9]*\) .*/\1/p'; }
disk

# --- nothing without TLS by accident
for where in 0.0.0.0 0.0.0.0:0 '*:0' '[::]' '[::]:0'; do
	expect 1 tap_ctl export -m "$MINOR" -l "$where"
	has "why" "$ERR" "or say --plain"
done
exported -l 0.0.0.0:0 --plain # the last one counts
expect 0 nbdinfo --size "nbd://127.0.0.1:$PORT/"
is "the size" "$OUT" $SIZE
unexport

# --- words that make no sense, and what is not there
refused() # RC TEXT ARG...
{
	expect "$1" timeout 60 "$top_builddir/bin/tap-ctl" export "${@:3}"
	has "why" "$ERR" "$2"
}
refused 22 "-m is missing"
refused 22 "not both" -m "$MINOR" --tls-certificates "$KEYS" --tls-psk-file "$KEYS/psk/keys.psk"
refused 22 "without TLS" -m "$MINOR" --tls-certificates "$KEYS" --plain
refused 22 "from 1 to 128" -m "$MINOR" -c 129
refused 22 "number from 1" -m "$MINOR" -c 0
for where in : 1.2.3.4: 127.0.0.1:x ::1 '[::1' '[::1]x' 127.0.0.1:123456789; do
	refused 22 "not '$where'" -m "$MINOR" -l "$where"
done
refused 2 "no disk of minor 4711" -m 4711
refused 2 "cannot look up" -m "$MINOR" -l no.such.host.invalid:1
refused 99 "cannot listen at" -m "$MINOR" -l 192.0.2.1:1 --plain
refused 2 "none/ca-cert.pem" -m "$MINOR" -l 127.0.0.1:0 --tls-certificates "$WORK/none"
refused 2 "$WORK/none" -m "$MINOR" -l 127.0.0.1:0 --tls-psk-file "$WORK/none"

# --- the usual clients
exported
expect 0 qemu-img info "$AT"
expect 0 qemu-io -f raw -c 'write -P 7 1M 1M' -c 'write -zu 3M 256k' -c flush -c 'read -P 7 1M 1M' -c 'read -P 0 3M 256k' "$AT"
verified
dd if=/dev/urandom of=src.img bs=1M count=8 status=none
expect 0 nbdcopy --flush src.img "$AT"
cmp src.img d.img || fail "what was written is not on the disk"
expect 0 nbdcopy "$AT" back.img
cmp src.img back.img || fail "what was read is not what was written"
expect 0 qemu-img convert -O raw "$AT" back.img
cmp src.img back.img || fail "what qemu-img has read is not what was written"
expect 0 nbdinfo --map "$AT"
expect 0 nbdinfo "$AT"
has "many" "$OUT" "can_multi_conn: true"
# rights: none is left to the front, and to its clients' processes not even names
$nbd_python - "$AT" <<'P' &
import nbd, os, sys, time
h = nbd.NBD()
h.connect_uri(sys.argv[1])
open("connected", "w").close()
while not os.path.exists("enough"):
    time.sleep(0.02)
assert h.pread(512, 0) == open("src.img", "rb").read(512)
P
holder=$!
until_true 10 test -e connected
for p in $FRONT $(parts); do
	has "capabilities of $p" "$(cat "/proc/$p/status")" "CapEff:	0000000000000000"
	has "no more of them" "$(cat "/proc/$p/status")" "NoNewPrivs:	1"
done
if ! grep -q '^#define TD_SANITIZED' "$top_builddir/config.h"; then
	has "a client's filter" "$(cat "/proc/$(parts | tr -d ' ')/status")" "Seccomp:	2"
fi
is "its descriptors" "$(find "/proc/$(parts | tr -d ' ')/fd" -type l | wc -l)" 6
touch enough
wait $holder || fail "a client"
unexport

# --- a client that has said all is answered, and its connection ends after the tapdisk's work for it
exported
expect 0 tap_ctl limit -p "$PID" -m "$MINOR" -o limit-iops=20
expect 0 $nbd_python "$top_srcdir/tests/support/nbd-stranger.py" "$PORT" half_closed
expect 0 tap_ctl limit -p "$PID" -m "$MINOR" -o limit=none
unexport

# --- read-only: the tapdisk keeps it, whatever the client says
exported -R
expect 0 nbdinfo "$AT"
has "it says so" "$OUT" "is_read_only: true"
expect 0 $nbd_python - "$AT" <<'P'
import nbd, sys
h = nbd.NBD()
h.set_strict_mode(0)
h.connect_uri(sys.argv[1])
for change in (lambda: h.pwrite(b"x" * 512, 0), lambda: h.zero(512, 0), lambda: h.trim(512, 0)):
    try:
        change()
    except nbd.Error as e:
        assert e.errno == "EPERM", e
    else:
        raise SystemExit("a read-only client has changed the disk")
assert h.pread(512, 0) == open("src.img", "rb").read(512)
P
expect 0 nbdcopy "$AT" back.img
cmp src.img back.img || fail "what was read from a read-only export"
expect 0 qemu-io -f raw -c 'write -P 9 0 512' -c 'read -P 9 0 512' "$URI" # the disk itself is not
verified
unexport

# --- one client, or as many as were asked for; and a place is free again when one has left
counted() # N: N are served, one more is not, and when one has left another one is
{
	$nbd_python - "$AT" "$1" <<'P' || fail "-c $1"
import nbd, sys, time

def one():
    h = nbd.NBD()
    h.connect_uri(sys.argv[1])
    assert h.can_multi_conn() == (sys.argv[2] != "1"), h.can_multi_conn()
    return h

all = [one() for _ in range(int(sys.argv[2]))]
try:
    one()
except nbd.Error as e:
    print(e)
else:
    raise SystemExit("one too many")
for h in all:
    h.pread(512, 0)
all.pop(0).shutdown()
for _ in range(1000):
    try:
        all.append(one())
        break
    except nbd.Error:
        time.sleep(0.02)
all[-1].pread(512, 0)
P
}
for n in 1 3; do
	exported -c $n
	counted $n
	log_has "may be no more" || fail "nothing of it in the log"
	until_true 10 served 0
	expect 0 nbdcopy "$AT" back.img
	unexport
done

# --- a pause is a pause: for clients that come meanwhile, also if they are many
exported -c 50
expect 0 tap_ctl pause -p "$PID" -m "$MINOR"
$nbd_python - "$AT" <<'P' &
import nbd, sys, threading

done = []

def one():
    h = nbd.NBD()
    h.connect_uri(sys.argv[1])
    h.pread(512, 0)
    done.append(h)

all = [threading.Thread(target=one) for _ in range(40)]
for t in all:
    t.start()
for t in all:
    t.join()
sys.exit(len(done) != len(all))
P
many=$!
rm -f read.*
for n in 1 2 3; do
	(qemu-io -f raw -c 'read -P 9 0 512' "$AT" >read.$n 2>&1; echo $? >>read.$n) &
done
until_true 10 served 43
sleep 0.3
is "answers of a paused disk" "$(cat read.*)" ""
expect 0 tap_ctl unpause -p "$PID" -m "$MINOR"
all_read() { [ "$(cat read.? | grep -c '^read 512/512')" = 3 ]; }
until_true 10 all_read
wait $many || fail "one of many clients was not served after the pause"
wait
is "exit codes" "$(tail -qn1 read.? | sort -u)" 0

# --- another tapdisk: clients of the old one are closed; those that come meanwhile wait for the new one
expect 0 tap_ctl upgrade -p "$PID"
PID=$(pid_of "$MINOR")
expect 0 qemu-io -f raw -c 'read -P 9 0 512' "$AT"
verified
kill -KILL "$PID"
until_true 10 gone "$PID"
(qemu-io -f raw -c 'read -P 9 0 512' "$AT" >read.1 2>&1; echo $? >>read.1) &
until_true 10 log_has "waits: no tapdisk takes it"
sleep 0.3
is "an answer without a tapdisk" "$(cat read.1)" ""
# one that leaves while it waits leaves nothing
timeout -s KILL 0.5 nbdinfo "$AT" >/dev/null 2>&1
until_true 10 served 1
expect 0 tap_ctl revive -m "$MINOR"
PID=$OUT
wait
has "an answer from the new one" "$(cat read.1)" "read 512/512"
is "its exit code" "$(tail -n1 read.1)" 0
unexport

# --- a disk of ours on it, under load: the front, its clients' processes and the tapdisks die, or are replaced
cat >front <<END
#!/bin/sh
# its pid is the front's
echo \$\$ >"$WORK/front.pid.new"
mv "$WORK/front.pid.new" "$WORK/front.pid"
exec "$top_builddir/bin/tap-ctl" export -m $MINOR -l 127.0.0.1:$PORT >front.uri 2>>front.err
END
chmod +x front
at_exit 'kill -KILL $(cat "$WORK/front.pid") 2>/dev/null'
truncate -s 0 d.img
truncate -s $SIZE d.img
FAR=$PID FARM=$MINOR
expect 0 tap_ctl pause -p "$FAR" -m "$FARM" # the file is another size's for a moment
expect 0 tap_ctl unpause -p "$FAR" -m "$FARM"
./front &
disown
until_true 10 listens 127.0.0.1 "$PORT"
nbd_disk "nbd://127.0.0.1:$PORT/"
disturb() # what else happens meanwhile
{
	local n=0

	while [ ! -e enough ]; do
		sleep "0.$((RANDOM % 9))"
		case $((n++ % 3)) in
		0) tr ' ' '\n' <"/proc/$(cat front.pid)/task/$(cat front.pid)/children" | while read -r p; do kill -KILL "$p"; done ;;
		1) tap_ctl upgrade -p "$(pid_of "$FARM")" ;;
		2)
			kill -KILL "$(pid_of "$FARM")"
			until tap_ctl revive -m "$FARM"; do sleep 0.1; done
			;;
		esac >/dev/null 2>&1
		echo $n >disturbed
		[ $n -lt 3 ] || touch each
	done
}
rm enough
disturb &
disturber=$!
at_exit "kill $disturber 2>/dev/null"
UNTIL=each expect 0 timeout 250 $nbd_python "$top_srcdir/tests/support/nbd-survive.py" "$URI" $SIZE "${KILLS:-4}" "${SEED:-$RANDOM}" "$WORK/front.pid" "$WORK/front"
has "under load" "$OUT" "every byte right"
touch enough
wait $disturber
echo "$OUT; $(cat disturbed) disturbances"
nbd_destroy
PID=$(pid_of "$FARM") MINOR=$FARM FRONT=$(cat front.pid)

# --- the disk is taken away: the export ends, and another disk of that number is not served
nbd_destroy
until_true 10 gone "$FRONT"
log_has "has been taken away" || fail "the log of an export that has ended: $(cat front.err)"
truncate -s 1M other.img
disk_again=$MINOR
nbd_disk "aio:$WORK/other.img"
is "the number" "$MINOR" "$disk_again"
! listens 127.0.0.1 "$PORT" || fail "another disk is served by an export that was not its own"
nbd_destroy
