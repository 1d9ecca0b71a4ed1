# SPDX-License-Identifier: LGPL-2.1-or-later
# What the tests of the xenstore side share; sourced after lib.sh.  A real xenstored runs without Xen under a preload
# (tests/support/xsnox.c); the test writes what toolstack and guest would write.
#
#   xs_start                     xenstored; skips the test where there is none
#   tapback_start ARG...         the daemon, in the foreground, its log in $WORK/tapback.log; $TAPBACK is its pid
#   tapback_stop SIGNAL          ends it
#   tapback_freeze               stops it where it stands; kill -CONT $TAPBACK lets it go on
#   standin_start N              a stand-in for a tapdisk: ${standin[N]} is its pid, $WORK/conf.N and log.N its files
#   be D, fe D                   directories of a disk D=DOMID/DEVID
#   disk D KEY=VALUE...          makes both directories, as the toolstack does: KEYs of the backend; script= makes it libxl's order
#   hotplug D PID                what the hotplug script writes; the minor is $(minor D)
#   guest D KEY=VALUE...         writes frontend keys, in that order
#   guest_ring D                 frontend keys of a ring of one page, and state 3
#   get PATH                     a key, or "-"
#   wait_key PATH VALUE          waits for it (100 s: a slow machine's)
#   wait_asked N OPERATION       waits until the stand-in has got that operation
#   watch_start PATH [ARG...]    xenstore-watch, which has begun; ${WATCHER} is its pid, what it sees goes to $WORK/watched
#   stays PATH VALUE             it has that value, and still has it 0.3 s later
#   asked N                      operations that the stand-in got, in one line

xs_start()
{
	local d=$WORK/xs daemon

	daemon=$(printf '%s\n' /usr/lib/xen-*/bin/xenstored | sort -V | tail -n 1)
	[ -x "$daemon" ] || skip "no xenstored here"
	[ "$(id -u)" = 0 ] || skip "xenstored needs root"
	[ -x "$top_builddir/bin/tapback" ] || skip "built without Xen's libraries"
	[ -f "$top_builddir/tests/support/xsnox.so" ] || fail "tests/support/xsnox.so is not built"
	mkdir -p "$d"
	export XENSTORED_RUNDIR=$d XENSTORED_ROOTDIR=$d
	LD_PRELOAD=$top_builddir/tests/support/xsnox.so "$daemon" --no-fork --pid-file "$d/pid" >"$WORK/xenstored.log" 2>&1 &
	XENSTORED=$!
	disown $XENSTORED # its end is nothing to report
	at_exit "kill -KILL $XENSTORED 2>/dev/null"
	until_true 10 xenstore-exists / 2>/dev/null
}

tapback_start()
{
	: >"$WORK/tapback.log"
	"$top_builddir/bin/tapback" -d -v "$@" >>"$WORK/tapback.log" 2>&1 &
	TAPBACK=$!
	at_exit "kill -KILL $TAPBACK 2>/dev/null"
	until_true 5 grep -q serving "$WORK/tapback.log"
}

tapback_stop()
{
	kill -"$1" "$TAPBACK" || fail "tapback is not running: $(tail -5 "$WORK/tapback.log")"
	wait "$TAPBACK" 2>/dev/null
	return 0
}

# Stops the daemon, but not in the middle of a message: xenstored would wait for the rest of it, and so would everybody else.
tapback_freeze()
{
	for _ in $(seq 50); do
		kill -STOP "$TAPBACK" || fail "tapback is not running"
		timeout 5 xenstore-exists / && return
		kill -CONT "$TAPBACK"
		sleep 0.1
	done
	fail "tapback could not be stopped between two messages"
}

declare -A standin
standin_start()
{
	[ -f "$WORK/conf.$1" ] || echo '{}' >"$WORK/conf.$1"
	: >"$WORK/log.$1"
	"$top_builddir/tests/support/tapdisk-standin" "$WORK/conf.$1" "$WORK/log.$1" &
	standin[$1]=$!
	disown ${standin[$1]}
	at_exit "kill -KILL ${standin[$1]} 2>/dev/null"
	until_true 5 test -S "$TAPDISK_CONTROL_DIR/ctl${standin[$1]}"
}

be() { echo "/local/domain/0/backend/${TYPE:-vbd3}/$1"; }
fe() { echo "/local/domain/${1%/*}/device/vbd/${1#*/}"; }

# DIR KEY=VALUE...: in one transaction, as xenstore-write does it
put()
{
	local dir=$1 kv args=()

	shift
	for kv; do args+=("$dir/${kv%%=*}" "${kv#*=}"); done
	xenstore-write -- "${args[@]}" || fail "xenstore-write ${args[*]}"
}

disk()
{
	local d=$1 b f

	b=$(be "$d") f=$(fe "$d")
	shift
	xenstore-write "$b" "" && xenstore-chmod "$b" n0 "r${d%/*}" && xenstore-write "$f" "" && xenstore-chmod "$f" "n${d%/*}" r0 ||
		fail "cannot make $d"
	put "$b" frontend="$f" frontend-id="${d%/*}" online=1 removable=0 mode=w device-type=disk "$@" state=1
	put "$f" backend="$b" backend-id=0 virtual-device="${d#*/}" device-type=disk state=1
}

minor() { echo $(((${1%/*} * 64 + (${1#*/} - 51712) / 16) % 16384)); }
hotplug() { put "$(be "$1")" "physical-device-path=$TAPDISK_CONTROL_DIR/nbd$2.$(minor "$1")" hotplug-status=connected; }

guest()
{
	local d=$1

	shift
	put "$(fe "$d")" "$@"
}

guest_ring() { guest "$1" ring-ref=8 event-channel=5 protocol=x86_64-abi state=3; }

get() { xenstore-read "$1" 2>/dev/null || echo -; }
key_is() { [ "$(get "$1")" = "$2" ]; }

wait_key()
{
	local end=$((SECONDS + 100))

	while [ $SECONDS -le $end ]; do
		key_is "$1" "$2" && return 0
		sleep 0.02
	done
	fail "$1 is '$(get "$1")', not '$2'; the log: $(tail -8 "$WORK/tapback.log")"
}

stays()
{
	is "$1" "$(get "$1")" "$2"
	sleep 0.3
	is "$1, later" "$(get "$1")" "$2"
}

asked_for() { case " $(asked "$1") " in *" $2 "*) ;; *) return 1 ;; esac; }
wait_asked() { until_true 5 asked_for "$1" "$2"; }

watch_start()
{
	: >"$WORK/watched"
	xenstore-watch "${@:2}" "$1" >"$WORK/watched" &
	WATCHER=$!
	at_exit "kill $WATCHER 2>/dev/null"
	until_true 5 test -s "$WORK/watched" # it tells of the key itself when it begins
}

asked() { sed 's/.*"op":"\([a-z]*\)".*/\1/' "$WORK/log.$1" | tr '\n' ' '; }

# a disk that is up: D N, with the stand-in N
disk_up()
{
	disk "$1" script=/x
	wait_key "$(be "$1")/state" 2
	hotplug "$1" "${standin[$2]}"
	guest_ring "$1"
	wait_key "$(be "$1")/state" 4
	guest "$1" state=4
}

# what libxl writes to take a disk away
ask_to_close() { put "$(be "$1")" online=0 state=5; }
