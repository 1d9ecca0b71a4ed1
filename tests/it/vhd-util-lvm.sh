#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# vhd-util scan -l, with the real LVM on a loop device.  Its volumes are not active, as those that a storage manager looks at often are not, so
# that no device mapper is needed: they are made in the group's metadata.
. "$(dirname "$0")/lib.sh"
cd "$WORK" || exit 1
vhd_util() { "$top_builddir/bin/vhd-util" "$@"; }
for t in pvcreate vgcreate vgcfgbackup vgcfgrestore lvs losetup; do command -v $t >/dev/null || skip "$t is not there (Debian: lvm2)"; done
[ "$(id -u)" = 0 ] || skip "loop devices need root"
truncate -s 64M store
DEV=$(losetup -f --show store 2>/dev/null) || skip "there is no loop device here"
at_exit "losetup -d $DEV"
mkdir etc
export LVM_SYSTEM_DIR=$WORK/etc LVM_SUPPRESS_FD_WARNINGS=1
cat >etc/lvm.conf <<END
devices { filter = [ "a|^$DEV\$|", "r|.*|" ] use_devicesfile = 0 }
activation { udev_sync = 0 udev_rules = 0 verify_udev_operations = 0 }
backup { backup = 0 archive = 0 }
END
VG=VG_XenStorage-$$
{ pvcreate -q -y "$DEV" && vgcreate -q -s 64k "$VG" "$DEV" && vgcfgbackup -q -f group "$VG"; } >log 2>&1 || skip "LVM makes no group here: $(tail -1 log)"

volume() # NUMBER NAME SEGMENT...: each its first extent+how many
{
	local s at=0 i=0

	printf '%s {\nid = "00000%d-0000-0000-0000-0000-0000-000000"\nstatus = ["READ", "WRITE", "VISIBLE"]\nsegment_count = %d\n' "$2" "$1" $(($# - 2))
	for s in "${@:3}"; do
		i=$((i + 1))
		printf 'segment%d {\nstart_extent = %d\nextent_count = %d\ntype = "striped"\nstripe_count = 1\nstripes = ["pv0", %d]\n}\n' \
			$i $at "${s#*+}" "${s%+*}"
		at=$((at + ${s#*+}))
	done
	echo "}"
}
{
	sed -n '/^\t}$/q; p' group
	printf '}\nlogical_volumes {\n'
	volume 1 VHD-a 1+4 20+2
	volume 2 VHD-b 8+3
	volume 3 LV-raw 12+1
	volume 4 VHD-none 14+1
	printf '}\n}\n'
} >group.new
vgcfgrestore -q -f group.new "$VG" >log 2>&1 || skip "LVM takes no volumes here: $(tail -1 log)"

# images where LVM says that the volumes begin; a child names its parent as the device mapper would
mapped=${VG//-/--}-VHD--a
expect 0 vhd_util create -n "$mapped" -s 10
expect 0 vhd_util snapshot -n child -p "$mapped"
start=$(($(pvs --noheadings --nosuffix --units b -o pe_start "$DEV" 2>/dev/null)))
dd if="$mapped" of="$DEV" bs=64k seek=$((start / 65536 + 1)) conv=notrunc,fsync status=none
dd if=child of="$DEV" bs=64k seek=$((start / 65536 + 8)) conv=notrunc,fsync status=none

expect 0 vhd_util scan -f -c -m 'VHD-*' -l "$VG"
is "scan -l" "$(grep -v VHD-none <<<"$OUT" | sort)" "vhd=VHD-a capacity=10485760 size=393216 hidden=0 parent=none
vhd=VHD-b capacity=10485760 size=196608 hidden=0 parent=VHD-a"
has "a volume without an image" "$OUT" "vhd=VHD-none scan-error=22"
expect 0 vhd_util scan -f -a -m 'VHD-b' -l "$VG"
is "scan -l -a" "$(sed 's/ .*parent/ parent/' <<<"$OUT")" "vhd=VHD-b parent=VHD-a
vhd=VHD-a parent=none"
expect 0 vhd_util scan -f -m 'LV-*' -l "$VG"
is "scan -l of a raw volume" "$OUT" "vhd=LV-raw capacity=65536 size=65536 hidden=1 parent=none"
expect 5 vhd_util scan -f -m '*' -l "$VG-gone"
