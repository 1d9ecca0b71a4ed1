# SPDX-License-Identifier: LGPL-2.1-or-later
# A test whose helper is misspelt fails, wherever that stands: lib.sh sees to it.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99

tried() # WHAT LINES WANTED-RC: a test of these lines
{
	printf '. "%s/tests/it/lib.sh"\n%s\nexit 0\n' "$top_srcdir" "$2" >"$WORK/t.sh"
	run env top_srcdir="$top_srcdir" top_builddir="$top_builddir" bash "$WORK/t.sh"
	is "$1" "$RC" "$3"
	[ "$3" = 0 ] || has "$1" "$ERR" "t.sh:2: mispelt: there is no such command"
}
tried "nothing is wrong" true 0
tried "a helper" "mispelt a b" 1
tried "in a substitution" 'x=$(mispelt)' 1
tried "in a condition" "if mispelt; then :; fi" 1
tried "in a pipe" "echo | mispelt | cat" 1
tried "by run" "run mispelt" 1
tried "by expect, as wanted" "expect 127 mispelt" 1
tried "in the background" "mispelt & wait" 1
tried "whether it is there may be asked" "command -v mispelt; ! type mispelt" 0
exit 0
