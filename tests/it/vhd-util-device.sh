# SPDX-License-Identifier: LGPL-2.1-or-later
# VHDs on block devices, as on LVM volumes: the footer at the device's end, old bytes that never show, devices that are full or have
# grown; and scan -l, with stand-ins for LVM's tools.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99

vhd_util() { "$top_builddir/bin/vhd-util" "$@"; }
cd "$WORK" || exit 1

# --- scan -l: volumes that are not active are read where LVM says that they begin ---
mkdir bin
cat >bin/lvs <<'LVS'
#!/bin/sh
[ "$7" = lv_name,lv_size,segtype,seg_start,seg_size,devices,vg_extent_size ] && [ "$8" = VG_XenStorage-1 ] || { echo "lvs: $*" >&2; exit 5; }
seg() { printf '{"lv_name":"%s","lv_size":"%s","segtype":"%s","seg_start":"%s","seg_size":"%s","devices":"%s","vg_extent_size":"65536"}' "$@"; }
echo '{"report":[{"lv":['
seg MGT 65536 linear 0 65536 "$PV(0)"; echo ,
seg VHD-a-1 131072 linear 0 131072 "$PV(1)"; echo ,
seg VHD-b-2 131072 linear 0 65536 "$PV(3)"; echo ,
seg VHD-b-2 131072 linear 65536 65536 "$PV(9)"; echo ,
seg VHD-c-3 65536 linear 0 65536 "$PV(4)"; echo ,
seg LV-raw 65536 linear 0 65536 "$PV(5)"
echo ']}]}'
LVS
cat >bin/pvs <<'PVS'
#!/bin/sh
echo '{"report":[{"pv":[{"pv_name":"/dev/other","pe_start":"512"},{"pv_name":"'"$PV"'","pe_start":"1048576"}]}]}'
PVS
chmod +x bin/lvs bin/pvs
export PV=$WORK/pv
truncate -s 2M pv
expect 0 vhd_util create -n VG_XenStorage--1-VHD--a--1 -s 10
expect 0 vhd_util snapshot -n b -p VG_XenStorage--1-VHD--a--1
expect 0 vhd_util set -n VG_XenStorage--1-VHD--a--1 -f hidden -v 1
dd if=VG_XenStorage--1-VHD--a--1 of=pv bs=64k seek=17 conv=notrunc 2>/dev/null
dd if=b of=pv bs=64k seek=19 conv=notrunc 2>/dev/null
export PATH=$WORK/bin:$PATH
expect 0 vhd_util scan -f -c -m 'VHD-*' -l VG_XenStorage-1
is "scan -l" "$(grep -v VHD-c-3 <<<"$OUT")" "vhd=VHD-a-1 capacity=10485760 size=131072 hidden=1 parent=none
vhd=VHD-b-2 capacity=10485760 size=131072 hidden=0 parent=VHD-a-1"
has "a volume without a VHD" "$OUT" "vhd=VHD-c-3 scan-error=22"
expect 0 vhd_util scan -f -m 'VHD-b-*' -l VG_XenStorage-1 -a
is "scan -l -a" "$(sed 's/ .*parent/ parent/' <<<"$OUT")" "vhd=VHD-b-2 parent=VHD-a-1
vhd=VHD-a-1 parent=none"
expect 0 vhd_util scan -f -m 'LV-*' -l VG_XenStorage-1
is "scan -l, raw" "$OUT" "vhd=LV-raw capacity=65536 size=65536 hidden=1 parent=none"
expect 0 vhd_util scan -f -p -m 'VHD-[ab]*' -l VG_XenStorage-1
is "scan -l -p" "$(sed 's/vhd=\([^ ]*\).*/\1/' <<<"$OUT")" "VHD-a-1
   VHD-b-2"
expect 5 vhd_util scan -m '*' -l no-such-group
rm bin/lvs bin/pvs
expect 2 env "PATH=$WORK/bin" "$top_builddir/bin/vhd-util" scan -m '*' -l VG_XenStorage-1
has "no LVM" "$ERR" "lvm2"

# --- devices ---
[ "$(id -u)" = 0 ] || skip "scan -l was right; devices need root"
device() # FILE: sets $DEV
{
	DEV=$(losetup -f --show "$1" 2>/dev/null) || skip "scan -l was right; there is no loop device here"
	at_exit "losetup -d $DEV"
}
bytes() { dd if="$1" bs=1 skip="$2" count="$3" 2>/dev/null; }
head -c 32M /dev/zero | tr '\0' '\356' >store
device store
D=$DEV
export TAPDISK_CONF=$WORK/conf
echo "parent-dirs = /dev" >conf
expect 0 vhd_util create -n "$D" -s 20
expect 0 vhd_util check -n "$D"
is "the footer at the device's end" "$(bytes "$D" $((32 * 1048576 - 512)) 8)" conectix
expect 0 vhd_util query -n "$D" -v -s -p -f
is "query of a device" "$OUT" "20
3584
$D has no parent
hidden: 0"
expect 0 vhd_util copy -n "$D" -o out
cmp -s out <(head -c 20M /dev/zero) || fail "a fresh disk on a used device is not zero"

# old bytes do not show: in what is written next to it, nor where QEMU reads, which looks at no bitmap
head -c 20M /dev/zero >raw
dd if=/dev/urandom of=raw bs=512 seek=77 count=9 conv=notrunc 2>/dev/null
dd if=/dev/urandom of=raw bs=512 seek=20000 count=1 conv=notrunc 2>/dev/null
# of two blocks a few sectors each, by hand: a child whose bitmaps are partly set
if command -v python3 >/dev/null; then
	PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$top_srcdir/tests/it python3 - "$D" <<'PY' || fail "hand"
import sys
from vhd_hand import DIFF, Hand
raw = open('raw', 'rb').read()
sectors = {s: raw[s * 512:s * 512 + 512] for s in [*range(77, 86), 20000]}
ident = open(sys.argv[1], 'rb').read(84)[68:84]
Hand(20 << 20, DIFF, 2 << 20, sectors, names=[(b'MacX', b'file://' + sys.argv[1].encode(), 'bytes')], parent=ident).write('hand.vhd')
PY
	expect 0 vhd_util coalesce -n hand.vhd
	is "coalesce into a device" "$OUT" "Coalesced 10 sectors"
	expect 0 vhd_util check -n "$D"
	rm out && expect 0 vhd_util copy -n "$D" -o out
	cmp -s out raw || fail "the device's disk: $(cmp out raw 2>&1)"
	# (qemu-img takes the device as the file of a VHD whose end is the device's)
	! command -v qemu-img >/dev/null || qemu-img compare -q -f vpc -F raw "$D" raw || fail "QEMU sees old bytes on the device"
fi

# larger, with a journal; the device has grown before, so that the footer was not at its end
truncate -s 48M store && losetup -c "$D"
expect 0 vhd_util query -n "$D" -v
expect 22 vhd_util check -n "$D"
expect 0 vhd_util modify -n "$D" -s $((48 << 20))
expect 0 vhd_util check -n "$D"
expect 0 vhd_util resize -n "$D" -s 4000 -j journal
expect 0 vhd_util check -n "$D"
expect 0 vhd_util query -n "$D" -v
is "resized on a device" "$OUT" 4000
expect 22 vhd_util modify -n "$D" -s 4096

# a journal on a device, as on a volume of its own
head -c 1M /dev/zero >jstore
device jstore
expect 0 vhd_util create -n j.vhd -s 20
cp j.vhd j.orig
if command -v strace >/dev/null; then
	{
		ASAN_OPTIONS=detect_leaks=0 strace -o log -e trace=fdatasync -e inject=fdatasync:signal=KILL:when=2 \
			"$top_builddir/bin/vhd-util" resize -n j.vhd -s 4000 -j "$DEV" >out 2>&1
		RC=$?
	} 2>/dev/null
	is "killed" "$RC" 137
	cp j.orig other.vhd
	expect 17 vhd_util resize -n other.vhd -s 4000 -j "$DEV"
	expect 0 vhd_util revert -n j.vhd -j "$DEV"
	cmp -s j.vhd j.orig || fail "reverted from a journal on a device, it is another file"
fi
expect 0 vhd_util resize -n j.vhd -s 4000 -j "$DEV"
expect 22 vhd_util revert -n j.vhd -j "$DEV"

# a fixed disk on a used device
expect 0 vhd_util create -n "$D" -s 30 -r
rm out && expect 0 vhd_util copy -n "$D" -o out
cmp -s out <(head -c 30M /dev/zero) || fail "a fixed disk on a used device is not zero"
expect 28 vhd_util create -n "$D" -s 48 -r

# a device that is full: an error, and what was there is still good
head -c 5M /dev/urandom >small
device small
expect 0 vhd_util create -n "$DEV" -s 20
expect 0 vhd_util snapshot -n top.vhd -p "$DEV"
expect 0 vhd_util modify -n top.vhd -p raw -m
expect 0 vhd_util fill -n top.vhd
expect 0 vhd_util modify -n top.vhd -p "$DEV"
expect 28 vhd_util coalesce -n top.vhd
has "a full device" "$ERR" "is full"
expect 0 vhd_util repair -n "$DEV"
expect 0 vhd_util check -n "$DEV"
rm out && expect 0 vhd_util copy -n top.vhd -o out
cmp -s out raw || fail "after a coalesce that found no space the child shows something else"
exit 0
