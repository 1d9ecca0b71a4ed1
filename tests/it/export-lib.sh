# SPDX-License-Identifier: LGPL-2.1-or-later
# What the tests of tap-ctl export share; sourced after tls-lib.sh, in $WORK.
#
#   exported ARG...           tap-ctl export -m $MINOR ARG... in the background, at a new port of 127.0.0.1 unless ARG says where;
#                             $FRONT is its pid, $AT its URI, $PORT its port; its log is in front.err
#   unexport                  ends it
#   parts                     pids of its clients' processes
#   log_has TEXT              whether its log has that
#   served N                  whether there are N such processes

FRONT=
exported()
{
	: >front.uri
	"$top_builddir/bin/tap-ctl" export -m "$MINOR" -l "127.0.0.1:${LISTEN:-0}" "$@" >front.uri 2>front.err &
	FRONT=$!
	disown
	until_true 10 announced
	AT=$(cat front.uri)
	PORT=${AT##*:}
	PORT=${PORT%/}
}
announced()
{
	! gone "$FRONT" || fail "tap-ctl export has ended: $(cat front.err)"
	[ -s front.uri ]
}
unexport()
{
	kill "$FRONT" 2>/dev/null
	until_true 10 gone "$FRONT"
	until_true 10 served 0
}
parts() { cat "/proc/$FRONT/task/$FRONT/children" 2>/dev/null; }
served() { [ "$(parts | wc -w)" = "$1" ]; }
log_has() { grep -q -- "$1" front.err; }
at_exit '[ -z "$FRONT" ] || kill -KILL "$FRONT" 2>/dev/null'
