#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Sources that call each other in a circle stand in one room, and one of them says in a sentence ("One thing: ...") why they are one.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
command -v python3 >/dev/null || skip "python3 is not installed"
command -v nm >/dev/null || skip "nm is not installed"

# it sees a circle, and none where there is none
cd "$WORK" || exit 99
mkdir -p lib
echo 'int b(void); int a(void); int a(void) { return b(); }' >lib/a.c
echo 'int a(void); int b(void); int b(void) { return a(); }' >lib/b.c
echo 'int a(void); int c(void); int c(void) { return a(); }' >lib/c.c
for f in a b c; do ${CC:-cc} -c lib/$f.c -o lib/$f.o || fail "cc"; done
run "$top_srcdir/tests/support/circles"
is "a planted circle" "$RC $OUT" "1 lib/a.c lib/b.c"
run "$top_srcdir/tests/support/circles" lib/a.o lib/c.o
is "no circle" "$RC $OUT" "0 "

# unexplained TOP < CIRCLES: those that nobody explains, or that span rooms
unexplained() {
	local circle f
	while read -r circle; do
		[ "$(for f in $circle; do dirname "$f"; done | sort -u | wc -l)" = 1 ] || echo "spans rooms: $circle"
		(cd "$1" && for f in $circle; do sed '/^#include/q' "$f"; done) | grep -q 'One thing: ' || echo "unexplained: $circle"
	done
}
is "an unexplained circle" "$(unexplained . <<<"lib/a.c lib/b.c")" "unexplained: lib/a.c lib/b.c"
cd "$top_builddir" || exit 99
run "$top_srcdir/tests/support/circles"
[ "$RC" != 2 ] || fail "$ERR"
has "the circles" "$OUT" "tapdisk/cache/cache.c"
is "circles" "$(unexplained "$top_srcdir" <<<"$OUT")" ""
