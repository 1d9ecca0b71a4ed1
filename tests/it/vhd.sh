# SPDX-License-Identifier: LGPL-2.1-or-later
# VHDs under a real tapdisk: images of qemu-img and of vhd-util, chains, a snapshot taken while the guest waits, keys, and what is refused.
. "$top_srcdir/tests/it/lib.sh"

guest="$top_builddir/tests/support/tdguest"
vhd_util() { "$top_builddir/bin/vhd-util" "$@"; }
command -v qemu-img >/dev/null || skip "qemu-img is not there"
cd "$WORK" || exit 99
export TAPDISK_CONF=$WORK/conf
: >conf

create() # ARG...: sets pid, minor
{
	local marker

	marker=$(tap_ctl create "$@" -o cache=writeback) || fail "create $*"
	minor=${marker##*-}
	pid=$(tap_ctl list -m "$minor" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
}
destroy() { tap_ctl destroy -p "$pid" -m "$minor" || fail "destroy"; }
same() { qemu-img compare -q -f vpc -F raw "$1" "$2" || fail "qemu-img reads something else in $1 than the guest"; }

# what QEMU makes, we write, and it reads the same; its sizes are its own
for kind in fixed dynamic; do
	for force in on off; do
		qemu-img create -q -f vpc -o subformat=$kind,force_size=$force q.vhd 13M || fail "qemu-img create"
		create -a "vhd:$WORK/q.vhd"
		expect 0 "$guest" "$pid" "$minor" write 4096 90112 1
		expect 0 "$guest" "$pid" "$minor" write $((5 << 20)) 512 2
		expect 0 "$guest" "$pid" "$minor" flush
		expect 0 "$guest" "$pid" "$minor" verify 4096 90112 1
		size=$(tap_ctl list -m "$minor" >/dev/null && qemu-img info -U -f vpc --output=json q.vhd | sed -n 's/^    "virtual-size": \([0-9]*\).*/\1/p')
		"$guest" "$pid" "$minor" read 0 "$size" >raw || fail "the guest cannot read $size bytes"
		destroy
		same q.vhd raw
		rm q.vhd
	done
done

# a chain: ours, written by a guest, a snapshot under it, and the guest goes on without having noticed
vhd_util create -n a.vhd -s 20 || fail "vhd-util create"
create -a "vhd:$WORK/a.vhd"
expect 0 "$guest" "$pid" "$minor" write 0 65536 1
expect 0 "$guest" "$pid" "$minor" write $((3 << 20)) 65536 2
expect 0 tap_ctl pause -p "$pid" -m "$minor"
vhd_util snapshot -n b.vhd -p a.vhd || fail "vhd-util snapshot of a paused disk"
expect 0 tap_ctl unpause -p "$pid" -m "$minor" -a "vhd:$WORK/b.vhd"
expect 0 "$guest" "$pid" "$minor" write 4096 4096 3
expect 0 "$guest" "$pid" "$minor" verify 0 4096 1
expect 0 "$guest" "$pid" "$minor" verify 4096 4096 3
expect 0 "$guest" "$pid" "$minor" verify $((3 << 20)) 65536 2
"$guest" "$pid" "$minor" read 0 $((20 << 20)) >before
# the parent is taken: nobody writes it
expect 16 tap_ctl create -a "vhd:$WORK/a.vhd" -o cache=writeback
expect 0 tap_ctl pause -p "$pid" -m "$minor"
vhd_util coalesce -n b.vhd >/dev/null || fail "vhd-util coalesce"
expect 0 tap_ctl unpause -p "$pid" -m "$minor" -a "vhd:$WORK/a.vhd"
"$guest" "$pid" "$minor" read 0 $((20 << 20)) | cmp - before || fail "the coalesced parent is not what the guest read"
destroy
same a.vhd before
expect 0 vhd_util check -n a.vhd

# thirty deep, on a raw file that is shorter than the disk becomes
head -c $((1 << 20)) /dev/urandom >base.img
cp base.img want
truncate -s 4M want
vhd_util snapshot -n c0.vhd -p base.img -m -S 4 2>/dev/null || vhd_util snapshot -n c0.vhd -p base.img -m || fail "vhd-util snapshot -m"
for i in $(seq 29); do
	vhd_util snapshot -n "c$i.vhd" -p "c$((i - 1)).vhd" || fail "snapshot $i"
done
create -a "vhd:$WORK/c29.vhd"
"$guest" "$pid" "$minor" read 0 $((1 << 20)) | cmp - base.img || fail "what lies thirty images down reads wrong"
expect 0 "$guest" "$pid" "$minor" write 512 1024 5
expect 0 "$guest" "$pid" "$minor" verify 512 1024 5
"$guest" "$pid" "$minor" read 2048 4096 | cmp - <(tail -c +2049 base.img | head -c 4096) || fail "what surrounds the write"
destroy

# an image does not choose its parents' directory, unless the host says so
mkdir other child
mv a.vhd other/
vhd_util snapshot -n child/d.vhd -p other/a.vhd || fail "a snapshot in another directory"
expect 13 tap_ctl create -a "vhd:$WORK/child/d.vhd" -o cache=writeback
has "the refusal" "$ERR" parent-dirs
echo "parent-dirs = /nowhere:$WORK/other:there" >conf
expect 22 tap_ctl create -a "vhd:$WORK/child/d.vhd" -o cache=writeback
expect 22 tap_ctl create -a "vhd:$WORK/child/d.vhd" -o cache=writeback -o "parent-dirs=$WORK/other"
echo "parent-dirs = /nowhere:$WORK/other" >conf
create -a "vhd:$WORK/child/d.vhd"
"$guest" "$pid" "$minor" read 0 $((20 << 20)) | cmp - before || fail "the child reads something else"
destroy
: >conf

# named by a link in another directory, it has its parent where it is itself
mkdir links
vhd_util snapshot -n f.vhd -p other/a.vhd && mv f.vhd other/ && vhd_util modify -n other/f.vhd -p other/a.vhd || fail "a child beside its parent"
ln -s ../other/f.vhd links/f.vhd
create -a "vhd:$WORK/links/f.vhd"
"$guest" "$pid" "$minor" read 0 $((20 << 20)) | cmp - before || fail "through a link it reads something else"
destroy

# a parent that is another, or gone
vhd_util snapshot -n e.vhd -p c29.vhd || fail "snapshot"
cp c2.vhd c29.vhd
expect 116 tap_ctl create -a "vhd:$WORK/e.vhd" -o cache=writeback
has "why" "$ERR" "uuid"
rm c29.vhd
expect 2 tap_ctl create -a "vhd:$WORK/e.vhd" -o cache=writeback

# encrypted: the right key, a wrong one, none, and one for an image that is plain
head -c 64 /dev/urandom >key
vhd_util create -n k.vhd -s 4 && cp key k,aes-xts-plain,512.key && vhd_util key -n k.vhd -k k,aes-xts-plain,512.key -s || fail "vhd-util key"
create -a "vhd:$WORK/k.vhd" -E <key
expect 0 "$guest" "$pid" "$minor" write 0 65536 6
expect 0 tap_ctl pause -p "$pid" -m "$minor"
expect 0 tap_ctl unpause -p "$pid" -m "$minor"
expect 0 "$guest" "$pid" "$minor" verify 0 65536 6
"$guest" "$pid" "$minor" read 0 65536 >plain
destroy
expect 126 tap_ctl create -a "vhd:$WORK/k.vhd" -o cache=writeback
has "no key" "$ERR" "-E"
head -c 64 /dev/urandom >wrong
run bash -c "'$top_builddir/bin/tap-ctl' create -a 'vhd:$WORK/k.vhd' -E -o cache=writeback <wrong"
is "a wrong key" "$RC" 126
run bash -c "head -c 33 key | '$top_builddir/bin/tap-ctl' create -a 'vhd:$WORK/k.vhd' -E -o cache=writeback"
is "a key of 33 bytes" "$RC" 22
run bash -c "'$top_builddir/bin/tap-ctl' create -a 'vhd:$WORK/c0.vhd' -E -o cache=writeback <key"
is "a key for a plain image" "$RC" 22

# large: opened within a moment, in little memory
vhd_util create -n huge.vhd -s 2088960 || fail "vhd-util create of 2040 GiB"
create -a "vhd:$WORK/huge.vhd"
expect 0 "$guest" "$pid" "$minor" load 1 8
rss=$(awk '/^VmRSS/ { print $2 }' "/proc/$pid/status")
[ "$rss" -lt 16384 ] || [ -n "${TD_SANITIZED:-}" ] || grep -q 'TD_SANITIZED 1' "$top_builddir/config.h" || fail "2040 GiB take $rss kB"
destroy
expect 0 vhd_util check -n huge.vhd
