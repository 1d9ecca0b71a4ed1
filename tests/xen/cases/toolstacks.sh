# SPDX-License-Identifier: LGPL-2.1-or-later
# What toolstacks do beyond attaching a disk: a stub domain beside its guest, and xenopsd with a storage manager.

# Two domains that are one machine have one tapdisk, each with a ring; it ends with the last of them.
case_stub_domain() {
	plug_guest
	guest_start p2 pv "$(disk xvda "$(target none "$(image p2.img 16)")")" || die "xl create failed"
	local img pid d; img=$(image both.img 32)
	for d in p1 p2; do
		[ $d = p1 ] || xenstore-write "/local/domain/$(cat /tmp/p2.id)/target" "$(cat /tmp/p1.id)"
		timeout 60 tap-vbd attach $d "format=raw,vdev=xvdg,target=$img" >/tmp/attach.out 2>&1 || { sed 's/^/# | /' /tmp/attach.out; die "tap-vbd attach $d failed"; }
	done
	pid=$(disk_pid p1 xvdg vbd3)
	[ "$(disk_pid p2 xvdg vbd3)" = "$pid" ] || die "they have a tapdisk each"
	# both at once, each at its own place; then each reads what the other has written
	g p1 60 "disk_there xvdg 10; dd if=/dev/urandom of=/tmp/d bs=1M count=4 2>/dev/null; (for i in 1 2 3; do dd if=/tmp/d of=/dev/xvdg bs=64k conv=fsync,notrunc 2>/dev/null; done; sha256sum </tmp/d >/tmp/s) & echo" || die "p1 does not write"
	g p2 60 "disk_there xvdg 10; dd if=/dev/urandom of=/tmp/d bs=1M count=4 2>/dev/null; for i in 1 2 3; do dd if=/tmp/d of=/dev/xvdg bs=64k seek=128 conv=fsync,notrunc 2>/dev/null; done; sha256sum </tmp/d" >/tmp/s2 || die "p2 does not write"
	g p1 60 "wait; while [ ! -s /tmp/s ]; do sleep 0.2; done; cat /tmp/s; dd if=/dev/xvdg bs=64k skip=128 count=64 iflag=direct 2>/dev/null | sha256sum" >/tmp/s1 || die "p1 does not read"
	[ "$(tail -1 /tmp/s1)" = "$(cat /tmp/s2)" ] || die "p1 reads something else than p2 wrote"
	g p2 60 "dd if=/dev/xvdg bs=64k count=64 iflag=direct 2>/dev/null | sha256sum" >/tmp/s3 || die "p2 does not read"
	[ "$(cat /tmp/s3)" = "$(head -1 /tmp/s1)" ] || die "p2 reads something else than p1 wrote"
	# somebody else is not let in
	! timeout 60 tap-vbd attach p1 "format=raw,vdev=xvdh,target=$img" 2>/tmp/refused || die "the same guest has it twice"
	grep -q "in use" /tmp/refused || die "refused with: $(cat /tmp/refused)"
	timeout 60 tap-vbd detach p1 xvdg || die "tap-vbd detach p1 failed"
	! gone "$pid" || die "the tapdisk went with the first of two"
	g p2 60 "sync_writes xvdg 3" >/dev/null || die "the other one cannot write any more"
	timeout 60 tap-vbd detach p2 xvdg || die "tap-vbd detach p2 failed"
	taken_away xvdg "$pid" vbd3
	guest_stop p2
}

# A storage manager starts the tapdisk, xenopsd plugs it: no script in the directory, the daemon waits for hotplug-status and takes the
# node away in the end; a snapshot meanwhile; shutdown-request.
case_xenopsd() {
	plug_guest
	local id minor pid b f vhd=/data/x.vhd leaf=/data/x-leaf.vhd; id=$(cat /tmp/p1.id)
	rm -f $vhd $leaf; vhd-util create -n $vhd -s 64 || die "vhd-util create failed"
	minor=$(tap-ctl allocate); minor=${minor##*-}; pid=$(tap-ctl spawn)
	tap-ctl attach -p "$pid" -m "$minor" && tap-ctl open -p "$pid" -m "$minor" -a vhd:$vhd || die "the disk does not open"
	b=$(be p1 xvdi vbd3); f=$(fe p1 xvdi)
	xenstore-write "$b" "" "$f" ""; xenstore-chmod "$b" n0 "r$id"; xenstore-chmod "$f" "n$id" r0
	xenstore-write "$f/backend" "$b" "$f/backend-id" 0 "$f/virtual-device" "$(devid xvdi)" "$f/device-type" disk "$f/state" 1 \
		"$b/frontend" "$f" "$b/frontend-id" "$id" "$b/online" 1 "$b/removable" 1 "$b/mode" w "$b/params" "$vhd" "$b/type" phy "$b/dev" xvdi "$b/state" 1
	sleep 1; state_is "$b" 1 || die "the daemon does not wait for hotplug-status"
	xenstore-write "$b/physical-device-path" "$CTL/nbd$pid.$minor" "$b/hotplug-status" connected
	g p1 150 "fs_write xvdi 6" >/tmp/sums || { tail -5 /tmp/sums | sed 's/^/# | /'; die "the disk is not right"; }
	g p1 30 "load_start xvdi 8" || die "no load"
	tap-ctl pause -p "$pid" -m "$minor" && tap-ctl list -m "$minor" | grep -q ' state=0x2a ' || die "pause failed"
	vhd-util snapshot -n $leaf -p $vhd || die "vhd-util snapshot failed"
	tap-ctl unpause -p "$pid" -m "$minor" -a vhd:$leaf || die "unpause -a failed"
	sleep 2; g p1 90 "load_stop xvdi" >/tmp/load || { sed 's/^/# | /' /tmp/load; die "the guest saw errors or other bytes than it wrote"; }
	[ "$(tap-ctl stats -p "$pid" -m "$minor" | grep -o '"driver"' | wc -l)" = 2 ] || die "the chain is not of two images"
	xenstore-write "$b/online" 0 "$b/shutdown-request" normal
	wait_for 30 xenstore-exists "$b/shutdown-done" || die "no shutdown-done; the backend is in state $(key "$b" state)"
	xenstore-rm "$f"; wait_for 10 absent "$b" || die "the daemon leaves the node"
	tap-ctl close -p "$pid" -m "$minor" -t 120 && tap-ctl detach -p "$pid" -m "$minor" && tap-ctl free -m "$minor" || die "close, detach, free failed"
	wait_for 10 gone "$pid" || die "the tapdisk stays"
	vhd-util check -n $leaf || die "the image is not valid"
}
