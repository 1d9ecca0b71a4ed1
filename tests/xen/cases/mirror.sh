# SPDX-License-Identifier: LGPL-2.1-or-later
# Mirrors under a guest: a disk that moves to another image while it is used, in xapi's order of calls, and what goes wrong meanwhile.

mirror_nbd() { [ -e /dev/nbd1 ] || { rmmod nbd 2>/dev/null; modprobe nbd nbds_max=2; } || die "no nbd module"; }
mirror_stat() { tap-ctl stats -p "$pid" -m "$minor" | sed -n "s/.*\"$1\": \([0-9]*\).*/\1/p"; }
mirror_failed() { [ "$(mirror_stat nbd_mirror_failed)" = "$1" ]; }
copied() { tap-ctl stats -p "$pid" -m "$minor" | grep -o '"hits": \[[0-9]*, [0-9]*' | sed -n '2s/.* //p'; } # sectors
copies() { local now; now=$(copied); [ "${now:-0}" -ge "$1" ]; }
mirror_snapshot() { # mirror_snapshot FOLDER N UNPAUSE-ARG...: as sm does it
	tap-ctl pause -p "$pid" -m "$minor" || die "pause failed"
	mv "$1/leaf.vhd" "$1/$2.vhd" && vhd-util snapshot -n "$1/leaf.vhd" -p "$1/$2.vhd" || die "snapshot $2 failed"
	tap-ctl unpause -p "$pid" -m "$minor" -a "vhd:$1/leaf.vhd" "${@:3}" || die "unpause failed"
}
passed_to() { python3 /lab/nbd-between.py "$CTL/nbdserver$NBD_PID.$NBD_MINOR" "$CTL/nbdclient$pid" "$1" || die "the connection could not be passed"; }
served() { # served N VHD OPTION...: /dev/nbdN is that image
	nbd_create "$2" -t vhd "${@:3}"
	nbd-client -unix "$NBD_SOCK" "/dev/nbd$1" >/tmp/nbd.out 2>&1 || { sed 's/^/# | /' /tmp/nbd.out; die "nbd-client does not connect"; }
	eval "SERVED_$1='$NBD_PID $NBD_MINOR'"
}
unserved() { # unserved N
	local n=SERVED_$1
	nbd-client -d "/dev/nbd$1" >/dev/null 2>&1
	read -r NBD_PID NBD_MINOR <<<"${!n}"
	nbd_destroy
}

# The numbers are those of xapi's steps: mirror, copy, the guest moves, and then its disk is the copy, in which all is that it wrote.
case_storage_migration() {
	local pid minor dst old; guests_only; mirror_nbd
	rm -rf /data/src /data/dst; mkdir -p /data/src /data/dst
	vhd-util create -n /data/src/leaf.vhd -s 32 || die "vhd-util create"
	UPLIMIT=150 guest_start v1 pv "$(disk xvda vhd:/data/src/leaf.vhd)" || die "xl create failed"
	old=$(cat /tmp/v1.id); pid=$(disk_pid v1 xvda) minor=$(disk_minor v1 xvda)
	g v1 60 "load_start xvda 8" || die "no load"
	# 1. the destination
	vhd-util create -n /data/dst/blank.vhd -s 32 && vhd-util snapshot -n /data/dst/leaf.vhd -p /data/dst/blank.vhd && vhd-util create -n /data/dst/copy.vhd -s 32 || die "no destination"
	nbd_create /data/dst/leaf.vhd -t vhd; dst="$NBD_PID $NBD_MINOR"
	# 3. the connection, 4. the snapshot with a mirror
	passed_to MIR_DP
	mirror_snapshot /data/src 1 -2 nbd:MIR_DP
	mirror_failed 0 || die "the mirror is not good: $(tap-ctl stats -p "$pid" -m "$minor")"
	# 6. the snapshot is copied while the guest writes
	served 0 /data/src/1.vhd -R; served 1 /data/dst/copy.vhd
	dd if=/dev/nbd0 of=/dev/nbd1 bs=1M conv=sparse,fsync 2>/tmp/dd.out || { sed 's/^/# | /' /tmp/dd.out; die "the copy failed"; }
	unserved 0; unserved 1
	wait_for 30 copies 500 || die "nothing is mirrored: $(copied)"
	# 7. the guest moves: its disk is quiet, and the mirror is judged
	timeout 150 xl save -p v1 /data/v1.save >/tmp/save.out 2>&1 </dev/null || { tail -5 /tmp/save.out | sed 's/^/# | /'; die "xl save failed"; }
	[ "$(mirror_stat reqs_outstanding)" = 0 ] || die "the guest is saved, and has requests"
	mirror_failed 0 || die "the mirror has failed: $(tap-ctl stats -p "$pid" -m "$minor")"
	say "mirrored: $(copied) sectors"
	tap-ctl pause -p "$pid" -m "$minor" && tap-ctl unpause -p "$pid" -m "$minor" -2 null || die "the mirror does not end"
	guest_stop v1 || die "xl destroy failed"
	wait_for 20 gone "$pid" || die "the source's tapdisk stays"
	# 8. the destination is composed
	read -r NBD_PID NBD_MINOR <<<"$dst"; nbd_destroy
	vhd-util modify -n /data/dst/leaf.vhd -p /data/dst/copy.vhd || die "vhd-util modify"
	served 0 /data/src/leaf.vhd -R; served 1 /data/dst/leaf.vhd -R
	cmp /dev/nbd0 /dev/nbd1 >/tmp/cmp.out 2>&1 || die "source and destination differ: $(cat /tmp/cmp.out)"
	unserved 0; unserved 1
	nothing_left || die "something is left"
	guest_config v1 pv "$(disk xvda vhd:/data/dst/leaf.vhd)"
	timeout 150 xl restore /tmp/v1.cfg /data/v1.save >/tmp/save.out 2>&1 </dev/null || { tail -5 /tmp/save.out | sed 's/^/# | /'; die "xl restore failed"; }
	xl domid v1 >/tmp/v1.id; [ "$(cat /tmp/v1.id)" != "$old" ] || die "it is the same domain"
	pid=$(disk_pid v1 xvda) minor=$(disk_minor v1 xvda)
	tap-ctl list -p "$pid" | grep -q 'args=vhd:/data/dst/leaf.vhd$' || die "its disk is $(tap-ctl list -p "$pid")"
	rm -r /data/src
	sleep 2; g v1 120 "load_stop xvda" >/tmp/load || { tail -5 /tmp/load | sed 's/^/# | /'; die "the guest saw errors or other bytes than it wrote"; }
	say "$(tail -1 /tmp/load)"
	g v1 60 "sync_writes xvda 3" >/dev/null || die "the guest cannot write any more"
	guest_stop v1 || die "xl destroy failed"; wait_for 15 gone "$pid"; nothing_left || die "something is left"
	vhd-util check -n /data/dst/leaf.vhd || die "the copy is damaged"
	rm -r /data/dst /data/v1.save
}

mirror_begin() { # mirror_begin FOLDER OPTION...: a new destination there, and the mirror
	rm -f "$1/dst.vhd"; vhd-util create -n "$1/dst.vhd" -s 32 || die "vhd-util create"
	nbd_create "$1/dst.vhd" -t vhd "${@:2}"
	passed_to dp
	tap-ctl pause -p "$pid" -m "$minor" && tap-ctl unpause -p "$pid" -m "$minor" -2 nbd:dp || die "no mirror"
	mirror_failed 0 || die "a new mirror has failed: $(tap-ctl stats -p "$pid" -m "$minor")"
}
mirror_lost() { # mirror_lost WHAT: and nothing that is called later says that it is whole
	wait_for 30 mirror_failed 1 || die "$1: nobody is told that the mirror has failed: $(tap-ctl stats -p "$pid" -m "$minor")"
	say "$1: $(tap-ctl stats -p "$pid" -m "$minor" | sed -n 's/.*"reason": "\([^"]*\)".*/\1/p' | head -1)"
	tap-ctl pause -p "$pid" -m "$minor" && tap-ctl unpause -p "$pid" -m "$minor" || die "$1: pause or unpause failed"
	mirror_failed 1 || die "$1: a pause has healed it"
	tap-ctl upgrade -p "$pid" >/tmp/upgrade 2>&1 || { sed 's/^/# | /' /tmp/upgrade; die "$1: the upgrade failed"; }
	pid=$(sed -n 's/.* now=\([0-9]*\).*/\1/p' /tmp/upgrade)
	mirror_failed 1 || die "$1: an upgrade has healed it"
	tap-ctl pause -p "$pid" -m "$minor" && tap-ctl unpause -p "$pid" -m "$minor" -2 null || die "$1: the mirror cannot be taken away"
	mirror_failed 0 || die "$1: without a mirror, it has failed"
}

# The destination stops for a while, or for good, is killed, has no space: the guest keeps all that it wrote.
case_mirror_faults() {
	plug_guest
	local pid minor more; rm -rf /data/m; mkdir -p /data/m /small
	vhd-util create -n /data/m/leaf.vhd -s 32 || die "vhd-util create"
	mkdir -p /etc/tapdisk; echo "mirror-timeout = 8" >>/etc/tapdisk/tapdisk.conf # the lab is slow, and a minute is long
	attach "$(disk xvdf vhd:/data/m/leaf.vhd)" || { sed 's/^/# | /' /tmp/attach.out; die "xl block-attach failed"; }
	pid=$(disk_pid p1 xvdf) minor=$(disk_minor p1 xvdf)
	g p1 30 "load_start xvdf 8" || die "no load"
	# for a while: the guest waits, stats are answered, and the mirror is good
	mirror_begin /data/m
	wait_for 20 copies 200 || die "nothing is mirrored"
	kill -STOP "$NBD_PID"
	wait_for 5 eval '[ "$(mirror_stat reqs_outstanding)" -gt 0 ]' || die "the guest does not wait for a mirror that does not answer"
	sleep 2
	mirror_failed 0 || die "a mirror that is only slow has failed"
	kill -CONT "$NBD_PID"; more=$(copied)
	wait_for 20 copies $((more + 200)) || die "the mirror does not go on"
	mirror_failed 0 || die "a mirror that was only slow has failed"
	# for longer than the disk has patience
	kill -STOP "$NBD_PID"
	wait_for 30 mirror_failed 1 || die "a mirror that does not answer is good"
	kill -CONT "$NBD_PID"
	mirror_lost stopped; nbd_destroy
	mirror_begin /data/m
	wait_for 20 copies 200 || die "nothing is mirrored"
	kill -9 "$NBD_PID"
	mirror_lost killed; tap-ctl free -f -m "$NBD_MINOR" || die "tap-ctl free"
	mount -t tmpfs -o size=3m none /small || die "no small file system"
	mirror_begin /small -o cache=writeback
	wait_for 60 eval 'tap-ctl list -p $NBD_PID | grep -q "state=0x4.. "' || die "the destination is not full: $(df -k /small | tail -1)"
	mirror_lost full; kill -9 "$NBD_PID"; wait_for 5 gone "$NBD_PID"; tap-ctl free -f -m "$NBD_MINOR" || die "tap-ctl free"
	umount /small
	g p1 90 "load_stop xvdf" >/tmp/load || { sed 's/^/# | /' /tmp/load; die "the guest saw errors or other bytes than it wrote"; }
	say "$(tail -1 /tmp/load)"
	[ "$(sed -n 's/.*longest \([0-9]*\) ms.*/\1/p' /tmp/load)" -ge 1500 ] || die "no request waited while the destination had stopped: had it?"
	detach xvdf || { sed 's/^/# | /' /tmp/detach.out; die "xl block-detach failed"; }
	sed -i '/^mirror-timeout = 8$/d' /etc/tapdisk/tapdisk.conf
	taken_away xvdf "$pid"
	vhd-util check -n /data/m/leaf.vhd || die "the VHD is damaged"
	rm -r /data/m
}
