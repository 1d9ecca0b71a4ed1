# SPDX-License-Identifier: LGPL-2.1-or-later
# A storage manager's calls, in its order, read as it reads them.  An argument: one sequence alone.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
command -v python3 >/dev/null || skip "no python3 here"
export WORK TAP_CTL=$top_builddir/bin/tap-ctl TDGUEST=$top_builddir/tests/support/tdguest PYTHONDONTWRITEBYTECODE=1
python3 "$top_srcdir/tests/it/sm-sequences.py" "$@" || fail "see above"
