# SPDX-License-Identifier: LGPL-2.1-or-later
# Images made by hand: names of parents as others write them, unusual files, and every field with a bad value.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99

command -v python3 >/dev/null || skip "no python3"
export top_builddir
PYTHONDONTWRITEBYTECODE=1 python3 "$top_srcdir/tests/it/vhd-util-hand.py" || fail "see above"
exit 0
