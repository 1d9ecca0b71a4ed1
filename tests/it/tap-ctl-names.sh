# SPDX-License-Identifier: LGPL-2.1-or-later
# Names with spaces, colons, line feeds and 4,095 bytes; relative ones; and what a terminal sees.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99

# serve SPEC WANTED: makes a disk of SPEC, which list shows as WANTED
serve()
{
	expect 0 tap_ctl create -a "$1"
	P=$(procs tapdisk)
	expect 0 tap_ctl list
	is "list" "$OUT" "pid=$P minor=0 state=0 args=$2"
	expect 0 tap_ctl list -f "${2#*:}" -t aio
	is "list -f" "$OUT" "pid=$P minor=0 state=0 args=$2"
	expect 0 tap_ctl pause -p "$P" -m 0
	expect 0 tap_ctl unpause -p "$P" -m 0
	expect 0 tap_ctl destroy -p "$P" -m 0
}

F="$WORK/two words  and more"
truncate -s 1M "$F"
serve "aio:$F" "aio:$F"
F="$WORK/C:\\x:y=z, 'quoted' \"twice\" \$HOME ü"
truncate -s 1M "$F"
serve "aio:$F" "aio:$F"

# relative to here, though the tapdisk stands in the root directory
cd "$WORK" || exit 1
truncate -s 1M here.img
serve aio:here.img "aio:$WORK/here.img"
serve aio:./here.img "aio:$WORK/here.img"
mkdir sub other
cd sub || exit 1
serve aio:.././../"${WORK##*/}"/here.img "aio:$WORK/here.img"
cd .. || exit 1

# list -f finds an image by any name that leads to it, from wherever it is said, and no other
found() # ROWS NAME...
{
	local rows=$1

	shift
	for name; do
		expect 0 tap_ctl list -f "$name"
		is "list -f $name" "$(grep -c args= <<<"$OUT")" "$rows"
	done
}
truncate -s 1M there.img
ln -s here.img link.img
ln -s "$WORK" other/dir
for made in here.img link.img other/dir/here.img "$WORK/link.img"; do
	expect 0 tap_ctl create -a "aio:$made" -R
	P=$(procs tapdisk)
	found 1 here.img ./here.img "$WORK/here.img" link.img "$WORK/link.img" other/dir/here.img other/dir/link.img "other/../here.img"
	found 0 there.img "$WORK/there.img" none.img here "$WORK"
	expect 0 tap_ctl destroy -p "$P" -m 0
done
# a parent is no disk of its own
"$top_builddir/bin/vhd-util" create -n p.vhd -s 1 && "$top_builddir/bin/vhd-util" snapshot -n c.vhd -p p.vhd || fail "no VHDs"
expect 0 tap_ctl create -a vhd:c.vhd
found 1 c.vhd
found 0 p.vhd
expect 0 tap_ctl destroy -p "$(procs tapdisk)" -m 0

# a paused disk has no file open: what had been its file may be deleted, and the number another's, who must not be taken for it
inode_of() { stat -c %i "$1"; }
again() # makes again.img with the inode that was.img had, or fails
{
	for _ in $(seq 50); do
		truncate -s 1M again.img
		[ "$(inode_of again.img)" != "$WAS" ] || return 0
		mv again.img "taken.$RANDOM$RANDOM"
	done
	return 1
}
truncate -s 1M was.img
expect 0 tap_ctl create -a aio:link.img
P=$(procs tapdisk)
expect 0 tap_ctl pause -p "$P" -m 0
found 1 here.img link.img other/dir/here.img
expect 0 tap_ctl unpause -p "$P" -m 0 -a aio:was.img
expect 0 tap_ctl pause -p "$P" -m 0
WAS=$(inode_of was.img)
rm was.img
if again; then
	found 0 again.img "$WORK/again.img"
	found 1 was.img
	# nor while it is dead, and waits for its unpause: whoever opens the new file has not taken its image
	kill -KILL "$P"
	until_true 5 gone "$P"
	expect 0 tap_ctl create -a aio:again.img
	expect 0 tap_ctl list -f again.img
	has "the new file's disk" "$OUT" "minor=1 "
	[ -e "$TAPDISK_CONTROL_DIR/tapdisk/tapdisk-0" ] || fail "the paused disk of a dead tapdisk was given up"
	expect 0 tap_ctl destroy -p "$(procs tapdisk)" -m 1
	expect 0 tap_ctl free -m 0
else
	echo "this file system gives no inode anew: not tried" >&2
	expect 0 tap_ctl destroy -p "$P" -m 0
fi
OLD=$TAPDISK_CONTROL_DIR
TAPDISK_CONTROL_DIR=rel
expect 0 tap_ctl create -a aio:here.img
expect 0 tap_ctl list -t aio
has "relative control directory" "$OUT" "minor=0 state=0 args=aio:$WORK/here.img"
P=${OUT#pid=}
expect 0 tap_ctl destroy -p "${P%% *}" -m 0
TAPDISK_CONTROL_DIR=$OLD

# a line feed in a name must not look like a row of its own
F="$WORK/x
pid=1 minor=0 state=0 args=aio:y"
truncate -s 1M "$F"
expect 0 tap_ctl create -a "aio:$F"
expect 0 tap_ctl list
is "rows of one disk" "$(printf '%s\n' "$OUT" | wc -l)" 1
expect 2 tap_ctl create -a "aio:$F-missing"
is "lines of one error" "$(printf '%s\n' "$ERR" | wc -l)" 1
expect 0 tap_ctl destroy -p "$(procs tapdisk)" -m 0

# as long as a path can be: 4,095 bytes, in steps, since no single call takes a longer one
cd "$WORK" || exit 1
D=$WORK
while [ $((4095 - ${#D})) -gt 202 ]; do
	N=$(printf '%0200d' 1)
	mkdir "$N" && cd -P "$N" || fail "cannot make a deep directory"
	D=$D/$N
done
N=$(printf "%0$((4095 - ${#D} - 1))d" 2)
truncate -s 1M "$N"
[ "$(printf %s "$D/$N" | wc -c)" = 4095 ] || fail "the test's long name has $(printf %s "$D/$N" | wc -c) bytes"
cd / || exit 1
serve "aio:$D/$N" "aio:$D/$N"

# a name that is not UTF-8 cannot be said in JSON: refused before anything is made
expect 84 tap_ctl create -a "aio:$WORK/$(printf '\377')"
is "files" "$(find "$TAPDISK_CONTROL_DIR" ! -type d)" ""

# a terminal gets columns and a header
if command -v script >/dev/null; then
	expect 0 tap_ctl create -a aio:"$WORK/here.img" -o cache=directsync
	P=$(procs tapdisk)
	T=$(script -qec "'$top_builddir/bin/tap-ctl' list" /dev/null </dev/null | tr -d '\r')
	has "terminal" "$T" "PID"
	has "terminal" "$T" "CACHE"
	has "terminal" "$T" "directsync"
	has "terminal" "$T" "aio:$WORK/here.img"
	is "terminal lines" "$(printf '%s\n' "$T" | wc -l)" 2
	expect 0 tap_ctl destroy -p "$P" -m 0
fi
exit 0
