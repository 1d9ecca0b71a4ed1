# SPDX-License-Identifier: LGPL-2.1-or-later
# What the tests of mirrors share; sourced after lib.sh.  A disk has a letter: PID_a and MINOR_a are its tapdisk and its minor number.
#
#   disk A ARG...             makes a disk, as tap-ctl create
#   guest A ARG...            tdguest on it
#   load A [DEPTH [FILE]]     a guest at work in the background, until load_end; FILE: as tdguest has it
#   stat_of A KEY             a number of `tap-ctl stats'
#   between A B NAME          a connection from A's tapdisk, for nbd:NAME, to B's disk, oldstyle
#   mirror A SPEC [ARG...]    pause, and unpause -2 SPEC
#   failed A N                whether nbd_mirror_failed is N
#   same FILE FILE            whether they hold the same, to the byte
#   drop A                    closes a disk, and takes it away

command -v python3 >/dev/null || skip "no python3"

disk()
{
	local marker name=$1

	shift
	marker=$(tap_ctl create "$@") || fail "create $*"
	declare -g "MINOR_$name=${marker##*-}"
	find_pid "$name"
}
find_pid()
{
	local m=MINOR_$1

	declare -g "PID_$1=$(tap_ctl list -m "${!m}" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')"
}
of() # A COMMAND ARG...: tap-ctl COMMAND of that disk
{
	local p=PID_$1 m=MINOR_$1 command=$2

	shift 2
	tap_ctl "$command" -p "${!p}" -m "${!m}" "$@"
}
guest()
{
	local p=PID_$1 m=MINOR_$1

	shift
	timeout 250 "$top_builddir/tests/support/tdguest" "${!p}" "${!m}" "$@"
}
load()
{
	local p=PID_$1 m=MINOR_$1

	"$top_builddir/tests/support/tdguest" "${!p}" "${!m}" load 100000 "${2:-16}" ${3:+"$3"} >"$WORK/load.out" 2>&1 &
	LOAD=$!
	at_exit "kill -KILL $LOAD 2>/dev/null"
}
load_end()
{
	kill $LOAD
	wait $LOAD || fail "the guest: $(cat "$WORK/load.out")"
}
stat_of()
{
	of "$1" stats | sed -n "s/.*\"$2\": \([0-9]*\).*/\1/p"
}
failed()
{
	[ "$(stat_of "$1" nbd_mirror_failed)" = "$2" ]
}
between()
{
	local a=PID_$1 b=PID_$2 m=MINOR_$2

	expect 0 python3 "$top_srcdir/tests/support/nbd-between.py" "$TAPDISK_CONTROL_DIR/nbdserver${!b}.${!m}" "$TAPDISK_CONTROL_DIR/nbdclient${!a}" "$3"
}
mirror()
{
	local name=$1 spec=$2

	shift 2
	expect 0 of "$name" pause
	expect 0 of "$name" unpause -2 "$spec" "$@"
}
clients() # A N: its NBD server has N clients
{
	[ "$(of "$1" stats | sed -n 's/.*"nbd": {"clients": \([0-9]*\).*/\1/p')" = "$2" ]
}
copied() # A N: N sectors have gone to the mirror of A
{
	local n

	n=$(of "$1" stats | grep -o '"hits": \[[0-9]*, [0-9]*' | sed -n '2s/.* //p')
	[ "${n:-0}" -ge "$2" ]
}
images() # A: the types of its images, the leaf first
{
	of "$1" stats | grep -o '"driver": {"type": [0-9]*, "name": "[a-z0-9]*' | sed 's/.*"//' | paste -sd ' '
}
same()
{
	cmp "$1" "$2" || fail "$1 and $2 differ"
}
drop()
{
	expect 0 of "$1" destroy
}
