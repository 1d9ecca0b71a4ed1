# SPDX-License-Identifier: LGPL-2.1-or-later
# A chain of images that gets shorter while a guest writes, and verifies every block.

chain_on() { # chain_on SPEC: it is the guest's disk xvdf, under load; sets pid, minor
	attach "$(disk xvdf "$1")" || { sed 's/^/# | /' /tmp/attach.out; die "xl block-attach failed"; }
	pid=$(disk_pid p1 xvdf) minor=$(disk_minor p1 xvdf)
	g p1 30 "load_start xvdf 8" || die "no load"
}
chain_off() {
	g p1 90 "load_stop xvdf" >/tmp/load || { sed 's/^/# | /' /tmp/load; die "the guest saw errors or other bytes than it wrote"; }
	say "$(tail -1 /tmp/load)"
	detach xvdf || { sed 's/^/# | /' /tmp/detach.out; die "xl block-detach failed"; }
	taken_away xvdf "$pid"
}
snapshot_under() { # snapshot_under LEAF PARENT-TO-BE: the leaf keeps its name
	tap-ctl pause -p "$pid" -m "$minor" || die "pause failed"
	mv "$1" "$2" && vhd-util snapshot -n "$1" -p "$2" || die "vhd-util snapshot failed"
	tap-ctl unpause -p "$pid" -m "$minor" -a "vhd:$1" || die "unpause failed"
	sleep 1
}

# sm's garbage collector, in its order: the middle into its parent, the leaf named anew while it is written, pause, unpause; then the leaf.
case_coalesce() {
	plug_guest
	local pid minor d=/data/c; rm -rf $d; mkdir -p $d
	vhd-util create -n $d/leaf.vhd -s 32 || die "vhd-util create"
	chain_on vhd:$d/leaf.vhd
	snapshot_under $d/leaf.vhd $d/base.vhd
	snapshot_under $d/leaf.vhd $d/mids.vhd
	vhd-util check -n $d/mids.vhd && vhd-util coalesce -n $d/mids.vhd >/dev/null && vhd-util check -B -n $d/base.vhd || die "vhd-util coalesce failed"
	vhd-util query -vsafp -n $d/leaf.vhd >/dev/null || die "vhd-util query"
	vhd-util modify -p $d/base.vhd -n $d/leaf.vhd || die "the running leaf cannot be named anew"
	[ "$(vhd-util query -p -n $d/leaf.vhd)" = $d/base.vhd ] || die "its parent is $(vhd-util query -p -n $d/leaf.vhd)"
	sleep 1
	tap-ctl pause -p "$pid" -m "$minor" && tap-ctl unpause -p "$pid" -m "$minor" || die "pause or unpause failed"
	rm $d/mids.vhd
	sleep 1
	# the leaf, in a pause
	tap-ctl pause -p "$pid" -m "$minor" || die "pause failed"
	vhd-util coalesce -n $d/leaf.vhd >/dev/null && mv $d/leaf.vhd $d/old.vhd && mv $d/base.vhd $d/leaf.vhd || die "the leaf does not coalesce"
	tap-ctl unpause -p "$pid" -m "$minor" -a vhd:$d/leaf.vhd || die "unpause failed"
	rm $d/old.vhd
	sleep 1
	chain_off
	vhd-util check -n $d/leaf.vhd || die "the VHD is damaged"
	[ "$(vhd-util query -d -n $d/leaf.vhd)" = "chain depth: 1" ] || die "it has a $(vhd-util query -d -n $d/leaf.vhd)"
	rm -r $d
}

# tap-ctl commit: the middle of a chain of three, and then the leaf.
case_commit() {
	plug_guest
	local pid minor t i d=/data/c
	for t in vhd qcow2; do
		rm -rf $d; mkdir -p $d
		case $t in vhd) vhd-util create -n $d/0.vhd -s 32 ;; *) td-qcow create $d/0.qcow2 32M >/dev/null ;; esac || die "no $t"
		chain_on $t:$d/0.$t
		for i in 1 2; do
			tap-ctl pause -p "$pid" -m "$minor" || die "pause failed"
			case $t in vhd) vhd-util snapshot -n $d/$i.vhd -p $d/$((i - 1)).vhd ;; *) td-qcow snapshot $d/$((i - 1)).qcow2 $d/$i.qcow2 ;; esac || die "$t: snapshot $i failed"
			tap-ctl unpause -p "$pid" -m "$minor" -a "$t:$d/$i.$t" || die "unpause failed"
			sleep 1
		done
		for i in 1 2; do
			tap-ctl commit -p "$pid" -m "$minor" -a "$d/$i.$t" -w >/tmp/commit 2>&1 || { sed 's/^/# | /' /tmp/commit; die "$t: commit of image $i failed"; }
			say "$t: image $i: $(tail -1 /tmp/commit | tr -d '\r')"
			rm "$d/$i.$t"
			sleep 1
		done
		tap-ctl list -p "$pid" | grep -q "args=$t:$d/0.$t\$" || die "$t: the disk is $(tap-ctl list -p "$pid")"
		chain_off
		case $t in vhd) vhd-util check -n $d/0.vhd ;; *) td-qcow check $d/0.qcow2 ;; esac >/tmp/check 2>&1 || [ "$t$?" = qcow23 ] || { sed 's/^/# | /' /tmp/check; die "the $t is damaged"; }
	done
	rm -r $d
}
