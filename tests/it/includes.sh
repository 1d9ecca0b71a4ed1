#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Who may include whom: the table of the design, held against every #include; and each contract compiles alone.
set -u
top=${top_srcdir:-$(cd "$(dirname "$0")/../.." && pwd)}
cd "$top" || exit 1
bad=0

# pairs FOLDER...: each include of ours ("...", or <td/...>) as FILE:INCLUDED
pairs() {
	grep -rHoE --include='*.[ch]' '^[[:space:]]*#[[:space:]]*include[[:space:]]*["<][^">]+[">]' "$@" |
		sed -E 's/:[[:space:]]*#[[:space:]]*include[[:space:]]*"/:/; t own; s/:[[:space:]]*#[[:space:]]*include[[:space:]]*<(td\/[^>]*)>/:\1/; t own; d; :own; s/["<>]//g'
}

own='[a-z-]+\.[ch]'
# allowed FILE: what a file of its folder may include
allowed() {
	case $1 in
	include/*) echo "td/$own" ;;
	lib/io/* | lib/fiber/*) echo "config\.h|td/$own|lib/(io|fiber)/$own|lib/(log-out|bytes|kill|reach)\.h" ;; # they stand alone
	lib/*) echo "config\.h|td/$own|lib/([a-z]+/)?$own" ;;
	drivers/*) echo "config\.h|td/$own|lib/([a-z]+/)?$own|drivers/([a-z]+/)?$own" ;;
	tapdisk/*) echo "config\.h|td/$own|lib/([a-z]+/)?$own|tapdisk/([a-z]+/)?$own|drivers/drivers\.h" ;;
	control/*/*) # no other program's
		echo "config\.h|td/(ctl|log|list|cache)\.h|lib/([a-z]+/)?$own|control/$own|$(dirname "$1")/$own|drivers/(qcow/qcow-image|vhd/vhd-(format|image|check))\.h" ;;
	control/*) echo "config\.h|td/(ctl|log|list|cache)\.h|lib/([a-z]+/)?$own|control/$own" ;;
	*) echo '.*' ;; # tests and benches look inside
	esac
}

# level FILE: in tapdisk/ an arrow goes down, or stays in its room
level() {
	case $1 in
	tapdisk/main.c) echo 8 ;;
	tapdisk/ctl/*) echo 7 ;;
	tapdisk/server.*) echo 6 ;;
	tapdisk/vbd/*) echo 5 ;;
	tapdisk/blkif/* | tapdisk/nbd/*) echo 4 ;; # of one level, and strangers
	tapdisk/cache/*) echo 3 ;;
	tapdisk/queue.*) echo 2 ;;
	tapdisk/stats/* | tapdisk/chain.* | tapdisk/options.* | tapdisk/sandbox/*) echo 1 ;;
	*) echo 0 ;;
	esac
}

# room FILE: its folder; of one that has none of its own, itself
room() {
	case $1 in
	*/*/*) dirname "$1" ;;
	*) echo "${1%.[ch]}" ;;
	esac
}

# A family's inside is its own folder's.
private='tapdisk/(blkif/blkif-ring|nbd/nbd-conn|cache/cache-inside|mirror/mirror-inside|sandbox/sandbox-inside|vbd/vbd-(inside|commit)|ctl/ctl-ops)\.h|drivers/(vhd/vhd|qcow/qcow|qcow/qcow-checking|qcow/qcow-refcount|nbd/nbd(-more|-wire)?|rbd/rbd)\.h'

# breaches: reads pairs, and prints those that break a rule
breaches() {
	local f inc may
	while IFS=: read -r f inc; do
		may=$(allowed "$f")
		[[ $inc =~ ^($may)$ ]] || echo "$f may not include $inc (it may include: $may)"
		[[ ! $inc =~ ^($private)$ || $(dirname "$f") = $(dirname "$inc") ]] || echo "$f may not include $inc, which is private to $(dirname "$inc")/"
		if [[ $f == tapdisk/* && $inc == tapdisk/* && $(room "$f") != $(room "$inc") ]]; then
			[ "$(level "$f")" -gt "$(level "$inc")" ] || echo "$f may not include $inc, which is not beneath it"
		fi
	done
}

out=$(pairs include lib drivers tapdisk control | breaches)
[ -z "$out" ] || { echo "$out"; bad=1; }

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

# This test itself: a breach of each rule is seen, and what is no breach is not.
planted() { # FILE INCLUDED WHAT-IS-SAID
	rm -rf "$tmp/tree"
	mkdir -p "$tmp/tree/$(dirname "$1")"
	printf '#include <td/io.h>\n  #  include "%s"\n' "$2" >"$tmp/tree/$1"
	out=$(cd "$tmp/tree" && pairs "${1%%/*}" | breaches)
	case $out in
	"${3:-}") [ -n "${3:-}" ] || return 0 ;;
	*"$2${3:-nothing}"*) [ -z "${3:-}" ] || return 0 ;;
	esac
	echo "a planted breach: $1 includes $2: '${3:-nothing}' was to be said, and '$out' was"
	bad=1
}
planted lib/x.c tapdisk/cache/cache.h ' (it may'
planted drivers/raw.c tapdisk/options.h ' (it may'
planted tapdisk/chain.c drivers/vhd/vhd-image.h ' (it may'
planted lib/io/io.c lib/conf.h ' (it may'
planted lib/fiber/fiber.c lib/redo.h ' (it may'
planted lib/io/file.c lib/fiber/fiber.h ''
planted tapdisk/vbd/vbd.c tapdisk/cache/cache-inside.h ', which is private'
planted drivers/raw.c drivers/qcow/qcow.h ', which is private'
planted drivers/vhd/vhd-io.c drivers/vhd/vhd.h ''
planted tapdisk/cache/cache.c tapdisk/vbd/vbd.h ', which is not beneath'
planted tapdisk/nbd/nbd.c tapdisk/blkif/blkif.h ', which is not beneath'
planted tapdisk/stats/stats.c tapdisk/queue.h ', which is not beneath'
planted tapdisk/server.c tapdisk/ctl/ctl.h ', which is not beneath'
planted tapdisk/ctl/ctl-ops.c tapdisk/server.h ''
# a program's header in another program
rm -rf "$tmp/tree" && mkdir -p "$tmp/tree/control/tap-ctl" && echo '#include "control/tapback/device.h"' >"$tmp/tree/control/tap-ctl/x.c"
(cd "$tmp/tree" && pairs control | breaches) | grep -q 'control/tapback/device.h (it may' || { echo "another program's header was not seen"; bad=1; }
exit $bad
