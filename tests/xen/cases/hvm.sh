# SPDX-License-Identifier: LGPL-2.1-or-later
# Guests whose first disk is read by somebody else before their own driver has it: an HVM guest
# by QEMU, for the BIOS, and a PV guest with a boot loader by dom0.

# Makes a disk of FORMAT that the BIOS boots a guest from; prints its target.
boot_disk() { # boot_disk FORMAT
	case $1 in
	raw) rm -f /data/hvm.img; cp --sparse=always /lab/domu-hvm.img /data/hvm.img; echo "/data/hvm.img"; return ;;
	vhd) rm -f /data/hvm.vhd; vhd-util create -n /data/hvm.vhd -s 64; nbd_create "/data/hvm.vhd" -t vhd; echo "vhd:/data/hvm.vhd" ;;
	esac
	[ -e /dev/nbd0 ] || modprobe nbd nbds_max=1
	nbd_connect; dd if=/lab/domu-hvm.img of=/dev/nbd0 bs=1M conv=fsync,notrunc 2>/dev/null; nbd_disconnect; nbd_destroy
}
hvm_config() { # hvm_config NAME DISK
	cat >"/tmp/$1.cfg" <<-E
		name = "$1"
		type = "hvm"
		memory = 256
		vcpus = 1
		boot = "c"
		hdtype = "ahci"
		vnc = 0
		on_poweroff = "destroy"
		on_reboot = "destroy"
		on_crash = "destroy"
		disk = [ '$2' ]
	E
}
# The guest is booted by the BIOS from the emulated disk, which its kernel then unplugs; the
# same disk goes on as xvda, through the ring.  AHCI, because the BIOS reads an IDE disk word by
# word, which takes minutes here.  The emulation now and then gives such a guest an
# interrupt that it has masked, or stays in it for good: then the guest is made anew, twice at
# most.
hvm_boots() { # hvm_boots WORDS
	local try pid rc
	for try in 1 2 3; do
		guests_only
		hvm_config h1 "$1"
		rc=125
		if UPLIMIT=40 guest_create h1; then
			hvm_goes_on
			rc=$?
		fi
		[ $rc = 125 ] || break
		[ $try = 3 ] || say "the guest hangs; once more"
	done
	[ $rc = 0 ] || die "the PV disk of the HVM guest does not go on"
	pid=$(disk_pid h1 xvda)
	guest_stop h1 || { sed 's/^/# | /' /tmp/h1.out; die "xl destroy failed"; }
	wait_for 15 gone "$pid"
	nothing_left || die "something is left"
}
hvm_goes_on() {
	say "QEMU was given: $(tr '\0' '\n' <"/proc/$(device_model h1)/cmdline" | grep -m1 -oE 'nbd\+unix[^"]*' || echo 'no nbd URI')"
	grep -q 'nbd+unix:' "/proc/$(device_model h1)/cmdline" || die "QEMU has not been given the tapdisk's socket"
	# QEMU's connection to the tapdisk goes with the emulated disk
	wait_for 20 eval '[ "$(nbd_clients)" = 0 ]' || die "the emulated disk is still plugged: $(nbd_clients) NBD clients"
	g h1 30 "pattern_behind xvda"
}
nbd_clients() { tap-ctl stats -p "$(disk_pid h1 xvda)" -m "$(disk_minor h1 xvda)" | sed -n 's/.*"clients": \([0-9]*\).*/\1/p'; }
device_model() { xenstore-read "/local/domain/$(cat "/tmp/$1.id")/image/device-model-pid"; }

case_hvm() {
	nothing_else
	hvm_boots "$(disk xvda "$(boot_disk vhd)")"
	vhd-util check -n /data/hvm.vhd || die "the VHD is damaged"
}
# A raw file (and so a qcow2, which libxl calls raw) needs the script named: then libxl gives
# QEMU our socket, too.
case_hvm_script() {
	nothing_else
	hvm_boots "vdev=xvda,backendtype=tap,format=raw,script=block-tap,target=$(boot_disk raw)"
}
# Without the script libxl gives QEMU the file itself, beside our tapdisk: the lock keeps QEMU
# off, and the guest does not start with two writers.
case_hvm_plain() {
	nothing_else
	hvm_config h1 "vdev=xvda,backendtype=tap,format=raw,target=$(boot_disk raw)"
	if timeout 120 xl create -q /tmp/h1.cfg >/tmp/h1.out 2>&1 </dev/null; then xl destroy h1; die "the guest has started with two writers of its disk"; fi
	cat /tmp/h1.out /var/log/xen/qemu-dm-h1*.log 2>/dev/null | grep -i lock >/tmp/h1.lock || { sed 's/^/# | /' /tmp/h1.out; die "nobody says that the lock is the reason"; }
	say "QEMU: $(tail -1 /tmp/h1.lock | cut -c1-160)"
	nothing_left || die "something is left"
}
nothing_else() { guests_only; wait_for 10 eval '[ "$(tapdisks)" = 0 ]'; }

# A PV guest whose kernel lies on its disk: dom0 attaches the disk to itself for the boot loader.
case_bootloader() {
	local img pid; nothing_else; img=$(image boot.img 64)
	mke2fs -q -F -t ext4 "$img" && mkdir -p /mnt/outside && mount -o loop "$img" /mnt/outside && cp /lab/domu.cpio /mnt/outside/initrd && umount /mnt/outside || die "no disk to boot from"
	guest_config b1 pv "vdev=xvda,backendtype=tap,format=raw,script=block-tap,target=$img"
	sed -i '/^kernel\|^ramdisk\|^extra/d' /tmp/b1.cfg; echo 'bootloader = "/lab/bootloader"' >>/tmp/b1.cfg
	guest_create b1 || { sed 's/^/# | bootloader: /' /var/log/bootloader; die "the guest does not boot"; }
	pid=$(disk_pid b1 xvda)
	g b1 60 "disk_there xvda 20 && sync_writes xvda 3" >/dev/null || die "the guest cannot write"
	guest_stop b1 || { sed 's/^/# | /' /tmp/b1.out; die "xl destroy failed"; }
	wait_for 15 gone "$pid"
	nothing_left || die "something is left"
}
