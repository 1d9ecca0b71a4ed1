# SPDX-License-Identifier: LGPL-2.1-or-later
# A tapdisk with two disks waits for its opener, which is stopped: the guest of the other disk is served meanwhile.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99

command -v python3 >/dev/null || skip "no python3"
cd "$WORK" || exit 99
export TAPDISK_CONF=$WORK/conf
echo "sandbox = yes" >conf
truncate -s 8M a.img
marker=$(tap_ctl create -a "aio:$WORK/a.img" -o cache=writeback) || fail create
minor=${marker##*-}
pid=$(tap_ctl list -m "$minor" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
case $(tap_ctl list --json) in
*'"sandbox": "yes"'*) ;;
*) skip "this tapdisk has no opener" ;;
esac
opener=$(procs td-opener)
"$top_builddir/tests/support/tdguest" "$pid" "$minor" load 1000 8 >told 2>&1 &
load=$!
counters=$TAPDISK_CONTROL_DIR/td3-$pid
until_true 10 eval 'compgen -G "$counters/vbd-*" >/dev/null'
seen=$(cksum "$counters"/vbd-*)
moves() # since it was seen
{
	local now

	now=$(cksum "$counters"/vbd-*)
	[ "$now" != "$seen" ] && seen=$now
}
until_true 10 moves

# Somebody holds the seal of a marker (lib/marker.h), as one does who changes the minor's files; so that a call that writes the marker waits in the
# opener.  That is stopped then: nothing comes from it before it goes on.
seal() # MARKER
{
	python3 -c '
import fcntl, struct, sys
f = open(sys.argv[1], "r+")
fcntl.fcntl(f, fcntl.F_OFD_SETLKW, struct.pack("hhqqhh", fcntl.F_WRLCK, 0, 0, 0, 0, 0))
print("sealed", flush=True)
sys.stdin.read()' "$1"
}
in_opener() { readlink "/proc/$opener"/fd/* | grep -qx "$1"; }
looks=$(cat "/proc/$pid/syscall" 2>/dev/null) # may we see who waits?
waits=$(case $(uname -m) in aarch64) echo 73 ;; *) echo 271 ;; esac) # ppoll
in_wait()
{
	local t

	for t in "/proc/$pid/task/"*; do
		case $(cat "$t/syscall" 2>/dev/null) in
		"$waits "*) who=${t##*/} && return 0 ;;
		esac
	done
	return 1
}
served() # WHAT CMD...
{
	local what=$1 call i=0

	shift
	coproc seal "$other"
	holder=$!
	read -r <&"${COPROC[0]}" || fail "no seal"
	"$@" >said 2>&1 &
	call=$!
	until_true 10 in_opener "$other"
	kill -STOP "$opener"
	if [ "$looks" ]; then
		until_true 10 in_wait
		[ "$who" != "$pid" ] || fail "$what: the main thread waits for the opener"
	fi
	seen=$(cksum "$counters"/vbd-*)
	while [ $i -lt 20 ]; do
		gone $call && fail "$what: it did not wait for its opener, or nobody was served meanwhile: $(cat said)"
		! moves || i=$((i + 1))
		sleep 0.05
	done
	kill -CONT "$opener"
	eval "exec ${COPROC[1]}>&-"
	wait $call || fail "$what: $(cat said)"
	wait "$holder"
}
other=$(tap_ctl allocate) || fail allocate
other=$TAPDISK_CONTROL_DIR/tapdisk/tapdisk-${other##*-}
of() { tap_ctl "$1" -p "$pid" -m "${other##*-}" "${@:2}"; }
served attach of attach
is "a marker" "$(cat "$other")" "$pid"
served detach of detach
is "the marker of a minor that nobody has" "$(cat "$other")" ""
# all that a disk has files for, and a guest that comes and goes
truncate -s 8M c.img
"$top_builddir/bin/vhd-util" create -n c.vhd -s 8 || fail "vhd-util create"
expect 0 of attach
for disk in "aio:$WORK/c.img" "vhd:$WORK/c.vhd"; do
	served "open $disk" of open -a "$disk" -o cache=writeback
	served connect "$top_builddir/tests/support/tdguest" "$pid" "${other##*-}" write 0 65536 1
	served pause of pause
	served unpause of unpause
	served limit of limit -o limit-iops=100000
	served close of close
done
expect 0 of detach
# an NBD client makes attempts to connect again, each of which needs the opener
truncate -s 4M b.img
marker=$(tap_ctl create -a "aio:$WORK/b.img" -o cache=writeback) || fail "create, of a server"
server=$(tap_ctl list -m "${marker##*-}" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
far=$(tap_ctl allocate) || fail allocate
expect 0 tap_ctl attach -p "$pid" -m "${far##*-}"
expect 0 tap_ctl open -p "$pid" -m "${far##*-}" -a "nbd:$TAPDISK_CONTROL_DIR/nbd$server.${marker##*-}" -o reconnect-limit=0
if [ "$looks" ]; then
	kill -STOP "$opener"
	kill -KILL "$server"
	until_true 10 in_wait
	# not for the server's socket, nor for the log daemon's, where there is none
	[ "$who" != "$pid" ] || fail "the main thread waits for the opener, for a socket"
	seen=$(cksum "$counters"/vbd-*)
	until_true 10 moves
	kill -CONT "$opener"
fi
run tap_ctl destroy -f -p "$pid" -m "${far##*-}" # which tells what is given up
# A leaf becomes full, and what has found no space waits for the record, which waits in the opener.
by_moves() { [ "$(cksum "$by")" != "$was" ] && was=$(cksum "$by"); }
by_rests()
{
	was=$(cksum "$by")
	sleep 0.5
	[ "$(cksum "$by")" = "$was" ]
}
first_moves()
{
	local now

	now=$(cksum "$counters/vdi-$minor")
	[ "$now" != "$seen" ] && seen=$now
}
full()
{
	local leaf

	mkdir small && mount -t tmpfs -o size=40m tmpfs small 2>/dev/null || return 0
	at_exit "umount -l '$WORK/small'"
	truncate -s 32M small/leaf
	expect 0 "$top_builddir/bin/vhd-util" snapshot -n by.vhd -p small/leaf -m
	other=$(tap_ctl allocate) || fail allocate
	leaf=${other##*-}
	other=$TAPDISK_CONTROL_DIR/tapdisk/tapdisk-$leaf by=$counters/vdi-$leaf
	expect 0 tap_ctl attach -p "$pid" -m "$leaf"
	expect 0 tap_ctl open -p "$pid" -m "$leaf" -a "aio:$WORK/small/leaf" -2 "vhd:$WORK/by.vhd" -s -o cache=writeback
	# few at once: each that finds no space asks the opener for root's, in a thread of its own
	"$top_builddir/tests/support/tdguest" "$pid" "$leaf" load 1000 4 >told-2 2>&1 &
	filler=$!
	was=$(cksum "$by")
	until_true 10 by_moves
	coproc seal "$other"
	holder=$!
	read -r <&"${COPROC[0]}" || fail "no seal"
	dd if=/dev/zero of=small/rest bs=64k status=none 2>/dev/null
	until_true 10 in_opener "$other"
	kill -STOP "$opener"
	until_true 10 by_rests
	seen=$(cksum "$counters/vdi-$minor")
	for _ in $(seq 20); do until_true 10 first_moves; done
	by_moves && fail "the full disk goes on before its record says so"
	kill -CONT "$opener"
	eval "exec ${COPROC[1]}>&-"
	wait "$holder"
	until_true 10 by_moves
	[ -e "$TAPDISK_CONTROL_DIR/tapdisk-enospc$leaf" ] || fail "the toolstack is not told"
	kill -TERM $filler
	wait $filler || fail "the guest of a full leaf: $(cat told-2)"
	expect 0 tap_ctl destroy -p "$pid" -m "$leaf"
}
[ "$(id -u)" != 0 ] || full
kill -TERM $load
wait $load || fail "the guest: $(cat told)"
expect 0 tap_ctl destroy -p "$pid" -m "$minor"
