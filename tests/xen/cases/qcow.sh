# SPDX-License-Identifier: LGPL-2.1-or-later
# qcow2 under a guest.

qcow_sound() { td-qcow check "/data/$1" >/tmp/check 2>&1 || { sed 's/^/# | /' /tmp/check; die "$1 is damaged"; }; }
trimmed_by() { [ $(($2 - $(blocks_of /data/over.qcow2))) -ge "$1" ]; }
blocks_of() { stat -c %b "$1"; } # of 512 bytes

# A guest boots from an overlay upon a backing file; what it deletes and trims the overlay's file gives back.
case_qcow_root() {
	local before full trimmed; guests_only
	rm -f /data/root.qcow2; td-qcow create /data/root.qcow2 192M || die "td-qcow create"
	UPLIMIT=100 guest_start v1 pv "$(disk xvda qcow2:/data/root.qcow2)" || die "xl create failed"
	g v1 120 "make_root xvda" >/tmp/made || { tail -5 /tmp/made | sed 's/^/# | /'; die "the guest cannot make a root"; }
	guest_stop v1 || die "xl destroy failed"; qcow_sound root.qcow2
	before=$(sha256sum </data/root.qcow2)
	rm -f /data/over.qcow2; td-qcow snapshot /data/root.qcow2 /data/over.qcow2 || die "td-qcow snapshot"
	GUEST_ARGS="root=xvda" UPLIMIT=100 guest_start v1 pv "$(disk xvda qcow2:/data/over.qcow2)" || die "the guest does not boot from the overlay"
	g v1 60 "grep -q '^/dev/[^ ]* / ext4' /proc/mounts && dd if=/dev/urandom of=/kept bs=64k count=32 conv=fsync && dd if=/dev/urandom of=/big bs=1M count=12 conv=fsync" \
		>/tmp/kept || die "its root is not the disk, or cannot be written"
	full=$(blocks_of /data/over.qcow2)
	g v1 60 "rm /big && sync && fstrim -v / && touch /done && sync" >/tmp/trim || { sed 's/^/# | /' /tmp/trim; die "the guest cannot trim"; }
	# space is given back once a flush has made the discards durable, in the background
	wait_for 30 trimmed_by $((8 * 2048)) "$full"; trimmed=$(blocks_of /data/over.qcow2)
	[ $((full - trimmed)) -ge $((8 * 2048)) ] || die "12 MiB were trimmed, and the file went from $full to $trimmed blocks"
	guest_stop v1 || die "xl destroy failed"; qcow_sound over.qcow2
	[ "$(sha256sum </data/root.qcow2)" = "$before" ] || die "the backing file was written"
	say "booted from a qcow2 overlay; a trim took it from $((full / 2048)) to $((trimmed / 2048)) MiB"
}
