# SPDX-License-Identifier: LGPL-2.1-or-later
# VHDs that were cut off: what their bits stand for beyond the file's end is lost.  No tool and no tapdisk shows it as zeroes, copies it,
# writes over it or calls the image valid; and an image of which nothing is lost is still of use.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99

vhd_util() { "$top_builddir/bin/vhd-util" "$@"; }
guest() { "$top_builddir/tests/support/tdguest" "$pid" "$minor" "$@"; }
cd "$WORK" || exit 99
export TAPDISK_CONF=$WORK/conf
: >conf

start() # IMAGE [ARG...]
{
	local marker image=$1

	shift
	marker=$(tap_ctl create -a "vhd:$WORK/$image" -o cache=writeback "$@" 2>refused) || return 1
	minor=${marker##*-}
	pid=$(tap_ctl list -m "$minor" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
}
stop() { tap_ctl destroy -p "$pid" -m "$minor" || fail "destroy"; }

# a disk whose last block is written to its end; half of that block is then missing, and in `short' a good footer stands there
expect 0 vhd_util create -n whole.vhd -s 20
start whole.vhd || fail "create"
expect 0 guest write 0 $((5 << 20)) 7
expect 0 guest write $((19 << 20)) $((1 << 20)) 8
stop
head -c $(($(stat -c %s whole.vhd) - 512 - 524288)) whole.vhd >torn
cat torn <(tail -c 512 whole.vhd) >short

for kind in torn short; do
	cp $kind c.vhd
	# check names the block, with whatever it is told to overlook
	for how in "" -i -B -p; do
		expect 22 vhd_util check -n c.vhd $how
		has "check of a $kind image" "$ERR" "of block 9"
		has "check of a $kind image" "$ERR" "lost"
	done
	# who writes it, or relies on all of it, refuses
	: >p.vhd && rm p.vhd o.raw o.vhd 2>/dev/null
	sum=$(sha256sum <c.vhd)
	for cmd in "repair -n c.vhd" "fill -n c.vhd" "set -n c.vhd -f hidden -v 1" "set -n c.vhd -f marker -v 1" "resize -n c.vhd -s 40 -j j" \
		"resize -n c.vhd -s 20 -f" "copy -n c.vhd -o o.raw" "copy -n c.vhd -s" "coalesce -n c.vhd -o o.vhd" "snapshot -n p.vhd -p c.vhd" \
		"modify -n c.vhd -s $((40 << 20))" "modify -n c.vhd -p whole.vhd"; do
		expect 5 vhd_util $cmd
		has "$cmd" "$ERR" "1024 sectors of block 9, from sector 39936 of the disk on"
	done
	for made in o.raw o.vhd p.vhd j; do [ ! -e $made ] || fail "$made was made of a $kind image"; done
	if start c.vhd; then fail "a $kind image was opened for writing"; fi
	has "a tapdisk's refusal" "$(cat refused)" "cut off"
	is "a $kind image after all that" "$(sha256sum <c.vhd)" "$sum"
	# the rest can be saved
	start c.vhd -R || fail "a $kind image is not opened read-only: $(cat refused)"
	expect 0 guest verify 0 $((5 << 20)) 7
	expect 0 guest verify $((19 << 20)) 524288 8
	expect 1 guest read $((19 << 20)) $((1 << 20))
	expect 1 guest read $(((19 << 20) + 524288)) 512
	stop
	expect 5 vhd_util read -n c.vhd -r $((19 * 2048)) -c 2048
	expect 5 vhd_util read -n c.vhd -d 9
	expect 0 vhd_util read -n c.vhd -r $((19 * 2048)) -c 1024
	expect 0 vhd_util query -n c.vhd -v -s -a
done

# cut in the last block's bitmap, or before it: the block table names what is not there
head -c $(($(stat -c %s whole.vhd) - 512 - (2 << 20) - 100)) whole.vhd >c.vhd
expect 22 vhd_util check -n c.vhd
has "check" "$ERR" "block 9"
expect 22 vhd_util repair -n c.vhd
if start c.vhd -R; then fail "an image without its last bitmap was opened"; fi

# the same beneath a child: neither the parent's data nor the child's become zeroes
expect 0 vhd_util create -n p.vhd -s 10
start p.vhd || fail "create"
expect 0 guest write 0 $((10 << 20)) 1
stop
expect 0 vhd_util snapshot -n d.vhd -p p.vhd
start d.vhd || fail "create"
expect 0 guest write $((1 << 20)) 512 2
expect 0 guest write $((5 << 20)) $((1 << 20)) 3
stop
cp d.vhd d.whole
truncate -s -1049088 d.vhd
sum=$(sha256sum <p.vhd)
for cmd in "coalesce -n d.vhd" "coalesce -n d.vhd -o o.vhd" "copy -n d.vhd -o o.raw"; do
	expect 5 vhd_util $cmd
	has "$cmd" "$ERR" "lost"
done
is "the parent of a child that was cut off" "$(sha256sum <p.vhd)" "$sum"
# a good leaf on it shows an error there, and takes writes elsewhere
cp d.whole d.vhd
expect 0 vhd_util snapshot -n e.vhd -p d.vhd
truncate -s -1049088 d.vhd
start e.vhd || fail "a leaf upon it: $(cat refused)"
expect 1 guest read $((5 << 20)) $((1 << 20))
expect 0 guest verify $((1 << 20)) 512 2
expect 0 guest write $((7 << 20)) 65536 4
expect 0 guest verify $((7 << 20)) 65536 4
stop
expect 5 vhd_util copy -n e.vhd -o o.raw
has "copy through a parent that was cut off" "$ERR" "d.vhd was cut off"
expect 5 vhd_util fill -n e.vhd

# a short block of which nothing is lost: of use as it is, and repaired
rm -f ./*.vhd
expect 0 vhd_util create -n whole.vhd -s 20
start whole.vhd || fail "create"
expect 0 guest write $((18 << 20)) 65536 5
stop
head -c $(($(stat -c %s whole.vhd) - 512 - 1048576)) whole.vhd >torn
cat torn <(tail -c 512 whole.vhd) >short
for kind in torn short; do
	cp $kind c.vhd
	expect 22 vhd_util check -n c.vhd
	expect 0 vhd_util copy -n c.vhd -o $kind.raw
	expect 0 vhd_util read -n c.vhd -d 9
	start c.vhd -R || fail "a short block without loss, read-only: $(cat refused)"
	expect 0 guest verify $((18 << 20)) 65536 5
	stop
	start c.vhd || fail "a short block without loss: $(cat refused)"
	expect 0 guest verify $((18 << 20)) 65536 5
	guest read $((19 << 20)) $((1 << 20)) | cmp -n $((1 << 20)) - /dev/zero || fail "what was never written is not zero"
	expect 0 guest write $((20 * 1048576 - 512)) 512 6
	stop
	expect 0 vhd_util check -n c.vhd
	! head -c -512 c.vhd | tail -c $((2 << 20)) | grep -q conectix || fail "a footer lies within the block"
	start c.vhd || fail "create"
	expect 0 guest verify $((18 << 20)) 65536 5
	expect 0 guest verify $((20 * 1048576 - 512)) 512 6
	stop
	cp $kind c.vhd
	expect 0 vhd_util repair -n c.vhd
	expect 0 vhd_util check -n c.vhd
	! head -c -512 c.vhd | tail -c $((2 << 20)) | grep -q conectix || fail "a footer lies within the block"
	cp $kind c.vhd
	expect 0 vhd_util fill -n c.vhd
	expect 0 vhd_util check -n c.vhd
	! head -c -512 c.vhd | grep -q 'conectix.*conectix' || fail "a footer lies within the block"
	expect 0 vhd_util copy -n c.vhd -o filled.raw
	cmp -s $kind.raw filled.raw || fail "fill changed the disk"
	rm filled.raw
done
cmp -s torn.raw short.raw || fail "the two show something else"
exit 0
