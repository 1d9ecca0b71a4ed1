# SPDX-License-Identifier: LGPL-2.1-or-later
# What a storage manager does beneath a running guest: its chain a < b < c loses b, while the guest reads and writes c: b is coalesced
# into a, both in use as parents; then, in a pause, c is named a as its parent.  And what it may not do.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99

vhd_util() { "$top_builddir/bin/vhd-util" "$@"; }
guest() { "$top_builddir/tests/support/tdguest" "$pid" "$minor" "$@"; }
cd "$WORK" || exit 1

start()
{
	local marker

	marker=$(tap_ctl create -a "vhd:$WORK/$1" -o cache=writeback) || fail "create $1"
	minor=${marker##*-}
	pid=$(tap_ctl list -m "$minor" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
}
under() # NEW PARENT: a snapshot under the guest, as storage managers take it
{
	expect 0 tap_ctl pause -p "$pid" -m "$minor"
	expect 0 vhd_util snapshot --debug -n "$1" -p "$2"
	expect 0 tap_ctl unpause -p "$pid" -m "$minor" -a "vhd:$WORK/$1"
}

expect 0 vhd_util create --debug -n a.vhd -s 40
start a.vhd
expect 0 guest write 0 1048576 1
expect 0 guest write 6291456 131072 2
under b.vhd a.vhd
expect 0 guest write 4096 65536 3
expect 0 guest write 10485760 1048576 4
expect 0 guest write 512 512 5
under c.vhd b.vhd
expect 0 guest write 8192 4096 6
expect 0 guest write 20971520 4096 7
guest read 0 41943040 >want || fail "read"

# what is in use is not written by others; what is looked at is not held up
expect 16 vhd_util resize -n c.vhd -s 80 -j j
expect 16 vhd_util modify -z -n b.vhd
expect 16 vhd_util coalesce -n c.vhd
has "who has it" "$ERR" "$pid"
for f in a b c; do expect 0 vhd_util query -vspfd -n $f.vhd; done
expect 0 vhd_util scan -f -m '*.vhd'
is "scan of a running chain" "$(sed 's/ .*parent=/ /' <<<"$OUT")" "vhd=a.vhd none
vhd=b.vhd a.vhd
vhd=c.vhd b.vhd"

# b goes into a, beneath the guest, who reads the same before, meanwhile and after, and goes on writing
expect 0 vhd_util set --debug -n b.vhd -f hidden -v 1
(for _ in $(seq 20); do guest read 0 41943040 | cmp - want >&2 || { echo "the guest sees the coalesce" >differs; break; }; done) &
reader=$!
run vhd_util coalesce --debug -n b.vhd
is "coalesce beneath a guest" "$RC $OUT" "0 Coalesced 2177 sectors"
wait $reader
[ ! -e differs ] || fail "$(cat differs)"
expect 0 guest write 29999616 4096 8
guest read 0 41943040 >want
expect 0 tap_ctl pause -p "$pid" -m "$minor"
expect 0 vhd_util modify --debug -n c.vhd -p a.vhd
expect 0 vhd_util query -d -n c.vhd
is "the chain without b" "$OUT" "chain depth: 2"
rm b.vhd
expect 0 tap_ctl unpause -p "$pid" -m "$minor" -a "vhd:$WORK/c.vhd"
guest read 0 41943040 | cmp - want || fail "without b the guest reads something else"

# the leaf goes into its parent in a pause; the guest goes on with that
expect 0 tap_ctl pause -p "$pid" -m "$minor"
expect 0 vhd_util coalesce --debug -n c.vhd
expect 0 tap_ctl unpause -p "$pid" -m "$minor" -a "vhd:$WORK/a.vhd"
guest read 0 41943040 | cmp - want || fail "without c the guest reads something else"
expect 0 guest write 0 4096 9
expect 0 tap_ctl close -p "$pid" -m "$minor" -t 120
expect 0 tap_ctl detach -p "$pid" -m "$minor"
expect 0 tap_ctl free -m "$minor"
expect 0 vhd_util check --debug -n a.vhd

# a tapdisk that is killed leaves an image that repair makes good
start a.vhd
expect 0 guest write 33554432 4096 10
expect 0 guest flush
kill -KILL "$pid"
until_true 10 gone "$pid"
run vhd_util check -n a.vhd
[ "$RC" = 0 ] || expect 0 vhd_util check -n a.vhd -i
expect 0 vhd_util repair --debug -n a.vhd
expect 0 vhd_util check --debug -n a.vhd
tap_ctl list >/dev/null
start a.vhd
expect 0 guest verify 33554432 4096 10
guest read 0 41943040 >want
expect 0 tap_ctl destroy -p "$pid" -m "$minor"

# resized to a new block table behind its data: the same to a guest, and more
expect 0 vhd_util resize --debug -s 5000 -n a.vhd -j journal
start a.vhd
guest read 0 41943040 | cmp - want || fail "the resized disk reads something else"
expect 0 guest write 5242875904 4096 11
expect 0 guest write 2147483648 65536 12
expect 0 guest flush
expect 0 guest verify 5242875904 4096 11
expect 0 tap_ctl destroy -p "$pid" -m "$minor"
expect 0 vhd_util check --debug -n a.vhd
start a.vhd
expect 0 guest verify 2147483648 65536 12
expect 0 tap_ctl destroy -p "$pid" -m "$minor"
exit 0
