#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Who may include whom: the table of the design, held against every #include; and each contract compiles alone.
set -u
top=${top_srcdir:-$(cd "$(dirname "$0")/../.." && pwd)}
cd "$top" || exit 1
bad=0

# check FOLDER ALLOWED: each include of ours ("...", or <td/...>) in the folder is one that it may have
check() {
	local folder=$1 allowed=$2 f inc
	while IFS=: read -r f inc; do
		[[ $inc =~ ^($allowed)$ ]] && continue
		echo "$f may not include $inc (a file of $folder/ may include: $allowed)"
		bad=1
	done < <(grep -rHoE --include='*.[ch]' '^[[:space:]]*#[[:space:]]*include[[:space:]]*["<][^">]+[">]' "$folder" |
		sed -E 's/:[[:space:]]*#[[:space:]]*include[[:space:]]*"/:/; t own; s/:[[:space:]]*#[[:space:]]*include[[:space:]]*<(td\/[^>]*)>/:\1/; t own; d; :own; s/["<>]//g')
}

check include 'td/[a-z-]+\.h'
check lib 'config\.h|td/[a-z-]+\.h|lib/([a-z]+/)?[a-z-]+\.h'
check drivers 'config\.h|td/[a-z-]+\.h|lib/([a-z]+/)?[a-z-]+\.h|drivers/([a-z]+/)?[a-z-]+\.h'
check tapdisk 'config\.h|td/[a-z-]+\.h|lib/([a-z]+/)?[a-z-]+\.h|tapdisk/([a-z]+/)?[a-z-]+\.h|drivers/drivers\.h'
check control 'config\.h|td/(ctl|log|list|cache)\.h|lib/([a-z]+/)?[a-z-]+\.h|control/([a-z-]+/)?[a-z-]+\.h|drivers/(qcow/qcow-image|vhd/vhd-(format|image|check))\.h'

# what a program links says the same: nothing under control/ knows tapdisk's library
for mk in control/local.mk control/*/local.mk; do
	if grep -nE 'TAPDISK_LIBS|libtapdisk|tapdisk/([a-z]+/)?[a-z-]+\.[ch]' "$mk"; then
		echo "$mk: a program of control/ may not link tapdisk/"
		bad=1
	fi
done

# A contract includes all that it uses: each header is the only line of a program.
cc=${CC:-cc}
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
n=0
for h in include/td/*.h lib/*.h lib/*/*.h; do
	printf '#include "%s"\nint main(void) { return 0; }\n' "${h#include/}" >"$tmp/one.c"
	if ! $cc -std=gnu11 -D_GNU_SOURCE -DEV_COMPAT3=0 -Wall -Wextra -Werror -Iinclude -I. -fsyntax-only "$tmp/one.c" 2>"$tmp/log"; then
		echo "$h does not compile alone:"
		head -5 "$tmp/log"
		bad=1
	fi
	n=$((n + 1))
done
[ $n -gt 10 ] || { echo "only $n headers found"; bad=1; }

# This test itself: a breach is seen.
mkdir -p "$tmp/lib" && printf '#include "tapdisk/cache/cache.h"\n#include <td/io.h>\n' >"$tmp/lib/x.c"
(cd "$tmp" && bad=0 && check lib 'td/[a-z-]+\.h|lib/[a-z-]+\.h' >/dev/null; [ $bad = 1 ]) || { echo "a planted breach was not seen"; bad=1; }
exit $bad
