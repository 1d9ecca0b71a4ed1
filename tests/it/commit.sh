# SPDX-License-Identifier: LGPL-2.1-or-later
# Live commit: an image of a chain goes into its parent while a guest writes, at each depth, in qcow2 and VHD, and the leaf too;
# qemu-img is the foreign judge of what is then in a qcow2.  Refusals with their numbers; cancel, pause, no space, a dying source;
# and how its end is told: once if it did well, and as an error otherwise.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99

type qemu-img qemu-io >/dev/null 2>&1 || skip "without qemu-img"
command -v python3 >/dev/null || skip "python3 is not installed"
vhd_util() { "$top_builddir/bin/vhd-util" "$@"; }
td_qcow() { "$top_builddir/bin/td-qcow" "$@"; }
guest() { timeout 250 "$top_builddir/tests/support/tdguest" "$pid" "$minor" "$@"; }
find_pid() { pid=$(tap_ctl list -m "$minor" | sed -n 's/^pid=\([0-9]*\) .*/\1/p'); }
cd "$WORK" || exit 99

start() # SPEC [ARG...]
{
	local marker

	marker=$(tap_ctl create -a "$@") || fail "create $*"
	minor=${marker##*-}
	find_pid
}
stop() { expect 0 tap_ctl destroy -p "$pid" -m "$minor"; }
job() { tap_ctl "$1" -p "$pid" -m "$minor" "${@:2}"; }

# --- chains: each image has 1 MiB of its own, 64 KiB over the one below it, zeroes, and much that is the one's below it ---

names=(base lows mids tops)
T=qcow2
make_first()
{
	case $T in
	qcow2) expect 0 td_qcow create "$1.$T" 64M ;;
	vhd) expect 0 vhd_util create -n "$1.$T" -s 64 ;;
	esac
}
snapshot()
{
	case $T in
	qcow2) expect 0 td_qcow snapshot "$1.$T" "$2.$T" ;;
	vhd) expect 0 vhd_util snapshot -n "$2.$T" -p "$1.$T" ;;
	esac
}
fill() # INDEX: of the leaf
{
	expect 0 guest write $(($1 * 4194304)) 1048576 $((10 + $1))
	expect 0 guest write $((33554432 + $1 * 32768)) 65536 $((20 + $1))
}
right() # WHAT: all that has been written, as it was
{
	local i

	for i in 0 1 2 3; do
		guest verify $((i * 4194304)) 1048576 $((10 + i)) >>said 2>&1 || fail "$1: image $i's data: $(tail -2 said)"
		guest verify $((33554432 + i * 32768)) 32768 $((20 + i)) >>said 2>&1 || fail "$1: image $i's part: $(tail -2 said)"
	done
}
chain() # [ARG...]: it is open afterwards
{
	local i

	rm -f ./*.$T
	for i in 0 1 2 3; do
		if [ $i = 0 ]; then make_first "${names[0]}"; else snapshot "${names[i - 1]}" "${names[i]}"; fi
		start "$T:$WORK/${names[i]}.$T" "$@"
		fill $i
		[ $i = 3 ] || stop
	done
}
parent() # IMAGE
{
	case $T in
	qcow2) qemu-img info -U "$1.$T" | sed -n 's/^backing file: //p' | sed 's/ (actual path.*//' ;;
	vhd) vhd_util query -p -n "$1.$T" ;;
	esac
}
sound() # IMAGE...
{
	local i

	for i in "$@"; do
		case $T in
		qcow2) expect 0 qemu-img check -f qcow2 "$i.$T" ;;
		vhd) expect 0 vhd_util check -n "$i.$T" ;;
		esac
	done
}
busy_guest() # writes the same again and again; BUSY is its pid
{
	(
		end=
		trap 'end=1' TERM
		while [ -z "$end" ]; do guest write 50331648 262144 7 >>said2 2>&1 || exit 1; done
	) &
	BUSY=$!
}
quiet_guest()
{
	kill -TERM $BUSY
	wait $BUSY || fail "the guest that wrote meanwhile: $(tail -2 said2)"
}
commit_all() # IMAGE [ARG...]: under a guest's load
{
	busy_guest
	expect 0 job commit -a "$WORK/$1.$T" -w "${@:2}"
	quiet_guest
	has "its end" "$OUT" "Commit status 'concluded' (67108864/67108864)"
}

for T in qcow2 vhd; do
	for mode in none writeback; do
		# the one in the middle
		chain -o cache=$mode
		commit_all mids
		right "$T, $mode: after the middle"
		is "$T: who names whom" "$(parent tops)" "$WORK/lows.$T"
		expect 0 job query
		is "told once" "$OUT" "Commit status 'undefined' (0/0)"
		[ -e mids.$T ] || fail "the image that is committed is its owner's"
		is "nobody has it open" "$(find /proc/"$pid"/fd -lname "$WORK/mids.$T")" ""
		rm mids.$T
		right "$T, $mode: without the middle"
		# the one upon the first, which the leaf does not stand on directly any more
		commit_all lows
		right "$T, $mode: after the lowest"
		rm lows.$T
		is "$T: who names whom now" "$(parent tops)" "$WORK/base.$T"
		expect 0 job pause
		expect 0 job unpause
		right "$T, $mode: opened anew"
		# the leaf: it is ready until somebody asks, and then its parent is the leaf
		commit_all tops
		expect 0 tap_ctl list -m "$minor"
		has "$T: the disk" "$OUT" "args=$T:$WORK/base.$T"
		rm tops.$T
		right "$T, $mode: after the leaf"
		expect 0 guest write 0 65536 10
		stop
		start "$T:$WORK/base.$T" -o cache=$mode
		right "$T, $mode: opened anew"
		stop
		sound base
	done
	# beneath the lowest but one: the image that names another parent is no leaf
	chain
	commit_all lows
	right "$T: deep"
	is "$T: who names whom, deep" "$(parent mids)" "$WORK/base.$T"
	rm lows.$T
	stop
	sound base mids tops
	start "$T:$WORK/tops.$T"
	right "$T: deep, opened anew"
	stop
done
T=qcow2

# qemu-img reads the same before and after
chain
stop
qemu-img convert -O raw tops.qcow2 before.raw
start "qcow2:$WORK/tops.qcow2"
expect 0 job commit -a mids.qcow2 -w
expect 0 job commit -a "qcow2:$WORK/lows.qcow2" -w
stop
qemu-img convert -O raw tops.qcow2 after.raw
cmp before.raw after.raw || fail "qemu-img reads something else"
sound base tops

# other shapes: a parent with small clusters, one with compressed data, a larger image, a smaller one, zeroes, a raw parent
shape() # CREATE-ARGS-OF-BASE  SIZE-OF-MID  ARGS-OF-MID
{
	rm -f ./*.qcow2 ./*.raw
	# shellcheck disable=SC2086
	qemu-img create -q -f qcow2 $1 base.qcow2 48M >/dev/null
	qemu-io -f qcow2 -c 'write -P 1 0 16M' -c 'write -P 2 40M 8M' base.qcow2 >>qemu
	# shellcheck disable=SC2086
	qemu-img create -q -f qcow2 -F qcow2 -b "$WORK/base.qcow2" $3 mids.qcow2 "$2" >/dev/null
	qemu-io -f qcow2 -c 'write -P 3 1M 3M' -c 'write -P 4 5000k 4k' -c 'write -z 8M 2M' -c 'discard 10M 64k' mids.qcow2 >>qemu
	qemu-img create -q -f qcow2 -F qcow2 -b "$WORK/mids.qcow2" tops.qcow2 64M >/dev/null
	qemu-io -f qcow2 -c 'write -P 5 2M 1M' tops.qcow2 >>qemu
	chmod a-w base.qcow2 mids.qcow2
	qemu-img convert -O raw tops.qcow2 before.raw
	start "qcow2:$WORK/tops.qcow2"
	expect 0 job commit -a "$WORK/mids.qcow2" -w
	stop
	rm mids.qcow2
	qemu-img convert -O raw tops.qcow2 after.raw
	cmp before.raw after.raw || fail "shape $*: another content"
	sound base tops
}
shape "-o cluster_size=4k" 48M "-o cluster_size=2M"
shape "-o cluster_size=2M" 48M "-o cluster_size=4k"
shape "-o extended_l2=on,cluster_size=128k" 60M "-o extended_l2=on,cluster_size=16k"
shape "-o lazy_refcounts=on" 44M "-o lazy_refcounts=on"
shape "" 64M ""
rm -f ./*.qcow2
qemu-img create -q -f raw base.img 48M >/dev/null
qemu-io -f raw -c 'write -P 1 0 48M' base.img >>qemu
qemu-img create -q -f qcow2 -F raw -b "$WORK/base.img" mids.qcow2 >/dev/null
qemu-io -f qcow2 -c 'write -P 3 1M 3M' -c 'write -z 8M 2M' mids.qcow2 >>qemu
qemu-img create -q -f qcow2 -F qcow2 -b "$WORK/mids.qcow2" tops.qcow2 >/dev/null
chmod a-w base.img mids.qcow2
qemu-img convert -O raw tops.qcow2 before.raw
start "qcow2:$WORK/tops.qcow2"
expect 0 job commit -a "$WORK/mids.qcow2" -w
stop
is "a raw one is named as such" "$(qemu-img info tops.qcow2 | sed -n 's/^backing file format: //p')" raw
qemu-img convert -O raw tops.qcow2 after.raw
cmp before.raw after.raw || fail "a raw parent: another content"

# --- refusals ---

chain
expect 19 tap_ctl commit -p "$pid" -m 16000 -a "$WORK/mids.qcow2"
expect 22 job commit -a "$WORK/other.qcow2"
has "why" "$ERR" "is no image of the chain"
expect 22 job commit -a "$WORK/base.qcow2"
has "why" "$ERR" "has no parent"
expect 0 job query
is "no job" "$OUT" "Commit status 'undefined' (0/0)"
expect 0 job cancel
expect 0 job cancel -w
td_qcow snapshot lows.qcow2 beside.qcow2 || fail snapshot
expect 22 job commit -a "$WORK/mids.qcow2"
has "why" "$ERR" "beside.qcow2 has the backing file"
keep="$pid $minor"
start "qcow2:$WORK/beside.qcow2"
beside="$pid $minor"
read -r pid minor <<<"$keep"
expect 22 job commit -f -a "$WORK/mids.qcow2"
has "why" "$ERR" "is in use by another disk too"
right "refused"
read -r pid minor <<<"$beside"
stop
read -r pid minor <<<"$keep"
expect 0 job commit -f -r 64K -a "$WORK/mids.qcow2"
expect 22 job commit -a "$WORK/lows.qcow2"
has "two jobs" "$ERR" "is under way"
expect 16 job resize
expect 0 job query
has "it runs" "$OUT" "Commit status 'running' ("
rm beside.qcow2

# cancelled, by the command and by a pause: an error, until it is cancelled again or another begins; the chain is as it was
expect 0 job cancel -w
expect 125 job query
has "what is told" "$ERR" "it was cancelled"
expect 125 job query
right "cancelled"
is "who names whom" "$(parent tops)" mids.qcow2
expect 0 job commit -r 64K -a "$WORK/mids.qcow2"
expect 0 job pause
expect 19 job commit -a "$WORK/mids.qcow2"
expect 125 job query
expect 0 job unpause
expect 125 job query
right "paused"
expect 0 job cancel
expect 0 job query
has "forgotten" "$OUT" undefined
# closed: it does not wait for the job
expect 0 job commit -r 64K -a "$WORK/mids.qcow2"
stop
sound base lows mids tops
start "qcow2:$WORK/tops.qcow2"
right "closed, and opened"
# a leaf that nobody asks stays as it is, and a guest's writes come into the one that is the leaf afterwards
expect 0 job commit -a "$WORK/tops.qcow2"
ready() { job query | grep -q "'ready'"; }
until_true 20 ready
expect 0 guest write 0 1048576 10
done_() { job query >told && grep -q "'concluded'" told; }
until_true 20 done_
right "the leaf, asked for"
expect 0 tap_ctl list -m "$minor"
has "the disk" "$OUT" "$WORK/mids.qcow2"
stop

# a leaf whose parent cannot be the leaf, as somebody has come to read it: never told as concluded, and the disk goes on
start "qcow2:$WORK/mids.qcow2"
expect 0 job commit -a "$WORK/mids.qcow2"
at_exit "touch $WORK/told4.end"
python3 -c 'import fcntl, os, sys, time
f = open(sys.argv[1], "rb")
fcntl.lockf(f, fcntl.LOCK_SH | fcntl.LOCK_NB, 100, 0)
open("locked", "w").close()
while not os.path.exists("told4.end"): time.sleep(0.1)' lows.qcow2 &
reader=$!
until_true 5 [ -e locked ]
while job query >>told3 2>told4; do :; done
has "why" "$(cat told4)" "has failed"
if grep "concluded" told3; then fail "told as concluded, which it is not"; fi
right "the leaf stays"
touch told4.end
wait $reader
stop

# a read-only disk, an image without a chain, another kind
start "qcow2:$WORK/mids.qcow2" -R
expect 22 job commit -a "$WORK/lows.qcow2"
stop
# what is read beneath its leaf goes into that, too
start "qcow2:$WORK/mids.qcow2" -r
expect 22 job commit -a "$WORK/lows.qcow2"
has "why" "$ERR" "its chain cannot change"
stop
truncate -s 1M a.img
start "aio:$WORK/a.img"
expect 95 job commit -a "$WORK/a.img"
stop
expect 22 tap_ctl commit -p 1 -m 1
expect 22 tap_ctl commit -p 1 -m 1 -a x -r 5x

# a leaf that its guest writes all over, and never rests
chain
"$top_builddir/tests/support/tdguest" "$pid" "$minor" load 100000000 8 >said3 2>&1 &
load=$!
at_exit "kill $load 2>/dev/null; :"
expect 0 timeout 120 "$top_builddir/bin/tap-ctl" commit -p "$pid" -m "$minor" -a "$WORK/tops.qcow2" -w
has "the end beneath a busy guest" "$OUT" "Commit status 'concluded'"
kill -TERM $load
wait $load || fail "the guest that never rests: $(tail -2 said3)"
stop
sound mids

exit 0
