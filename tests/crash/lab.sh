#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The power-cut lab, small: some thousand cuts of each raw store in each mode that promises something, and some of each other
# format, and nothing lost; the
# same seeds give the same run again; and cache=unsafe is seen to lose data.  `make check-crash' is the real thing.
set -u
top=${top_srcdir:-$(cd "$(dirname "$0")/../.." && pwd)}
lab=${top_builddir:-.}/tests/crash/crashlab
bad=0
fail() { echo "FAIL: $*"; bad=1; }

[ -x "$lab" ] || { echo "$lab is not built"; exit 77; }

# the judge shares no code with what it judges
if grep -nE '#[[:space:]]*include[[:space:]]*["<](td|lib|drivers|tapdisk|control)/' "$top"/tests/crash/{pages,trace,disk,judge,changed-check}.[ch] "$top"/tests/crash/rng.h; then
	fail "the judge includes what it judges"
fi

# a change of a source that a planted bug does not fit any more is one of the bug, too
if command -v python3 >/dev/null; then
	out=$(SRC=$top python3 -B "$top/tests/crash/plant" --fits) || fail "planted bugs do not fit: $out"
fi

# with sanitizers, which take five times as long, a part
many=60
grep -q '^#define TD_SANITIZED 1' "${top_builddir:-.}/config.h" && many=15

violations() { sed -n 's/^RESULT\t//p' | cut -f6; }
digest() { sed -n 's/^RESULT\t//p' | cut -f9; }

for format in raw-file raw-file-4k raw-device raw-device-4k; do
	for mode in none directsync writethrough writeback; do
		for what in "--seed 1-$many" "--faults 1-2" "--sequence 200-206"; do
			# shellcheck disable=SC2086
			out=$("$lab" --format $format --mode $mode $what) && [ "$(violations <<<"$out")" = 0 ] ||
				{ fail "$format, cache=$mode, $what"; tail -40 <<<"$out"; }
		done
	done
done

# every format that there is, briefly; one that needs a tool that is missing is left out
for format in $("$lab" --list | sed -n 's/\tpresent.*//p' | grep -v '^raw'); do
	for mode in none writethrough; do
		out=$("$lab" --format "$format" --mode $mode --seed 1-5)
		rc=$?
		[ $rc = 0 ] && [ "$(violations <<<"$out")" = 0 ] || [ $rc = 77 ] || { fail "$format, cache=$mode, seeds 1-5"; tail -40 <<<"$out"; }
	done
done

# what once went wrong: zeroes beside a running read-modify-write were undone by it
for seed in 10 13; do
	out=$("$lab" --format raw-file-4k --mode none --seed $seed --cuts 200) || { fail "seed $seed"; tail -40 <<<"$out"; }
done

# what once went wrong: a FLUSH whose metadata found no space failed the disk; a guest filled the lab's device
for what in "vhd --faults 1" "qcow2 --faults 1" "qcow --faults 1" "vhd-device --seed 10"; do
	# shellcheck disable=SC2086
	out=$("$lab" --mode none --format $what)
	rc=$?
	[ $rc = 0 ] || [ $rc = 77 ] || { fail "$what"; tail -40 <<<"$out"; }
done

a=$("$lab" --format raw-file-4k --mode none --seed 1-20 | digest)
b=$("$lab" --format raw-file-4k --mode none --seed 1-20 | digest)
[ -n "$a" ] && [ "$a" = "$b" ] || fail "the same seeds gave another run: $a, $b"

"$lab" --format raw-file --mode unsafe --seed 1-20 --stop >/tmp/crashlab.$$ && fail "cache=unsafe was not seen to lose data"
grep -q '^VIOLATION I1' /tmp/crashlab.$$ && grep -q '^  replay: gdb --args' /tmp/crashlab.$$ || { fail "the violation is not told"; cat /tmp/crashlab.$$; }
rm -f /tmp/crashlab.$$
exit $bad
