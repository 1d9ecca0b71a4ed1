# SPDX-License-Identifier: LGPL-2.1-or-later
# What happens to a disk while a guest keeps it busy.

# pause and unpause hold the ring, and lose nothing
case_pause() {
	plug_guest
	local pid minor i; pid=$(disk_pid p1 xvda); minor=$(disk_minor p1 xvda)
	g p1 30 "load_start xvda 8" || die "no load"
	for i in 1 2 3; do
		sleep 1
		tap-ctl pause -p "$pid" -m "$minor" || die "tap-ctl pause failed"
		tap-ctl list -p "$pid" | grep -q 'state=0x2a' || die "paused, it lists as: $(tap-ctl list -p "$pid")"
		sleep 2
		tap-ctl unpause -p "$pid" -m "$minor" || die "tap-ctl unpause failed"
		tap-ctl list -p "$pid" | grep -q 'state=0 ' || die "unpaused, it lists as: $(tap-ctl list -p "$pid")"
	done
	g p1 90 "load_stop xvda" >/tmp/load || { sed 's/^/# | /' /tmp/load; die "the guest saw errors or other bytes than it wrote"; }
	say "$(tail -1 /tmp/load)"
	[ "$(sed -n 's/.*longest \([0-9]*\) ms.*/\1/p' /tmp/load)" -ge 1500 ] || die "no request waited while the disk was paused: was it?"
}

# The daemon killed under load: guests do not notice, and it finds its devices again.
case_restart() {
	plug_guest
	local old pid b i; b=$(be p1 xvdf)
	attach "$(disk xvdf "$(target none "$(image again.img)")")" || { sed 's/^/# | /' /tmp/attach.out; die "xl block-attach failed"; }
	pid=$(disk_pid p1 xvdf)
	g p1 30 "load_start xvda 8; load_start xvdf 8" || die "no load"
	for i in 1 2; do
		old=$(tapback_pid)
		kill -9 "$old"; wait_for 5 gone "$old"; sleep 1; rm -f "$PIDFILE"
		tapback_start || die "tapback does not start again"
		sleep 1
		state_is "$b" 4 || die "after the restart the backend is in state $(key "$b" state)"
		[ "$(disk_pid p1 xvdf)" = "$pid" ] || die "the disk has another tapdisk"
	done
	g p1 90 "load_stop xvda; load_stop xvdf" >/tmp/load || { sed 's/^/# | /' /tmp/load; die "the guest saw errors or other bytes than it wrote"; }
	sed -n 's/^load/# &/p' /tmp/load
	[ "$(grep -c ' 0 errors, 0 wrong' /tmp/load)" = 2 ] || die "the guest saw errors or other bytes than it wrote"
	detach xvdf || { sed 's/^/# | /' /tmp/detach.out; die "xl block-detach after the restart failed"; }
	taken_away xvdf "$pid"
	# and what happens while there is no daemon is found when there is one again
	attach "$(disk xvdf "$(target none /data/again.img)")" || die "xl block-attach after the restart failed"
	pid=$(disk_pid p1 xvdf)
	kill -TERM "$(tapback_pid)"; sleep 1; rm -f "$PIDFILE"
	state_is "$b" 4 || die "ending the daemon changed the state to $(key "$b" state)"
	(sleep 3; tapback_start) &
	detach xvdf || { sed 's/^/# | /' /tmp/detach.out; die "xl block-detach, begun without a daemon, failed"; }
	wait
	taken_away xvdf "$pid"
}

# One blow to the tapdisk of the guest's disk $dev, to the daemon, or to both, or an upgrade; and what comes after it.
survive_one() { # tapdisk|tapback|both|upgrade
	local pid old b began minor; pid=$(disk_pid p1 $dev); old=$(tapback_pid); b=$(be p1 $dev); minor=$(disk_minor p1 $dev)
	began=$(now_ms)
	case $1 in
	upgrade) tap-ctl upgrade -p "$pid" >/tmp/upgrade 2>&1 || { sed 's/^/# | /' /tmp/upgrade; die "$dev: the upgrade failed"; } ;;
	tapdisk) kill -9 "$pid" ;;
	tapback) kill -9 "$old" ;;
	both) kill -9 "$old" "$pid" ;;
	esac
	case $1 in tapback | both)
		rm -f "$PIDFILE"
		wait_for 5 gone "$old"; tapback_start || die "tapback does not start again"
		;;
	esac
	[ "$1" = tapback ] || wait_for 20 eval '[ "$(disk_pid p1 '"$dev"')" != "'"$pid"'" ]' || die "$dev: no successor for tapdisk $pid after: $1"
	case $1 in
	upgrade) say "$dev: $1: $(cat /tmp/upgrade)" ;;
	*) say "$dev: $1: a successor after $(($(now_ms) - began)) ms" ;;
	esac
	state_is "$b" 4 || die "$dev: the backend is in state $(key "$b" state)"
	[ "$(tap-ctl list -m "$minor" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')" = "$(disk_pid p1 $dev)" ] || die "$dev: tap-ctl lists $(tap-ctl list -m "$minor"), xenstore says $(disk_pid p1 $dev)"
}

# $dev under load, while all that befalls it.
survive_all() { # SECONDS-BETWEEN BLOW...
	local between=$1 blow; shift
	g p1 30 "load_start $dev 8" || die "$dev: no load"
	for blow; do sleep "$between"; survive_one "$blow"; done
	sleep 1
	g p1 90 "load_stop $dev" >/tmp/load || { sed 's/^/# | /' /tmp/load; die "$dev: the guest saw errors or other bytes than it wrote"; }
	say "$dev: $(tail -1 /tmp/load)"
	g p1 30 "dmesg | grep -iE 'error.*$dev|$dev.*error'" >/tmp/dmesg && { sed 's/^/# | /' /tmp/dmesg; die "the guest's kernel complains"; }
	return 0
}

survive_vhd() { dev=xvdf; rm -f /data/survive.vhd; vhd-util create -n /data/survive.vhd -s 64 && attach "$(disk xvdf vhd:/data/survive.vhd)" || die "no VHD"; }
survive_qcow2() { dev=xvdg; rm -f /data/survive.qcow2; td-qcow create /data/survive.qcow2 64M >/dev/null && attach "$(disk xvdg qcow2:/data/survive.qcow2)" || die "no qcow2"; }

survive_end() {
	guest_stop p1; wait_for 10 eval '[ "$(tapdisks)" = 0 ]'; nothing_left || die "something is left"
	[ ! -e /data/survive.vhd ] || vhd-util check -n /data/survive.vhd || die "the VHD is damaged"
	[ ! -e /data/survive.qcow2 ] || td-qcow check /data/survive.qcow2 >/tmp/check 2>&1 || [ $? = 3 ] || { sed 's/^/# | /' /tmp/check; die "the qcow2 is damaged"; }
	rm -f /data/survive.vhd /data/survive.qcow2
}

# The tapdisk killed under load, and upgraded, and the daemon killed, and both at once: a pause, and nothing else, for the guest.
case_survive() {
	guests_only p1; plug_guest
	local dev=xvda
	survive_all 1.5 tapdisk tapdisk upgrade tapdisk both tapback both
	survive_end
}
case_survive_vhd() {
	guests_only p1; plug_guest
	local dev
	survive_vhd; survive_all 1.5 tapdisk upgrade both
	survive_end
}

# The same at length: 20 deaths of tapdisks, 5 of the daemon, 3 of both, 3 upgrades.  Apart, as the limit of deaths in a minute is to be kept.
case_survive_long() {
	guests_only p1; plug_guest
	local dev=xvda
	survive_all 13 tapdisk tapdisk tapback tapdisk upgrade tapdisk tapdisk both tapback tapdisk tapdisk
	survive_vhd; survive_all 13 tapdisk tapdisk tapback tapdisk tapdisk upgrade both tapdisk tapback tapdisk tapdisk
	survive_qcow2; survive_all 13 tapdisk tapdisk tapdisk tapback upgrade tapdisk both tapdisk tapdisk
	survive_end
}

# No space: the disk waits, says so, and goes on by itself when there is space again; the guest sees no error.
case_no_space() {
	plug_guest
	local pid b; b=$(be p1 xvdf)
	rm -f /data/small.fs; truncate -s 48M /data/small.fs; mkdir -p /small
	mke2fs -q -t ext4 -O ^has_journal -m 0 /data/small.fs && mount -t ext4 -o loop /data/small.fs /small || die "no small file system"
	truncate -s 32M /small/sparse.img
	dd if=/dev/zero of=/small/filler bs=1M count=$(($(stat -f -c '%a*%S/1048576' /small) - 5)) 2>/dev/null; sync
	attach "$(disk xvdf "$(target none /small/sparse.img)")" || { sed 's/^/# | /' /tmp/attach.out; die "xl block-attach failed"; }
	pid=$(disk_pid p1 xvdf)
	g p1 30 "load_start xvdf 16" || die "no load"
	wait_for 90 eval 'tap-ctl list -p '"$pid"' | grep -q "state=0x4.. "' || die "the file system is full ($(df -m /small | tail -1)), and tap-ctl lists: $(tap-ctl list -p "$pid")"
	say "$(tap-ctl list -p "$pid"); xenstore: $(xenstore-ls "$b" | grep -iE 'reason|tapdisk-state' | tr '\n' ' ')"
	wait_for 5 eval "xenstore-ls $b | grep -qi 'no space\|space'" || die "xenstore does not say that there is no space"
	state_is "$b" 4 || die "the backend is in state $(key "$b" state)"
	rm /small/filler
	wait_for 60 eval 'tap-ctl list -p '"$pid"' | grep -q "state=0 "' || die "there is space again, and tap-ctl lists: $(tap-ctl list -p "$pid")"
	g p1 90 "load_stop xvdf" >/tmp/load || { sed 's/^/# | /' /tmp/load; die "the guest saw errors or other bytes than it wrote"; }
	say "$(tail -1 /tmp/load)"
	detach xvdf || die "xl block-detach failed"
	taken_away xvdf "$pid"; umount /small; rm /data/small.fs
}

# A request of a mebibyte: the guest's driver sends it in one piece, by indirect segments, and no byte is lost on the way.
case_indirect() {
	plug_guest
	local pid n; pid=$(disk_pid p1 xvda)
	ring_of() { tap-ctl stats -p "$pid" -m "$(disk_minor p1 xvda)" | tr -d '\n' | sed -n 's/.*"xenbus": *{[^}]*"reqs": *\[ *\([0-9]*\),.*"indirect": *\([0-9]*\).*/\1 \2/p'; }
	local before after; before=$(ring_of)
	g p1 60 "dd if=/dev/urandom of=/tmp/big bs=1M count=8 2>/dev/null; cat /sys/block/xvda/queue/max_segments" >/tmp/segs.out || die "no file of 8 MiB in the guest"
	g p1 90 "dd if=/tmp/big of=/dev/xvda bs=1M oflag=direct && dd if=/dev/xvda of=/tmp/back bs=1M count=8 iflag=direct" >/tmp/big.out 2>&1 || { sed 's/^/# | /' /tmp/big.out; die "the guest's I/O failed"; }
	after=$(ring_of)
	say "requests and indirect ones: $before > $after; segments: $(tail -1 /tmp/segs.out)"
	g p1 30 "cmp /tmp/back /tmp/big && rm /tmp/back /tmp/big" >/tmp/big.out 2>&1 || { sed 's/^/# | /' /tmp/big.out; die "the guest read other bytes than it wrote"; }
	[ "$(tail -1 /tmp/segs.out)" -ge 256 ] || die "the guest's driver uses $(tail -1 /tmp/segs.out) segments, and not the 256 that it was told to"
	n=$((${after#* } - ${before#* }))
	[ $n -ge 16 ] && [ $n -le 24 ] && [ $((${after% *} - ${before% *})) -le 32 ] || die "8 MiB each way took $n indirect requests: of 1 MiB, they would be 16"
}

# Persistent grants, which the guest's driver uses where direct-io-safe lets us offer them: the disk reads and writes the guest's own
# pages, no byte is lost, and when it is detached no page of the guest's is still mapped.
case_persistent() {
	plug_guest
	local img pid b mapped; img=$(image persistent.img); b=$(be p1 xvdl vbd3)
	timeout 60 tap-vbd attach p1 "format=raw,vdev=xvdl,access=rw,direct-io-safe,target=$img" >/tmp/attach.out 2>&1 || { sed 's/^/# | /' /tmp/attach.out; die "tap-vbd attach failed"; }
	g p1 60 "disk_there xvdl 20" || die "the guest does not have the disk"
	pid=$(disk_pid p1 xvdl vbd3)
	[ "$(key "$b" feature-persistent)" = 1 ] || die "feature-persistent is not offered"
	g p1 150 "fs_write xvdl 3" >/tmp/sums || { tail -5 /tmp/sums | sed 's/^/# | /'; die "the disk is not right"; }
	mapped=$(tap-ctl stats -p "$pid" -m "$(disk_minor_of "$pid")" | tr -d ' \n' | sed -n 's/.*"reqs":\[\([0-9]*\),.*"mapped":\([0-9]*\).*/\1 \2/p')
	say "requests and those without a copy: $mapped"
	[ "${mapped#* }" -gt 50 ] || die "of $mapped requests the second number should have been without a copy"
	timeout 60 tap-vbd detach p1 xvdl >/tmp/detach.out 2>&1 || { sed 's/^/# | /' /tmp/detach.out; die "tap-vbd detach failed"; }
	taken_away xvdl "$pid" vbd3
	image_holds /data/persistent.img /tmp/sums || die "the image is not what the guest wrote"
	g p1 30 "dmesg | grep -iE 'g\.e\.|still in use|deferring'" >/tmp/dmesg && { sed 's/^/# | /' /tmp/dmesg; die "pages of the guest's stay granted"; }
	return 0
}

# A disk that is said to have sectors of 4096 bytes has them in the guest too, and is no larger or smaller for it.
case_sectors() {
	plug_guest
	local pid img; img=$(image sectors.img)
	attach "$(disk xvdf "sector-size=4096:$(target none "$img")")" || { sed 's/^/# | /' /tmp/attach.out; die "xl block-attach failed"; }
	pid=$(disk_pid p1 xvdf)
	g p1 60 "disk_there xvdf 20 && cat /sys/block/xvdf/queue/logical_block_size /sys/block/xvdf/size | tr '\n' ' '; echo" >/tmp/sectors || die "the guest does not have the disk"
	say "logical block size and size in 512 bytes: $(tail -1 /tmp/sectors)"
	grep -q "^4096 $(($(stat -c %s "$img") / 512)) " /tmp/sectors || die "the guest sees another disk: $(cat /tmp/sectors)"
	g p1 150 "fs_write xvdf 3" >/tmp/sums || { tail -5 /tmp/sums | sed 's/^/# | /'; die "the disk is not right"; }
	detach xvdf || { sed 's/^/# | /' /tmp/detach.out; die "xl block-detach failed"; }
	taken_away xvdf "$pid"
	image_holds "$img" /tmp/sums || die "the image is not what the guest wrote"
}
