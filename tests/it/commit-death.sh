# SPDX-License-Identifier: LGPL-2.1-or-later
# A live commit whose tapdisk dies, before each change that it makes in a file: a successor goes on with it, and nothing is another.
# Upgraded in the middle; with a source that fails, and a parent without space, or with a sync that fails.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99

vhd_util() { "$top_builddir/bin/vhd-util" "$@"; }
td_qcow() { "$top_builddir/bin/td-qcow" "$@"; }
guest() { timeout 250 "$top_builddir/tests/support/tdguest" "$pid" "$minor" "$@"; }
find_pid() { pid=$(tap_ctl list -m "$minor" | sed -n 's/^pid=\([0-9]*\) .*/\1/p'); }
job() { tap_ctl "$1" -p "$pid" -m "$minor" "${@:2}"; }
stop() { expect 0 tap_ctl destroy -p "$pid" -m "$minor"; }
cd "$WORK" || exit 99
names=(base lows mids tops)
mkdir keep

start() # SPEC [ARG...]
{
	local marker

	marker=$(tap_ctl create -a "$@") || fail "create $*"
	minor=${marker##*-}
	find_pid
}
troubled() # SPEC [ARG...]: with tests/support/file-trouble.c
{
	local marker

	marker=$(LD_PRELOAD=$(readlink -f "$top_builddir/tests/support/file-trouble.so") FILE_TROUBLE=$WORK/trouble TAPDISK_IO=threads \
		ASAN_OPTIONS=verify_asan_link_order=0:${ASAN_OPTIONS-} tap_ctl create -a "$@") || fail "create $*"
	minor=${marker##*-}
	find_pid
}
trouble() # LINE
{
	ln -s "$*" trouble.new && mv -T trouble.new trouble
}
chain() # once; it is kept in keep/
{
	local i

	for i in 0 1 2 3; do
		case $T.$i in
		qcow2.0) expect 0 td_qcow create base.$T 16M ;;
		vhd.0) expect 0 vhd_util create -n base.$T -s 16 ;;
		qcow2.*) expect 0 td_qcow snapshot ${names[i - 1]}.$T ${names[i]}.$T ;;
		vhd.*) expect 0 vhd_util snapshot -n ${names[i]}.$T -p ${names[i - 1]}.$T ;;
		esac
		start "$T:$WORK/${names[i]}.$T"
		expect 0 guest write $((i * 2097152)) 262144 $((10 + i))
		expect 0 guest write $((12582912 + i * 32768)) 65536 $((20 + i))
		stop
	done
	for i in "${names[@]}"; do cp -p "$i.$T" keep/; done
}
fresh()
{
	local i

	for i in "${names[@]}"; do cp -p "keep/$i.$T" .; done
}
right() # WHAT
{
	local i

	for i in 0 1 2 3; do
		guest verify $((i * 2097152)) 262144 $((10 + i)) >>said 2>&1 || fail "$1: image $i's data: $(tail -2 said)"
		guest verify $((12582912 + i * 32768)) 32768 $((20 + i)) >>said 2>&1 || fail "$1: image $i's part: $(tail -2 said)"
	done
}
sound() # IMAGE...
{
	local i

	for i in "$@"; do
		if [ $T = vhd ]; then expect 0 vhd_util check -n "$i.$T"; else expect 0 td_qcow check "$i.$T"; fi
	done
}
alive() { ! gone "$pid"; }

# before change after change; STEP of them at a time, so that each run has others
sweep() # IMAGE STEP
{
	local k=$((1 + RANDOM % $2)) deaths=0

	while :; do
		fresh
		troubled "$T:$WORK/tops.$T"
		trouble die $k
		# it may die before it has answered, and is not to have begun then, or to go on
		job commit -a "$WORK/$1.$T" -w >told 2>&1
		rm -f trouble
		# its sockets are closed before it is gone
		! grep -q "ended before it answered" told || until_true 10 gone "$pid"
		if alive; then
			grep -q "concluded" told || fail "$T, $1, $k: alive, and: $(cat told)"
			rm "$1.$T"
			right "$T, $1, $k: alive, without it"
			stop
			break
		fi
		deaths=$((deaths + 1))
		expect 0 tap_ctl revive -m "$minor"
		find_pid
		right "$T, $1, death $k"
		if ! job query | grep -q undefined; then
			# whoever asks may have heard of the end, which was before the death
			job query -w >told 2>&1 || fail "$T, $1, death $k: $(cat told)"
			grep -q "concluded\|undefined" told || fail "$T, $1, death $k: $(cat told)"
		elif ! grep -q concluded told; then
			# it had not begun
			expect 0 job commit -a "$WORK/$1.$T" -w
		fi
		rm "$1.$T"
		right "$T, $1, death $k, without it"
		stop
		k=$((k + $2))
	done
	[ $deaths -gt 1 ] || fail "$T, $1: it died $deaths times only"
	echo "$T, $1: $deaths deaths"
	case $1 in
	tops) sound base lows mids ;;
	mids) sound base lows tops ;;
	esac
}
for T in qcow2 vhd; do
	chain
	sweep mids 3
	sweep tops 4
	sweep lows 4
done

# upgraded in the middle: it goes on; and is cancelled, and fails, there as here
for T in qcow2 vhd; do
	fresh
	start "$T:$WORK/tops.$T"
	expect 0 job commit -r 64K -a "$WORK/mids.$T"
	expect 0 tap_ctl upgrade -p "$pid"
	find_pid
	expect 0 job query
	has "$T: it runs there" "$OUT" "'running'"
	expect 22 job commit -a "$WORK/lows.$T"
	right "$T: upgraded"
	expect 0 job cancel -w
	expect 125 job query
	expect 0 tap_ctl upgrade -p "$pid"
	find_pid
	expect 125 job query
	expect 0 job commit -r 2M -a "$WORK/mids.$T"
	expect 0 tap_ctl upgrade -p "$pid"
	find_pid
	expect 0 job query -w
	has "$T: its end" "$OUT" "'concluded'"
	right "$T: upgraded, over"
	rm mids.$T
	# a leaf's; its end is told by another process than the one that was asked
	expect 0 job commit -a "$WORK/tops.$T"
	expect 0 tap_ctl upgrade -p "$pid"
	find_pid
	expect 0 job query -w
	has "$T: a leaf's end" "$OUT" "'concluded'"
	rm tops.$T
	right "$T: a leaf's, over"
	# killed with the job at work, and its end revived
	stop
	fresh
	start "$T:$WORK/tops.$T"
	expect 0 job commit -r 64K -a "$WORK/mids.$T"
	kill -KILL "$pid"
	until_true 10 gone "$pid"
	expect 0 tap_ctl revive -m "$minor"
	find_pid
	expect 0 job query
	has "$T: it goes on" "$OUT" "'running'"
	right "$T: revived"
	stop
done

# a source that fails, a parent without space: told, and the chain is as it was, also afterwards
for T in qcow2 vhd; do
	for what in "read 5 $WORK/mids.$T" "write 28 $WORK/lows.$T" "write 5 $WORK/lows.$T"; do
		fresh
		troubled "$T:$WORK/tops.$T"
		expect 0 job commit -r 64K -a "$WORK/mids.$T"
		trouble "$what"
		run job query -w
		rm trouble
		is "$T, $what" "$RC" "$(cut -d' ' -f2 <<<"$what")"
		has "$T, $what" "$ERR" "has failed"
		right "$T: $what"
		expect 0 job pause
		expect 0 job unpause
		right "$T: $what, opened anew"
		expect 0 job commit -a "$WORK/mids.$T" -w
		rm mids.$T
		right "$T: $what, again"
		stop
		sound base lows tops
	done
done

# a sync of the parent that fails: the kernel tells of it once, so that no other job relies on what is read there
for T in qcow2 vhd; do
	fresh
	troubled "$T:$WORK/tops.$T"
	expect 0 job commit -r 64K -a "$WORK/mids.$T"
	trouble "sync 5 $WORK/lows.$T"
	run job query -w
	rm trouble
	is "$T: a sync" "$RC" 5
	expect 0 job cancel
	expect 0 job pause
	expect 0 job unpause
	right "$T: after a sync that failed"
	expect 22 job commit -a "$WORK/mids.$T"
	has "$T: why" "$ERR" "a sync of $T:$WORK/lows.$T, or of what names it, has failed"
	stop
	start "$T:$WORK/tops.$T"
	expect 0 job commit -a "$WORK/mids.$T" -w
	right "$T: closed, and again"
	stop
done

# a handover that does not come about: the job goes on where it is
T=qcow2
fresh
expect 0 "$top_builddir/bin/cbt-util" create -n log -s 16777216
troubled "$T:$WORK/tops.$T" -C "$WORK/log"
expect 0 guest write 1048576 65536 9
expect 0 job commit -r 64K -a "$WORK/mids.$T"
trouble "sync 5 $WORK/log"
run tap_ctl upgrade -p "$pid"
rm trouble
is "the upgrade" "$RC" 5
expect 0 job query
has "it goes on" "$OUT" "'running'"
stop
exit 0
