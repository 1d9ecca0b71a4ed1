# SPDX-License-Identifier: LGPL-2.1-or-later
# The handshake in both toolstacks' orders, what the guest is told, and the way back.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/it/xs.sh" || exit 99
xs_start
standin_start 1
tapback_start

# --- libxl: InitWait before the script, and the node stays
D=1/51712 B=$(be 1/51712)
disk $D script=/etc/xen/scripts/block-tap discard-enable=1
wait_key $B/state 2
is "features before InitWait" "$(get $B/max-ring-page-order)" 4
guest_ring $D
stays $B/state 2
is "asked before the script" "$(asked 1)" ""
hotplug $D "${standin[1]}"
wait_key $B/state 4
for kv in kthread-pid=${standin[1]} feature-flush-cache=1 feature-barrier=1 sectors=2048 sector-size=512 physical-sector-size=4096 \
	info=0 cache-mode=none feature-discard=1 discard-granularity=4096; do
	is "${kv%=*}" "$(get $B/${kv%=*})" "${kv#*=}"
done
is "indirect segments" "$(get $B/feature-max-indirect-segments)" 512
is feature-persistent "$(get $B/feature-persistent)" -
is "queues" "$(get $B/multi-queue-max-queues)" 4
has "connect" "$(grep connect "$WORK/log.1")" \
	'"abi":"x86_64","beside":false,"devid":51712,"domid":1,"minor":64,"op":"connect","queues":[{"port":5,"refs":[8]}],"transport":"xen"'
guest $D state=4
# unplug while busy: the ring stays until the guest lets go
ask_to_close $D
stays $B/state 5
case " $(asked 1)" in *disconnect*) fail "a busy ring was disconnected" ;; esac
guest $D state=6
wait_key $B/state 6
has "the end" "$(asked 1)" disconnect
xenstore-rm "$(fe $D)"
stays $B/state 6
xenstore-rm $B
until_true 5 grep -q 'backend/vbd3/1/51712: removed' "$WORK/tapback.log"

# --- xenopsd: InitWait after the script, and the node goes with the frontend
D=2/51728 B=$(be 2/51728)
disk $D
stays $B/state 1
hotplug $D "${standin[1]}"
wait_key $B/state 2
guest $D ring-page-order=2 ring-ref0=10 ring-ref1=11 ring-ref2=12 ring-ref3=13 event-channel=9 state=3
wait_key $B/state 4
has "a ring of four pages" "$(tail -1 "$WORK/log.1")" '"refs":[10,11,12,13]'
has "no protocol" "$(tail -1 "$WORK/log.1")" '"abi":"native"'
guest $D state=4
# the guest closes by itself, and comes back
guest $D state=5
wait_key $B/state 5
guest $D state=6
wait_key $B/state 6
guest $D state=1
wait_key $B/state 2
guest $D ring-page-order=0 ring-ref=20 state=3
wait_key $B/state 4
has "the new ring" "$(tail -1 "$WORK/log.1")" '"refs":[20]'
guest $D state=4
# it comes back with two queues
guest $D state=5
wait_key $B/state 5
guest $D state=6
wait_key $B/state 6
xenstore-rm "$(fe $D)/ring-ref"
xenstore-rm "$(fe $D)/event-channel"
guest $D state=1
wait_key $B/state 2
guest $D multi-queue-num-queues=2 ring-page-order=1 queue-0/ring-ref0=30 queue-0/ring-ref1=31 queue-0/event-channel=7 \
	queue-1/ring-ref0=32 queue-1/ring-ref1=33 queue-1/event-channel=8 state=3
wait_key $B/state 4
has "two queues" "$(tail -1 "$WORK/log.1")" '"queues":[{"port":7,"refs":[30,31]},{"port":8,"refs":[32,33]}]'
guest $D state=4
# xenopsd's shutdown-request
put $B online=0 shutdown-request=normal
wait_key $B/state 5
is shutdown-done "$(get $B/shutdown-done)" -
guest $D state=6
wait_key $B/shutdown-done ""
is state "$(get $B/state)" 6
xenstore-rm "$(fe $D)"
wait_key $B -
# forced: without the guest
D=2/51744 B=$(be 2/51744)
disk $D
hotplug $D "${standin[1]}"
wait_key $B/state 2
guest_ring $D
wait_key $B/state 4
guest $D state=4
put $B shutdown-request=force
wait_key $B/shutdown-done ""
is "forced" "$(get $B/state) $(asked 1 | awk '{print $NF}')" "6 disconnect"

# --- the frontend's directory comes second: nothing is deleted meanwhile
B=$(be 3/51712)
put $B frontend="$(fe 3/51712)" frontend-id=3 online=1 mode=w script=/x state=1
stays $B/state 1
put "$(fe 3/51712)" backend=$B state=1
wait_key $B/state 2
# --- and before the guest has done anything, it can be taken away at once
ask_to_close 3/51712
wait_key $B/state 6

# --- keys one by one, as a person would write them
B=$(be 3/51728)
put "$(fe 3/51728)" state=1
for kv in script=/x online=1 frontend="$(fe 3/51728)"; do put $B $kv; done
stays $B/state -
put $B state=1
stays $B/state 1
put $B frontend-id=3
wait_key $B/state 2
is "no error" "$(get /local/domain/0/error/backend/vbd3/3/51728/error)" -

# --- modes that have no volatile cache; barrier off; read-only; cdrom; no discard
tapback_stop TERM
tapback_start -b --order=xenopsd
echo '{"info": {"flush": false, "barrier": false, "mode": "writethrough", "read_only": true, "sector_size": 512}}' >"$WORK/conf.1"
D=4/51712 B=$(be 4/51712)
disk $D script=/x mode=r device-type=cdrom removable=1
stays $B/state 1 # forced order
hotplug $D "${standin[1]}"
wait_key $B/state 2
guest_ring $D
wait_key $B/state 4
is "writethrough" "$(get $B/feature-flush-cache) $(get $B/feature-barrier) $(get $B/info) $(get $B/cache-mode) $(get $B/feature-discard)" \
	"0 0 7 writethrough -"
put "$(fe $D)" state=6
wait_key $B/state 6
echo '{}' >"$WORK/conf.1"
D=4/51728 B=$(be 4/51728)
disk $D discard-enable=0 polling-duration=200 polling-idle-threshold=30 direct-io-safe=1
hotplug $D "${standin[1]}"
wait_key $B/state 2
guest $D feature-persistent=1
guest_ring $D
wait_key $B/state 4
is "feature-persistent" "$(get $B/feature-persistent)" 1
has "persistent" "$(grep '"op":"connect"' "$WORK/log.1" | tail -1)" '"persistent":true'
has "polling" "$(grep '"op":"connect"' "$WORK/log.1" | tail -1)" '"polling-duration":200,"polling-idle-threshold":30'
is "-b and discard-enable=0" "$(get $B/feature-flush-cache) $(get $B/feature-barrier) $(get $B/feature-discard)" "1 0 -"

# --- a disk that grows, and trouble in the tapdisk
echo '{"event": {"minor": 257, "state": 0, "sectors": 4096, "rings": [{"domid": 4, "devid": 51728, "state": "connected"}]}}' >"$WORK/conf.1"
guest $D state=4
watch_start $B/state -n 2
kill -USR1 "${standin[1]}"
wait_key $B/sectors 4096
wait $WATCHER # the state was written again, which is what blkfront listens for
echo '{"event": {"minor": 257, "state": 1024, "reason": "no space on /x", "sectors": 4096, "rings": [{"domid": 4, "devid": 51728, "state": "connected"}]}}' >"$WORK/conf.1"
kill -USR1 "${standin[1]}"
wait_key $B/tapdisk-state no-space
is reason "$(get $B/reason)" "no space on /x"
is "state" "$(get $B/state)" 4
# an image that was found to be corrupt: the ring goes on, and the toolstack finds why in the error node
echo '{"event": {"minor": 257, "state": 0, "two-primaries": true, "reason": "Primary there too", "sectors": 4096, "rings": [{"domid": 4, "devid": 51728, "state": "connected"}]}}' >"$WORK/conf.1"
kill -USR1 "${standin[1]}"
wait_key $B/tapdisk-state two-primaries
is "why" "$(get $B/reason)" "Primary there too"
echo '{"event": {"minor": 257, "state": 2048, "reason": "/x.qcow2 is corrupt", "sectors": 4096, "rings": [{"domid": 4, "devid": 51728, "state": "connected"}]}}' >"$WORK/conf.1"
kill -USR1 "${standin[1]}"
wait_key $B/tapdisk-state failed
is reason "$(get $B/reason)" "/x.qcow2 is corrupt"
is "an image that is corrupt" "$(get $B/state) $(get $B/tapdisk-error) $(get /local/domain/0/error/backend/vbd3/$D/error)" \
	"4 /x.qcow2 is corrupt /x.qcow2 is corrupt"
echo '{"event": {"minor": 257, "state": 0, "sectors": 4096, "rings": [{"domid": 4, "devid": 51728, "state": "connected"}]}}' >"$WORK/conf.1"
kill -USR1 "${standin[1]}"
wait_key $B/tapdisk-state running
is "and no more" "$(get $B/tapdisk-error) $(get /local/domain/0/error/backend/vbd3/$D/error)" "- -"
echo '{"event": {"minor": 257, "state": 0, "rings": [{"domid": 9, "devid": 1, "state": "connected"}, {"domid": 4, "devid": 51728, "state": "broken", "reason": "req_prod ran away"}]}}' >"$WORK/conf.1"
kill -USR1 "${standin[1]}"
wait_key $B/tapdisk-state broken
is reason "$(get $B/reason)" "req_prod ran away"
# of another disk: nothing to do with this one
echo '{"event": {"minor": 258, "state": 2048, "rings": [{"domid": 4, "devid": 51728, "state": "connected"}]}}' >"$WORK/conf.1"
kill -USR1 "${standin[1]}"
stays $B/tapdisk-state broken
# the toolstack and the guest are told that a broken ring serves no more; the guest may close it and come back with another
is "a broken ring" "$(get $B/state) $(get $B/tapdisk-error) $(get /local/domain/0/error/backend/vbd3/$D/error)" \
	"5 req_prod ran away req_prod ran away"
guest $D state=6
wait_key $B/state 6
guest $D state=1
wait_key $B/state 2
guest_ring $D
wait_key $B/state 4
wait_key $B/tapdisk-error - # mended
# closed by force behind the guest's back: it is told
echo '{"event": {"minor": 257, "state": 2}, "info": {"state": 2, "rings": []}}' >"$WORK/conf.1"
kill -USR1 "${standin[1]}"
wait_key $B/state 5
has "closed by force" "$(get $B/tapdisk-error)" "no image open"
echo '{}' >"$WORK/conf.1"

# --- xenopsd is told that shutdown-request is answered only when asked to: other backends of this domain may not
is "the flag" "$(get /local/domain/0/control/feature-shutdown-request)" -
tapback_stop TERM
tapback_start --shutdown-request
is "the flag" "$(get /local/domain/0/control/feature-shutdown-request)" 1

# --- other backend types, one domain only, a second daemon
expect 16 "$top_builddir/bin/tapback" -d
has "second daemon" "$ERR" "another tapback"
expect 22 "$top_builddir/bin/tapback" -x none
expect 22 "$top_builddir/bin/tapback" --order=up
expect 0 "$top_builddir/bin/tapback" --help
tapback_stop TERM
tapback_start -n vbd -x 5 -p "$WORK/pid"
is pidfile "$(cat "$WORK/pid")" "$TAPBACK"
TYPE=vbd
disk 6/51712 script=/x
disk 5/51712 script=/x
wait_key "$(be 5/51712)/state" 2
is "another domain" "$(get "$(be 6/51712)/state")" 1
tapback_stop TERM
[ ! -e "$WORK/pid" ] || fail "the pid file is left"
# in the background: it serves when the command returns
run "$top_builddir/bin/tapback" -p "$WORK/pid"
is "background" "$RC" 0
kill "$(cat "$WORK/pid")"
