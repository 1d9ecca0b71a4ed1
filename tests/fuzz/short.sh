# SPDX-License-Identifier: LGPL-2.1-or-later
# The fuzzers, for seconds: each runs its seeds, its corpus with what was once a report, and some thousand inputs that follow from a seed.
# With sanitizers, a planted bug of some targets is reported, and its input is one that reports it again.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
fuzz=$top_builddir/tests/fuzz
sanitized=
grep -q '^#define TD_SANITIZED 1' "$top_builddir/config.h" && sanitized=yes
export TMPDIR=$WORK

for t in ring vhd qcow2 qcow luks nbd-server nbd-client nbd-again tls words control opener xenstore; do
	[ -x "$fuzz/$t" ] || continue # xenstore: this build has no tapback
	"$fuzz/$t" -h 2>&1 | grep -q '^usage: .*\[-n INPUTS\]' || skip "this build's fuzzers are libFuzzer's"
	kept=$top_srcdir/tests/fuzz/corpus/$t.hex
	[ -f "$kept" ] || kept= # an image's seeds are made
	run "$fuzz/$t" -s 1 -n "${FUZZ_INPUTS:-1000}" -o "$WORK" ${kept:+"$kept"}
	[ "$RC" = 0 ] || tail -n 40 <<<"$ERR" >&2
	is "$t" "$RC" 0
	has "$t" "$OUT" "no report"
done

count() # TARGET COUNT: one of those that count
{
	run "$fuzz/$1" -s 1 -n "$2"
	[ "$RC" = 0 ] || tail -n 40 <<<"$ERR" >&2
	is "$1" "$RC" 0
	has "$1" "$OUT" "no report"
}
count bulk-ring 200000
count bulk-lane 5000
count bulk-image 1000

if command -v python3 >/dev/null; then
	run env SRC="$top_srcdir" python3 -B "$top_srcdir/tests/fuzz/plant" --fits
	is "the planted bugs fit" "$RC $OUT" "0 "
	if [ -n "$sanitized" ]; then
		cd "$top_builddir" || exit 99
		run make -s fuzz-plant BUGS="ring-failed-read-is-copied nbd-server-option-cut-short luks-slot-beyond-the-area"
		has "planted bugs" "$OUT" "planted bugs: 3 of 3 seen"
	fi
fi
