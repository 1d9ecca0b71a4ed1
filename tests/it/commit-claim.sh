# SPDX-License-Identifier: LGPL-2.1-or-later
# While a live commit runs, nobody comes to write its parent or to stand on it, and hears why; who stands there already, unseen by
# this host, stops it before it begins.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99

command -v python3 >/dev/null || skip "python3 is not installed"
td_qcow() { "$top_builddir/bin/td-qcow" "$@"; }
vhd_util() { "$top_builddir/bin/vhd-util" "$@"; }
guest() { timeout 250 "$top_builddir/tests/support/tdguest" "$pid" "$minor" "$@"; }
job() { tap_ctl "$1" -p "$pid" -m "$minor" "${@:2}"; }
stop() { expect 0 tap_ctl destroy -p "$pid" -m "$minor"; }
self=$(readlink -f "${BASH_SOURCE[0]}")
cd "$WORK" || exit 99

start() # SPEC [ARG...]
{
	local marker

	marker=$(tap_ctl create -a "$@") || fail "create $*"
	minor=${marker##*-}
	pid=$(tap_ctl list -m "$minor" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
}
# As another host's with the same file: it stands outside of the PID namespace that the tapdisk is in, whose /proc/locks leaves it out.
if [ -n "${ELSEWHERE-}" ]; then
	start "$ELSEWHERE"
	expect 22 job commit -f -a "${ELSEWHERE#*:}"
	has "a reader elsewhere: why" "$ERR" "is in use by another disk too, which would change, on this host or on another"
	expect 0 job query
	has "a reader elsewhere: no job" "$OUT" undefined
	expect 0 guest verify 0 2097152 7
	stop
	exit 0
fi
reader() # FILE: a lock as of a parent
{
	python3 -c 'import fcntl, os, sys, time
f = open(sys.argv[1], "rb")
fcntl.lockf(f, fcntl.LOCK_SH | fcntl.LOCK_NB, 100, 0)
open(sys.argv[2], "w").close()
up = os.getppid()
while os.getppid() == up and not os.path.exists(sys.argv[2] + ".end"):
    time.sleep(0.1)' "$1" "$WORK/locked" &
	READER=$!
	at_exit "touch $WORK/locked.end"
	until_true 5 [ -e locked ]
}
reader_ends()
{
	touch locked.end
	wait $READER
	rm locked.end locked
}

for T in qcow2 vhd; do
	case $T in
	qcow2)
		expect 0 td_qcow create base.$T 16M
		expect 0 td_qcow snapshot base.$T mids.$T
		expect 0 td_qcow snapshot base.$T beside.$T
		;;
	vhd)
		expect 0 vhd_util create -n base.$T -s 16
		expect 0 vhd_util snapshot -n mids.$T -p base.$T
		expect 0 vhd_util snapshot -n beside.$T -p base.$T
		;;
	esac
	start "$T:$WORK/mids.$T"
	expect 0 guest write 0 2097152 7
	stop
	if unshare -pfm --mount-proc true 2>/dev/null; then
		reader "$WORK/base.$T"
		ELSEWHERE=$T:$WORK/mids.$T unshare -pfm --mount-proc bash "$self" || fail "$T: a reader elsewhere"
		reader_ends
	fi
	case $T in
	qcow2) expect 0 td_qcow snapshot mids.$T tops.$T ;;
	vhd) expect 0 vhd_util snapshot -n tops.$T -p mids.$T ;;
	esac
	start "$T:$WORK/tops.$T"
	expect 0 job commit -f -r 64K -a "$WORK/mids.$T"
	for spec in "$T:$WORK/beside.$T" "$T:$WORK/base.$T" "$T:$WORK/base.$T -R"; do
		# shellcheck disable=SC2086
		expect 16 tap_ctl create -a $spec
		has "$T, $spec: why" "$ERR" "base.$T is in use by tapdisk (pid $pid), which is committing another image into it"
		has "$T, $spec: what to do" "$ERR" "tap-ctl cancel"
	done
	if [ $T = qcow2 ]; then
		expect 16 td_qcow snapshot base.$T late.$T
		[ ! -e late.$T ] || fail "a new image stands on a parent that is being written"
		if type qemu-io >/dev/null 2>&1; then
			run qemu-io -r -f qcow2 -c 'read 0 512' base.$T
			has "a QEMU that reads" "$OUT$ERR" lock
		fi
	fi
	# it is a parent as before, also for others
	expect 0 job cancel -w
	expect 0 guest verify 0 2097152 7
	keep="$pid $minor"
	start "$T:$WORK/beside.$T"
	stop
	read -r pid minor <<<"$keep"
	expect 0 job commit -f -a "$WORK/mids.$T" -w
	expect 0 guest verify 0 2097152 7
	start "$T:$WORK/beside.$T"
	stop
	read -r pid minor <<<"$keep"
	stop
done
exit 0
