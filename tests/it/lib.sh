# SPDX-License-Identifier: LGPL-2.1-or-later
# What the shell tests share; sourced first.  It gives each test a directory and a control directory of its own, and at the
# end ends every process that stands in that control directory, whether the test passed or not.
#
#   $WORK                     a scratch directory, removed at the end
#   $TAPDISK_CONTROL_DIR      the control directory, below $WORK
#   tap_ctl ARG...            the tap-ctl of this build
#   run CMD ARG...            runs it; $RC, $OUT and $ERR are its exit code, stdout and stderr
#   expect RC CMD ARG...      as run, and fails the test unless it exits with RC
#   is WHAT GOT WANTED        fails unless the two texts are the same
#   has WHAT GOT PART         fails unless PART occurs in GOT
#   until_true SECONDS CMD... waits until CMD succeeds; SECONDS are a good machine's: a slow one is given twenty times as many
#   once_within SECONDS CMD.. whether one of five runs of CMD takes less than that: what the code promises, on a machine that may be held up
#   end_strace PID            ends a strace that was started with &, as often as it takes to hear it
#   gone PID                  whether that process has ended: it is not there, or a zombie, which its parent takes when it likes
#   procs NAME                pids of the live processes of that name (tapdisk, tapback) that belong to this test
#   entries DIR [PATTERN]     names of what is in it, sorted, one a line; nothing when it is not there
#   at_exit CMD               runs CMD (a string) at the end, the last one first
#   fail TEXT, skip TEXT      end the test

set -u
: "${top_srcdir:=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}"
: "${top_builddir:=$PWD}"
# The first of these that takes direct I/O, which the default cache mode wants; or else the first.
WORK=
for base in "${TMPDIR:-/tmp}" /var/tmp "$top_builddir" "${TMPDIR:-/tmp}"; do
	[ -z "$WORK" ] || rm -rf "$WORK"
	WORK=$(mktemp -d "$(realpath "$base")/td-it.XXXXXX") || exit 99
	! dd if=/dev/zero of="$WORK/probe" bs=4096 count=1 oflag=direct status=none 2>/dev/null || break
done
rm -f "$WORK/probe"
export TAPDISK_CONTROL_DIR=$WORK/ctl
RC=0 OUT= ERR= at_exit_cmds=

# By their environment, which root alone may read of a tapdisk; and by the sockets, which do for everybody else.
procs()
{
	local p

	{
		grep -lsz "^TAPDISK_CONTROL_DIR=$TAPDISK_CONTROL_DIR\$" /proc/[0-9]*/environ | sed 's|/proc/||; s|/environ||'
		find "$TAPDISK_CONTROL_DIR" -maxdepth 1 -name 'ctl[0-9]*' 2>/dev/null | sed -n 's|.*/ctl\([0-9]*\)$|\1|p'
	} | sort -nu | while read -r p; do
		case $(sed 's/.*(\(.*\)) \(.\).*/\2 \1/' "/proc/$p/stat" 2>/dev/null) in
		[ZX]\ *) ;;
		?\ $1) echo "$p" ;;
		esac
	done
	return 0
}

at_exit()
{
	at_exit_cmds="$1; $at_exit_cmds"
}

cleanup()
{
	local rc=$? p

	trap - EXIT
	eval "$at_exit_cmds"
	for p in $(procs tapback) $(procs tapdisk); do
		kill -CONT "$p" 2>/dev/null
		kill -KILL "$p" 2>/dev/null
	done
	rm -rf "$WORK"
	exit "$rc"
}
trap cleanup EXIT
trap 'exit 99' INT TERM HUP

fail()
{
	echo "FAIL: ${BASH_SOURCE[-1]##*/}:${BASH_LINENO[-2]}: $*" >&2
	exit 1
}

skip()
{
	echo "SKIP: $*" >&2
	exit 77
}

tap_ctl()
{
	"$top_builddir/bin/tap-ctl" "$@"
}

run()
{
	OUT=$("$@" 2>"$WORK/.stderr")
	RC=$?
	ERR=$(<"$WORK/.stderr")
}

expect()
{
	local want=$1

	shift
	run "$@"
	[ "$RC" = "$want" ] || fail "$(printf '%.300s' "$*"): exit code $RC instead of $want; stdout: ${OUT:0:300}; stderr: ${ERR:0:600}"
}

# After a death under load: a cluster that was counted for a write without an answer may be left over (3), and that is all.
sound_but_for_leaks() # QCOW2
{
	run "$top_builddir/bin/td-qcow" check "$1"
	[ "$RC" = 0 ] || [ "$RC" = 3 ] || fail "td-qcow check $1: exit code $RC; $OUT $ERR"
}

is()
{
	[ "$2" = "$3" ] || fail "$1: got '$2', wanted '$3'"
}

has()
{
	case $2 in
	*"$3"*) ;;
	*) fail "$1: '$3' is not in '$2'" ;;
	esac
}

until_true()
{
	local end=$((SECONDS + 20 * $1)) looked=0

	shift
	until "$@"; do
		[ $SECONDS -le $end ] || fail "waited in vain for: $*"
		if [ $((looked += 1)) -lt 20 ]; then sleep 0.05; else sleep 0.2; fi # to look is dear where programs start slowly
	done
}

once_within()
{
	local limit=$1 start

	shift
	for _ in 1 2 3 4 5; do
		start=${EPOCHREALTIME/[.,]/}
		"$@" || fail "$*: exit code $?"
		[ $((${EPOCHREALTIME/[.,]/} - start)) -ge $((limit * 1000000)) ] || return 0
	done
	return 1
}

# strace looks whether it was interrupted, and then sleeps until its tracee does something: a signal in between is not heard.
end_strace()
{
	while kill -INT "$1" 2>/dev/null; do sleep 0.1; done
	wait "$1"
	return 0
}

entries()
{
	[ ! -d "$1" ] || (cd "$1" && find . -mindepth 1 -maxdepth 1 -name "${2:-*}" | sed 's|^\./||' | sort)
}

gone()
{
	case $(sed 's/.*) \(.\).*/\1/' "/proc/$1/stat" 2>/dev/null) in
	"" | Z | X) ;;
	*) return 1 ;;
	esac
}
