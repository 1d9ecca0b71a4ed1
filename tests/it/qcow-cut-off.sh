# SPDX-License-Identifier: LGPL-2.1-or-later
# qcow2 images that were cut off: clusters that the tables name beyond the file's end are lost.  check names them, nobody opens the image for
# writing, and no read shows them as zeroes, in whatever part of a cluster the file ends.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99

td_qcow() { "$top_builddir/bin/td-qcow" "$@"; }
guest() { "$top_builddir/tests/support/tdguest" "$pid" "$minor" "$@"; }
cd "$WORK" || exit 99
export TAPDISK_CONF=$WORK/conf
: >conf

start() # IMAGE [ARG...]
{
	local marker image=$1

	shift
	marker=$(tap_ctl create -a "qcow2:$WORK/$image" -o cache=writeback "$@" 2>refused) || return 1
	minor=${marker##*-}
	pid=$(tap_ctl list -m "$minor" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
}
stop() { tap_ctl destroy -p "$pid" -m "$minor" || fail "destroy"; }
reads() { guest read "$@" >/dev/null; }
size() { stat -c %s "$1"; }

# refused IMAGE WHAT: for writing, by everybody, and it stays as it is
refused()
{
	local sum

	sum=$(sha256sum <"$1")
	! start "$1" || fail "$2 was opened for writing"
	has "$2: a tapdisk's refusal" "$(cat refused)" "cut off"
	run td_qcow resize "$1" 40M
	[ "$RC" != 0 ] || fail "$2 was resized"
	is "$2, after all that" "$(sha256sum <"$1")" "$sum"
}

for options in "" "-o extended_l2=on" "-o lazy_refcounts=on" "-o cluster_size=512"; do
	rm -f ./*.qcow2
	# shellcheck disable=SC2086 # words
	expect 0 td_qcow create $options whole.qcow2 20M
	start whole.qcow2 || fail "create: $(cat refused)"
	expect 0 guest write 0 $((5 << 20)) 7
	expect 0 guest write $((19 << 20)) $((1 << 20)) 8
	stop
	expect 0 td_qcow check whole.qcow2

	# between clusters, within one, by one sector, by a byte
	for len in 524288 $((524288 + 1024)) 512 1; do
		cp whole.qcow2 c.qcow2
		truncate -s -$len c.qcow2
		run td_qcow check c.qcow2
		[ "$RC" != 0 ] || fail "check says nothing of $len bytes that are gone ($options)"
		has "check ($options, $len)" "$OUT$ERR" "the end of the file"
		refused c.qcow2 "an image without its last $len bytes ($options)"
		if start c.qcow2 -R; then
			expect 0 guest verify 0 $((5 << 20)) 7
			expect 1 reads $((19 << 20)) $((1 << 20))
			stop
		else # a table is among what is lost
			has "read-only ($options, $len)" "$(cat refused)" "cut off"
			is "options" "$options" "-o cluster_size=512"
		fi
		run td_qcow check -r all c.qcow2
		run td_qcow check c.qcow2
		[ "$RC" != 0 ] || fail "check -r all makes $len lost bytes good ($options)"
		if start c.qcow2; then fail "opened for writing after check -r all ($options, $len)"; fi
	done
done

# beneath an overlay: an error there, and nothing of it goes into another image
rm -f ./*.qcow2
expect 0 td_qcow create base.qcow2 20M
start base.qcow2 || fail "create: $(cat refused)"
expect 0 guest write 0 $((8 << 20)) 1
stop
expect 0 td_qcow create -b base.qcow2 -F qcow2 top.qcow2
start top.qcow2 || fail "create: $(cat refused)"
expect 0 guest write $((1 << 20)) $((1 << 20)) 2
stop
cp top.qcow2 top.whole
truncate -s -300000 top.qcow2
sum=$(sha256sum <base.qcow2)
run td_qcow commit top.qcow2
[ "$RC" != 0 ] || fail "commit of an image that was cut off"
is "what is below it" "$(sha256sum <base.qcow2)" "$sum"
cp top.whole top.qcow2
truncate -s -300000 base.qcow2
start top.qcow2 || fail "an overlay: $(cat refused)"
expect 1 reads $((8 * 1048576 - 65536)) 65536
expect 0 guest verify $((1 << 20)) $((1 << 20)) 2
expect 0 guest write $((10 << 20)) 65536 3
expect 1 guest write $((8 * 1048576 - 65536)) 512 4
stop

# an external data file
rm -f ./*.qcow2
expect 0 td_qcow create -o data_file=d.raw e.qcow2 8M
start e.qcow2 -o "data-file=$WORK/d.raw" || fail "create: $(cat refused)"
expect 0 guest write 0 $((2 << 20)) 5
stop
cp d.raw d.whole
truncate -s $((1 << 20)) d.raw
! start e.qcow2 -o "data-file=$WORK/d.raw" || fail "opened for writing with a data file that was cut off"
has "a data file that was cut off" "$(cat refused)" "cut off"
start e.qcow2 -o "data-file=$WORK/d.raw" -R || fail "read-only: $(cat refused)"
expect 0 guest verify 0 $((1 << 20)) 5
expect 1 reads $((1 << 20)) 512
stop
cp d.whole d.raw
start e.qcow2 -o "data-file=$WORK/d.raw" || fail "with its whole data file: $(cat refused)"
expect 0 guest verify 0 $((2 << 20)) 5
stop

# nothing of this is said of an image that merely ends within a cluster: its L1 table, or a compressed cluster
if command -v qemu-img >/dev/null; then
	qemu-img create -q -f qcow2 q.qcow2 1M && head -c 700000 "$top_builddir/tapdisk/tapdisk" >z.raw && truncate -s 1M z.raw &&
		qemu-img convert -c -O qcow2 z.raw z.qcow2 || fail "qemu-img"
	for image in q z; do
		[ $(($(size $image.qcow2) % 65536)) != 0 ] || fail "$image.qcow2 ends with a cluster"
		expect 0 td_qcow check $image.qcow2
		start $image.qcow2 || fail "$image.qcow2: $(cat refused)"
		[ $image = q ] || "$top_builddir/tests/support/tdguest" "$pid" "$minor" read 0 1048576 | cmp - z.raw || fail "the compressed disk"
		expect 0 guest write 65536 4096 6
		stop
		expect 0 td_qcow check $image.qcow2
	done
fi
exit 0
