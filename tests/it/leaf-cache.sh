# SPDX-License-Identifier: LGPL-2.1-or-later
# IntelliCache, in the order of XenServer's storage manager: a leaf on this host's disk stands on another disk of this host (-e), whose image
# keeps what is read from the shared parent (-r), and keeps it itself; over pauses, deaths and upgrades of both; with the figures that
# tapdisk-cache-stats reads.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
command -v python3 >/dev/null || skip "python3 is not installed"

vhd_util() { "$top_builddir/bin/vhd-util" "$@"; }
guest() { timeout 250 "$top_builddir/tests/support/tdguest" "$pid" "$minor" "$@"; }
pid_of() { tap_ctl list -m "$1" | sed -n 's/^pid=\([0-9]*\) .*/\1/p'; }
use() { minor=$1 pid=$(pid_of "$1"); } # MINOR
start() # ARG...: sets minor, pid
{
	local marker

	marker=$(tap_ctl create "$@") || fail "create $*"
	use "${marker##*-}"
}
stop() { use "$1" && expect 0 tap_ctl destroy -p "$pid" -m "$minor"; } # MINOR
# the figures of a disk: hits of the first image, of the second, what kinds of images there are, the last one's name, and kept
figures() # MINOR
{
	tap_ctl stats -p "$(pid_of "$1")" -m "$1" | python3 -c '
import json, sys
s = json.load(sys.stdin)
i = s["images"]
print(i[0]["hits"][0], i[1]["hits"][0], ",".join(x["driver"]["name"] for x in i), i[-1]["name"], s.get("leaf_cache", {}).get("kept"))'
}
kept() { [ "$(figures "$1" | cut -d' ' -f5)" = "$2" ]; } # MINOR SECTORS
cd "$WORK" || exit 99

# the shared parent, with data; the host's cache of it; a guest's leaf
expect 0 vhd_util create -n shared.vhd -s 64
start -a "vhd:$WORK/shared.vhd" -o cache=writeback
expect 0 guest write 0 1048576 1
expect 0 guest write 8388608 65536 2
expect 0 guest write 16777216 65536 3
expect 0 guest write 20971520 65536 5
stop "$minor"
expect 0 vhd_util snapshot -n rc.vhdcache -p shared.vhd
expect 0 vhd_util snapshot -n leaf.vhdcache -p rc.vhdcache -e -S 1024
start -a "vhd:$WORK/rc.vhdcache" -r -D
rc=$minor
start -a "vhd:$WORK/leaf.vhdcache" -e "$rc" -r
leaf=$minor
is "the child's images" "$(figures "$leaf")" "0 0 vhd,lc,nbd $TAPDISK_CONTROL_DIR/nbd$(pid_of "$rc").$rc 0"
# a storage manager closes the host's cache when it sees no connection to it: as it looks, in a tapdisk's net/unix
connected() { grep -Eq "^[0-9a-f]+: [0-9A-F]+ [0-9A-F]+ [0-9A-F]+ 0001 03 +[0-9]+ /.*/nbd[0-9]+\\.$rc\$" "/proc/$(pid_of "$rc")/net/unix"; }
connected || fail "the child's connection to the disk of minor $rc is not to be seen"
# which is the shared image's cache, and written by its own tapdisk: not by whoever reads it
expect 22 tap_ctl commit -p "$pid" -m "$leaf" -a "$WORK/leaf.vhdcache"
has "a commit" "$ERR" "stands on the disk of minor $rc"
if command -v nbdinfo >/dev/null; then
	expect 0 nbdinfo --is read-only "nbd+unix:///?socket=$TAPDISK_CONTROL_DIR/nbd-ro$(pid_of "$rc").$rc"
	expect 2 nbdinfo --is read-only "nbd+unix:///?socket=$TAPDISK_CONTROL_DIR/nbd$(pid_of "$rc").$rc"
fi
expect 0 guest verify 0 262144 1
is "all of it is missing at first" "$(figures "$leaf" | cut -d' ' -f1-2)" "0 512"
until_true 10 kept "$leaf" 512
until_true 10 kept "$rc" 512
expect 0 guest verify 0 262144 1
is "and is there the next time" "$(figures "$leaf" | cut -d' ' -f1-2)" "512 512"
is "the host's cache was asked once" "$(figures "$rc" | cut -d' ' -f1-3)" "0 512 vhd,lc,vhd"

# another guest's leaf, made while the host's cache is in use: read there, not in the shared parent
expect 0 vhd_util snapshot -n leaf2.vhdcache -p rc.vhdcache -e -S 1024
start -a "vhd:$WORK/leaf2.vhdcache" -e "$rc" -r
leaf2=$minor
expect 0 guest verify 0 262144 1
is "a hit in the host's cache" "$(figures "$rc" | cut -d' ' -f1-2)" "512 512"

# what the guest writes is never overwritten by what it has read
expect 0 guest write 524288 4096 7
expect 0 guest verify 528384 4096 1
expect 0 guest verify 524288 4096 7
stop "$leaf2"

# pause and unpause: it stands there still, whatever the image itself names
use "$leaf"
expect 0 tap_ctl pause -p "$pid" -m "$minor"
expect 0 tap_ctl unpause -p "$pid" -m "$minor"
is "after an unpause" "$(figures "$leaf" | cut -d' ' -f3)" "vhd,lc,nbd"
expect 0 guest verify 0 262144 1
expect 0 tap_ctl pause -p "$pid" -m "$minor"
expect 0 tap_ctl unpause -p "$pid" -m "$minor" -a "vhd:$WORK/leaf.vhdcache"
is "after an unpause that names the image" "$(figures "$leaf" | cut -d' ' -f3)" "vhd,lc,nbd"

# deaths and upgrades of the child
kill -KILL "$pid"
until_true 10 gone "$pid"
expect 0 tap_ctl revive -m "$leaf"
use "$leaf"
is "after a death" "$(figures "$leaf" | cut -d' ' -f3)" "vhd,lc,nbd"
expect 0 tap_ctl upgrade -p "$pid"
use "$leaf"
is "after an upgrade" "$(figures "$leaf" | cut -d' ' -f3)" "vhd,lc,nbd"
expect 0 guest verify 0 1048576 1
until_true 10 kept "$leaf" 1536

# an upgrade of the parent
expect 0 tap_ctl upgrade -p "$(pid_of "$rc")"
expect 0 guest verify 8388608 65536 2

# and its death: the child waits for its successor, and goes on
was=$(pid_of "$rc")
kill -KILL "$was"
until_true 10 gone "$was"
timeout 250 "$top_builddir/tests/support/tdguest" "$pid" "$leaf" verify 16777216 65536 3 >verify.out 2>&1 &
reader=$!
expect 0 tap_ctl revive -m "$rc"
wait $reader
is "a read while the parent was dead" "$(cat verify.out)" ""
# another disk that gets its number is never read in its place, neither at once nor after a pause; itself is, closed and opened again
expect 0 vhd_util create -n other.vhd -s 64
expect 0 tap_ctl destroy -p "$(pid_of "$rc")" -m "$rc"
start -a "vhd:$WORK/other.vhd" -R
is "it got the number" "$minor" "$rc"
use "$leaf"
expect 0 tap_ctl pause -p "$pid" -m "$minor"
expect 116 tap_ctl unpause -p "$pid" -m "$minor"
has "why" "$ERR" "is another one by now, vhd:$WORK/other.vhd instead of vhd:$WORK/rc.vhdcache"
kill -KILL "$pid"
until_true 10 gone "$pid"
expect 0 tap_ctl revive -m "$leaf"
use "$leaf"
expect 116 tap_ctl unpause -p "$pid" -m "$minor"
expect 0 tap_ctl close -p "$(pid_of "$rc")" -m "$rc"
expect 2 tap_ctl unpause -p "$pid" -m "$minor"
has "why" "$ERR" "the disk $rc (parent-disk=$rc) is closed: open vhd:$WORK/rc.vhdcache under that number"
stop "$rc"
start -a "vhd:$WORK/rc.vhdcache" -r -D
is "it got its number again" "$minor" "$rc"
use "$leaf"
expect 0 tap_ctl unpause -p "$pid" -m "$minor"
expect 0 guest verify 16777216 65536 3
# a read under way when the other comes
expect 0 tap_ctl destroy -p "$(pid_of "$rc")" -m "$rc"
start -a "vhd:$WORK/other.vhd" -R
use "$leaf"
timeout 250 "$top_builddir/tests/support/tdguest" "$pid" "$leaf" verify 20971520 65536 5 >verify.out 2>&1 &
reader=$!
stop "$rc"
start -a "vhd:$WORK/rc.vhdcache" -r -D
wait $reader
is "what it read" "$(cat verify.out)" ""
use "$leaf"
expect 0 guest verify 20971520 65536 5
stop "$leaf"
stop "$rc"

# without room on the leaf's file system nothing is kept, and the guest notices nothing
if [ "$(id -u)" = 0 ] && mkdir small && mount -t tmpfs -o size=4m tmpfs small 2>/dev/null; then
	at_exit "umount -l '$WORK/small'"
	start -a "vhd:$WORK/shared.vhd" -R
	rc=$minor
	cp leaf2.vhdcache small/leaf
	start -a "vhd:$WORK/small/leaf" -e "$rc" -r -o cache=writeback
	leaf=$minor
	expect 0 guest verify 0 65536 1
	expect 0 guest write 33554432 524288 4
	dd if=/dev/zero of=small/fill bs=1M count=3 status=none 2>/dev/null
	sleep 1.2 # the next look (LF4)
	was=$(figures "$leaf" | cut -d' ' -f5)
	expect 0 guest verify 262144 262144 1
	expect 0 guest verify 8388608 65536 2
	is "kept without room" "$(figures "$leaf" | cut -d' ' -f5)" "$was"
	expect 0 guest verify 33554432 524288 4
	stop "$leaf"
	stop "$rc"
fi

# what is refused
expect 2 tap_ctl create -a "vhd:$WORK/leaf.vhdcache" -e 77
has "no such disk" "$ERR" "no tapdisk serves the disk 77"
truncate -s 1M raw
expect 22 tap_ctl create -a "aio:$WORK/raw" -e 0
has "a raw image" "$ERR" "stands on no other"
expect 22 tap_ctl create -a "vhd:$WORK/leaf.vhdcache" -o parent-disk=x
# a guest's leaf is no host's cache: nobody makes a snapshot of it while it is written
start -a "vhd:$WORK/rc.vhdcache" -r
rc=$minor
start -a "vhd:$WORK/leaf.vhdcache" -e "$rc" -r
timeout 250 "$top_builddir/tests/support/tdguest" "$pid" "$minor" load 3 1 >/dev/null &
ringed() { tap_ctl list --json | grep -q '"ring"'; }
until_true 10 ringed
expect 16 vhd_util snapshot -n no -p leaf.vhdcache -e
wait $!
stop "$minor"
stop "$rc"
