# SPDX-License-Identifier: LGPL-2.1-or-later
# A disk's life, step by step and in one, with the output and the exit codes that clients parse.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99

truncate -s 8M "$WORK/a.img"
A=$WORK/a.img

# step by step, as a storage manager does it
expect 0 tap_ctl list
is "list of nothing" "$OUT" ""
expect 0 tap_ctl allocate
is allocate "$OUT" "$TAPDISK_CONTROL_DIR/tapdisk/tapdisk-0"
expect 0 tap_ctl list
is "list of an allocated minor" "$OUT" "minor=0"
expect 0 tap_ctl spawn
P=$OUT
is "spawned process" "$(procs tapdisk)" "$P"
expect 0 tap_ctl list
is "list of both" "$OUT" "minor=0
pid=$P"
expect 0 tap_ctl attach -p "$P" -m 0
is attach "$OUT$ERR" ""
expect 17 tap_ctl attach -p "$P" -m 0
is marker "$(cat "$TAPDISK_CONTROL_DIR/tapdisk/tapdisk-0")" "$P"
expect 16 tap_ctl free -m 0
has "free of a held marker" "$ERR" "held by tapdisk $P"
expect 0 tap_ctl open -p "$P" -m 0 -a "aio:$A"
is open "$OUT$ERR" ""
expect 114 tap_ctl open -p "$P" -m 0 -a "aio:$A"
expect 16 tap_ctl detach -p "$P" -m 0
expect 0 tap_ctl list
is "list of an open disk" "$OUT" "pid=$P minor=0 state=0 args=aio:$A"
expect 0 tap_ctl list -m 0
is "list -m" "$OUT" "pid=$P minor=0 state=0 args=aio:$A"

expect 0 tap_ctl stats -p "$P" -m 0
is "stats lines" "$(printf '%s\n' "$OUT" | wc -l)" 1
for key in '"name": "aio:'"$A"'"' '"secs": [' '"images": [' '"hits": [' '"fail": [' '"driver": {' '"nbd_mirror_failed": 0' '"reqs_outstanding": 0'; do
	has stats "$OUT" "$key"
done

# pause: the text that clients compare
expect 0 tap_ctl pause -p "$P" -m 0 -t 100
expect 0 tap_ctl list
is "list of a paused disk" "$OUT" "pid=$P minor=0 state=0x2a args=aio:$A"
expect 0 tap_ctl pause -p "$P" -m 0
expect 0 tap_ctl unpause -p "$P" -m 0
expect 0 tap_ctl list
is "list after unpause" "$OUT" "pid=$P minor=0 state=0 args=aio:$A"
truncate -s 16M "$WORK/b.img"
expect 0 tap_ctl pause -p "$P" -m 0
expect 0 tap_ctl unpause -p "$P" -m 0 -a "aio:$WORK/b.img"
expect 0 tap_ctl list
is "list after unpause -a" "$OUT" "pid=$P minor=0 state=0 args=aio:$WORK/b.img"

# an image that grows, and one that shrinks
truncate -s 32M "$WORK/b.img"
expect 0 tap_ctl resize -p "$P" -m 0
is "resize" "$OUT" 33554432
truncate -s 16M "$WORK/b.img"
expect 22 tap_ctl resize -p "$P" -m 0
has "resize of what has shrunk" "$ERR" "has shrunk"
truncate -s 32M "$WORK/b.img"

# a mode is changed while the disk is paused, or not at all
expect 16 tap_ctl unpause -p "$P" -m 0 -o cache=writeback
has "unpause of what is not paused" "$ERR" "pause it before"
expect 0 tap_ctl pause -p "$P" -m 0
expect 0 tap_ctl unpause -p "$P" -m 0 -o cache=writethrough
expect 0 tap_ctl list --json
has "the new mode" "$OUT" writethrough

# what nobody knows
expect 19 tap_ctl close -p "$P" -m 7
expect 19 tap_ctl pause -p "$P" -m 7
expect 19 tap_ctl unpause -p "$P" -m 7
expect 19 tap_ctl stats -p "$P" -m 7
expect 19 tap_ctl detach -p "$P" -m 7
expect 19 tap_ctl destroy -p "$P" -m 7
expect 19 tap_ctl free -m 7
for cmd in attach detach close pause unpause stats; do
	expect 2 tap_ctl $cmd -p 1073741823 -m 0
	is "lines of $cmd's error" "$(printf '%s\n' "$ERR" | wc -l)" 1
done
expect 0 tap_ctl list -p 1073741823
is "list -p of no one" "$OUT" ""

expect 0 tap_ctl close -p "$P" -m 0 -t 120
expect 0 tap_ctl list
has "list after close" "$OUT" "pid=$P minor=0 state=0x2"
expect 0 tap_ctl detach -p "$P" -m 0
no_tapdisk()
{
	[ -z "$(procs tapdisk)" ]
}
until_true 5 no_tapdisk
expect 0 tap_ctl list
is "list after detach" "$OUT" "minor=0"
expect 0 tap_ctl free -m 0
expect 0 tap_ctl list
is "list at the end" "$OUT" ""
is "files at the end" "$(find "$TAPDISK_CONTROL_DIR" ! -type d)" ""

# in one
expect 0 tap_ctl create -a "aio:$A" -d some-name
is create "$OUT" "$TAPDISK_CONTROL_DIR/tapdisk/tapdisk-0"
P=$(procs tapdisk)
expect 0 tap_ctl list
is "list after create" "$OUT" "pid=$P minor=0 state=0 args=aio:$A"
expect 0 tap_ctl list -n some-name
is "list -n" "$OUT" "pid=$P minor=0 state=0 args=aio:$A"
expect 0 tap_ctl list --json
has "the name" "$OUT" '"name": "some-name"'
expect 0 tap_ctl list -n other-name
is "list -n of nobody" "$OUT" ""
expect 36 tap_ctl create -a "aio:$WORK/b.img" -d "$(printf %200s x)"
expect 0 tap_ctl create -a "raw:$WORK/b.img" -o cache=writeback -R
is "second create" "$OUT" "$TAPDISK_CONTROL_DIR/tapdisk/tapdisk-1"
for type in aio raw; do
	expect 0 tap_ctl list -t $type
	is "aio and raw are one type" "$(printf '%s\n' "$OUT" | wc -l)" 2
done
expect 0 tap_ctl list -t aio -f "$A"
is "list -t -f" "$OUT" "pid=$P minor=0 state=0 args=aio:$A"
expect 0 tap_ctl list -p "$P" -f "$WORK/b.img"
is "filters are ANDed" "$OUT" ""
expect 0 tap_ctl list -t vhd
is "list -t vhd" "$OUT" ""
expect 0 tap_ctl list --json
has "json" "$OUT" '"mode": "writeback"'
has "json" "$OUT" '"mode": "none"'
expect 0 tap_ctl list --json -m 0
has "json of one" "$OUT" "\"args\": \"aio:$A\""
expect 0 tap_ctl destroy -p "$P" -m 0
is "no process is left after destroy" "$(procs tapdisk | grep -cx "$P")" 0
P=$(procs tapdisk)
expect 0 tap_ctl destroy -p "$P" -m 1 -t 100
no_tapdisk || fail "destroy left $(procs tapdisk)"
is "files after destroy" "$(find "$TAPDISK_CONTROL_DIR" ! -type d)" ""

# destroy of what is not open, or only allocated to it
expect 0 tap_ctl allocate
expect 0 tap_ctl spawn
P=$OUT
expect 0 tap_ctl attach -p "$P" -m 0
expect 0 tap_ctl destroy -p "$P" -m 0
no_tapdisk || fail "destroy of a closed disk left $(procs tapdisk)"
is "files after destroy of a closed disk" "$(find "$TAPDISK_CONTROL_DIR" ! -type d)" ""

# installed below another prefix than the configured one, and called from anywhere
mkdir -p "$WORK/moved/sbin" "$WORK/moved/libexec"
cp "$top_builddir/bin/tap-ctl" "$WORK/moved/sbin/"
cp "$top_builddir/tapdisk/tapdisk" "$WORK/moved/libexec/"
cd / || exit 1
expect 0 "$WORK/moved/sbin/tap-ctl" create -a "aio:$A"
P=$(procs tapdisk)
is "the moved program" "$(readlink "/proc/$P/exe" || echo "$WORK/moved/libexec/tapdisk")" "$WORK/moved/libexec/tapdisk"
expect 0 "$WORK/moved/sbin/tap-ctl" destroy -p "$P" -m 0

# -D is no cache mode: the guest's writes go past the page cache
expect 0 tap_ctl create -D -a "aio:$A"
expect 0 tap_ctl list --json
has "-D" "$OUT" '"mode": "none"'
expect 0 tap_ctl destroy -p "$(procs tapdisk)" -m 0

# an image has many readers, or one writer
expect 0 tap_ctl create -R -a "aio:$A"
expect 0 tap_ctl create --read-only --args "aio:$A" --option cache=writeback
expect 16 tap_ctl create -a "aio:$A"
expect 0 tap_ctl list --json
is "readers" "$(printf '%s\n' "$OUT" | grep -c "\"args\": \"aio:$A\"")" 2
for P in $(procs tapdisk); do
	expect 0 tap_ctl list --pid "$P"
	M=${OUT#*minor=}
	expect 0 tap_ctl destroy --pid "$P" --minor "${M%% *}" --timeout 100
done
no_tapdisk || fail "readers are left: $(procs tapdisk)"
exit 0
