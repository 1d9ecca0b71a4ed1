# SPDX-License-Identifier: LGPL-2.1-or-later
# A few kills of a tapdisk with each format, and of leaves that become full; `make check-crash KILLS=10000' has more.
: "${top_srcdir:=$(cd "$(dirname "$0")/../.." && pwd)}"
command -v python3 >/dev/null || { echo "no python3"; exit 77; }
KILLS=${KILLS:-70} SEED=${SEED:-$RANDOM} python3 "$top_srcdir/tests/crash/kills"
