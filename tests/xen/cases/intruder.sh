# SPDX-License-Identifier: LGPL-2.1-or-later
# A tapdisk that was taken over (dom0/intruder.c), on the host of another guest's disk.

# tries WHAT EXPECTED: what comes of it begins with EXPECTED; "dies": it ends the process
tries() {
	local got
	rm -f /tmp/intruder.log
	INTRUDER=$1 INTRUDER_LOG=/tmp/intruder.log TAPDISK=/tmp/taken tap-ctl spawn >/dev/null 2>&1 </dev/null
	got=$(sed "s|.*began *||" /tmp/intruder.log) || die "$1: it did not begin"
	[ -n "$got" ] || got=dies
	say "$1: $got"
	[[ $got = "$2"* ]] || die "$1: '$got' instead of '$2'"
}

# What SECURITY says of such a process, in both directions: when more is refused, it has to say so.
case_intruder() {
	guests_only
	guest_start k1 pv "$(disk xvda "$(target none "$(image k1a.img)")")" || die "xl create failed"
	local fe id pid ref port abstract listens id_of_tapdisk
	id=$(cat /tmp/k1.id) fe=$(fe k1 xvda) pid=$(disk_pid k1 xvda)
	ref=$(key "$fe" ring-ref) || ref=$(key "$fe" ring-ref0) || die "it has no ring"
	port=$(key "$fe" event-channel)
	printf '#!/bin/sh\nLD_PRELOAD=/lab/intruder.so exec /usr/libexec/tapdisk "$@"\n' >/tmp/taken
	chmod 755 /tmp/taken
	# the tapdisk that has the guest's rings, grants and channels, and the one that was taken over
	id_of_tapdisk=$(sed -n 's/^Uid:\t\([0-9]*\).*/\1/p' "/proc/$pid/status")
	[ "$id_of_tapdisk" = $((2130706432 + pid)) ] || die "the guest's tapdisk is user $id_of_tapdisk"
	tries "user $pid" "its own: "
	tries exec dies
	tries "ptrace $pid" dies
	tries inet "refused: socket: Permission denied"
	tries udp "refused: socket: Permission denied"
	abstract=$$.of.another
	python3 -c "import socket, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind('\\0' + '$abstract') # a digit behind \\0 would belong to it
time.sleep(300)" &
	listens=$!
	wait_for 20 grep -q "@$abstract" /proc/net/unix || die "nobody listens at @$abstract"
	tries "abstract $abstract" "refused: sendto: Connection refused"
	# root may do it, and its opener refuses it: no host has named it to this tapdisk
	tries "channel $id $port" "refused: open: Permission denied"
	tries notify "refused: open: Permission denied"
	tries "grant $id $ref" "refused: open: Permission denied"
	tries hypercall "refused: open: Permission denied"
	tries "file /data/k1a.img w" "refused: open: Permission denied"
	tries "file /etc/shadow" "refused: open: Permission denied"
	tries "file /proc/$pid/mem w unread" "refused: open: Permission denied"
	tries "packet $CTL/ctl$pid" "refused: connect: Permission denied"
	tries "stream /run/xenstored/socket" "refused: connect: Permission denied"
	# and without the sandbox it may, so that it is the sandbox that refuses
	mkdir -p /etc/tapdisk && echo "sandbox = no" >>/etc/tapdisk/tapdisk.conf
	tries "user $pid" "shared: 0 0 0"
	tries inet "refused: connect: Connection refused"
	tries udp "done"
	tries "abstract $abstract" "done"
	kill $listens
	tries "grant $id $ref" "done"
	tries "channel $id $port" "refused: bind: Invalid argument"
	tries "channel $id $port $((id + 1))" "refused: bind: Permission denied"
	tries hypercall "done"
	tries "file /data/k1a.img w" "done"
	tries "packet $CTL/ctl$pid" "done"
	tries "stream /run/xenstored/socket" "done"
	sed -i '/^sandbox = no$/d' /etc/tapdisk/tapdisk.conf
	g k1 60 "sync_writes xvda 3" >/dev/null || die "the guest was disturbed"
}
