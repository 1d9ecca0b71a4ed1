# SPDX-License-Identifier: LGPL-2.1-or-later
# cbt-util: the bytes of a log of changed blocks, what it prints, and its exit codes, as XenServer's storage manager knows them.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99

cbt() { "$top_builddir/bin/cbt-util" "$@"; }
hex() { od -An -v -tx1 "$1" | tr -d ' \n'; }
bits() { cbt get -n "$1" -b | od -An -v -tx1 | tr -d ' \n'; }
set_bits() # FILE OFFSET BYTES
{
	printf "%b" "$3" | dd of="$1" bs=1 seek=$((48 + $2)) conv=notrunc status=none
}
cd "$WORK" || exit 99
z=00000000000000000000000000000000
u=8b6b1a5c-0d1e-4f2a-9c3b-0123456789ab
v=FEDCBA98-7654-3210-ABCD-EF0123456789

# the file to the byte: 153 blocks, 20 bytes of bits
expect 0 cbt create -n a -s 10000000
is "its length" "$(stat -c %s a)" 68
is "its bytes" "$(hex a)" "$z${z}0000000000000000809698000000000000000000000000000000000000000000$(printf '00%.0s' {1..4})"
expect 0 cbt get -n a -p
is "no parent" "$OUT" 00000000-0000-0000-0000-000000000000
expect 0 cbt get -n a -f
is "not clean" "$OUT" 0
expect 0 cbt get -n a -s
is "the size" "$OUT" 10000000
is "the bits" "$(cbt get -n a -b | wc -c)" 20
expect 0 cbt set -n a -p $u -c $v -f 1
expect 0 cbt get -n a -p
is "the parent" "$OUT" $u
expect 0 cbt get -n a -c
is "the child, in small letters" "$OUT" "${v,,}"
expect 0 cbt get -n a -f
is "clean" "$OUT" 1
is "as it is printed" "$(head -c 32 a | od -An -v -tx1 | tr -d ' \n')" "$(tr -d - <<<"$u${v,,}")"
is "one newline" "$(cbt get -n a -f | od -An -c | tr -d ' ')" '1\n'

# made anew: nothing is left
set_bits a 0 '\xff'
expect 0 cbt create -n a -s 65537
is "two blocks" "$(stat -c %s a)" 49
is "empty" "$(bits a)" 00

# it grows, and does not shrink; bits stay, new ones are not set
set_bits a 0 '\x03'
expect 0 cbt set -n a -s 10000000
is "grown" "$(stat -c %s a) $(bits a)" "68 03$(printf '00%.0s' {1..19})"
expect 22 cbt set -n a -s 65536
expect 0 cbt get -n a -s
is "not shrunk" "$OUT" 10000000

# coalesce: the parent's into the child's
expect 0 cbt create -n b -s 20000000
set_bits a 19 '\x80'
set_bits b 0 '\x10'
expect 0 cbt coalesce -p a -c b
is "both" "$(bits b)" "13$(printf '00%.0s' {1..18})80$(printf '00%.0s' {1..19})"
is "the parent as it was" "$(bits a)" "03$(printf '00%.0s' {1..18})80"
expect 22 cbt coalesce -p b -c a
has "why" "$ERR" "larger"
is "nothing has changed" "$(bits a)" "03$(printf '00%.0s' {1..18})80"

# a block device that is larger than it needs to be
if dev=$(truncate -s 1M d && losetup --show -f d 2>/dev/null); then
	at_exit "losetup -d $dev"
	expect 0 cbt create -n "$dev" -s 10000000
	expect 0 cbt set -n "$dev" -f 1 -s 30000000
	expect 0 cbt get -n "$dev" -s
	is "on a device" "$OUT" 30000000
	is "and its bits" "$(cbt get -n "$dev" -b | wc -c)" 58
	expect 28 cbt set -n "$dev" -s 1000000000000000
fi

# what is refused
expect 2 cbt get -n none -p
expect 2 cbt set -n none -f 1
expect 2 cbt coalesce -p none -c a
head -c 40 a >short
expect 5 cbt get -n short -f
head -c 60 a >short
expect 5 cbt get -n short -b
expect 22 cbt
has "usage on stdout" "$OUT" "usage:"
expect 22 cbt get -n a
expect 22 cbt get -n a -p -c
expect 22 cbt get -p
expect 22 cbt create -n x
[ ! -e x ] || fail "a file was made without a size"
expect 22 cbt create -n x -s many
# nothing is left of one that did not fit
too_large() { (trap '' XFSZ; ulimit -f 1; cbt create -n x -s 1000000000000); }
expect 27 too_large
[ ! -e x ] || fail "what has no room leaves $(wc -c <x) bytes"
expect 22 cbt set -n a
expect 22 cbt set -n a -p not-a-uuid
expect 22 cbt set -n a -p "${u%?}g" -f 0
expect 0 cbt get -n a -f
is "all or nothing" "$OUT" 0
expect 22 cbt coalesce -p a
expect 22 cbt nonsense
expect 22 cbt get -n a -p more
expect 0 cbt --help
expect 0 cbt get -h
exit 0
