# SPDX-License-Identifier: LGPL-2.1-or-later
# What bench/report makes of measurements: medians, ratios within a round, spread, aims; of a run that was cut, what there is; a plot that is
# valid XML.  And bench/run measures one row, of a tapdisk, and reports it.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
command -v python3 >/dev/null || skip "python3 is not installed"

lines() { printf '%s\n' "$@" | tr '|' '\t'; }
report() { expect 0 python3 "$top_srcdir/bench/report" "$WORK/lines" "$WORK/r.md" "$WORK/r.svg"; }
valid() { ! command -v xmllint >/dev/null || expect 0 xmllint --noout "$1"; }

# Ratios within a round: 2, 2, 0.5, so that the median is 2, where the ratio of the medians, 200 of 100, would be too; the third round, in
# which both had a thousandfold, moves the rates and not the ratios.
lines 'table|t|IOPS|peer|The <first> & last' 'aim|t|ours|1.50|^one' 'aim|t|ours|3.00|^one|third' 'aim|t|ours|9|^two' \
	'm|t|one row|ours|1|200|10|20|1.5' 'm|t|one row|peer|1|100|-|-|-' 'm|t|one row|third|1|100|-|-|-' \
	'm|t|one row|peer|2|110|-|-|-' 'm|t|one row|ours|2|220|30|60|2.5' \
	'm|t|one row|ours|3|300000|20|40|9' 'm|t|one row|peer|3|100000|-|-|-' \
	'm|t|two|ours|1|50|-|-|-' 'm|t|two|ours|2|60|-|-|-' 'v|t|a thing|7 kB' >"$WORK/lines"
printf 'm\tt\ttwo\tours\t3\t9' >>"$WORK/lines" # and there the run was cut
report
table=$(cat "$WORK/r.md")
has "title" "$table" "### The <first> & last"
has "the base, first" "$table" "| one row | peer | 110 | 90818 % |  |  | - | - | - | 3 |  |"
has "the others" "$table" "|  | ours | 220 | 136273 % | 2.00 | 50 % | 20.0 | 40.0 | 2.50 | 3 | 1.50: met; 3.00 of third: missed, 2.00 |"
has "an even number of rounds, without a base" "$table" "| two | ours | 55.0 | 18 % |  |  | - | - | - | 2 |  |"
has "a value" "$table" "| a thing | 7 kB |"
has "the cut line" "$table" "1 lines are cut or not understood"
valid "$WORK/r.svg"
has "the plot's bar" "$(cat "$WORK/r.svg")" "2.00  ours"
has "the plot's title" "$(cat "$WORK/r.svg")" "The &lt;first&gt; &amp; last"
: >"$WORK/lines"; report; valid "$WORK/r.svg" # nothing measured

# A bench, one row of it.
export ROUNDS=1 SECONDS_EACH=0.2 DIR=$WORK REPORT=$WORK/smoke top_builddir
ROWS='null: randread 512 B, one core each' expect 0 bash "$top_srcdir/bench/run" null
is "measurements" "$(grep -c '^m	null	randread 512 B, one core each	' "$WORK/smoke.tsv")" "$(grep -c '^m' "$WORK/smoke.tsv")"
[ "$(awk -F'\t' '$1 $4 == "mone ring" { print int($6) }' "$WORK/smoke.tsv")" -gt 0 ] || fail "no requests: $(cat "$WORK/smoke.tsv")"
has "its report" "$OUT" "| randread 512 B, one core each | one ring |"
valid "$WORK/smoke.svg"
# Stopped, twice as timeout(1) does it, it reports what there is.
ROUNDS=1000 ROWS='null: randread 512 B, one core each' bash "$top_srcdir/bench/run" null >"$WORK/out" 2>"$WORK/err" &
bench=$!
until_true 30 grep -q 'round 2' "$WORK/err"
kill -TERM $bench; kill -TERM $bench
wait $bench
is "the status of one that is stopped" $? 143
has "its report" "$(cat "$WORK/out")" "| randread 512 B, one core each | one ring |"
until_true 5 eval '[ -z "$(procs tapdisk)" ]'
# The proxies, where all of them are installed: each has moved something.
run env SIZE=8M ROWS='nbd-client: randread 4 KiB, depth 32' bash "$top_srcdir/bench/run" nbd-client
if [ "$RC" != 77 ]; then
	is "the proxies" "$RC" 0
	is "those that moved something" "$(awk -F'\t' '$1 == "m" && $6 > 0 { print $4 }' "$WORK/smoke.tsv" | sort | paste -sd,)" \
		"four connections,nbdkit,no proxy,qemu-storage-daemon,tapdisk"
	is "whose CPU is told" "$(awk -F'\t' '$1 == "m" && $9 != "-" { print $4 }' "$WORK/smoke.tsv" | sort | paste -sd,)" \
		"four connections,nbdkit,qemu-storage-daemon,tapdisk"
fi
ROWS='no such row' expect 0 bash "$top_srcdir/bench/run" null
expect 2 bash "$top_srcdir/bench/run" no-such-table
is "what is left" "$(ls -d "$WORK"/tapdisk-bench.* 2>/dev/null)" ""
