# SPDX-License-Identifier: LGPL-2.1-or-later
# The hotplug script, with a real xenstored, tap-ctl and tapdisk.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/it/xs.sh" || exit 99
xs_start
export TAP_CTL=$top_builddir/bin/tap-ctl
: >"$WORK/tapback.log"
D=1/51712 B=$(be 1/51712)
script() { XENBUS_PATH=backend/vbd3/$1 XENBUS_TYPE=vbd3 XENBUS_BASE_PATH=backend "$top_builddir/bin/block-tap" "$2"; }
ring_row() { tap_ctl list -m "$(get $B/minor)"; }
none() { [ -z "$(procs tapdisk)$(procs tap-ctl)" ]; }
nothing_left() { is "what is left" "$(tap_ctl list)$(procs tapdisk)" ""; }
img=$WORK/a.img
truncate -s 8M "$img"
mode=none # the default mode wants O_DIRECT, which not every /tmp has
"$TAP_CTL" create -a aio:"$img" >"$WORK/marker" 2>"$WORK/why" || mode=writeback
[ $mode != none ] || { row=$(tap_ctl list) && row=${row#pid=} && tap_ctl destroy -p "${row%% *}" -m 0; }
nothing_left

# --- add, and what it writes
disk $D "params=aio:cache=$mode:$img"
expect 0 script $D add
is status "$(get $B/hotplug-status)" connected
pid=$(get $B/pid) minor=$(get $B/minor)
is path "$(get $B/physical-device-path)" "$TAPDISK_CONTROL_DIR/nbd$pid.$minor"
[ -S "$(get $B/physical-device-path)" ] || fail "no NBD server at physical-device-path, which device models of HVM guests open"
is row "$(tap_ctl list)" "pid=$pid minor=$minor state=0 args=aio:$img"
# again: the same disk, not another
expect 0 script $D add
is "added twice" "$(tap_ctl list | wc -l) $(get $B/pid)" "1 $pid"
# the same image for another guest
disk 2/51712 "params=cache=$mode:$img"
expect 1 script 2/51712 add
is status "$(get "$(be 2/51712)/hotplug-status")" error
has "who has it" "$(get "$(be 2/51712)/hotplug-error")" "$img"
is "only the first is left" "$(tap_ctl list | wc -l) $(procs tapdisk)" "1 $pid"
expect 0 script $D remove
is "keys" "$(get $B/pid) $(get $B/hotplug-status)" "- -"
nothing_left
expect 0 script $D remove # twice
expect 0 script 2/51712 remove # never added
xenstore-rm "$(be 2/51712)"

# --- params in all their ways; read-only; options as keys; odd paths
odd="$WORK/a b:c=d,e'\$x.img"
truncate -s 1M "$odd"
try() # PARAMS PATH KEY=VALUE...
{
	local p=$1 path=$2

	shift 2
	xenstore-rm $B
	disk $D "params=$p" "$@"
	expect 0 script $D add
	is "row of $p" "$(tap_ctl list)" "pid=$(get $B/pid) minor=$(get $B/minor) state=0 args=aio:$path"
}
# an NBD server's URI, with and without the type that libxl puts in front
for p in "nbd+unix:///a?socket=$WORK/none" "aio:nbd://127.0.0.1:1/a" "cache=none:nbd://127.0.0.1:1/a"; do
	xenstore-rm $B
	disk $D "params=$p"
	expect 1 script $D add
	has "$p" "$(get "$B/hotplug-error")" "cannot connect to an NBD server at"
	nothing_left
done
try "$img" "$img" cache=$mode
expect 0 script $D remove
try "raw:$img" "$img" cache=writeback
has mode "$(tap_ctl list --json)" '"writeback"'
expect 0 script $D remove
try "aio:cache=writethrough:$odd" "$odd"
expect 0 script $D remove
try "cache=writeback:$img" "$img" mode=r
has "read-only" "$(tap_ctl list --json)$(tap_ctl stats -p "$(get $B/pid)" -m "$(get $B/minor)")" "$img"
# a read-only disk has no writer's lock: a second reader comes in
disk 2/51712 "params=cache=writeback:$img" mode=r
expect 0 script 2/51712 add
expect 0 script 2/51712 remove
expect 0 script $D remove
try "unsafe=yes:cache=unsafe:$img" "$img"
expect 0 script $D remove
try "$img" "$img" cache=unsafe unsafe=1
expect 0 script $D remove
try "limit-bytes=20M:mirror-timeout=9:cache=$mode:$img" "$img" limit-iops-write=300 limit-burst=500
is "limits" "$(tap_ctl limit -p "$(get $B/pid)" -m "$(get $B/minor)" | tr '\n' ' ')" "limit-iops-write=300 limit-bytes=20971520 limit-burst=500 "
has "mirror-timeout" "$(cat "$TAPDISK_CONTROL_DIR/disk$(get $B/minor)")" '"mirror-timeout=9"'
expect 0 script $D remove
nothing_left

# --- formats, with what libxl puts in front of a script's target; a path from the root of xenstore
"$top_builddir/bin/vhd-util" create -n "$WORK/f.vhd" -s 8 || fail "vhd-util"
formats=vhd
! command -v qemu-img >/dev/null || { qemu-img create -q -f qcow2 "$WORK/f.qcow2" 8M && formats="vhd qcow2"; }
for f in $formats; do
	xenstore-rm $B
	disk $D "params=aio:$f:cache=writethrough:$WORK/f.$f" hotplug-error=old
	XENBUS_PATH=$B expect 0 "$top_builddir/bin/block-tap" add
	is "row of $f" "$(tap_ctl list -n backend/vbd3/$D)" "pid=$(get $B/pid) minor=$(get $B/minor) state=0 args=$f:$WORK/f.$f"
	is "an error of an earlier run" "$(get $B/hotplug-error)" -
	XENBUS_PATH=$B expect 0 "$top_builddir/bin/block-tap" remove
done
nothing_left

# --- refused, with a reason, and nothing left
refused() # WHY KEY=VALUE...
{
	local why=$1

	shift
	xenstore-rm $B
	disk $D "$@"
	expect 1 script $D add
	is "status ($why)" "$(get $B/hotplug-status)" error
	has "$*" "$(get $B/hotplug-error)" "$why"
	has "stderr" "$ERR" "$why"
	nothing_left
}
refused "$WORK/none.img" "params=aio:$WORK/none.img"
refused "$WORK" "params=aio:$WORK"
refused "unsafe" "params=cache=unsafe:$img"
refused "wrong" "params=cache=wrong:$img"
refused "nosuch" "params=nosuch:$img"
refused "neither a type nor" "params=colour=red:$img"
refused "no path" "params=aio:relative.img"
refused "no path" "params="
refused "no path" "params=aio:"
refused "no params" mode=w
refused "shared" "params=cache=writeback:$img" "mode=w!"
expect 1 script 7/1 add
is "no directory is made" "$(get "$(be 7/1)/hotplug-status")" -
expect 1 script $D sideways
expect 22 "$top_builddir/bin/block-tap" add

# --- a dead tapdisk's disk is removed as well; many at once do not meet
try "cache=writeback:$img" "$img"
kill -KILL "$(get $B/pid)"
expect 0 script $D remove
nothing_left
for i in {1..8}; do
	truncate -s 1M "$WORK/m$i"
	disk 5/$i "params=cache=writeback:$WORK/m$i"
done
for i in {1..8}; do script 5/$i add 2>"$WORK/err$i" & done
wait
for i in {1..8}; do is "disk $i: $(cat "$WORK/err$i")" "$(get "$(be 5/$i)/hotplug-status")" connected; done
is "eight tapdisks" "$(tap_ctl list | sort -u | wc -l)" 8
for i in {1..8}; do script 5/$i remove & done
wait
nothing_left

# --- one machine shares: a guest and its stub domain, and a guest that arrives here; the last one that goes ends the tapdisk
put /local/domain/1 vm=/vm/1
put /local/domain/2 target=1 vm=/vm/2
put /local/domain/3 vm=/vm/1
put /local/domain/4 vm=/vm/4
put /local/domain/6 target=1 vm=/vm/6
try "cache=writeback:$img" "$img"
pid=$(get $B/pid)
ln -s "$img" "$WORK/link"
for d in 2 3; do
	xenstore-rm "$(be $d/51712)" 2>/dev/null
	disk $d/51712 "params=aio:cache=writeback:$WORK/link"
	expect 0 script $d/51712 add
	is "domain $d" "$(get "$(be $d/51712)/pid") $(get "$(be $d/51712)/minor")" "$pid $(get $B/minor)"
done
is "one tapdisk" "$(procs tapdisk)" "$pid"
# but not another machine, nor the same guest twice, nor with another promise or access
other() # WHY D KEY=VALUE...
{
	local why=$1 d=$2

	shift 2
	disk $d "$@"
	expect 1 script $d add
	has "$d $*" "$(get "$(be $d)/hotplug-error")" "$why"
	xenstore-rm "$(be $d)"
}
other "in use" 4/51712 "params=cache=writeback:$img"
other "in use" 1/51728 "params=cache=writeback:$img"
other "this disk wants" 6/51712 "params=cache=writethrough:$img"
other "this disk wants" 6/51712 "params=cache=writeback:$img" mode=r
expect 0 script $D remove
expect 0 script 2/51712 remove
is "still there for the last" "$(procs tapdisk)" "$pid"
is "its row" "$(tap_ctl list)" "pid=$pid minor=$(get "$(be 3/51712)/minor") state=0 args=aio:$img"
expect 0 script 3/51712 remove
nothing_left

# --- killed at any point, it leaves nothing, or what the next run takes away
for i in $(seq 8); do
	xenstore-rm $B
	disk $D "params=cache=writeback:$img"
	XENBUS_PATH=backend/vbd3/$D setsid "$top_builddir/bin/block-tap" add 2>/dev/null &
	p=$!
	sleep "0.$(printf %02d $((i * 6)))"
	kill -KILL $p 2>/dev/null && wait $p 2>/dev/null
	if [ $((i % 2)) = 0 ]; then
		expect 0 script $D add
		is "one after a killed add ($i)" "$(tap_ctl list)" "pid=$(get $B/pid) minor=$(get $B/minor) state=0 args=aio:$img"
	fi
	expect 0 script $D remove
	until_true 10 none
	nothing_left
done
# as if killed between the making and the telling
expect 0 tap_ctl create -d backend/vbd3/$D -a "aio:$img" -o cache=writeback
expect 0 script $D add
is "the leftover is gone" "$(tap_ctl list)" "pid=$(get $B/pid) minor=$(get $B/minor) state=0 args=aio:$img"
expect 0 script $D remove
expect 0 tap_ctl create -d backend/vbd3/$D -a "aio:$img" -o cache=writeback
expect 0 script $D remove
nothing_left

# --- runs for one image wait for each other; one that takes too long says so
cat >"$WORK/slow-ctl" <<E
#!/bin/sh
[ "\$1" != create ] || until [ -e "$WORK/go" ]; do sleep 0.05; done
exec "$TAP_CTL" "\$@"
E
chmod +x "$WORK/slow-ctl"
rm -f "$TAPDISK_CONTROL_DIR"/hotplug-*.lock
TAP_CTL=$WORK/slow-ctl script $D add 2>"$WORK/err1" &
until_true 5 eval 'ls "$TAPDISK_CONTROL_DIR"/hotplug-*.lock >/dev/null 2>&1 && ! flock -n "$(ls "$TAPDISK_CONTROL_DIR"/hotplug-*.lock | head -1)" true'
disk 4/51712 "params=cache=writeback:$img"
BLOCK_TAP_PATIENCE=0 expect 1 script 4/51712 add
has "locked" "$(get "$(be 4/51712)/hotplug-error")" "another hotplug script"
touch "$WORK/go"
wait $!
is "the slow one" "$(get $B/hotplug-status)" connected
expect 0 script $D remove
rm "$WORK/go"
TAP_CTL=$WORK/slow-ctl BLOCK_TAP_PATIENCE=1 expect 1 script $D add
has "too slow" "$(get $B/hotplug-error)" "within 1 s"
nothing_left
