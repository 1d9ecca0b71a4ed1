# SPDX-License-Identifier: LGPL-2.1-or-later
# A limit of time for all tests: what would begin after TESTS_UNTIL is left out and told, by everything that runs tests; nothing is left out
# without a word, and nothing twice in a row.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/support/within.sh"

now=$EPOCHSECONDS

# --- a test of make check
echo 'echo it ran; exit 3' >"$WORK/test.sh"
expect 3 "$top_srcdir/tests/support/in-time" "$WORK/test.sh"
TESTS_UNTIL=$((now + 3600)) expect 3 "$top_srcdir/tests/support/in-time" "$WORK/test.sh"
TESTS_UNTIL=$now expect 77 "$top_srcdir/tests/support/in-time" "$WORK/test.sh"
is "a test that has no time" "$OUT" "SKIP: no time was left for it"
printf '#!/bin/sh\nexit 4\n' >"$WORK/unit" && chmod 755 "$WORK/unit"
expect 4 "$top_srcdir/tests/support/in-time" "$WORK/unit"
TESTS_UNTIL=$now expect 77 "$top_srcdir/tests/support/in-time" "$WORK/unit"

# --- shares of a limit
began=1000 WITHIN=10
is "45 % of ten minutes" "$(by 45)" 1270
is "without a limit" "$(WITHIN='' by 45)" ""
skipped=0
began=$((now - 300)) WITHIN=10
in_time 60 "the first" >"$WORK/said" || fail "300 s of 600 are over, and 60 % are said to be"
is "said" "$(cat "$WORK/said")" ""
! in_time 40 "the second" >"$WORK/said" || fail "300 s of 600 are over, and 40 % are said not to be"
has "what was left out" "$(cat "$WORK/said")" "no time was left for the second"
is "skipped" "$skipped" 1

# --- each commit has an order of its own, with everything in it
sorted() { tr ' ' '\n' <<<"$1" | sort -n | tr '\n' ' '; }
all=$(seq -s ' ' 1 50)
for commit in 0123456789 abcdef0123; do
	commit_of() { echo "$commit"; }
	order=$(tr ' ' '\n' <<<"$all" | shuffled "$top_srcdir" | tr '\n' ' ')
	is "the same commit's order" "$(tr ' ' '\n' <<<"$all" | shuffled "$top_srcdir" | tr '\n' ' ')" "$order"
	is "what is in it" "$(sorted "${order% }")" "$all "
	turned=$(from_another "$top_srcdir" "$all")
	is "what is in the turned one" "$(sorted "${turned% }")" "$all "
	is "who follows whom" "$(grep -o '\b7 8 9\b' <<<"$turned")" "7 8 9"
	orders+=("$order" "$turned")
done
[ "${orders[0]}" != "${orders[2]}" ] || fail "two commits have the same order"
[ "${orders[1]}" != "${orders[3]}" ] || fail "two commits begin with the same word"

# --- the crash labs, where nothing that they have done before is remembered
top=$(cd "$top_builddir" && pwd)
[ -x "$top/tests/crash/killlab" ] || skip "all was right, but the labs are not built"
command -v python3 >/dev/null || skip "all was right, but python3 is not installed, which the labs need"
mkdir -p "$WORK/lab/tests/crash"
ln -s "$top"/tests/crash/{killlab,hostlab,crashlab} "$WORK/lab/tests/crash"
ln -s "$top/bin" "$WORK/lab"
cd "$WORK/lab" || exit 99
export TESTS_UNTIL=$now SRC=$top_srcdir
expect 0 python3 "$top_srcdir/tests/crash/kills"
has "kills" "$OUT" "no time was left for more kills"
has "kills" "$OUT" "0 passed, 0 failed"
expect 0 python3 "$top_srcdir/tests/crash/histories"
has "histories" "$OUT" "no time was left for "
has "histories" "$OUT" "0 passed, 0 failed"
expect 0 python3 "$top_srcdir/tests/crash/run"
has "cuts" "$OUT" "no time was left for more power cuts"
has "cuts" "$OUT" "0 passed, 0 failed"
expect 0 python3 "$top_srcdir/tests/crash/plant" --sample 3
has "planted bugs" "$OUT" "no time was left for 3 bugs"

# --- and one that has time does something
export TESTS_UNTIL=$((now + 3600))
expect 0 env T=aio KILLS=2 python3 "$top_srcdir/tests/crash/kills"
hasnt() { case $2 in *"$3"*) fail "$1: '$3' is in '$2'" ;; esac; }
hasnt "kills" "$OUT" "no time was left"
hasnt "kills" "$OUT" "0 passed"
