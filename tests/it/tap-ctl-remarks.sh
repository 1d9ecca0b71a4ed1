#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What an error and the list say an admin can do: about an image in use, by whom; an NBD server that has gone; a tapdisk that stood still.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
cd "$WORK" || exit 1
hasnt() { case $2 in *"$3"*) fail "$1: '$3' is in '$2'" ;; esac; }
pid_of() { tap_ctl list -m "$1" | sed -n 's/^pid=\([0-9]*\) .*/\1/p'; }

# an image in use: who has it, and destroy; shared=yes for raw alone
truncate -s 16M a.img
expect 0 "$top_builddir/bin/vhd-util" create -n a.vhd -s 16
expect 0 "$top_builddir/bin/td-qcow" create a.qcow2 16M
for spec in aio:a.img vhd:a.vhd qcow2:a.qcow2; do
	expect 0 tap_ctl create -a $spec -o cache=writeback
	minor=${OUT##*-} pid=$(pid_of "${OUT##*-}")
	for how in "" -R; do
		expect 16 tap_ctl create -a $spec -o cache=writeback $how
		has "$spec in use" "$ERR" "by tapdisk (pid $pid)"
		has "$spec in use" "$ERR" "tap-ctl destroy"
		hasnt "$spec in use" "$ERR" "close it first"
		case $spec$how in
		aio:*-R | vhd* | qcow2*) hasnt "$spec in use" "$ERR" "shared=yes" ;;
		*) has "$spec in use" "$ERR" "shared=yes" ;;
		esac
	done
	expect 16 tap_ctl detach -p "$pid" -m "$minor"
	has "detach of an open disk" "$ERR" "destroy"
	expect 16 tap_ctl free -m "$minor"
	has "free of a held number" "$ERR" "tap-ctl destroy -p $pid -m $minor"
	expect 0 tap_ctl destroy -p "$pid" -m "$minor"
done
if command -v qemu-nbd >/dev/null; then
	for how in "" -r; do
		qemu-nbd $how -t -f raw -k "$WORK/q" a.img &
		q=$!
		at_exit "kill -KILL $q 2>/dev/null"
		until_true 10 test -S q
		run tap_ctl create -a aio:a.img -o cache=writeback
		is "create of what QEMU has open" "$RC" 16
		has "by QEMU" "$ERR" "qemu-nbd (pid $q)"
		has "by QEMU" "$ERR" "script=block-tap"
		kill $q
		wait $q
		rm -f q
	done

	# an NBD server that has gone for good shows, before anybody writes
	qemu-nbd -t -f raw -k "$WORK/server" a.img &
	q=$!
	at_exit "kill -KILL $q 2>/dev/null"
	until_true 10 test -S server
	expect 0 tap_ctl create -a "nbd:$WORK/server" -o reconnect-limit=no
	minor=${OUT##*-} pid=$(pid_of "${OUT##*-}")
	has "a server that is there" "$(tap_ctl list -m "$minor")" "state=0 "
	kill -KILL $q
	remark() { tap_ctl list -m "$minor" --json | grep -q 'all requests fail until the disk is closed and opened again'; }
	until_true 10 remark
	has "a server that has gone" "$(tap_ctl list -m "$minor")" "state=0x800 "
	# its last flush fails, which is the answer; it is taken away all the same
	expect 5 tap_ctl destroy -p "$pid" -m "$minor"
	has "the last flush" "$ERR" "check the disk's contents"
	expect 0 tap_ctl list
	is "rows after that" "$OUT" ""
fi

# a destroy that was not heard in time is done all the same when the tapdisk goes on
expect 0 tap_ctl create -a aio:a.img -o cache=writeback
minor=${OUT##*-} pid=$(pid_of "${OUT##*-}")
kill -STOP "$pid"
expect 110 tap_ctl destroy -p "$pid" -m "$minor" -t 1
kill -CONT "$pid"
until_true 20 gone "$pid"
expect 0 tap_ctl list
is "rows after that" "$OUT" ""
is "files after that" "$(find "$TAPDISK_CONTROL_DIR" ! -type d ! -name nbd.lock)" ""
exit 0
