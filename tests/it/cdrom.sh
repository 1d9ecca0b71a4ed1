# SPDX-License-Identifier: LGPL-2.1-or-later
# CD drives: read-only, empty, and with media that come and go.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/it/xs.sh" || exit 99
command -v python3 >/dev/null || skip "python3 is not installed"
xs_start
export TAP_CTL=$top_builddir/bin/tap-ctl
guest=$top_builddir/tests/support/tdguest
script() { XENBUS_PATH=backend/vbd3/$1 "$top_builddir/bin/block-tap" "$2"; }
vbd() { "$top_builddir/bin/tap-vbd" -t 100 -s "$top_builddir/bin/block-tap" "$@"; }
put /local/domain/1 name=guest one=1
D=1/51760 B=$(be 1/51760)
iso=$WORK/a.iso
head -c 1M /dev/urandom >"$iso"
head -c 3M /dev/urandom >"$WORK/b.iso"
mode="cache=writeback" # not every /tmp has O_DIRECT
printf 'cache = writeback\n' >"$WORK/conf"
export TAPDISK_CONF=$WORK/conf

# --- the hotplug script: an empty drive, whatever the params say of it; always read-only
for params in "params=" "params=aio:" none=; do
	xenstore-rm $B
	disk $D "$params" device-type=cdrom mode=w
	expect 0 script $D add
	is "an empty drive" "$(tap_ctl list)" "pid=$(get $B/pid) minor=$(get $B/minor) state=0 args=empty:drive"
	expect 0 script $D remove
done
xenstore-rm $B
disk $D "params=aio:$mode:$iso" device-type=cdrom mode=w
expect 0 script $D add
expect 1 "$guest" "$(get $B/pid)" "$(get $B/minor)" write 0 512 1
"$guest" "$(get $B/pid)" "$(get $B/minor)" read 0 1048576 | cmp - "$iso" || fail "the guest reads something else"
expect 0 script $D remove
is "all is gone" "$(tap_ctl list)" ""

# --- a drive of the host's without a medium, for which a loop device without a file stands: error 123; to a guest it is an empty drive
loop_ctl() { python3 -c "import fcntl; fcntl.ioctl(open('/dev/loop-control', 'rb'), $1, 1100 + $$ % 1000)" 2>"$WORK/loop.err"; }
drive=$WORK/sr0
if loop_ctl 0x4C80 && at_exit "loop_ctl 0x4C81" && mknod "$drive" b 7 $((1100 + $$ % 1000)) && : <"$drive"; then
	for how in "" -R; do
		# shellcheck disable=SC2086
		expect 123 tap_ctl create -a "aio:$drive" $how
		has "why" "$ERR" "$drive has no medium"
		is "left" "$(tap_ctl list)" ""
	done
	for type in cdrom disk; do
		xenstore-rm $B
		disk $D "params=aio:$drive" device-type=$type mode=r
		expect "$([ $type = cdrom ] && echo 0 || echo 1)" script $D add
		[ $type = cdrom ] && is "an empty drive" "$(tap_ctl list)" "pid=$(get $B/pid) minor=$(get $B/minor) state=0 args=empty:drive"
		[ $type = cdrom ] || has "why" "$(get $B/hotplug-error)" "has no medium"
		expect 0 script $D remove
		is "all is gone" "$(tap_ctl list)" ""
	done
else
	echo "(no loop device: a drive without a medium is not tried: $(cat "$WORK/loop.err"))"
fi

# --- media, as a person changes them
tapback_start
xenstore-rm $B
xenstore-rm "$(fe $D)"
expect 0 vbd attach guest 'vdev=xvdd,devtype=cdrom'
pid=$(get $B/pid) minor=$(get $B/minor)
expect 1 "$guest" "$pid" "$minor" read 0 512
# the drive over NBD, as an emulated one reads it: a client that stays for all that happens
nbd=
if /usr/bin/python3 -c 'import nbd' 2>/dev/null; then
	nbd=1
	mkfifo "$WORK/ask"
	: >"$WORK/told" # which is there before the client is
	/usr/bin/python3 "$top_srcdir/tests/support/nbd-cd.py" "$(get $B/physical-device-path)" <"$WORK/ask" >"$WORK/told" 2>&1 &
	exec 8>"$WORK/ask"
fi
cd_client() # WORD: what it tells
{
	local n

	[ -n "$nbd" ] || return 0
	n=$(wc -l <"$WORK/told")
	echo "$1" >&8
	until_true 20 sh -c "[ \$(wc -l <'$WORK/told') -gt $n ]"
	is "over NBD, $1" "$(tail -1 "$WORK/told")" "$2"
}
cd_client connect "0 read-only"
cd_client read "EINVAL"
cd_client flush "done"
expect 0 vbd insert guest xvdd "$iso"
is "params" "$(get $B/params)" "aio:$iso"
is "the same tapdisk" "$(tap_ctl list)" "pid=$pid minor=$minor state=0 args=aio:$iso"
"$guest" "$pid" "$minor" read 0 1048576 | cmp - "$iso" || fail "the guest reads something else"
expect 1 "$guest" "$pid" "$minor" write 0 512 1
cd_client read "$(sha1sum <"$iso" | cut -c1-40)" # it has stayed connected
cd_client connect "1048576 read-only"
cd_client read "$(sha1sum <"$iso" | cut -c1-40)"
cd_client write "EPERM"
# straight to another one
expect 0 vbd insert guest xvdd "raw:$WORK/b.iso"
"$guest" "$pid" "$minor" read 0 3145728 | cmp - "$WORK/b.iso" || fail "the guest reads something else"
cd_client read "$(head -c 1M "$WORK/b.iso" | sha1sum | cut -c1-40)"
expect 0 vbd eject guest xvdd
cd_client read "EINVAL"
is "params" "$(get $B/params)" ""
expect 1 "$guest" "$pid" "$minor" read 0 512
expect 0 vbd eject guest xvdd
# one that cannot be read: said, and the drive is empty
expect 0 vbd insert guest xvdd "$iso"
cd_client read "$(sha1sum <"$iso" | cut -c1-40)"
expect 2 vbd insert guest xvdd "$WORK/none.iso"
has "why" "$ERR" "$WORK/none.iso"
is "empty" "$(tap_ctl list) $(get $B/params)" "pid=$pid minor=$minor state=0 args=empty:drive "
cd_client read "EINVAL"
expect 22 vbd insert guest xvdd
expect 19 vbd eject guest xvde
expect 0 vbd detach guest xvdd
is "all is gone" "$(tap_ctl list)" ""
truncate -s 1M "$WORK/d.img"
expect 0 vbd attach guest "vdev=xvdb,target=$WORK/d.img"
expect 22 vbd eject guest xvdb
has "a disk stays in" "$ERR" "no CD drive"
expect 0 vbd detach guest xvdb

# --- what the guest sees of it; and a drive for which a toolstack has not started any tapdisk
standin_start 1
echo '{"info": {"sectors": 0, "read_only": true}}' >"$WORK/conf.1"
disk $D device-type=cdrom mode=r removable=1
put $B hotplug-status=connected
wait_key $B/state 2
guest_ring $D
stays $B/state 2
hotplug $D "${standin[1]}"
wait_key $B/state 4
is "an empty drive" "$(get $B/sectors) $(get $B/info) $(get $B/feature-discard)" "0 7 -"
guest $D state=4
event() { echo "{\"event\": {\"minor\": $(minor $D), \"state\": 0, \"sectors\": $1, \"rings\": [{\"domid\": 1, \"devid\": 51760, \"state\": \"connected\"}]}}" >"$WORK/conf.1"; }
for n in 2048 6144 0 2048; do
	event $n
	kill -USR1 "${standin[1]}"
	wait_key $B/sectors $n
done
is "connected all the time" "$(get $B/state)" 4
# writable in the tapdisk: a CD is not given to a guest like that
D=1/51776 B=$(be 1/51776)
echo '{}' >"$WORK/conf.1"
disk $D device-type=cdrom script=/x
wait_key $B/state 2
hotplug $D "${standin[1]}"
guest_ring $D
wait_key $B/state 5
has "writable" "$(get $B/tapdisk-error)" "read-only"
