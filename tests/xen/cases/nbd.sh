# SPDX-License-Identifier: LGPL-2.1-or-later
# A disk used from dom0 itself: the kernel's NBD client on a tapdisk's socket.

nbd_create() { # nbd_create IMAGE [-t TYPE] OPTION...: a disk; NBD_PID and NBD_SOCK
	local minor img=$1 type=aio; shift
	[ "${1:-}" != -t ] || { type=$2; shift 2; }
	minor=$(tap-ctl create -a "$type:$img" "$@") || die "tap-ctl create failed"
	minor=${minor##*-}
	NBD_PID=$(tap-ctl list -m "$minor" | sed -n 's/^pid=\([0-9]*\) .*/\1/p') NBD_MINOR=$minor
	NBD_SOCK=$CTL/nbd$NBD_PID.$minor
}
nbd_connect() { nbd-client -unix "$NBD_SOCK" /dev/nbd0 "$@" >/tmp/nbd.out 2>&1 || { sed 's/^/# | /' /tmp/nbd.out; die "nbd-client does not connect"; }; }
nbd_disconnect() { nbd-client -d /dev/nbd0 >/tmp/nbd.out 2>&1 || { sed 's/^/# | /' /tmp/nbd.out; die "nbd-client does not disconnect"; }; }
nbd_destroy() { tap-ctl destroy -p "$NBD_PID" -m "$NBD_MINOR" || die "tap-ctl destroy failed"; wait_for 10 gone "$NBD_PID" || die "the tapdisk stays"; }
nbd_stat() { tap-ctl stats -p "$NBD_PID" -m "$NBD_MINOR" | sed -n "s/.*\"$1\": \([0-9]*\).*/\1/p"; }

# A file system over two connections: what is synced is flushed, a pause in the middle fails nothing, and it is all in the image.
case_nbd_kernel() {
	guests_only
	[ -e /dev/nbd0 ] || modprobe nbd nbds_max=1 || die "no nbd module"
	nbd_create "$(image nbd.img 64)" -o cache=none
	nbd_connect -C 2
	[ "$(blockdev --getsize64 /dev/nbd0)" = $((64 << 20)) ] || die "its size is $(blockdev --getsize64 /dev/nbd0)"
	mke2fs -q -F -t ext4 /dev/nbd0 || die "mke2fs"
	mkdir -p /mnt/nbd; mount -t ext4 /dev/nbd0 /mnt/nbd || die "mount"
	local before; before=$(nbd_stat fdatasyncs)
	(for i in 1 2 3 4 5 6; do dd if=/dev/urandom of=/mnt/nbd/f$i bs=64k count=32 conv=fsync 2>/dev/null || exit 1; done) & local writer=$!
	sleep 0.5
	tap-ctl pause -p "$NBD_PID" -m "$NBD_MINOR" || die "pause"
	sleep 1
	tap-ctl unpause -p "$NBD_PID" -m "$NBD_MINOR" || die "unpause"
	wait $writer || die "writing failed"
	(cd /mnt/nbd && sha256sum f*) >/tmp/sums
	umount /mnt/nbd || die "umount"
	say "six fsyncs over NBD: $(($(nbd_stat fdatasyncs) - before)) fdatasyncs of the image; $(nbd_stat clients) connections"
	[ $(($(nbd_stat fdatasyncs) - before)) -ge 6 ] || die "an fsync was no fdatasync"
	[ "$(nbd_stat clients)" = 2 ] || die "$(nbd_stat clients) connections"
	nbd_disconnect; nbd_destroy
	sed -i 's/^/sum /' /tmp/sums
	image_holds /data/nbd.img /tmp/sums || die "the image is not what was written"
	nothing_left || die "something is left"
}

# Read-only is the kernel's word too; and a disk that goes takes its client with it.
case_nbd_readonly() {
	guests_only
	[ -e /dev/nbd0 ] || modprobe nbd nbds_max=1 || die "no nbd module"
	nbd_create "$(image nbd.img 16)" -R -o cache=writeback
	nbd_connect
	[ "$(cat /sys/block/nbd0/ro)" = 1 ] || die "the kernel takes it for writable"
	! dd if=/dev/zero of=/dev/nbd0 bs=4096 count=1 conv=fsync 2>/dev/null || die "it was written"
	dd if=/dev/nbd0 of=/dev/null bs=64k count=16 2>/dev/null || die "it cannot be read"
	nbd_destroy
	nbd-client -d /dev/nbd0 >/dev/null 2>&1
	nothing_left || die "something is left"
}
