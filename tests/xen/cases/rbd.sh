# SPDX-License-Identifier: LGPL-2.1-or-later
# A disk in a Ceph that runs outside of the lab: `ceph', beside `run', is the host's half.

case_rbd() {
	local sum
	guests_only
	modprobe virtio_net && ip link set eth0 up && ip addr add 10.0.2.15/24 dev eth0 && ip route add default via 10.0.2.2 ||
		die "dom0 has no network"
	guest_start r pv "$(disk xvda cache=none:request-timeout=3:rbd:rbd/lab)" || die "the guest does not start"
	g r 60 load_start xvda 8 || die "no load"
	say "stop the OSD"
	wait_for 60 eval 'tap-ctl list --json | grep -q "does not answer"' || die "nobody reports the OSD: $(tap-ctl list --json)"
	say "$(tap-ctl list --json | sed -n 's/.*"reason": "\([^"]*\)".*/\1/p')"
	wait_for 60 eval '! tap-ctl list --json | grep -q "does not answer"' || die "the disk does not go on"
	g r 100 load_stop xvda || die "the guest has noticed it"
	g r 200 fs_write xvda 4 >/tmp/sums || { sed 's/^/# | /' /tmp/sums; die "the guest's file system"; }
	sum=$(g r 200 "sha256sum /dev/xvda") || die "$sum"
	say "the guest reads ${sum%% *}"
	guest_stop r || die "xl destroy"
	wait_for 30 nothing_left || die "something is left"
}
