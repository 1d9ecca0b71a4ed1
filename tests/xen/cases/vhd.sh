# SPDX-License-Identifier: LGPL-2.1-or-later
# VHDs under a guest.

vhd_image() { rm -f "/data/$1"; vhd-util create -n "/data/$1" -s "${2:-96}" || die "vhd-util create"; }
vhd_sound() { vhd-util check -n "/data/$1" >/tmp/check 2>&1 || { sed 's/^/# | /' /tmp/check; die "$1 is damaged"; }; }

# A guest makes a root of a fresh VHD; another boots from a snapshot of it, and writes there.
case_vhd_root() {
	local before; guests_only; vhd_image root.vhd 128
	UPLIMIT=100 guest_start v1 pv "$(disk xvda vhd:/data/root.vhd)" || die "xl create failed"
	g v1 120 "make_root xvda" >/tmp/made || { tail -5 /tmp/made | sed 's/^/# | /'; die "the guest cannot make a root"; }
	guest_stop v1 || die "xl destroy failed"; vhd_sound root.vhd
	before=$(sha256sum </data/root.vhd)
	rm -f /data/child.vhd; vhd-util snapshot -n /data/child.vhd -p /data/root.vhd || die "vhd-util snapshot"
	GUEST_ARGS="root=xvda" UPLIMIT=100 guest_start v1 pv "$(disk xvda vhd:/data/child.vhd)" || die "the guest does not boot from the VHD"
	g v1 60 "grep -q '^/dev/[^ ]* / ext4' /proc/mounts && dd if=/dev/urandom of=/kept bs=64k count=32 conv=fsync && sha256sum </kept" >/tmp/kept || die "its root is not the disk, or cannot be written"
	guest_stop v1 || die "xl destroy failed"; vhd_sound child.vhd
	[ "$(sha256sum </data/root.vhd)" = "$before" ] || die "the parent was written"
	say "booted from a VHD: $(vhd-util query -n /data/child.vhd -s) bytes over $(vhd-util query -n /data/root.vhd -s)"
}

# Snapshots are taken and coalesced under a guest that never stops writing, and verifies every block.
case_vhd_snapshot() {
	local pid minor i; guests_only; vhd_image s0.vhd
	UPLIMIT=100 guest_start v1 pv "$(disk xvda vhd:/data/s0.vhd)" || die "xl create failed"
	pid=$(disk_pid v1 xvda); minor=$(disk_minor v1 xvda)
	g v1 30 "load_start xvda 8" || die "no load"
	for i in 1 2 3; do
		sleep 2
		tap-ctl pause -p "$pid" -m "$minor" || die "tap-ctl pause failed"
		rm -f "/data/s$i.vhd"; vhd-util snapshot -n "/data/s$i.vhd" -p "/data/s$((i - 1)).vhd" || die "vhd-util snapshot $i"
		tap-ctl unpause -p "$pid" -m "$minor" -a "vhd:/data/s$i.vhd" || die "tap-ctl unpause failed"
	done
	sleep 2
	for i in 3 2; do # the leaf into its parent, which the guest goes on with
		tap-ctl pause -p "$pid" -m "$minor" || die "tap-ctl pause failed"
		vhd-util coalesce -n "/data/s$i.vhd" >/dev/null || die "vhd-util coalesce of s$i.vhd"
		tap-ctl unpause -p "$pid" -m "$minor" -a "vhd:/data/s$((i - 1)).vhd" || die "tap-ctl unpause failed"
		sleep 2
	done
	g v1 120 "load_stop xvda" >/tmp/load || { sed 's/^/# | /' /tmp/load; die "the guest saw errors or other bytes than it wrote"; }
	say "$(tail -1 /tmp/load)"
	guest_stop v1 || die "xl destroy failed"
	for i in 0 1; do vhd_sound s$i.vhd; done
}
