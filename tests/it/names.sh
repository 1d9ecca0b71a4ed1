#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A static name stands in two sources at most, unless it means the same in all of them.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
command -v python3 >/dev/null || skip "python3 is not installed"

# it sees a function and a variable, whatever their type and attributes, and no name twice or meant alike
cd "$WORK" || exit 99
mkdir -p lib/io drivers
echo 'static int __attribute__((noinline)) find(void)' >lib/a.c
echo 'static const struct x *find(const char *name)' >lib/io/b.c
echo 'static bool find;' >drivers/c.c
for f in lib/a.c drivers/c.c; do echo 'static int twice(void)' >>$f; done
for f in lib/a.c lib/io/b.c drivers/c.c; do printf 'static void on_signal(int n)\n\tfind(1);\n' >>$f; done
run "$top_srcdir/tests/support/names"
is "a name for the third time" "$RC $OUT" "1 find drivers/c.c lib/a.c lib/io/b.c"
run "$top_srcdir/tests/support/names" lib
is "a name for the second time" "$RC $OUT" "0 "

cd "$top_srcdir" || exit 99
run tests/support/names
is "static names in three or more sources" "$RC $OUT" "0 "
