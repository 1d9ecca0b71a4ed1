# SPDX-License-Identifier: LGPL-2.1-or-later
# vhd-util modify -p on a leaf that runs on another host, whose locks are not seen here: a volume that both hosts have.  Two loop
# devices upon one file stand for the two hosts' devices.  Only the names' own bytes may change: the other host has allocated blocks
# that the table in the image does not show yet, and its log's mark must stay.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99

other=$WORK/other-host
there() { TAPDISK_CONTROL_DIR=$other "$top_builddir/bin/vhd-util" "$@"; }
vhd_util() { "$top_builddir/bin/vhd-util" "$@"; }
guest() { timeout 250 "$top_builddir/tests/support/tdguest" "$pid" "$minor" "$@"; }
cd "$WORK" || exit 99
mkdir here there

# volumes of base < mids < leaf, each under both hosts' names
for v in base mids leaf; do
	truncate -s 64M "$v"
	for host in here there; do
		dev=$(losetup --show -f "$WORK/$v" 2>/dev/null) || skip "no loop devices"
		at_exit "losetup -d $dev"
		ln -s "$dev" "$host/$v"
	done
done
echo "parent-dirs = /dev" >conf
export TAPDISK_CONF=$WORK/conf
start() # MODE
{
	local marker

	marker=$(tap_ctl create -a "vhd:$WORK/here/leaf" -o "cache=$1") || fail create
	minor=${marker##*-}
	pid=$(tap_ctl list -m "$minor" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
}
mark() { od -An -tx4 -j 572 -N 4 leaf; }
sectors() # A B: which differ
{
	cmp -l "$1" "$2" | awk '{ print int(($1 - 1) / 512) }' | uniq | tr '\n' ' '
}

for mode in none directsync; do
	for v in base mids leaf; do
		dd if=/dev/zero of="$WORK/$v" bs=1M count=64 conv=notrunc status=none
		blockdev --flushbufs "$(readlink "here/$v")" "$(readlink "there/$v")"
	done
	expect 0 vhd_util create -n here/base -s 16
	expect 0 vhd_util snapshot -n here/mids -p here/base
	expect 0 vhd_util snapshot -n here/leaf -p here/mids
	start $mode
	expect 0 guest write 2097152 65536 3
	expect 0 guest write 6291456 65536 4
	kill -STOP "$pid" # what changes from here on is the tool's: the tapdisk writes its table when it likes
	cp leaf was
	marked=$(mark)
	blockdev --flushbufs "$(readlink there/leaf)"
	expect 0 there modify -p there/base -n there/leaf
	blockdev --flushbufs "$(readlink there/leaf)"
	is "$mode: the mark" "$(mark)" "$marked"
	changed=$(sectors was leaf | wc -w)
	[ "$changed" -ge 3 ] && [ "$changed" -le 4 ] ||
		fail "$mode: other sectors than the header's first and the three names have changed: $(sectors was leaf)"
	is "$mode: the parent" "$(there query -p -n there/leaf)" "$(readlink -f there/base)"
	kill -CONT "$pid"
	expect 0 guest verify 2097152 65536 3
	if [ $mode = none ]; then # a name that needs more room, while it is open there
		kill -STOP "$pid"
		cp leaf was
		expect 16 there modify -p base -n there/leaf
		has "why" "$ERR" "on another host"
		has "what to do" "$ERR" "tap-ctl pause"
		blockdev --flushbufs "$(readlink there/leaf)"
		is "refused, and written" "$(sectors was leaf)" ""
		kill -CONT "$pid"
	fi
	# the other host dies here and goes on: its log still fits
	kill -KILL "$pid"
	until_true 10 gone "$pid"
	expect 0 tap_ctl revive -m "$minor"
	pid=$(tap_ctl list -m "$minor" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
	expect 0 guest verify 2097152 65536 3
	expect 0 guest verify 6291456 65536 4
	expect 0 tap_ctl destroy -p "$pid" -m "$minor"
	expect 0 vhd_util check -n here/leaf
done
exit 0
