#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# No program defines a function of libc for all that it links, OpenSSL included; of a tapdisk, configure --enable-turn-clock says otherwise.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
command -v nm >/dev/null || skip "nm is not installed"
cd "$top_builddir" || exit 99
grep -q '^#define TD_SANITIZED' config.h && skip "sanitizers define functions of libc"
libc=$(ldd tapdisk/tapdisk | awk '$1 == "libc.so.6" { print $3 }')
[ -r "$libc" ] || skip "no shared libc"

# functions: of those on stdin, as nm prints them
functions() {
	awk '$2 ~ /^[TW]$/ { sub(/@.*/, "", $3); print $3 }' | grep -v '^_' | sort -u
}
nm -D --defined-only "$libc" | functions >"$WORK/libc"
[ "$(wc -l <"$WORK/libc")" -gt 1000 ] || fail "only $(wc -l <"$WORK/libc") functions of $libc"
# replaced PROGRAM
replaced() {
	nm --defined-only "$1" | functions | comm -12 - "$WORK/libc"
}

echo 'int getpid(void); int getpid(void) { return 1; } int main(void) { return 0; }' >"$WORK/x.c"
${CC:-cc} "$WORK/x.c" -o "$WORK/x" || fail "cc"
is "a planted one" "$(replaced "$WORK/x")" "getpid"

turn=
grep -q '^#define TD_TURN_CLOCK' config.h && turn=clock_gettime
is "a tapdisk's" "$(replaced tapdisk/tapdisk)" "$turn"
for p in bin/*; do
	[ ! -x "$p" ] || [ -d "$p" ] || [ "$(head -c 2 "$p")" = '#!' ] || is "$p's" "$(replaced "$p")" ""
done
