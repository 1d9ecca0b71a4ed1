# SPDX-License-Identifier: LGPL-2.1-or-later
# What vhd-util prints line by line: no name of a file, and none that an image has for its parent, makes a line or a field of its own.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99

vhd_util() { "$top_builddir/bin/vhd-util" "$@"; }
cd "$WORK" || exit 99
nl='
'
forged="a.vhd capacity=1 size=1 hidden=0 parent=none${nl}vhd=b.vhd"
tab=$(printf 'x\ty\033[2Jz\302\2333J.vhd')
expect 0 vhd_util create -n "$forged" -s 4
expect 0 vhd_util create -n "$tab" -s 4
expect 0 vhd_util create -n "My disk.vhd" -s 4
expect 0 vhd_util create -n 'back\slash.vhd' -s 4

expect 0 vhd_util scan -f -m '*.vhd'
is "lines of a scan" "$(wc -l <<<"$OUT")" 4
has "the name that would forge a line" "$OUT" 'vhd=a.vhd\x20capacity=1\x20size=1\x20hidden=0\x20parent=none\x0avhd=b.vhd capacity=4194304 '
has "a name with a terminal's commands" "$OUT" 'vhd=x\x09y\x1b[2Jz\xc2\x9b3J.vhd capacity='
has "a name with a blank" "$OUT" 'vhd=My disk.vhd capacity='
has "a name with a backslash" "$OUT" 'vhd=back\slash.vhd capacity='
expect 0 vhd_util scan -p -m '*.vhd'
is "lines of a tree" "$(wc -l <<<"$OUT")" 4

# the parent's name, in a scan's last field, by query -p, by read -p
expect 0 vhd_util snapshot -n child.vhd -p "$forged"
expect 0 vhd_util scan -f -m 'child.vhd'
is "a child's line" "${OUT##*hidden=0 parent=a}" '.vhd\x20capacity=1\x20size=1\x20hidden=0\x20parent=none\x0avhd=b.vhd'
is "its fields" "$(tr ' ' '\n' <<<"$OUT" | grep -c '^[a-z]*=')" 5
for how in -p -pu -vpf; do
	expect 0 vhd_util query -n child.vhd $how
	has "query $how" "$OUT" 'parent=none\x0avhd=b.vhd'
done
is "lines of query -vpf" "$(wc -l <<<"$OUT")" 3
expect 0 vhd_util query -n "$forged" -p
is "query -p without a parent" "$OUT" 'a.vhd capacity=1 size=1 hidden=0 parent=none\x0avhd=b.vhd has no parent'
expect 0 vhd_util read -n child.vhd -p
is "what read -p prints of the forged line" "$(grep -c '^vhd=' <<<"$OUT")" 0
expect 0 vhd_util check -n "$forged"
is "check" "$OUT" 'a.vhd capacity=1 size=1 hidden=0 parent=none\x0avhd=b.vhd is valid'

# what cannot be read: the same in the error's line, on both outputs
echo nonsense >"bad${nl}vhd=good.vhd"
expect 0 vhd_util scan -f -c -m 'bad*'
is "lines of an error" "$(wc -l <<<"$OUT")" 1
has "an error" "$OUT" "vhd=bad\\x0avhd=good.vhd scan-error=22 error-message='bad\\x0avhd=good.vhd"
expect 22 vhd_util scan -f -m 'bad*'
is "lines on standard error" "$(wc -l <<<"$ERR")" 1
expect 22 vhd_util check -n "bad${nl}vhd=good.vhd"
is "lines on standard error" "$(wc -l <<<"$ERR")" 1

# JSON: a name that is no UTF-8 is there too
bytes=$(printf 'u\377.vhd')
expect 0 vhd_util create -n "$bytes" -s 4
expect 0 vhd_util scan -f -m 'u*.vhd' --json
has "scan --json" "$OUT" '"vhd": "u\\xff.vhd"'
expect 0 vhd_util query -n "$bytes" --json
has "query --json" "$OUT" '"path": "u\\xff.vhd"'
truncate -s -512 "$bytes"
run vhd_util check -n "$bytes" --json
has "check --json" "$OUT" '"what": "u\\xff.vhd: the footer at its end'
exit 0
