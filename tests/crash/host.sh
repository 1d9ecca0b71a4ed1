#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The simulated host, small: a few hundred histories of some formats, the same seeds give the same histories, and what is left out of
# one stays out.  `make check-crash' is the real thing.
set -u
top=${top_srcdir:-$(cd "$(dirname "$0")/../.." && pwd)}
lab=${top_builddir:-.}/tests/crash/hostlab
bad=0
fail() { echo "FAIL: $*"; bad=1; }

[ -x "$lab" ] || { echo "$lab is not built"; exit 77; }

# the checker of images shares no code with the drivers
if grep -nE '#[[:space:]]*include[[:space:]]*["<](td|lib|drivers|tapdisk|control)/' "$top"/tests/crash/image-check.[ch]; then
	fail "image-check includes what it judges"
fi

# with sanitizers, which take five times as long, a part
many=150 some=40
grep -q '^#define TD_SANITIZED 1' "${top_builddir:-.}/config.h" && many=30 some=10

field() { sed -n 's/^RESULT\t//p' | cut -f"$1"; }

formats="raw-file raw-file-4k raw-device vhd-fixed"
for format in $formats; do
	for mode in none writeback writethrough directsync unsafe; do
		out=$("$lab" --format "$format" --mode $mode --seed 1-$many)
		rc=$?
		[ $rc = 0 ] && [ "$(field 12 <<<"$out")" = 0 ] || [ $rc = 77 ] || { fail "$format, cache=$mode"; tail -40 <<<"$out"; }
	done
done

# every other format, briefly
for format in $("$lab" --list | sed -n 's/\tpresent.*//p' | grep -vE '^(raw|vhd-fixed)'); do
	for mode in none writethrough; do
		out=$("$lab" --format "$format" --mode $mode --seed 1-$some)
		rc=$?
		[ $rc = 0 ] && [ "$(field 12 <<<"$out")" = 0 ] || [ $rc = 77 ] || { fail "$format, cache=$mode"; tail -40 <<<"$out"; }
	done
done

# what was found and mended: a death while a log is made
out=$("$lab" --format qcow2-v2 --mode unsafe --seed 45) || [ $? = 77 ] || # without qemu-img
	{ fail "qcow2-v2, cache=unsafe, seed 45"; tail -20 <<<"$out"; }

# a durable write that was under way when another failed
out=$("$lab" --format vhd-differencing-2 --mode writethrough --seed 5000189) || [ $? = 77 ] ||
	{ fail "vhd-differencing-2, cache=writethrough, seed 5000189"; tail -20 <<<"$out"; }

# an unpause whose sync failed, and which then failed for another reason: the next one's sync did well
out=$("$lab" --format vhd-fixed --mode unsafe --seed 700001592) || [ $? = 77 ] ||
	{ fail "vhd-fixed, cache=unsafe, seed 700001592"; tail -20 <<<"$out"; }

# a pause whose close could not make lazy counts durable, which read right at the next opening
out=$("$lab" --format qcow2-growing-lazy --mode none --seed 379) || [ $? = 77 ] ||
	{ fail "qcow2-growing-lazy, cache=none, seed 379"; tail -20 <<<"$out"; }

# a larger refcount table, whose name in the header finds no space at first
out=$("$lab" --format qcow2-growing-lazy --mode unsafe --seed 3842) || [ $? = 77 ] ||
	{ fail "qcow2-growing-lazy, cache=unsafe, seed 3842"; tail -20 <<<"$out"; }

# a write that a mirror's copy had, waited for space on the disk, and failed with it: the mirror was told as whole
out=$("$lab" --format raw-mirror --mode none --seed 260) || { fail "raw-mirror, cache=none, seed 260"; tail -20 <<<"$out"; }

# it does what it is there for
out=$("$lab" --format raw-file --mode none --seed 1-150)
for n in 5 6 7 8 9 11; do
	[ "$(field $n <<<"$out")" -gt 0 ] || fail "no deaths, successors, upgrades, disks taken back, pauses or faults (column $n): $out"
done

said=$("$lab" --format vhd-commit-4 --mode none --seed 1-100 --verbose 2>&1) || [ $? = 77 ] || fail "vhd-commit-4 --verbose"
[ -z "$said" ] || for image in leaf low2 low1; do
	grep -q "/sim/$image is removed" <<<"$said" || fail "no commit of $image is concluded"
done

for format in raw-standby qcow2-secondary; do
	said=$("$lab" --format $format --mode none --seed 1-100 --verbose 2>&1)
	[ $? != 77 ] || continue # without qemu-img
	for what in "its leaf was full" "cannot write its record"; do
		grep -q "$what" <<<"$said" || fail "$format: not once: $what"
	done
done

said=$("$lab" --format vhd-fixed --mode none --seed 1-300 --verbose 2>&1)
grep -q 'made larger' <<<"$said" || fail "no VHD is made larger while it is paused"

a=$("$lab" --format raw-file-4k --mode none --seed 1-60 | field 14)
b=$("$lab" --format raw-file-4k --mode none --seed 1-60 | field 14)
[ -n "$a" ] && [ "$a" = "$b" ] || fail "the same seeds gave other histories: $a, $b"
c=$("$lab" --format raw-file-4k --mode none --seed 7 --without 0-95 | field 14)
d=$("$lab" --format raw-file-4k --mode none --seed 7 | field 14)
[ -n "$c" ] && [ "$c" != "$d" ] || fail "what was left out happened: $c, $d"
exit $bad
