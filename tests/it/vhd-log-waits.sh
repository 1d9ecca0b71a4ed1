# SPDX-License-Identifier: LGPL-2.1-or-later
# A tapdisk that died has answered changes that are in its log alone: vhd-util neither reads such an image as though it were whole nor
# writes to it, and says what puts it right.  A living tapdisk's log stands in nobody's way, nor does a mark without a log.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99

vhd_util() { "$top_builddir/bin/vhd-util" "$@"; }
guest() { timeout 250 "$top_builddir/tests/support/tdguest" "$pid" "$minor" "$@"; }
cat >"$WORK/tapdisk" <<E2
#!/bin/sh
export STUCK_SYNC=$WORK/stuck LD_PRELOAD=$(readlink -f "$top_builddir/tests/support/stuck-sync.so") ASAN_OPTIONS=verify_asan_link_order=0:\$ASAN_OPTIONS
exec $(readlink -f "$top_builddir/tapdisk/tapdisk") "\$@"
E2
chmod 755 "$WORK/tapdisk"
export TAPDISK=$WORK/tapdisk TAPDISK_IO=threads
cd "$WORK" || exit 1

start() # IMAGE
{
	marker=$(tap_ctl create -a "vhd:$WORK/$1") || fail "create $1"
	minor=${marker##*-} pid=$(cat "$marker")
}
# between an fdatasync and its end: begun and ended in the page of the disk's flushes (lib/syncmark.h)
syncing() { [ "$(od -An -tu8 -j 8 -N 8 "$TAPDISK_CONTROL_DIR/flush$minor")" != "$(od -An -tu8 -j 16 -N 8 "$TAPDISK_CONTROL_DIR/flush$minor")" ]; }
sum() { sha256sum <"$1"; }
mark() { od -An -tx4 -j 572 -N 4 "$1" | tr -d ' '; } # of an image whose header stands at 512

# what may be asked of an image whatever waits for it
looks() # IMAGE
{
	expect 0 vhd_util query -vspfdSaU -n "$1"
	expect 0 vhd_util query --json -n "$1"
	expect 0 vhd_util scan -f -m "$1"
	expect 0 vhd_util read -p -n "$1"
	expect 0 vhd_util key -p -n "$1"
}

refused() # CMD...
{
	local before

	before=$(sum a.vhd)$(sum c.vhd)
	expect 16 vhd_util "$@"
	has "$1 names the image" "$ERR" "a.vhd lacks"
	has "$1 names the command" "$ERR" "tap-ctl settle -m $minor"
	is "$1 changes nothing" "$(sum a.vhd)$(sum c.vhd)" "$before"
}

expect 0 vhd_util create -n base.vhd -s 64
expect 0 vhd_util snapshot -n a.vhd -p base.vhd
expect 0 vhd_util snapshot -e -n c.vhd -p a.vhd
expect 0 vhd_util create -n j.vhd -s 64
start a.vhd
expect 0 guest write 4194304 9437184 1

# as long as it lives
has "a mark" "$([ "$(mark a.vhd)" != 00000000 ] && echo yes)" yes
looks a.vhd
expect 0 vhd_util check -i -n a.vhd
vhd_util read -r 0 -c 1 -n a.vhd >sector || fail "read of what lives"

# Dead with a log that waits: its store answered no sync, so that nothing of it came into the image.
touch "$WORK/stuck"
guest write $((8 << 21)) 4096 1 &
writer=$!
until_true 10 syncing # begun by the end of the guest, if not before
kill -KILL "$pid"
until_true 10 gone "$pid"
rm "$WORK/stuck"
wait $writer || fail "the write was not answered"
looks a.vhd
for cmd in "repair -n a.vhd" "snapshot -n new.vhd -p a.vhd" "modify -n a.vhd -p base.vhd" "modify -n a.vhd -z" "modify -n c.vhd -p a.vhd" \
	"resize -n a.vhd -s 128 -j j" "resize -n a.vhd -s 65 -f" "set -n a.vhd -f hidden -v 1" "fill -n a.vhd" "fill -n c.vhd" \
	"coalesce -n a.vhd" "coalesce -n c.vhd" "coalesce -n a.vhd -o o.vhd" "check -n a.vhd" "check -p -n c.vhd" "copy -n a.vhd -o o.raw" \
	"copy -n c.vhd -s" "read -b 0 -n a.vhd" "read -B -n a.vhd" "read -r 0 -n a.vhd" "read -r 0 -n c.vhd"; do
	# shellcheck disable=SC2086 # words
	refused $cmd
done
[ ! -e new.vhd ] && [ ! -e o.vhd ] && [ ! -e o.raw ] && [ ! -e j ] || fail "what was refused has left something: $(ls)"

# a copy is another file: its mark is of no log, and goes when it is written
cp a.vhd copy.vhd
expect 0 vhd_util repair -n copy.vhd
is "a mark without a log" "$(mark copy.vhd)" 00000000

# what the messages advise
expect 0 tap_ctl settle -m "$minor"
looks a.vhd
expect 0 vhd_util repair -n a.vhd
is "the mark after repair" "$(mark a.vhd)" 00000000
expect 0 vhd_util check -n a.vhd
expect 0 vhd_util set -n a.vhd -f hidden -v 0
expect 0 vhd_util snapshot -n new.vhd -p a.vhd
rm new.vhd
tap_ctl free -m "$minor"
start a.vhd
expect 0 guest verify 4194304 9437184 1
expect 0 tap_ctl destroy -p "$pid" -m "$minor"
rm c.vhd copy.vhd
expect 0 vhd_util coalesce -n a.vhd
start base.vhd
expect 0 guest verify 4194304 9437184 1
expect 0 tap_ctl destroy -p "$pid" -m "$minor"
exit 0
