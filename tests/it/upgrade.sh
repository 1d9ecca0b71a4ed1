# SPDX-License-Identifier: LGPL-2.1-or-later
# A tapdisk goes on with the program on disk while its guest works; and with the old one where the new one is no good.
. "$top_srcdir/tests/it/lib.sh"

seed=${SEED:-$RANDOM}
echo "SEED=$seed"
real=$(readlink -f "$top_builddir/tapdisk/tapdisk")
survive() # WHAT SPEC MODE TIMES
{
	run timeout 250 "$top_builddir/tests/support/tdsurvive" "$top_builddir/bin/tap-ctl" "$2" "$3" "$4" "$seed" upgrade
	[ "$RC" = 0 ] || fail "$1: exit $RC: $OUT $ERR"
	has "$1" "$OUT" "every byte right"
	is "$1: left" "$(entries "$TAPDISK_CONTROL_DIR") $(entries "$TAPDISK_CONTROL_DIR/tapdisk")" "tapdisk "
	echo "$1: $(tail -1 <<<"$OUT"); pauses (us): $(sed -n 's/^pause //p' <<<"$OUT" | sort -n | tr '\n' ' ')"
}

# --- a guest under load, upgrade after upgrade
truncate -s 8M "$WORK/d.img"
survive raw "aio:$WORK/d.img" none 4
rm -f "$WORK/d.img"
truncate -s 8M "$WORK/d.img"
survive raw "aio:$WORK/d.img" writeback 2
"$top_builddir/bin/vhd-util" create -n "$WORK/d.vhd" -s 8 || fail "vhd-util"
survive vhd "vhd:$WORK/d.vhd" none 3
"$top_builddir/bin/td-qcow" create "$WORK/d.qcow2" 8M >/dev/null || fail "td-qcow"
survive qcow2 "qcow2:$WORK/d.qcow2" directsync 3

# --- what is no good: it does not start, ends at once, dies or hangs as soon as it has the disks
bad() # NAME, the program on stdin
{
	cat >"$WORK/$1"
	chmod 755 "$WORK/$1"
}
bad no-program <<<'#!/nowhere'
bad ends <<<'#!/bin/sh'
bad dies <<E2
#!/bin/sh
export SIGNAL_AFTER="9 disk" LD_PRELOAD=$(readlink -f "$top_builddir/tests/support/signal-after.so") ASAN_OPTIONS=verify_asan_link_order=0:\$ASAN_OPTIONS
exec $real "\$@"
E2
sed 's/9 disk/19 disk/' "$WORK/dies" | bad hangs
sed 's/9 disk/9 2/' "$WORK/dies" | bad dies-early # it listens, has answered what it is, and nothing more
export FALLS_BACK=1
for what in no-program ends dies dies-early hangs; do
	rm -f "$WORK/d.img"
	truncate -s 8M "$WORK/d.img"
	TAPDISK_OF_UPGRADE=$WORK/$what survive "$what" "aio:$WORK/d.img" none 1
done
for what in dies hangs; do
	rm -f "$WORK/d.vhd" "$WORK/d.qcow2"
	"$top_builddir/bin/vhd-util" create -n "$WORK/d.vhd" -s 8 && "$top_builddir/bin/td-qcow" create "$WORK/d.qcow2" 8M >/dev/null || fail "create"
	TAPDISK_OF_UPGRADE=$WORK/$what survive "$what, vhd" "vhd:$WORK/d.vhd" none 2
	TAPDISK_OF_UPGRADE=$WORK/$what survive "$what, qcow2" "qcow2:$WORK/d.qcow2" writeback 2
	expect 0 "$top_builddir/bin/vhd-util" check -n "$WORK/d.vhd"
	sound_but_for_leaks "$WORK/d.qcow2"
done
unset FALLS_BACK

# --- one by one: what is said, what stays, what is seen
marker=$(tap_ctl create -a "aio:$WORK/d.img" -o cache=writethrough -d carol) || fail create
minor=${marker##*-}
old=$(cat "$marker")
expect 22 tap_ctl upgrade
has "what is missing" "$ERR" "-p PID, or --all"
expect 2 tap_ctl upgrade -p 1
TAPDISK=$WORK/ends expect 10 tap_ctl upgrade -p "$old"
has "ends" "$ERR" "tapdisk $old continues as before: the new tapdisk ended before it was ready"
TAPDISK=$WORK/dies expect 10 tap_ctl upgrade -p "$old"
has "dies" "$ERR" "has died as soon as it had the disks"
is "the marker is the old one's again" "$(cat "$marker")" "$old"
has "and so is the disk" "$(tap_ctl list -m "$minor")" "pid=$old minor=$minor state=0 args=aio:$WORK/d.img"
is "nothing to do" "$(tap_ctl upgrade --all)" ""
cp "$real" "$WORK/next"
nbd=$TAPDISK_CONTROL_DIR/nbd$old.$minor
if command -v nbdinfo >/dev/null; then size=$(nbdinfo --size "nbd+unix:///?socket=$nbd"); fi
OUT=$(TAPDISK=$WORK/next tap_ctl upgrade --all) || fail "upgrade --all"
new=$(cat "$marker")
[[ $OUT =~ ^pid=$old\ now=$new\ disks=1\ pause=[0-9.]+ms$ ]] || fail "upgrade printed '$OUT'"
until_true 5 gone "$old"
is "the program" "$(readlink "/proc/$new/exe")" "$WORK/next"
has "the disk" "$(tap_ctl list -p "$new" -m "$minor" -n carol)" "args=aio:$WORK/d.img"
has "its mode" "$(tap_ctl list -m "$minor" --json)" writethrough
if command -v nbdinfo >/dev/null; then is "under its old name" "$(nbdinfo --size "nbd+unix:///?socket=$nbd")" "$size"; fi
tap_ctl pause -p "$new" -m "$minor" || fail pause
json=$(tap_ctl upgrade -p "$new" --json) || fail "upgrade of a paused disk: $json"
has json "$(tr -d ' \n' <<<"$json")" "\"pid\":$new,\"err\":0"
paused=$(cat "$marker")
has "still paused" "$(tap_ctl list -p "$paused")" "state=0x2a"
tap_ctl unpause -p "$paused" -m "$minor" || fail unpause
# two disks in one process go together; one that is only attached keeps it where it is
m2=$(tap_ctl allocate) m2=${m2##*-}
tap_ctl attach -p "$paused" -m "$m2" || fail attach
expect 16 tap_ctl upgrade -p "$paused"
has "its maker knows it" "$ERR" "minor $m2 is not open"
has "it goes on" "$(tap_ctl list -p "$paused" -m "$minor")" "state=0 args=aio:$WORK/d.img"
truncate -s 1M "$WORK/e.img"
tap_ctl open -p "$paused" -m "$m2" -a "aio:$WORK/e.img" || fail open
has "both" "$(tap_ctl upgrade -p "$paused")" "disks=2"
last=$(cat "$marker")
is "all in one" "$(tap_ctl list -p "$last" | wc -l)" 2
tap_ctl destroy -p "$last" -m "$m2" && tap_ctl destroy -p "$last" -m "$minor" || fail destroy
is left "$(ls "$TAPDISK_CONTROL_DIR")" tapdisk

# --- a ring goes on in the way that it was asked for
truncate -s 24M "$WORK/w.img"
marker=$(tap_ctl create -a "aio:$WORK/w.img" -o cache=writeback -o sector-size=4096) || fail create
minor=${marker##*-} old=$(cat "$marker")
ring_has() { tap_ctl stats -p "$1" -m "$minor" | tr -d ' \n' | grep -qE "\"mapped\":[1-9]"; }
"$top_builddir/tests/support/tdguest" --persistent --polling 100 "$old" "$minor" load 10000 8 >"$WORK/load" 2>&1 &
load=$!
until_true 10 ring_has "$old" || fail "the guest's pages are copied: $(tap_ctl stats -p "$old" -m "$minor")"
tap_ctl upgrade -p "$old" >/dev/null || fail "upgrade under persistent grants"
new=$(cat "$marker")
[ "$new" != "$old" ] || fail "it is the same tapdisk"
until_true 10 ring_has "$new" || fail "after the upgrade the guest's pages are copied: $(tap_ctl stats -p "$new" -m "$minor")"
kill $load
wait $load || fail "the guest: $(cat "$WORK/load")"
tap_ctl close -f -p "$new" -m "$minor" && tap_ctl detach -p "$new" -m "$minor" && tap_ctl free -m "$minor" || fail "taking it away"
