# SPDX-License-Identifier: LGPL-2.1-or-later
# Every script of ours passes shellcheck, and none under `set -e' or pipefail ends without a word: a trap names file, line and command.
# No two scripts that one shell sources define the same function.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
cd "$top_srcdir" || exit 99

scripts=()
while read -r f; do
	case $f in
	*.sh | *.bash-completion | debian/p*) scripts+=("$f") ;;
	*) ! head -n 1 "$f" | grep -aqE '^#!.*(/|env )(ba)?sh( |$)' || scripts+=("$f") ;;
	esac
done < <(find .ci bench control debian doc quickstart tests -type f ! -name '*.[ch]' | sort)
[ ${#scripts[@]} -ge 80 ] || fail "only ${#scripts[@]} scripts were found: ${scripts[*]}"
has "a script without a suffix" " ${scripts[*]} " " quickstart "

# --- the trap ------------------------------------------------------------------------------------------------------------------
for f in "${scripts[@]}"; do
	! grep -qE '^[[:space:]]*set -[a-z]*(e|o pipefail)' "$f" || grep -qE '/errtrap\.sh"|^trap .* ERR$' "$f" ||
		fail "$f: set -e or pipefail without a trap that says what failed: source tests/support/errtrap.sh"
done
# a program that a base system has not is asked for first, so that a test skips without it: one that went on has hung for ever
for f in tests/it/*.sh tests/crash/*.sh; do
	case $f in */lib.sh | */shellcheck.sh) continue ;; esac
	for t in python3 strace; do
		! sed 's/^[[:space:]]*#.*//' "$f" | grep -E "(^|[[:space:]\$(|\"\`;&])${t}[[:space:]]" >/dev/null ||
			grep -qE "command -v.*$t|for [a-z]+ in .*$t" "$f" || fail "$f uses $t, and does not skip where it is missing"
	done
done
cat >"$WORK/silent" <<E2
set -euo pipefail
. "$top_srcdir/tests/support/errtrap.sh"
newest()
{
	local file
	file=\$(ls "$WORK/nothing"*.deb 2>/dev/null | tail -n 1)
	echo "\$file"
}
newest
echo "not reached"
E2
expect 2 bash "$WORK/silent"
is "what a script does that failed" "$OUT" ""
has "what failed" "$ERR" "$WORK/silent:6: status 2 from: file=\$(ls"
has "on whose behalf" "$ERR" "in newest, called at $WORK/silent:9"
cat >"$WORK/tested" <<E2
set -euo pipefail
. "$top_srcdir/tests/support/errtrap.sh"
false || true
if ! false; then echo "reached"; fi
E2
expect 0 bash "$WORK/tested"
is "of what is tested it says nothing" "$OUT$ERR" reached

# --- one shell ------------------------------------------------------------------------------------------------------------------
# The lab's dom0 sources all of its cases: a function that two of them define is the last one's in both.
twice() { # twice FILE...
	awk '/^[A-Za-z_][A-Za-z_0-9]*\(\)/ { sub(/\(.*/, "", $1); where[$1] = where[$1] " " FILENAME; n[$1]++ }
		END { for (f in n) if (n[f] > 1) print f " is defined in" where[f] }' "$@" | sort
}
printf 'refused() { # WHAT\n\ttrue\n}\n' >"$WORK/a"
printf 'other() { true; }\nrefused() { # WHAT TEXT\n\ttrue\n}\n' >"$WORK/b"
is "a function of two files" "$(twice "$WORK/a" "$WORK/b")" "refused is defined in $WORK/a $WORK/b"
is "what two of the lab's cases define" "$(twice tests/xen/dom0/lib.sh tests/xen/dom0/main tests/xen/cases/*.sh)" ""

# --- shellcheck ----------------------------------------------------------------------------------------------------------------
command -v shellcheck >/dev/null || skip "shellcheck is not installed"
# what the configuration leaves on is what this is about
cp .shellcheckrc "$WORK/"
printf '#!/bin/bash\nx=$(ls *.deb | tail -1)\nrm -rf "$x/"*\ncp $x "$1" && echo "$?"\n' >"$WORK/faulty"
run shellcheck -f gcc "$WORK/faulty"
[ "$RC" = 1 ] || fail "a faulty script passes: $OUT"
has "ls in a pipe" "$OUT" SC2012
has "rm of a variable and a slash" "$OUT" SC2115
run shellcheck -f gcc "${scripts[@]}"
[ "$RC" = 0 ] || fail "shellcheck $(shellcheck --version | sed -n 's/^version: //p') finds:
$OUT$ERR"
