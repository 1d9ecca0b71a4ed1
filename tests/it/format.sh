#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Every C file is as .clang-format has it (100 columns), where a clang-format of the version that wrote it is there.
# `tests/it/format.sh --apply' makes it so.
cd "${top_srcdir:-$(dirname "$0")/../..}" || exit 99
command -v clang-format >/dev/null || { echo "clang-format is not installed"; exit 77; }
version=$(sed -n 's/^# clang-format \([0-9]*\)$/\1/p' .clang-format)
clang-format --version | grep -q "version $version\." || { echo "clang-format $version is what decides"; exit 77; }
mapfile -t files < <(find include lib drivers tapdisk control tests bench -name '*.[ch]' | sort)
[ "${1:-}" != --apply ] || exec clang-format -i "${files[@]}"
# until it has been applied once, which that file says
grep -qE '^[0-9a-f]{40}$' .git-blame-ignore-revs 2>/dev/null || { echo "it has not been applied yet"; exit 77; }
out=$(clang-format --dry-run -Werror "${files[@]}" 2>&1) || { grep -m 20 'code should be' <<<"$out"; exit 1; }
printf 'int f( void ){return 0;}\n' | clang-format --dry-run -Werror --assume-filename=lib/x.c >/dev/null 2>&1 && { echo "a faulty file passes"; exit 1; }
exit 0
