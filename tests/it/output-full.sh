#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Output that cannot be written: no program says that all went well.
. "$(dirname "$0")/lib.sh"
[ -c /dev/full ] || skip "no /dev/full here"
cd "$WORK" || exit 1
TAPDISK=$top_builddir/tapdisk/tapdisk QCOW=$top_builddir/bin/td-qcow VHD=$top_builddir/bin/vhd-util TAP=$top_builddir/bin/tap-ctl
truncate -s 16M a.img
expect 0 "$QCOW" create a.qcow2 16M
expect 0 "$VHD" create -n a.vhd -s 16
expect 0 "$VHD" snapshot -n b.vhd -p a.vhd
expect 0 "$TAP" create -a "aio:$WORK/a.img" -o cache=writeback
minor=${OUT##*-} pid=$(tap_ctl list -m "${OUT##*-}" | sed 's/pid=\([0-9]*\) .*/\1/')

full() # COMMAND...: fails on a full device, and works else
{
	expect 0 timeout 100 "$@"
	[ -n "$OUT" ] || fail "$*: it prints nothing, so that this shows nothing"
	timeout 100 "$@" >/dev/full 2>err
	is "$* >/dev/full" $? 28
	has "$* >/dev/full" "$(cat err)" "No space left"
}
for json in "" --json; do
	full "$QCOW" info $json a.qcow2
	full "$QCOW" check $json a.qcow2
	full "$QCOW" map $json a.qcow2
done
for o in "--help" "--version"; do
	for p in "$QCOW" "$VHD" "$TAP" "$TAPDISK" "$top_builddir"/bin/tap-vbd "$top_builddir"/bin/tapback; do
		[ ! -x "$p" ] || full "$p" $o
	done
done
full "$VHD" query -n a.vhd -v
full "$VHD" check -n a.vhd
full "$VHD" read -n a.vhd -p
full "$VHD" scan -m '*.vhd'
full "$TAP" list
full "$TAP" list --json
full "$TAP" stats -p "$pid" -m "$minor"
full "$TAP" top -b -n 1
full "$TAP" top -n 1 --json
full "$TAP" metrics
full "$TAP" help create
# what an image's check found is the status, and the output's loss is told
printf '\0\0\0\0\0\0\0\1' | dd of=a.qcow2 bs=1 seek=131072 conv=notrunc status=none
expect 2 "$QCOW" check a.qcow2
timeout 100 "$QCOW" check a.qcow2 >/dev/full 2>err
is "check of a corrupt image >/dev/full" $? 2
has "check of a corrupt image >/dev/full" "$(cat err)" "No space left"
# what makes something undoes it
truncate -s 1M b.img
"$TAP" create -a "aio:$WORK/b.img" -o cache=writeback >/dev/full 2>err
is "create >/dev/full" $? 28
"$TAP" allocate >/dev/full 2>err
is "allocate >/dev/full" $? 28
is "rows" "$(tap_ctl list | wc -l)" 1
