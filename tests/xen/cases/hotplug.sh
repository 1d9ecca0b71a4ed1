# SPDX-License-Identifier: LGPL-2.1-or-later
# Disks that come and go while the guest runs.

plug_guest() {
	if guest_alive p1; then guests_only p1; return; fi
	guests_only
	GUEST_ARGS="xen_blkfront.max_indirect_segments=256" guest_start p1 pv "$(disk xvda "$(target none "$(image p1.img)")")" || die "xl create failed"
}
markers() { (cd $CTL/tapdisk && echo tapdisk-[0-9]* | sed 's/tapdisk-\[.*//'); }
attach() { timeout 60 xl block-attach p1 "$@" >/tmp/attach.out 2>&1 </dev/null; }
detach() { timeout 90 xl block-detach p1 "$1" >/tmp/detach.out 2>&1 </dev/null; }
taken_away() { # taken_away VDEV PID [TYPE]: nothing of this disk is left
	wait_for 15 gone "$2" || die "tapdisk $2 still runs"
	absent "$(be p1 "$1" ${3:-})" || die "the backend directory is still there"
	[ ! -e "$CTL/ctl$2" ] || die "the socket of tapdisk $2 is left"
	[ "$(markers | wc -w)" = "$(tapdisks)" ] || die "markers: $(markers), tapdisks: $(tapdisks)"
}

# xl block-attach and block-detach, twice, as the second time meets what the first left.
case_hotplug() {
	plug_guest
	local i pid
	for i in 1 2; do
		attach "$(disk xvdf "$(target writeback "$(image hot.img)")")" || { sed 's/^/# | /' /tmp/attach.out; die "xl block-attach failed"; }
		g p1 150 "fs_write xvdf 3" >/tmp/sums || { tail -5 /tmp/sums | sed 's/^/# | /'; die "the hot-attached disk is not right"; }
		pid=$(disk_pid p1 xvdf)
		detach xvdf || { sed 's/^/# | /' /tmp/detach.out; die "xl block-detach failed"; }
		g p1 20 "disk_gone xvdf 10" || die "the guest still has the disk"
		taken_away xvdf "$pid"
		image_holds /data/hot.img /tmp/sums || die "the image is not what the guest wrote"
	done
}

# Detached while the guest has it mounted and writes.  Linux's blkfront of today gives such a disk up at once (the guest's further I/O fails,
# the guest goes on), older ones keep it until it is unmounted: either way nothing acknowledged by an fsync is lost, and all is taken away.
case_detach_busy() {
	plug_guest
	local pid b; attach "$(disk xvdf "$(target none "$(image busy.img)")")" || { sed 's/^/# | /' /tmp/attach.out; die "xl block-attach failed"; }
	pid=$(disk_pid p1 xvdf); b=$(be p1 xvdf)
	g p1 60 "disk_there xvdf 10; mkfs.ext4 -q -F /dev/xvdf && mount -t ext4 /dev/xvdf /mnt && dd if=/dev/urandom of=/mnt/one bs=64k count=16 conv=fsync 2>/dev/null" || die "the guest cannot mount it"
	g p1 60 "sha256sum </mnt/one; for i in 1 2 3 4; do (while dd if=/dev/zero of=/mnt/two\$i bs=64k count=8 conv=fsync; do :; done) >/dev/null 2>&1 & done" >/tmp/one || die "no sum"
	# a tapdisk that is late answers with the guest's driver closing already: requests wait in the ring, and others behind them
	sleep 1; kill -STOP "$pid"; (sleep 3; kill -CONT "$pid") &
	detach xvdf; say "xl block-detach of the busy disk: status $?, $(tail -1 /tmp/detach.out | cut -c1-120)"
	if ! absent "$b" && ! state_is "$b" 6; then
		! gone "$pid" || die "the guest has not let go, and the tapdisk is gone"
		g p1 60 "dd if=/dev/zero of=/mnt/three bs=64k count=8 conv=fsync" >/dev/null || die "the guest has not let go, and cannot write"
	fi
	g p1 60 "umount /mnt" >/dev/null || g p1 60 "sleep 2; umount -l /mnt" >/dev/null || die "the guest cannot unmount"
	wait_for 20 eval "absent $b || state_is $b 6" || die "the guest has let go, and the backend is in state $(key "$b" state)"
	absent "$b" || detach xvdf || { sed 's/^/# | /' /tmp/detach.out; die "xl block-detach failed when the disk was free"; }
	taken_away xvdf "$pid"
	mkdir -p /mnt/outside; mount -t ext4 -o loop /data/busy.img /mnt/outside || die "the file system does not recover"
	[ "$(sha256sum </mnt/outside/one)" = "$(cat /tmp/one)" ] || { umount /mnt/outside; die "a synced file is lost"; }
	umount /mnt/outside; e2fsck -fn /data/busy.img >/tmp/fsck 2>&1 || { sed 's/^/# | /' /tmp/fsck; die "the image is damaged"; }
	g p1 60 "sync_writes xvda 3" >/dev/null || die "the guest's other disk was disturbed"
	# the guest's thread for devices hangs when the backend leaves a request without an answer
	attach "$(disk xvdf "$(target none "$(image busy.img)")")" || { sed 's/^/# | /' /tmp/attach.out; die "xl block-attach failed afterwards"; }
	g p1 60 "disk_there xvdf 20 && sync_writes xvdf 3" >/dev/null || die "the guest takes no disks any more"
	pid=$(disk_pid p1 xvdf); detach xvdf || { sed 's/^/# | /' /tmp/detach.out; die "xl block-detach failed afterwards"; }
	taken_away xvdf "$pid"
}

# vbd3, by our own command: without libxl.
case_tap_vbd() {
	plug_guest
	local i img pid; img=$(image vbd3.img)
	for i in 1 2; do
		timeout 60 tap-vbd attach p1 "format=raw,vdev=xvdg,access=rw,cache=directsync,target=$img" >/tmp/attach.out 2>&1 || { sed 's/^/# | /' /tmp/attach.out; die "tap-vbd attach failed"; }
		g p1 150 "fs_write xvdg 3" >/tmp/sums || { tail -5 /tmp/sums | sed 's/^/# | /'; die "the disk is not right"; }
		[ "$(key "$(be p1 xvdg vbd3)" cache-mode)" = directsync ] || die "cache-mode is $(key "$(be p1 xvdg vbd3)" cache-mode)"
		tap-vbd list p1 | grep -q xvdg || die "tap-vbd list does not show it: $(tap-vbd list p1)"
		pid=$(disk_pid p1 xvdg vbd3)
		timeout 60 tap-vbd detach p1 xvdg >/tmp/detach.out 2>&1 || { sed 's/^/# | /' /tmp/detach.out; die "tap-vbd detach failed"; }
		g p1 20 "disk_gone xvdg 10" || die "the guest still has the disk"
		taken_away xvdg "$pid" vbd3
		image_holds "$img" /tmp/sums || die "the image is not what the guest wrote"
	done
}

# Read-only: the guest is refused, and the tapdisk could not write if it wanted to.
case_read_only() {
	plug_guest
	local img before pid; img=$(image ro.img 8); dd if=/dev/urandom of="$img" bs=1M count=8 conv=notrunc 2>/dev/null; sync
	before=$(sha256sum <"$img")
	attach "$(disk xvdh "$(target none "$img")" ro)" || { sed 's/^/# | /' /tmp/attach.out; die "xl block-attach failed"; }
	g p1 30 "disk_there xvdh 10; test \$(blockdev --getro /dev/xvdh) = 1" || die "the guest does not see it as read-only"
	! g p1 30 "dd if=/dev/zero of=/dev/xvdh bs=4k count=1 oflag=direct conv=fsync" >/dev/null || die "the guest's write was not refused"
	[ "$(g p1 30 "sha256sum </dev/xvdh" | cut -d' ' -f1)" = "${before%% *}" ] || die "the guest reads other bytes"
	pid=$(disk_pid p1 xvdh)
	for f in /proc/"$pid"/fd/*; do
		[ "$(readlink "$f")" != "$img" ] || [ $((0$(awk '/^flags/ { print $2 }' "/proc/$pid/fdinfo/${f##*/}") & 3)) = 0 ] || die "the tapdisk has the image open for writing"
	done
	detach xvdh || die "xl block-detach failed"
	[ "$(sha256sum <"$img")" = "$before" ] || die "the image has changed"
	taken_away xvdh "$pid"
}
