# SPDX-License-Identifier: LGPL-2.1-or-later
# Each program's error is one line, and starts no command of the terminal, whatever name it was given.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/it/xs.sh" || exit 99
xs_start
# (U+009B is to a terminal what ESC [ is)
bad=$'x\ntap-ctl: all is well\e[2J\x7f\xc2\x9b3Jy\xc2\xa0z'
masked=$'x?tap-ctl: all is well?[2J??3Jy\xc2\xa0z'

refused() # PROGRAM ARGUMENTS...: it fails with one line, in which the name can be seen
{
	local name=${1##*/}

	OUT=$("$@" 2>"$WORK/err" </dev/null) && fail "$name accepted $bad"
	sed -i '/^==[0-9]*==WARNING: ASan /d' "$WORK/err"
	is "lines of $name's error" "$(grep -c '' <"$WORK/err")" 1
	is "control characters of it" "$(LC_ALL=C tr -cd '\001-\011\013-\037\177' <"$WORK/err" | wc -c)" 0
	has "$name's error" "$(cat "$WORK/err")" "$masked"
}
bin=$top_builddir/bin
refused "$bin/tap-ctl" create -a "aio:$WORK/$bad"
refused "$bin/vhd-util" query -v -n "$WORK/$bad"
refused "$bin/td-qcow" info "$WORK/$bad"
refused "$bin/cbt-util" get -n "$WORK/$bad" -s
refused "$bin/tap-vbd" attach "$bad" "format=raw,vdev=xvdb,access=rw,target=$WORK/a.img"
: >"$WORK/$bad"
TAPDISK_CONTROL_DIR="$WORK/$bad" refused "$bin/tapback"
TAPDISK_CONTROL_DIR="$WORK/$bad" refused "$top_builddir/tapdisk/tapdisk"
exit 0
