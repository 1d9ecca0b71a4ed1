# SPDX-License-Identifier: LGPL-2.1-or-later
# What the stock xl of Xen 4.20 does with a disk, from the line in its configuration on.

own() { echo "vdev=$1,backendtype=tap,$2"; } # own VDEV WORDS: as tapdisk-disk(7) has it

# Shut down by xl, rebooted by xl, destroyed: each time its disk is flushed, and nothing is left.
case_lifecycle() {
	local pid sum; guests_only
	guest_config l1 pv "$(disk xvda "$(target none "$(image l1.img)")")"
	sed -i 's/on_reboot = .*/on_reboot = "restart"/' /tmp/l1.cfg
	guest_create l1 || die "xl create failed"
	g l1 150 "fs_write xvda 2" >/tmp/sums || { tail -5 /tmp/sums | sed 's/^/# | /'; die "the disk is not right"; }
	pid=$(disk_pid l1 xvda)
	timeout 60 xl reboot l1 >/tmp/l1.out 2>&1 || { sed 's/^/# | /' /tmp/l1.out; die "xl reboot failed"; }
	wait_for 20 gone "$pid" || die "the rebooted guest's first tapdisk stays"
	wait_for 60 eval 'says "$(guest_log l1)" @UP && xl domid l1 >/tmp/l1.id.new 2>/dev/null && [ "$(</tmp/l1.id.new)" != "$(</tmp/l1.id)" ]' || die "the guest does not come up again"
	mv /tmp/l1.id.new /tmp/l1.id; echo 0 >/tmp/l1.seq
	wait_for 60 eval '[ "$(grep -ca ^@UP "$(guest_log l1)")" -ge 2 ]' || die "the rebooted guest does not come up"
	[ "$(tapdisks)" = 1 ] || die "$(tapdisks) tapdisks serve one disk"
	echo 50 >/tmp/l1.seq # its console's log goes on behind the first boot's
	g l1 60 "sync_writes xvda 3" >/dev/null || die "the rebooted guest cannot write"
	pid=$(disk_pid l1 xvda)
	timeout 90 xl shutdown -w l1 >/tmp/l1.out 2>&1 || { sed 's/^/# | /' /tmp/l1.out; die "xl shutdown failed"; }
	rm -f /tmp/l1.id
	wait_for 20 gone "$pid" || die "the tapdisk of the guest that was shut down stays"
	wait_for 10 nothing_left || { nothing_left; die "xl shutdown left something behind"; }
}

# The guest is destroyed in the middle of its writes.
case_destroy_busy() {
	guests_only
	guest_start l1 pv "$(disk xvda "$(target none "$(image l1.img)")")" "$(disk xvdb "vhd:$(vhd_file l1.vhd)")" || die "xl create failed"
	g l1 30 "load_start xvda 8; load_start xvdb 8" || die "no load"
	sleep 1
	guest_stop l1 || { sed 's/^/# | /' /tmp/l1.out; die "xl destroy failed"; }
	wait_for 15 eval '[ "$(tapdisks)" = 0 ]'
	nothing_left || die "xl destroy of a busy guest left something behind"
	vhd-util check -n /data/l1.vhd || die "the VHD is damaged"
}
vhd_file() { rm -f "/data/$1"; vhd-util create -n "/data/$1" -s 32 && echo "/data/$1"; }

# Each row of tapdisk-disk(7), attached by xl to a guest that runs, listed, used, detached.
row() { # row WORDS CACHE-MODE [COMMAND-IN-GUEST]
	local pid words=$1
	attach "$(own xvdf "$words")" || { sed 's/^/# | /' /tmp/attach.out; die "xl block-attach '$words' failed"; }
	pid=$(disk_pid p1 xvdf)
	xl block-list p1 | awk -v d="$(devid xvdf)" '$1 == d && $4 == 4 { found = 1 } END { exit !found }' || { xl block-list p1 | sed 's/^/# | /'; die "xl block-list does not show '$words' as connected"; }
	[ "$(key "$(be p1 xvdf)" cache-mode)" = "$2" ] || die "'$words': cache-mode is $(key "$(be p1 xvdf)" cache-mode), not $2"
	g p1 60 "${3:-pattern xvdf}" >/tmp/row || { sed 's/^/# | /' /tmp/row; die "'$words': the guest cannot use it"; }
	detach xvdf || { sed 's/^/# | /' /tmp/detach.out; die "'$words': xl block-detach failed"; }
	taken_away xvdf "$pid"
	say "$words"
}
case_rows() {
	plug_guest
	local served
	image r.img 32 >/dev/null; vhd_file r.vhd >/dev/null || die "vhd-util create"
	rm -f /data/r.qcow2; td-qcow create /data/r.qcow2 32M >/dev/null || die "td-qcow create"
	row "format=raw,target=/data/r.img" none
	row "format=raw,target=cache=writethrough:/data/r.img" writethrough
	row "format=vhd,target=/data/r.vhd" none
	row "format=vhd,target=cache=writeback:/data/r.vhd" writeback
	row "format=raw,target=qcow2:/data/r.qcow2" none
	row "format=raw,target=/dev/vdb" none
	row "access=ro,format=raw,target=/data/r.img" none "disk_there xvdf 20 && test \$(blockdev --getro /dev/xvdf) = 1 && dd if=/dev/xvdf of=/dev/null bs=64k count=8 iflag=direct"
	row "format=raw,target=cache=unsafe:unsafe=yes:/data/r.img" unsafe
	row "format=raw,target=sector-size=4096:/data/r.img" none "disk_there xvdf 20 && test \$(cat /sys/block/xvdf/queue/logical_block_size) = 4096 && pattern xvdf"
	row "format=raw,target=shared=yes:cache=none:/data/r.img" none
	row "devtype=cdrom,access=ro,format=raw,target=/data/r.img" none "disk_there xvdf 20 && dd if=/dev/xvdf of=/dev/null bs=64k count=8 iflag=direct"
	# an NBD server's: another tapdisk is one
	nbd_create "$(image n.img 32)"
	served=$NBD_SOCK
	attach "$(own xvdf "format=raw,target=nbd:$served")" || { sed 's/^/# | /' /tmp/attach.out; die "xl block-attach of an NBD server's disk failed"; }
	g p1 60 "pattern xvdf" >/tmp/row || { sed 's/^/# | /' /tmp/row; die "the guest cannot use an NBD server's disk"; }
	detach xvdf || { sed 's/^/# | /' /tmp/detach.out; die "xl block-detach of an NBD server's disk failed"; }
	nbd_destroy
}

# xl's own block-tap, which this package puts aside, and ours by its name.
case_scripts() {
	plug_guest
	local pid s
	image s.img 32 >/dev/null
	for s in /etc/xen/scripts/block-tap.xen-utils-common block-tap; do
		attach "$(own xvdf "format=raw,script=$s,target=/data/s.img")" || { sed 's/^/# | /' /tmp/attach.out; die "xl block-attach with script=$s failed"; }
		pid=$(disk_pid p1 xvdf)
		g p1 60 "pattern xvdf" >/tmp/row || { sed 's/^/# | /' /tmp/row; die "script=$s: the guest cannot use it"; }
		detach xvdf || { sed 's/^/# | /' /tmp/detach.out; die "script=$s: xl block-detach failed"; }
		taken_away xvdf "$pid"
	done
}
