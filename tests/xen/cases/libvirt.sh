# SPDX-License-Identifier: LGPL-2.1-or-later
# The stock libvirtd starts the guests, and calls our hook: is cache= in a disk's XML obeyed?

VIRT_UUID=b4a5f2b0-5a8c-4a86-8c0e-6f1f6f0f8a11
VIRT_WORDS=/run/tapdisk/disks.d/libvirt-$VIRT_UUID.conf
virt() { timeout 120 virsh -q -c xen:///system "$@" </dev/null; }

libvirtd_start() {
	command -v libvirtd >/dev/null || die "there is no libvirtd in this dom0"
	# as tapdisk.conf(5) has it
	mkdir -p /etc/libvirt/hooks
	ln -sfn /usr/share/tapdisk/libvirt-hook /etc/libvirt/hooks/libxl
	[ -z "$(pidof libvirtd)" ] || return 0
	# every processor that libvirt knows has VME, which the emulated one does not have
	sed -i '/vme/d' /usr/share/libvirt/cpu_map/x86_486.xml
	libvirtd -d >/var/log/libvirtd 2>&1 || { sed 's/^/# | /' /var/log/libvirtd; die "libvirtd does not start"; }
	wait_for 30 eval 'virt version >/tmp/virt.version 2>&1' ||
		{ tail -5 /tmp/virt.version /var/log/libvirtd | sed 's/^/# | /'; die "virsh has no connection"; }
}

virt_disk() { # virt_disk VDEV PATH DRIVER'S ATTRIBUTES [MORE]
	echo "<disk type='file' device='disk'><driver name='tap' $3/><source file='$2'/><target dev='$1' bus='xen'/>${4:-}</disk>"
}
virt_xml() { # virt_xml DISK...
	cat <<-E
		<domain type='xen'>
		  <name>lv</name>
		  <uuid>$VIRT_UUID</uuid>
		  <memory unit='MiB'>192</memory>
		  <vcpu>1</vcpu>
		  <os>
		    <type arch='x86_64' machine='xenpv'>linux</type>
		    <kernel>/lab/vmlinux</kernel>
		    <initrd>/lab/domu.cpio</initrd>
		    <cmdline>console=hvc0 earlyprintk=xen loglevel=5 panic=-1 mitigations=off nopti random.trust_cpu=on</cmdline>
		  </os>
		  <on_poweroff>destroy</on_poweroff>
		  <on_reboot>restart</on_reboot>
		  <on_crash>destroy</on_crash>
		  <devices>
		    $*
		    <console type='pty'><target type='xen' port='0'/></console>
		  </devices>
		</domain>
	E
}
virt_define() { # virt_define DISK...: anew, as `virsh edit' leaves it
	virt_xml "$@" >/tmp/lv.xml
	virt define /tmp/lv.xml >/tmp/virt.out 2>&1
}
virt_start() { # until its agent answers
	rm -f "$(guest_log lv)" /tmp/lv.id; echo 0 >/tmp/lv.seq
	virt start lv >/tmp/virt.out 2>&1 || { sed 's/^/# | /' /tmp/virt.out; return 1; }
	virt domid lv | head -1 >/tmp/lv.id
	wait_for 100 says "$(guest_log lv)" @UP || { say "lv does not come up"; return 1; }
}
virt_stop() {
	virt destroy lv >/tmp/virt.out 2>&1 || { sed 's/^/# | /' /tmp/virt.out; die "virsh destroy failed"; }
	rm -f /tmp/lv.id
	wait_for 15 eval '[ "$(tapdisks)" = 0 ]'
	nothing_left || die "virsh destroy left something behind"
	[ ! -e $VIRT_WORDS ] || die "the hook's file is left: $(cat $VIRT_WORDS)"
}
mode_of() { tap-ctl list --json -m "$(disk_minor lv "$1")" | sed -n 's/.*"mode": "\([a-z]*\)".*/\1/p'; }

# The guest's disks have these modes in their XML, from xvda on; $4 counts for "default".  Each is obeyed, and has what the guest wrote.
virt_modes() { # virt_modes MODES MORE-DISKS SUMS MODE-OF-THE-HOST
	local mode want v saw pages n=0 disks=$2
	for mode in $1; do disks+=$(virt_disk "$(vdev $n)" /data/lv-$n.img "type='raw' cache='$mode'"); n=$((n + 1)); done
	echo 1 >/proc/sys/vm/drop_caches
	virt_define "$disks" || { sed 's/^/# | /' /tmp/virt.out; die "virsh define failed"; }
	virt_start || die "the guest does not start"
	n=0
	for mode in $1; do
		v=$(vdev $n)
		want=$mode; [ $mode != default ] || want=$4
		[ "$(mode_of $v)" = "$want" ] || die "$v, cache='$mode': the disk has the mode $(mode_of $v)"
		[ "$(key "$(be lv $v)" cache-mode)" = "$want" ] || die "$v: xenstore says cache-mode=$(key "$(be lv $v)" cache-mode)"
		g lv 60 "pattern $v 2 && sha256sum </tmp/pattern && cat /sys/block/$v/queue/write_cache" >/tmp/row || { sed 's/^/# | /' /tmp/row; die "the guest cannot use $v"; }
		sed -n 's/^\([0-9a-f]\{64\}\) .*/\1/p' /tmp/row >>"$3"
		saw=$(tail -1 /tmp/row)
		pages=$(fincore -n -o PAGES /data/lv-$n.img | tr -d ' ')
		say "$v, cache='$mode': mode $want, the guest sees '$saw', $pages pages in dom0's page cache"
		case $want in
		writethrough | directsync) [ "$saw" = "write through" ] || die "$want: the guest sees a cache" ;;
		*) [ "$saw" = "write back" ] || die "$want: the guest sees no cache" ;;
		esac
		case $want in
		none | directsync) [ "$pages" -lt 16 ] || die "$want left $pages pages in the page cache" ;;
		*) [ "$pages" -ge 512 ] || die "$want has only $pages pages in the page cache" ;;
		esac
		n=$((n + 1))
	done
}
virt_ends() { # virt_ends SUMS: destroyed; the images are what the guest wrote
	local n=0 sum
	virt_stop
	while read -r sum; do
		[ "$(head -c 2M /data/lv-$n.img | sha256sum | cut -d' ' -f1)" = "$sum" ] || die "lv-$n.img is not what the guest wrote"
		n=$((n + 1))
	done <"$1"
	[ $n = 6 ] || die "there are $n sums"
}
case_libvirt_modes() {
	guests_only; libvirtd_start
	local n c=/data/lv-c.vhd d=/data/lv-d.qcow2
	for n in 0 1 2 3 4 5; do image lv-$n.img 16 >/dev/null; done
	vhd_file lv-c.vhd >/dev/null || die "vhd-util create"
	rm -f $d; td-qcow create $d 16M >/dev/null || die "td-qcow create"
	say "$(sed -n 's/^Using API: /libvirt for /p; s/^Running hypervisor: /on /p' /tmp/virt.version | tr '\n' ' ')"
	# what the host says of an image counts only where the guest leaves it open
	for n in 0 1 5; do tap-ctl mode -a /data/lv-$n.img -o cache=directsync || die "tap-ctl mode failed"; done
	rm -f /tmp/sums.[12]
	virt_modes "none writethrough writeback directsync unsafe default" "" /tmp/sums.1 directsync
	virt_ends /tmp/sums.1
	# edited: each disk has another mode at the next start
	virt_modes "default none writethrough writeback directsync unsafe" \
		"$(virt_disk xvdg $c "type='vhd' cache='writethrough'")$(virt_disk xvdh qcow2:$d "type='raw' cache='writeback'")" /tmp/sums.2 directsync
	[ "$(mode_of xvdg)" = writethrough ] || die "the VHD has the mode $(mode_of xvdg)"
	[ "$(mode_of xvdh)" = writeback ] || die "the qcow2 image has the mode $(mode_of xvdh)"
	tap-ctl list -m "$(disk_minor lv xvdh)" | grep -q "args=qcow2:$d" || die "xvdh is $(tap-ctl list -m "$(disk_minor lv xvdh)")"
	virt_ends /tmp/sums.2
	for n in 0 1 5; do tap-ctl mode -a /data/lv-$n.img --clear; done
	virt undefine lv >/dev/null || die "virsh undefine failed"
}

# virt_refused WHAT TEXT: virsh says why, and nothing of the guest is there.
virt_refused() {
	local up=1
	! virt start lv >/tmp/virt.out 2>&1 || up=
	[ -n "$up" ] || { virt destroy lv >/dev/null; die "$1: the guest starts"; }
	sed 's/^/# | /' /tmp/virt.out
	grep -qF -- "$2" /tmp/virt.out || die "$1: virsh does not say why"
	[ "$(virt domstate lv | head -1)" = "shut off" ] || die "$1: the guest is $(virt domstate lv)"
	wait_for 10 nothing_left >/dev/null || { nothing_left; die "$1: something is left of the guest"; }
	[ ! -e $VIRT_WORDS ] || die "$1: the hook's file is left: $(cat $VIRT_WORDS)"
}
case_libvirt_refused() {
	guests_only; libvirtd_start
	local a=/data/lv-a.img marker
	image lv-a.img 16 >/dev/null
	! virt_define "$(virt_disk xvda $a "type='raw' cache='fast'")" || die "libvirt takes cache='fast'"
	sed 's/^/# | /' /tmp/virt.out
	grep -q "Invalid value for attribute 'cache' in element 'driver': 'fast'" /tmp/virt.out || die "virsh does not say what is wrong with cache='fast'"
	virt_define "$(virt_disk xvda $a "type='raw' cache='writeback'" "<shareable/>")" || { sed 's/^/# | /' /tmp/virt.out; die "virsh define failed"; }
	virt_refused "shared and cached" "disk xvda: <shareable/> needs cache='none'"
	virt_define "$(virt_disk xvda $a "type='qcow2' cache='none'")" || die "virsh define failed"
	virt_refused "a qcow2 for QEMU" "write type='raw' and <source file='qcow2:/PATH'/>"
	virt_define "$(virt_disk xvda cache=directsync:$a "type='raw' cache='none'")" || die "virsh define failed"
	virt_refused "two modes" "cache='none' of its driver, and cache=directsync in its source"
	# what libxl refuses after the hook has written its file: virsh does not show why, libxl's log does
	virt_define "$(virt_disk xvda /data/lv-missing.img "type='raw' cache='none'")" || die "virsh define failed"
	virt_refused "no image" "libxenlight failed to create new domain"
	grep -q "cannot open /data/lv-missing.img: No such file" /var/log/libvirt/libxl/libxl-driver.log || die "libxl's log does not say why"
	# without the hook's help, by the words of xl's target
	virt_define "$(virt_disk xvda cache=directsync:$a "type='raw'")" || die "virsh define failed"
	virt_start || die "a guest with a key in its source does not start"
	[ "$(mode_of xvda)" = directsync ] || die "cache=directsync in the source: the disk has the mode $(mode_of xvda)"
	[ ! -e $VIRT_WORDS ] || die "the hook has written a file"
	virt_stop
	# a cluster's disk: another writer has it beside the guest
	virt_define "$(virt_disk xvda $a "type='raw' cache='none'" "<shareable/>")" || die "virsh define failed"
	virt_start || die "a guest with a shared disk does not start"
	marker=$(tap-ctl create -a aio:$a -o shared=yes -o cache=none) || die "<shareable/>, and nobody else may open the disk"
	tap-ctl destroy -p "$(cat "$marker")" -m "${marker##*-}" || die "tap-ctl destroy failed"
	virt_stop
	virt undefine lv >/dev/null || die "virsh undefine failed"
}

# The mode outlives libvirtd and the guest's reboots; a disk that is attached later has the host's.
case_libvirt_life() {
	guests_only; libvirtd_start
	local a=/data/lv-a.img b=/data/lv-b.img pid
	image lv-a.img 32 >/dev/null; image lv-b.img 16 >/dev/null
	virt_define "$(virt_disk xvda $a "type='raw' cache='directsync'")" || die "virsh define failed"
	virt_start || die "the guest does not start"
	g lv 30 "load_start xvda 8" || die "no load"
	# the host is as after libvirtd's death, and without the file
	kill -KILL "$(pidof libvirtd)"
	wait_for 10 eval '[ -z "$(pidof libvirtd)" ]'
	rm $VIRT_WORDS
	libvirtd_start
	wait_for 20 test -s $VIRT_WORDS || die "libvirtd has found its guest again, and the hook writes no file"
	[ "$(virt domstate lv | head -1)" = running ] || die "libvirtd has lost its guest: $(virt domstate lv)"
	g lv 60 "load_stop xvda" >/tmp/load || { tail -5 /tmp/load | sed 's/^/# | /'; die "the guest saw errors or other bytes than it wrote"; }
	pid=$(disk_pid lv xvda)
	virt reboot lv >/tmp/virt.out 2>&1 || { sed 's/^/# | /' /tmp/virt.out; die "virsh reboot failed"; }
	wait_for 60 gone "$pid" || die "the rebooted guest's first tapdisk stays"
	wait_for 60 eval '[ "$(grep -ca ^@UP "$(guest_log lv)")" -ge 2 ]' || die "the guest does not come up again"
	virt domid lv | head -1 >/tmp/lv.id; echo 50 >/tmp/lv.seq
	[ "$(mode_of xvda)" = directsync ] || die "after the reboot the disk has the mode $(mode_of xvda)"
	g lv 60 "sync_writes xvda 3" >/dev/null || die "the rebooted guest cannot write"
	# no hook is called for this one
	tap-ctl mode -a $b -o cache=writethrough || die "tap-ctl mode failed"
	virt_disk xvdb $b "type='raw' cache='writeback'" >/tmp/lv-b.xml
	virt attach-device lv /tmp/lv-b.xml --live >/tmp/virt.out 2>&1 || { sed 's/^/# | /' /tmp/virt.out; die "virsh attach-device failed"; }
	g lv 60 "pattern xvdb" >/tmp/row || { sed 's/^/# | /' /tmp/row; die "the guest cannot use the disk"; }
	[ "$(mode_of xvdb)" = writethrough ] || die "the attached disk has the mode $(mode_of xvdb)"
	virt detach-device lv /tmp/lv-b.xml --live >/tmp/virt.out 2>&1 || { sed 's/^/# | /' /tmp/virt.out; die "virsh detach-device failed"; }
	wait_for 15 eval '[ "$(tapdisks)" = 1 ]' || die "the detached disk's tapdisk stays"
	tap-ctl mode -a $b --clear
	virt shutdown lv >/tmp/virt.out 2>&1 || { sed 's/^/# | /' /tmp/virt.out; die "virsh shutdown failed"; }
	wait_for 60 eval '[ "$(virt domstate lv | head -1)" = "shut off" ]' || die "the guest does not shut down"
	rm -f /tmp/lv.id
	wait_for 10 eval 'nothing_left >/dev/null && [ ! -e $VIRT_WORDS ]' || { nothing_left; die "virsh shutdown left something behind: $(ls -l $VIRT_WORDS)"; }
	virt undefine lv >/dev/null || die "virsh undefine failed"
}
