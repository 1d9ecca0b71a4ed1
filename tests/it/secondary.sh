# SPDX-License-Identifier: LGPL-2.1-or-later
# A secondary that is a part of the disk, in the order of XenServer's storage manager: beneath a leaf that caches (-e, -2, -r), the real
# disk, which holds what the leaf lacks and gets what the leaf gets; or beside a leaf that is thrown away (-e, -2, -s), for what that has
# no space for.  Over pauses, upgrades and deaths nothing that was acknowledged is lost, and no error is hidden.
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
it() { tap_ctl "$1" -p "$pid" -m "$minor" "${@:2}"; }                 # COMMAND ARG...
stat_is() { it stats | grep -q "\"$1\": $2[,}]"; }
images() # the kinds of images, and the names of the first two
{
	it stats | python3 -c '
import json, os, sys
i = json.load(sys.stdin)["images"]
print(",".join(x["driver"]["name"] for x in i), " ".join(os.path.basename(x["name"]) for x in i[:2]))'
}
die() # and a successor
{
	kill -KILL "$pid"
	until_true 10 gone "$pid"
	expect 0 tap_ctl revive -m "$minor"
	use "$minor"
}
again() # WHAT COMMAND ARG...: at once, and after each way to another life
{
	"${@:2}" || fail "$1"
	expect 0 it pause
	expect 0 it unpause
	"${@:2}" || fail "$1, after a pause"
	die
	"${@:2}" || fail "$1, after a death"
	expect 0 tap_ctl upgrade -p "$pid"
	use "$minor"
	"${@:2}" || fail "$1, after an upgrade"
}
cd "$WORK" || exit 99

# the shared parent; the disk upon it, with data of its own; the host's cache
expect 0 vhd_util create -n shared.vhd -s 64
start -a "vhd:$WORK/shared.vhd"
expect 0 guest write 0 1048576 1
expect 0 guest write 8388608 65536 2
stop "$minor"
expect 0 vhd_util snapshot -n vdi.vhd -p shared.vhd
start -a "vhd:$WORK/vdi.vhd"
expect 0 guest write 524288 65536 3
expect 0 guest write 16777216 65536 4
stop "$minor"
expect 0 vhd_util snapshot -n rc.vhdcache -p shared.vhd
start -a "vhd:$WORK/rc.vhdcache" -r -D
rc=$minor

# --- beneath a leaf
new_leaf() { rm -f "$1" && expect 0 vhd_util snapshot -n "$1" -p rc.vhdcache -e -S 1024; }
new_leaf leaf.vhdcache
start -a "vhd:$WORK/leaf.vhdcache" -e "$rc" -2 "vhd:$WORK/vdi.vhd" -r
leaf=$minor
is "its images" "$(images)" "vhd,lc,vhd,nbd leaf.vhdcache leaf.vhdcache"
before() { guest verify 0 524288 1 && guest verify 524288 65536 3 && guest verify 16777216 65536 4 && guest verify 8388608 65536 2; }
again "what the disk held before" before
expect 0 guest write 0 65536 5
expect 0 guest write 524288 4096 6
expect 0 guest write 33554432 1048576 7
verify_all() { guest verify 0 65536 5 && guest verify 524288 4096 6 && guest verify 33554432 1048576 7 && guest verify 16777216 65536 4; }
again "what was written" verify_all
stat_is nbd_mirror_failed 0 || fail "$(it stats)"
expect 0 guest load 0.5 16
expect 0 guest flush
expect 0 guest write 33554432 1048576 8
# dead with all that was acknowledged and flushed by nobody: the disk alone has it
kill -KILL "$pid"
until_true 10 gone "$pid"
cp vdi.vhd dead.vhd
expect 0 vhd_util repair -n dead.vhd
expect 0 vhd_util check -n dead.vhd
expect 0 tap_ctl revive -m "$leaf"
use "$leaf"
expect 0 guest write 0 65536 5
# it cannot be taken away: the disk would be another
expect 0 it pause
expect 16 it unpause -2 null
has "why" "$ERR" "a part of it"
expect 16 it unpause -2 "vhd:$WORK/dead.vhd"
expect 0 it unpause
expect 16 it resize
stop "$leaf"
start -a "vhd:$WORK/dead.vhd"
expect 0 guest verify 33554432 1048576 8
stop "$minor"
start -a "vhd:$WORK/vdi.vhd"
expect 0 guest verify 0 65536 5
expect 0 guest verify 33554432 1048576 8
stop "$minor"
# an error of it is the disk's, and not a mirror's that has failed
new_leaf leaf.vhdcache
LD_PRELOAD=$(readlink -f "$top_builddir/tests/support/file-trouble.so") FILE_TROUBLE=$WORK/trouble TAPDISK_IO=threads \
	ASAN_OPTIONS=verify_asan_link_order=0:${ASAN_OPTIONS-} start -a "vhd:$WORK/leaf.vhdcache" -e "$rc" -2 "vhd:$WORK/vdi.vhd" -r
expect 0 guest write 0 65536 9
ln -s "write 5 $(readlink -f vdi.vhd)" trouble
expect 1 guest write 0 65536 5
rm trouble
stat_is nbd_mirror_failed 0 || fail "$(it stats)"
stat_is flush_failed true || fail "what was to be durable there was not, and the disk goes on: $(it stats)"
expect 5 it destroy
# what does not fit
truncate -s 64M raw
expect 0 vhd_util create -n small.vhd -s 32
new_leaf leaf.vhdcache
expect 22 tap_ctl create -a "vhd:$WORK/leaf.vhdcache" -e "$rc" -2 "vhd:$WORK/small.vhd" -r
expect 2 tap_ctl create -a "vhd:$WORK/leaf.vhdcache" -e "$rc" -2 "vhd:$WORK/none.vhd" -r
expect 22 tap_ctl create -a "vhd:$WORK/leaf.vhdcache" -e "$rc" -2 "aio:$WORK/raw" -s
expect 22 tap_ctl create -a "vhd:$WORK/leaf.vhdcache" -e "$rc" -2 "vhd:$WORK/vdi.vhd" -s
has "why" "$ERR" "holds data already"
# it holds no data, but its zeroes would hide the leaf's
expect 0 vhd_util create -n alone.vhd -s 64
expect 22 tap_ctl create -a "vhd:$WORK/leaf.vhdcache" -e "$rc" -2 "vhd:$WORK/alone.vhd" -s
has "why" "$ERR" "must be a new VHD with a parent"
expect 22 tap_ctl create -a "vhd:$WORK/leaf.vhdcache" -e "$rc" -s
# a leaf that caches without another disk beneath it has a mirror that is not read
expect 0 vhd_util snapshot -n other.vhd -p shared.vhd
expect 0 vhd_util snapshot -n copy.vhd -p shared.vhd
start -a "vhd:$WORK/other.vhd" -r -2 "vhd:$WORK/copy.vhd"
expect 0 guest write 0 65536 9
stat_is nbd_mirror_failed 0 || fail "$(it stats)"
stop "$minor"
start -a "vhd:$WORK/copy.vhd"
expect 0 guest verify 0 65536 9
stop "$minor"

# --- a leaf that becomes full
if [ "$(id -u)" != 0 ] || ! { mkdir small && mount -t tmpfs -o size=8m tmpfs small 2>/dev/null; }; then
	echo "no small file system: what a full leaf does is not tried"
	stop "$rc"
	exit 0
fi
at_exit "umount -l '$WORK/small'"
signal() { [ -e "$TAPDISK_CONTROL_DIR/tapdisk-enospc$minor" ]; }
filled() { guest verify 0 4194304 11 && guest verify 8388608 4194304 12 && guest verify 16777216 4194304 13 && guest verify 25165824 65536 14; }
fill()
{
	expect 0 guest write 0 4194304 11
	signal && fail "it is full too early"
	expect 0 guest write 8388608 4194304 12 # the space ends within
	expect 0 guest write 16777216 4194304 13
	expect 0 guest write 25165824 65536 14
	signal || fail "no tapdisk-enospc$minor: $(it stats)"
	stat_is no_space false || fail "it waits for space: $(it stats)"
}
# The record says that the leaf is full before anything relies on it: as long as it cannot be written, the write waits as for space, and
# whoever dies leaves what its record says.
unwritable() # by a directory in the place of the record to be
{
	expect 0 guest write 0 2097152 21
	mkdir "$TAPDISK_CONTROL_DIR/disk$minor.new"
	guest write 8388608 8388608 22 >"$WORK/waits" 2>&1 & # the space ends within
	waiter=$!
	until_true 10 waits_or_ends
	! gone $waiter || { # an older tapdisk's: it is answered, and the older data are there again
		expect 0 guest write 0 65536 23
		die
		guest verify 0 65536 23 || fail "what was answered is lost with the tapdisk: the record could not be written"
	}
	signal && fail "the toolstack is told too early"
	stat_is redirected true && fail "it has gone on without a record: $(it stats)"
}
waits_or_ends() { gone $waiter || stat_is no_space true; }
recorded()
{
	rmdir "$TAPDISK_CONTROL_DIR/disk$minor.new"
	wait $waiter || fail "the write that waited for a record: $(cat "$WORK/waits")"
	signal || fail "no tapdisk-enospc$minor: $(it stats)"
	stat_is no_space false || fail "it waits for space: $(it stats)"
	expect 0 guest write 0 65536 23
	die
	guest verify 0 65536 23 && guest verify 65536 2031616 21 && guest verify 8388608 8388608 22 || fail "after a death"
}
dies_before() # what was answered is there, and what waited finds no space again
{
	unwritable
	kill -KILL "$pid"
	pkill -P $waiter # nobody answers it
	wait $waiter
	rmdir "$TAPDISK_CONTROL_DIR/disk$minor.new"
	until_true 10 gone "$pid"
	expect 0 tap_ctl revive -m "$minor"
	use "$minor"
	guest verify 0 2097152 21 || fail "after a death before the record"
	expect 0 guest write 8388608 8388608 22
	signal || fail "no tapdisk-enospc$minor: $(it stats)"
	die
	guest verify 8388608 8388608 22 && guest verify 0 2097152 21 || fail "after a second death"
}
for how in -r -s; do
	for then in recorded dies_before; do
		rm -f small/leaf unwritten.vhd
		new_leaf small/leaf
		expect 0 vhd_util snapshot -n unwritten.vhd -p shared.vhd
		start -a "vhd:$WORK/small/leaf" -e "$rc" -2 "vhd:$WORK/unwritten.vhd" $how -o cache=writeback
		leaf=$minor
		[ $then = dies_before ] || unwritable
		$then
		stop "$leaf"
	done
done
rm -f small/leaf

new_leaf small/leaf
expect 0 vhd_util snapshot -n vdi2.vhd -p shared.vhd
start -a "vhd:$WORK/small/leaf" -e "$rc" -2 "vhd:$WORK/vdi2.vhd" -r -o cache=writeback
leaf=$minor
expect 0 guest verify 524288 4096 1
fill
is "its images" "$(images)" "vhd,nbd vdi2.vhd nbd$(pid_of "$rc").$rc"
again "a leaf that was left out" filled
expect 0 guest write 0 4194304 15
expect 0 guest verify 0 4194304 15
expect 0 it pause
expect 16 it unpause -a "vhd:$WORK/rc.vhdcache"
expect 0 it unpause
stop "$leaf"
signal && fail "it is there for whoever gets the number"
start -a "vhd:$WORK/vdi2.vhd"
expect 0 guest verify 0 4194304 15
expect 0 guest verify 8388608 4194304 12
stop "$minor"

# --- and one with a secondary that stands by
rm -f small/leaf
new_leaf small/leaf
expect 0 vhd_util snapshot -n by.vhd -p shared.vhd
start -a "vhd:$WORK/small/leaf" -e "$rc" -2 "vhd:$WORK/by.vhd" -s -o cache=writeback
leaf=$minor
is "its images" "$(images)" "vhd,nbd leaf nbd$(pid_of "$rc").$rc"
expect 0 guest verify 8388608 65536 2
again "before it is full" guest verify 8388608 65536 2
stat_is FIXME_enospc_redirect_count 0 || fail "$(it stats)"
fill
is "its images" "$(images)" "vhd,vhd,nbd by.vhd leaf"
stat_is FIXME_enospc_redirect_count 0 && fail "$(it stats)"
filled || fail "what was written"
dd if=/dev/zero of=small/rest bs=64k status=none 2>/dev/null
again "a leaf that is full" filled
expect 0 guest write 0 65536 16
expect 0 guest verify 0 65536 16
expect 0 guest verify 8388608 4194304 12
expect 0 it pause
expect 16 it unpause -2 null
expect 0 it unpause
expect 0 guest verify 16777216 4194304 13
stop "$leaf"
stop "$rc"
exit 0
