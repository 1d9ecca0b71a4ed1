# SPDX-License-Identifier: LGPL-2.1-or-later
# What goes wrong, and who hears of it.

# No image: xl says so at once, with the reason, and nothing is left.
case_missing_image() {
	guests_only
	local began=$SECONDS
	guest_config x1 pv "$(disk xvda "$(target none /data/missing.img)")"
	if timeout 90 xl create -q /tmp/x1.cfg >/tmp/x1.out 2>&1 </dev/null; then xl destroy x1; die "xl create succeeded without an image"; fi
	[ $((SECONDS - began)) -lt 40 ] || die "xl create took $((SECONDS - began)) s to fail"
	grep -q '/data/missing.img' /tmp/x1.out && grep -qi 'no such file' /tmp/x1.out || { sed 's/^/# | /' /tmp/x1.out; die "xl does not say what is missing"; }
	say "xl, after $((SECONDS - began)) s: $(grep -i 'no such file' /tmp/x1.out | head -1 | cut -c1-180)"
	nothing_left || die "something is left"
	# unsafe without its second word, an unknown mode, an unknown type
	plug_guest
	local t
	for t in raw:cache=unsafe:/data/p1.img raw:cache=fast:/data/p1.img zip:/data/p1.img; do
		refused xvdf "$t"
	done
}

refused() { # refused VDEV TARGET: xl block-attach fails with the script's words, and what libxl leaves can be taken away
	! attach "$(disk "$1" "$2")" || die "xl block-attach took $2"
	say "$2: $(grep -o 'block-tap: .*' /tmp/attach.out | head -1 | cut -c1-160)"
	grep -q 'block-tap: .' /tmp/attach.out || { sed 's/^/# | /' /tmp/attach.out; die "xl does not say why"; }
	[ "$(tapdisks)" = 1 ] || die "the refused $2 left a tapdisk: $(pidof tapdisk)"
	# libxl 4.17 leaves a device that its script has refused in xenstore: block-detach takes it away
	if ! absent "$(be p1 "$1")"; then
		! state_is "$(be p1 "$1")" 4 || die "the refused $2 is live"
		detach "$1"
		absent "$(be p1 "$1")" || { sed 's/^/# | /' /tmp/detach.out; die "the refused $2 cannot be taken away"; }
	fi
}

# An image in use is refused to a second writer, in the words of the one who holds it.
case_in_use() {
	plug_guest
	refused xvdf "$(target none /data/p1.img)"
	grep -q "$(disk_pid p1 xvda)" /tmp/attach.out || { sed 's/^/# | /' /tmp/attach.out; die "the refusal does not say who holds the image"; }
	g p1 60 "sync_writes xvda 3" >/dev/null || die "the first disk was disturbed"
}

# A device whose tapdisk does not exist: error node and Closing, at once.
case_error_node() {
	plug_guest
	local id b f; id=$(cat /tmp/p1.id); b=$(be p1 xvdi vbd3); f=$(fe p1 xvdi)
	xenstore-write "$b" ""; xenstore-chmod "$b" n0 "r$id"; xenstore-write "$f" ""; xenstore-chmod "$f" "n$id" r0
	xenstore-write "$b/frontend" "$f" "$b/frontend-id" "$id" "$b/online" 1 "$b/removable" 0 "$b/dev" xvdi "$b/mode" w "$b/device-type" disk \
		"$b/physical-device-path" $CTL/nbd99999.7 "$b/hotplug-status" connected "$b/state" 1
	xenstore-write "$f/backend" "$b" "$f/backend-id" 0 "$f/virtual-device" "$(devid xvdi)" "$f/device-type" disk "$f/state" 1
	wait_for 10 eval "state_is $b 5 || state_is $b 6" || die "the backend is in state $(key "$b" state)"
	local text; text=$(xenstore-read "/local/domain/0/error/backend/vbd3/$id/$(devid xvdi)/error")
	say "error node: $text"
	grep -q 99999 <<<"$text" || die "the error node does not say which tapdisk"
	xenstore-rm "$f"; xenstore-rm "$b"; xenstore-rm "/local/domain/0/error/backend/vbd3/$id" 2>/dev/null
	sleep 1; kill -0 "$(tapback_pid vbd3)" || die "tapback is gone"
	g p1 60 "sync_writes xvda 3" >/dev/null || die "another disk was disturbed"
}

# A tapdisk that dies of whatever it is given: after five successors the disk is given up, no one else is disturbed, all of it is removable.
case_killed() {
	guests_only
	guest_start k1 pv "$(disk xvda "$(target none "$(image k1a.img)")")" "$(disk xvdb "$(target none "$(image k1b.img)")")" || die "xl create failed"
	local pid b began i; pid=$(disk_pid k1 xvda); b=$(be k1 xvda)
	g k1 30 "load_start xvda 8; load_start xvdb 8" || die "no load"
	for i in 1 2 3 4 5; do
		kill -9 "$pid"
		wait_for 20 eval '[ "$(disk_pid k1 xvda)" != "'"$pid"'" ]' || die "no successor for tapdisk $pid after kill $i"
		pid=$(disk_pid k1 xvda)
	done
	kill -9 "$pid"; began=$(now_ms)
	wait_for 5 eval "! state_is $b 4" || die "5 s after its sixth tapdisk was killed, the backend is still in state 4"
	say "xenstore says so after $(($(now_ms) - began)) ms: $(xenstore-read "/local/domain/0/error/$(sed 's|/local/domain/0/||' <<<"$b")/error" 2>&1)"
	xenstore-read "/local/domain/0/error/$(sed 's|/local/domain/0/||' <<<"$b")/error" | grep -q "$pid" || die "the error node does not name tapdisk $pid"
	cat "/var/log/tapback-$TYPE.log" /var/log/messages | grep -q "$pid" || die "the log does not name tapdisk $pid"
	sleep 3
	g k1 90 "load_stop xvdb" >/tmp/load || { sed 's/^/# | /' /tmp/load; die "the other disk was disturbed"; }
	say "the other disk: $(tail -1 /tmp/load)"
	guest_stop k1 || { sed 's/^/# | /' /tmp/k1.out; die "xl destroy failed"; }
	wait_for 10 eval '[ "$(tapdisks)" = 0 ]'
	nothing_left || die "something is left"
	# no lock either: the same image serves the next guest
	guest_start k1 pv "$(disk xvda "$(target none /data/k1a.img)")" || die "the image cannot be used again"
	g k1 60 "sync_writes xvda 3" >/dev/null || die "the image cannot be written again"
}
