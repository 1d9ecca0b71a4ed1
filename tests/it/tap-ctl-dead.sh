# SPDX-License-Identifier: LGPL-2.1-or-later
# Tapdisks that were killed, and tapdisks that hang: what they leave is removed by who meets it, and nobody waits for long.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99

truncate -s 1M "$WORK/a.img"

# makes a disk and kills its tapdisk; $P is its pid
dead()
{
	expect 0 tap_ctl create -a "aio:$WORK/a.img"
	P=$(procs tapdisk)
	kill -9 "$P"
	until_true 5 gone "$P"
	[ -S "$TAPDISK_CONTROL_DIR/ctl$P" ] || fail "the dead tapdisk's socket is not there to be removed"
	is "the dead tapdisk's marker" "$(cat "$TAPDISK_CONTROL_DIR/tapdisk/tapdisk-0")" "$P"
}

clean()
{
	is "files after $1" "$(find "$TAPDISK_CONTROL_DIR" ! -type d)" ""
}

dead
expect 0 tap_ctl list
is "list of a dead tapdisk" "$OUT" ""
clean list

dead
expect 0 tap_ctl list -p "$P"
is "list -p of a dead tapdisk" "$OUT" ""
clean "list -p"

dead
expect 0 tap_ctl free -m 0
[ ! -e "$TAPDISK_CONTROL_DIR/tapdisk/tapdisk-0" ] || fail "free left the marker"
expect 2 tap_ctl pause -p "$P" -m 0
clean "free and pause"

dead
expect 0 tap_ctl close -p "$P" -m 0
clean close
expect 2 tap_ctl close -p "$P" -m 0

dead
expect 0 tap_ctl destroy -p "$P" -m 0 -t 120
clean destroy
expect 0 tap_ctl destroy -p "$P" -m 0

# one that was paused is in somebody's hands: no look, and nothing done to other disks, takes it away
paused() # HOW: its tapdisk is dead; $P is its pid
{
	expect 0 tap_ctl create -a "aio:$WORK/a.img"
	P=$(procs tapdisk)
	[ "$1" = running ] || expect 0 tap_ctl pause -p "$P" -m 0
	kill -9 "$P"
	until_true 5 gone "$P"
}
others() # the life of another disk, as xl's script and sm have it
{
	expect 0 tap_ctl list
	expect 0 tap_ctl create -a null:1M
	Q=$(procs tapdisk)
	expect 0 tap_ctl list -t null -f 1M
	expect 0 tap_ctl list -m 1
	expect 0 tap_ctl destroy -p "$Q" -m 1
	expect 0 tap_ctl allocate
	expect 0 tap_ctl free -m 1
	expect 0 tap_ctl list
	is "it does not show" "$OUT" ""
}
paused paused
others
expect 0 tap_ctl revive -m 0
P=$OUT
expect 0 tap_ctl list
is "it is paused still" "$OUT" "pid=$P minor=0 state=0x2a args=aio:$WORK/a.img"
expect 0 tap_ctl destroy -p "$P" -m 0
clean "the life of another"
for end in "free -m 0" "destroy -p P -m 0" "close -p P -m 0"; do
	paused paused
	others
	# shellcheck disable=SC2086
	expect 0 tap_ctl ${end/P/$P}
	clean "$end"
done
# until another disk has its image
paused paused
expect 0 tap_ctl create -a "aio:$WORK/a.img"
P=$(procs tapdisk)
expect 0 tap_ctl list
is "its image is another disk's" "$OUT" "pid=$P minor=1 state=0 args=aio:$WORK/a.img"
expect 19 tap_ctl revive -m 0
expect 0 tap_ctl destroy -p "$P" -m 1
clean "another disk of the same image"
# so is what became of a commit
paused running
sed -i 's/^{/{"commit":{"image":"x","state":"failed","error":5},/' "$TAPDISK_CONTROL_DIR/disk0"
others
expect 0 tap_ctl revive -m 0
P=$OUT
expect 5 tap_ctl query -p "$P" -m 0
expect 0 tap_ctl destroy -p "$P" -m 0
clean "a failed commit"
# and a flush that had failed, whoever attached the number meanwhile
paused running
sed -i 's/"sticky":0/"sticky":5/' "$TAPDISK_CONTROL_DIR/disk0"
others
expect 0 tap_ctl spawn
P=$OUT
expect 0 tap_ctl attach -p "$P" -m 0
expect 0 tap_ctl detach -p "$P" -m 0
expect 5 tap_ctl free -m 0
has "free of a disk that has failed" "$ERR" "a flush of its image had failed"
until_true 5 gone "$P"
clean "a failed flush"

# the minor number of the dead is another's by now: that one is not touched
dead
expect 0 tap_ctl list
expect 0 tap_ctl create -a "aio:$WORK/a.img"
Q=$(procs tapdisk)
expect 16 tap_ctl destroy -p "$P" -m 0
expect 2 tap_ctl close -p "$P" -m 0
expect 0 tap_ctl list
is "the other disk" "$OUT" "pid=$Q minor=0 state=0 args=aio:$WORK/a.img"
expect 0 tap_ctl destroy -p "$Q" -m 0
clean "the other's destroy"

# three that hang cost one time limit, and do not hide the one that works
for _ in 1 2 3 4; do
	expect 0 tap_ctl create -a null:1M
done
ALL=$(procs tapdisk)
set -- $ALL
[ $# = 4 ] || fail "wanted four tapdisks, have $ALL"
expect 0 tap_ctl list -p "$4"
LIVE=$OUT
kill -STOP "$1" "$2" "$3"
start=$SECONDS
expect 0 tap_ctl list
took=$((SECONDS - start))
# one after the other they would cost three times 10 s
[ $took -ge 9 ] && [ $took -lt 29 ] || fail "list took $took s with three that hang"
is "list with three that hang" "$OUT" "$LIVE
$(printf 'pid=%s\n' "$1" "$2" "$3" | sort -t= -k2n)"
# one that is asked for alone is not kept waiting by the others
M=${LIVE#*minor=}
once_within 9 expect 0 tap_ctl list -m "${M%% *}" || fail "list -m waited for the others"
is "list -m beside three that hang" "$OUT" "$LIVE"
expect 110 tap_ctl pause -p "$1" -m 0 -t 1
kill -CONT "$1" "$2" "$3"

# --- a disk goes to another tapdisk just as the one that its marker names is asked: it is looked for in the other one
if command -v python3 >/dev/null; then
	marker=$(tap_ctl create -a "aio:$WORK/a.img") || fail create
	pid=$(cat "$marker") m=${marker##*-}
	cat >"$WORK/before.py" <<'END'
import os, socket, sys
directory, marker, after = sys.argv[1:]
me = os.getpid()
name = f"{directory}/ctl{me}"
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.bind(name)
s.listen(1)
with open(marker, "r+") as f:
    f.write(f"{me}\n")
    f.truncate()
print(me, flush=True)
peer, _ = s.accept()
peer.recv(65536)
with open(marker, "r+") as f:
    f.write(f"{after}\n")
    f.truncate()
os.unlink(name)
END
	python3 "$WORK/before.py" "$TAPDISK_CONTROL_DIR" "$marker" "$pid" >"$WORK/before" 2>&1 &
	before=$!
	at_exit "kill -KILL $before 2>/dev/null"
	until_true 10 test -s "$WORK/before"
	is "the marker" "$(cat "$marker")" "$before"
	expect 0 tap_ctl list -m "$m"
	wait "$before" || fail "who had the disk before: $(cat "$WORK/before")"
	has "list -m" "$OUT" "pid=$pid minor=$m state=0"
	expect 0 tap_ctl destroy -p "$pid" -m "$m"
fi
exit 0
