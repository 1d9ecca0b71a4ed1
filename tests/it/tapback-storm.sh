# SPDX-License-Identifier: LGPL-2.1-or-later
# Deaths of tapback, of tapdisks and of both, at any instant, with upgrades, pauses and successors that others have started between
# them, under a guest that keeps its ring full and knows what each block must hold.  Nothing that it was told is lost, no request fails
# or is forgotten, its state in xenstore never changes, and in the end xenstore names the tapdisk that serves it.
#
# tapback, tapdisk and xenstored are the real ones, and so is Xen's transport: tests/support/xenmem.c stands in for grants and events
# alone.  A seed makes a list of events; a list that fails is reduced to the events that it takes, and printed with the command that
# runs it:
#
#   STORM_SEEDS="1 2 3"   these, instead of the one
#   STORM_EVENTS=N        so many in each
#   STORM="disk:10 ..."   this list, instead of any seed's; not reduced
#   STORM_FORMATS="..."   of raw, vhd, qcow2
#
# An event is KIND:MS, or KIND:MS:on for one that is not waited for: the next comes into the middle of what it has begun.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/it/xs.sh" || exit 99
here=$(readlink -f "${BASH_SOURCE[0]}")
D=1/51712 B=$(be 1/51712) PORT=5
DEATHS=4 # one tapback gives a disk up whose sixth tapdisk dies within a minute

# --- lists

# SEED: two kinds in five are deaths that tapback sees, and one tapback sees DEATHS of them at most
events_of()
{
	local kinds=(disk disk tapback tapback both both alone pause paused-death upgrade upgrade-death upgrade-both) deaths=0 n kind on

	RANDOM=$1
	for ((n = 0; n < ${STORM_EVENTS:-10}; n++)); do
		kind=${kinds[RANDOM % ${#kinds[@]}]}
		case $kind in
		disk | paused-death) deaths=$((deaths + 1)) ;;
		pause | upgrade) ;;
		*) deaths=0 ;; # this one brings another tapback
		esac
		if [ $deaths -gt $DEATHS ]; then kind=tapback deaths=0; fi
		on=:on # not by $(...): a subshell has random numbers of its own
		[ $((RANDOM % 3)) = 0 ] || on=
		printf '%s:%d%s ' $kind $((RANDOM % 300)) "$on"
	done
}

# Leaves out one event after another, as long as the rest fails.
reduce() # FORMAT EVENT...
{
	local format=$1 i=0 list rest

	shift
	list=("$@")
	while [ $i -lt ${#list[@]} ] && [ ${#list[@]} -gt 1 ]; do
		rest=("${list[@]:0:i}" "${list[@]:i+1}")
		if STORM=${rest[*]} STORM_FORMATS=$format bash "$here" >/dev/null 2>&1; then i=$((i + 1)); else list=("${rest[@]}"); fi
	done
	echo "it takes: STORM='${list[*]}' STORM_FORMATS=$format bash tests/it/tapback-storm.sh" >&2
}

if [ -z "${STORM:-}" ]; then
	for seed in ${STORM_SEEDS:-1}; do
		for format in ${STORM_FORMATS:-$([ "$seed" = 1 ] && echo qcow2 || echo raw vhd qcow2)}; do
			read -ra list <<<"$(events_of "$seed")"
			STORM=${list[*]} STORM_FORMATS=$format bash "$here" || {
				rc=$?
				[ $rc != 77 ] || exit 77
				echo "seed $seed, $format: ${list[*]}" >&2
				reduce $format "${list[@]}"
				exit 1
			}
		done
	done
	exit 0
fi

# --- one host

format=${STORM_FORMATS:-qcow2} IMG=$WORK/img
xs_start
case $format in
raw) truncate -s 8M "$IMG" && spec=aio:$IMG ;;
vhd) "$top_builddir/bin/vhd-util" create -n "$IMG" -s 8 && spec=vhd:$IMG ;;
qcow2) "$top_builddir/bin/td-qcow" create "$IMG" 8M >/dev/null && spec=qcow2:$IMG ;;
esac || fail "cannot make a $format"

export XENMEM=$WORK/xen
mkdir "$XENMEM"
preload="LD_PRELOAD=$(readlink -f "$top_builddir/tests/support/xenmem.so") ASAN_OPTIONS=verify_asan_link_order=0:\${ASAN_OPTIONS:-}"
for name in tapdisk tapback; do
	real=$(readlink -f "$top_builddir/tapdisk/tapdisk")
	[ $name = tapdisk ] || real=$(readlink -f "$top_builddir/bin/tapback")
	printf '#!/bin/sh\nexport %s\nexec %s "$@"\n' "$preload" "$real" >"$WORK/$name"
	chmod 755 "$WORK/$name"
done
export TAPDISK=$WORK/tapdisk

back_start()
{
	cat "$WORK/tapback.log" >>"$WORK/tapback.all" 2>/dev/null
	: >"$WORK/tapback.log"
	"$WORK/tapback" -d -v --timeout=100 >>"$WORK/tapback.log" 2>&1 &
	TAPBACK=$!
	disown $TAPBACK
	until_true 5 grep -q serving "$WORK/tapback.log"
}

back_kill()
{
	kill -KILL "$TAPBACK"
	until_true 5 gone "$TAPBACK"
}

ms() { sleep "$(printf '0.%03d' "$1")"; }
told() { fail "$*; now $(get $B/state), of tapdisk $(get $B/kthread-pid): $(get $B/tapdisk-error); the log: $(tail -12 "$WORK/tapback.log")"; }
answers() { echo $((10#$(cat "$XENMEM/1.done"))); }
lives() { kill -0 "$GUEST" 2>/dev/null || told "the guest: $(cat "$WORK/guest.err")"; }

# The marker is empty while a disk changes hands.
disk_pid()
{
	local p

	p=$(cat "$marker")
	[ -n "$p" ] && ! gone "$p" && echo "$p"
}

named() { pid=$(disk_pid) && key_is $B/kthread-pid "$pid" && key_is $B/pid "$pid"; }
more_than() { lives; [ "$(answers)" -gt "$1" ]; }

# The guest is served by a tapdisk that xenstore names, and has been told of nothing.  What it had in flight may be answered without
# anybody being there; so there are to be more answers than a ring holds.
settled()
{
	until_true 5 named
	until_true 5 more_than $(($(answers) + 64))
	[ "$(get $B/state)" = 4 ] || told "the backend's state is not 4"
	is "an error" "$(get $B/tapdisk-error)" -
}

# A death is not of the process that has handed the disk over and is about to end.
kill_disk()
{
	local p

	until_true 5 eval 'disk_pid >/dev/null'
	p=$(disk_pid) || return 0 # it has just been replaced: another comes
	kill -KILL "$p" 2>/dev/null
	until_true 10 gone "$p"
}

upgrade() { tap_ctl upgrade -p "$pid" >"$WORK/up" 2>&1; }

event() # KIND MS
{
	case $1 in
	disk) ms "$2"; kill_disk ;;
	tapback) back_kill; ms "$2"; back_start ;;
	both)
		if [ $(($2 % 2)) = 0 ]; then kill_disk; ms $(($2 / 4)); back_kill; else back_kill; kill_disk; fi
		ms "$2"
		back_start
		;;
	alone) # an administrator makes the successor, while no tapback is there to give it the ring
		settled
		back_kill
		kill_disk
		tap_ctl revive -m "$minor" >"$WORK/revived" 2>&1 || told "revive: $(cat "$WORK/revived")"
		back_start
		;;
	pause)
		settled
		tap_ctl pause -p "$pid" -m "$minor" || told pause
		ms "$2"
		tap_ctl unpause -p "$pid" -m "$minor" || told unpause
		;;
	paused-death)
		settled
		tap_ctl pause -p "$pid" -m "$minor" || told pause
		kill_disk
		until_true 5 named
		before=$(answers)
		ms "$2"
		is "answers of a disk that was paused when its tapdisk died" "$(answers)" "$before"
		tap_ctl unpause -p "$pid" -m "$minor" || told "unpause after a death"
		;;
	upgrade) settled; ms "$2"; upgrade || told "upgrade: $(cat "$WORK/up")" ;;
	upgrade-death | upgrade-both) # in its middle; it may fail
		settled
		upgrade &
		up=$!
		ms $(($2 / 3))
		[ "$1" = upgrade-death ] || kill_disk
		back_kill
		wait $up
		back_start
		;;
	*) fail "no such event: $1" ;;
	esac
}

marker=$(tap_ctl create -a "$spec") || fail "create $spec"
minor=${marker##*-} pid=$(cat "$marker")
: >"$WORK/guest.out"
"$top_builddir/tests/support/tdstorm" "$XENMEM" 1 $PORT 8192 1 >"$WORK/guest.out" 2>"$WORK/guest.err" &
GUEST=$!
at_exit "kill -KILL $GUEST \$TAPBACK 2>/dev/null"
until_true 5 grep -q ring "$WORK/guest.out"
back_start
disk $D script=/x
wait_key $B/state 2
put $B physical-device-path="$TAPDISK_CONTROL_DIR/nbd$pid.$minor" pid="$pid" hotplug-status=connected
guest $D ring-ref=$((1 << 20)) event-channel=$PORT protocol=x86_64-abi state=3
wait_key $B/state 4
guest $D state=4
watch_start $B/state

for e in $STORM; do
	IFS=: read -r kind after on <<<"$e"
	event "$kind" "$after"
	[ -n "$on" ] || settled
done
settled
kill $WATCHER
is "the backend's state was written" "$(wc -l <"$WORK/watched")" 1 # the one that a watch starts with
is "the frontend's state" "$(get "$(fe $D)/state")" 4
is "how the tapdisk is" "$(get $B/tapdisk-state)" running
is "the error node" "$(get /local/domain/0/error/backend/vbd3/$D/error)" -
is "where the remove script looks" "$(get $B/physical-device-path)" "$TAPDISK_CONTROL_DIR/nbd$pid.$minor"
is "tapdisks" "$(procs tapdisk)" "$pid"

kill "$GUEST"
wait "$GUEST" || told "the guest: $(cat "$WORK/guest.err")"
echo "$format, $STORM: $(tail -1 "$WORK/guest.out")"
ask_to_close $D
guest $D state=6
wait_key $B/state 6
tap_ctl destroy -p "$pid" -m "$minor" || fail destroy
tap_ctl list >/dev/null # which removes the sockets of those that were killed
is "what is left" "$(find "$TAPDISK_CONTROL_DIR" ! -type d | grep -v -e lock -e pid)" ""
case $format in
vhd) expect 0 "$top_builddir/bin/vhd-util" check -n "$IMG" ;;
qcow2) sound_but_for_leaks "$IMG" ;;
esac
