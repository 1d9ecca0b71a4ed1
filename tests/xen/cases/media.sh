# SPDX-License-Identifier: LGPL-2.1-or-later
# Disks whose size changes, and CDs that come and go, under a guest that has them.

sees() { g p1 20 "for i in \$(seq 50); do test \$(blockdev --getsize64 /dev/$1) = $2 && exit 0; sleep 0.2; done; echo has \$(blockdev --getsize64 /dev/$1); false" || die "the guest does not see $1 at $2 bytes"; } # sees VDEV BYTES

# A disk grows while it is mounted and written to: by resize, by unpause, and with no daemon there to tell of it.
case_resize() {
	plug_guest
	local img pid minor b old; img=$(image grow.img 32); b=$(be p1 xvdf)
	attach "$(disk xvdf "$(target none "$img")")" || { sed 's/^/# | /' /tmp/attach.out; die "xl block-attach failed"; }
	pid=$(disk_pid p1 xvdf); minor=$(disk_minor p1 xvdf)
	g p1 60 "disk_there xvdf 10; mkfs.ext4 -q -F /dev/xvdf && mount -t ext4 /dev/xvdf /mnt && dd if=/dev/urandom of=/mnt/one bs=64k count=16 conv=fsync 2>/dev/null && sha256sum </mnt/one" >/tmp/one || die "the guest cannot use it"
	sees xvdf $((32 << 20))
	truncate -s 48M "$img"; [ "$(tap-ctl resize -p "$pid" -m "$minor")" = $((48 << 20)) ] || die "tap-ctl resize failed"
	sees xvdf $((48 << 20))
	tap-ctl pause -p "$pid" -m "$minor" || die "pause failed"
	truncate -s 64M "$img"; tap-ctl unpause -p "$pid" -m "$minor" || die "unpause failed"
	sees xvdf $((64 << 20))
	# a shrink is refused, and the guest goes on when it is taken back
	tap-ctl pause -p "$pid" -m "$minor"; truncate -s 40M "$img"
	! tap-ctl unpause -p "$pid" -m "$minor" 2>/tmp/shrink || die "a disk in use has shrunk"
	grep -q "cannot shrink" /tmp/shrink || die "refused with: $(cat /tmp/shrink)"
	truncate -s 64M "$img"; tap-ctl unpause -p "$pid" -m "$minor" || die "unpause after the refused shrink failed"
	old=$(tapback_pid); kill -9 "$old"; wait_for 5 gone "$old"; rm -f "$PIDFILE"
	truncate -s 80M "$img"; tap-ctl resize -p "$pid" -m "$minor" >/dev/null || die "resize without a daemon failed"
	tapback_start || die "tapback does not start again"
	sees xvdf $((80 << 20)); state_is "$b" 4 || die "the backend is in state $(key "$b" state)"
	g p1 60 "dd if=/dev/urandom of=/dev/xvdf bs=4k count=1 seek=20479 oflag=direct conv=fsync 2>/dev/null" || die "the guest cannot write at the new end"
	g p1 60 "sha256sum </mnt/one; umount /mnt" >/tmp/two || die "umount failed"
	cmp -s /tmp/one /tmp/two || die "the guest reads something else"
	detach xvdf || { sed 's/^/# | /' /tmp/detach.out; die "xl block-detach failed"; }
	taken_away xvdf "$pid"
}

# A CD drive: empty, a medium in, another, out.
case_cdrom() {
	plug_guest
	local pid n; for n in 2 3; do dd if=/dev/urandom of=/data/$n.iso bs=1M count=$n 2>/dev/null; done; sync
	timeout 60 tap-vbd attach p1 "vdev=xvdh,devtype=cdrom" >/tmp/attach.out 2>&1 || { sed 's/^/# | /' /tmp/attach.out; die "tap-vbd attach failed"; }
	pid=$(disk_pid p1 xvdh vbd3)
	g p1 30 "disk_there xvdh 10" || die "the guest has no drive"
	sees xvdh 0
	for n in 2 3; do
		tap-vbd insert p1 xvdh /data/$n.iso || die "insert failed"
		sees xvdh $((n << 20))
		g p1 30 "test \$(blockdev --getro /dev/xvdh) = 1 && sha256sum </dev/xvdh" >/tmp/sum || die "the guest cannot read the CD, or could write it"
		[ "$(cut -d' ' -f1 /tmp/sum)" = "$(sha256sum </data/$n.iso | cut -d' ' -f1)" ] || die "the guest reads something else than the CD"
	done
	tap-vbd eject p1 xvdh || die "eject failed"
	sees xvdh 0
	[ "$(disk_pid p1 xvdh vbd3)" = "$pid" ] || die "the drive has another tapdisk"
	timeout 60 tap-vbd detach p1 xvdh || die "tap-vbd detach failed"
	taken_away xvdh "$pid" vbd3
}
