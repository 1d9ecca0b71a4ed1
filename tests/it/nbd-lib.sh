# SPDX-License-Identifier: LGPL-2.1-or-later
# What the NBD tests share; sourced after lib.sh.  nbd_disk TYPE:PATH OPTION... makes a disk, and sets
#
#   $PID $MINOR $SOCK $URI    its tapdisk, its minor number, its newstyle socket and the URI of it
#
#   stat_of KEY               a number of `tap-ctl stats' (jq-less): the first "KEY": N
#   fdatasyncs                those that the disk's file has had, as the engine counts them
#   nbd_python                the Python that has libnbd

nbd_disk()
{
	local marker

	marker=$(tap_ctl create -a "$@") || fail "create $*"
	MINOR=${marker##*-}
	PID=$(tap_ctl list -m "$MINOR" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
	SOCK=$TAPDISK_CONTROL_DIR/nbd$PID.$MINOR
	URI="nbd+unix:///?socket=$SOCK"
}

nbd_destroy()
{
	expect 0 tap_ctl destroy -p "$PID" -m "$MINOR"
}

stat_of()
{
	tap_ctl stats -p "$PID" -m "$MINOR" | sed -n "s/.*\"$1\": \([0-9]*\).*/\1/p"
}

fdatasyncs()
{
	stat_of fdatasyncs
}

for tool in nbdinfo nbdcopy qemu-img qemu-io; do
	command -v $tool >/dev/null || skip "no $tool"
done
nbd_python=/usr/bin/python3
$nbd_python -c 'import nbd' 2>/dev/null || skip "no python3-libnbd"
