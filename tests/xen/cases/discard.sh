# SPDX-License-Identifier: LGPL-2.1-or-later
# What a guest discards goes back to dom0's file system.

blocks() { sync -f "$1" 2>/dev/null; stat -c %b "$1"; } # of 512 bytes, that the file takes
gives_back() { # gives_back FILE BEFORE MIB WHAT
	local after; after=$(blocks "$1")
	say "$4: $(($2 / 2048)) MiB before, $((after / 2048)) MiB after $3 MiB were discarded"
	[ $(($2 - after)) -ge $(($3 * 2048 * 3 / 4)) ] || die "$4: $2 blocks before and $after after: it gives too little back"
}
# what the guest does: a line each; one file stays, and what the other took, 32 MiB, is given back
two_files() { # two_files MOUNTPOINT
	echo "dd if=/dev/urandom of=$1/kept bs=64k count=32 conv=fsync 2>/dev/null && sha256sum <$1/kept >$1/sum && dd if=/dev/urandom of=$1/away bs=64k count=512 conv=fsync 2>/dev/null"
}
trim() { echo "rm $1/away && sync && fstrim $1 && $(kept "$1")"; }
kept() { echo "echo 3 >/proc/sys/vm/drop_caches && sha256sum <$1/kept | cmp - $1/sum"; }

# By hand, and through a file system.  (qcow2: qcow-root)
case_discard() {
	local before sum img; img=$(image discard.img)
	guests_only; UPLIMIT=150 guest_start d1 pv "$(disk xvda "$(target none "$img")")" || die "xl create failed"
	[ "$(key "$(be d1 xvda)" feature-discard)" = 1 ] || die "feature-discard is '$(key "$(be d1 xvda)" feature-discard)'"
	g d1 100 "disk_there xvda 20; dd if=/dev/urandom of=/dev/xvda bs=1M count=48 conv=fsync 2>/dev/null" || die "the guest cannot write"
	before=$(blocks "$img")
	sum=$(g d1 60 "dd if=/dev/xvda bs=1M skip=40 count=8 iflag=direct 2>/dev/null | sha256sum")
	g d1 60 "blkdiscard -o $((8 << 20)) -l $((32 << 20)) /dev/xvda" || die "the guest cannot discard"
	gives_back "$img" "$before" 32 "blkdiscard"
	[ "$(g d1 60 "dd if=/dev/xvda bs=1M skip=40 count=8 iflag=direct 2>/dev/null | sha256sum")" = "$sum" ] || die "what lies behind the discarded has changed"
	g d1 100 "mkfs.ext4 -q -F -m 0 /dev/xvda && mount -t ext4 /dev/xvda /mnt" || die "no file system"
	g d1 100 "$(two_files /mnt)" || die "the guest cannot write files"
	before=$(blocks "$img")
	g d1 100 "$(trim /mnt) && umount /mnt" || die "the guest cannot trim, or has lost a file"
	gives_back "$img" "$before" 32 "fstrim"
	guest_stop d1 || die "xl destroy failed"
	nothing_left || die "something is left"
}
