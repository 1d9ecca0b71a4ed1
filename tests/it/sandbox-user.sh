# SPDX-License-Identifier: LGPL-2.1-or-later
# Each tapdisk has a user id of its own, and nothing else changes: what it makes is root's, and it uses what a file system keeps for root,
# block devices, and a FUSE file system that is root's alone.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
[ "$(id -u)" = 0 ] || skip "users are root's to change"

FIRST=2130706432
guest() { timeout 120 "$top_builddir/tests/support/tdguest" "$@"; }
cd "$WORK" || exit 99
export TAPDISK_CONF=$WORK/conf
echo "sandbox = yes" >conf
find_pid() { pid=$(tap_ctl list -m "$minor" | sed -n 's/^pid=\([0-9]*\) .*/\1/p'); }
create() # TYPE:PATH ARG...: pid, minor
{
	local marker

	marker=$(tap_ctl create -a "$@") || fail "create $*"
	minor=${marker##*-}
	find_pid
}
destroy() { tap_ctl destroy -p "$pid" -m "$minor" || fail destroy; }
id_of() { sed -n "s/^$1:[[:blank:]]*//p" "/proc/$2/status" | tr '\t' ' ' | sed 's/ *$//'; }
is_own() # PID
{
	local id=$((FIRST + $1))

	is "user of $1" "$(id_of Uid "$1")" "$id $id $id $id"
	is "group of $1" "$(id_of Gid "$1")" "$id $id $id $id"
	is "groups of $1" "$(id_of Groups "$1")" ""
	is "capabilities of $1" "$(id_of CapPrm "$1" | tr -d 0)" ""
}

truncate -s 8M a.img b.img
create "aio:$WORK/a.img" -o cache=writeback
case $(tap_ctl list --json) in
*'"sandbox": "yes"'*) ;;
*) skip "this host has no whole sandbox, or this build: $(tap_ctl list --json | sed -n 's/.*"sandbox": "\([^"]*\)".*/\1/p')" ;;
esac

# --- whose is what? ---
is_own "$pid"
has "list" "$(tap_ctl list --json)" "\"uid\": $((FIRST + pid))"
has "stats" "$(tap_ctl stats -p "$pid" -m "$minor")" "\"uid\": $((FIRST + pid))"
one=$pid
create "aio:$WORK/b.img" -o cache=writeback
is_own "$pid"
[ "$(id_of Uid "$pid")" != "$(id_of Uid "$one")" ] || fail "two have one id"
destroy
pid=$one minor=0
# the directory has the sockets, markers, records, logs, and here the counters: the same files, whose owner and mode are the same, as of a
# tapdisk with root's id
listing()
{
	guest "$pid" "$minor" write 0 65536 1 || fail "a ring"
	find "$TAPDISK_CONTROL_DIR" -printf '%P %y %m %u %g\n' | sed "s/$pid/PID/" | sort
}
own=$(listing)
[ "$(printf '%s\n' "$own" | grep -c ' root root$')" = "$(printf '%s\n' "$own" | wc -l)" ] || fail "files that are not root's: $own"
[ "$(printf '%s\n' "$own" | grep -cE '^(ctlPID s|disk0 f|ring|tapdisk/tapdisk-0 f|td3-PID d)')" -ge 4 ] || fail "files: $own"
destroy
echo "sandbox-uids = no" >>conf
create "aio:$WORK/a.img" -o cache=writeback
is "without an id of its own" "$(id_of Uid "$pid")" "0 0 0 0"
has "the sandbox then" "$(tap_ctl list --json)" '"sandbox": "yes"'
is "files" "$own" "$(listing)"
# an upgrade leads to it, under a ring; a death, too
sed -i '/uids/d' conf
guest "$pid" "$minor" write 0 1048576 4 || fail "a ring"
expect 0 tap_ctl upgrade --all -f
find_pid
is_own "$pid"
guest "$pid" "$minor" verify 0 1048576 4 || fail "after an upgrade"
kill -KILL "$pid"
until_true 5 gone "$pid"
expect 0 tap_ctl revive -m "$minor"
find_pid
is_own "$pid"
guest "$pid" "$minor" verify 0 1048576 4 || fail "after a death"
# the image is another one's: after a pause it is opened by another name
cp a.img c.img && chown 1234 c.img && chmod 600 c.img
tap_ctl pause -p "$pid" -m "$minor" && tap_ctl unpause -p "$pid" -m "$minor" -a "aio:$WORK/c.img" || fail "an unpause with another image"
guest "$pid" "$minor" write 0 1048576 5 || fail "another image"
truncate -s 16M c.img
expect 0 tap_ctl resize -p "$pid" -m "$minor"
guest "$pid" "$minor" write $((12 << 20)) 1048576 6 && guest "$pid" "$minor" verify 0 1048576 5 || fail "after a resize"
destroy

# --- who connects to another host ---
if command -v python3 >/dev/null; then
	# a listener that takes nobody any more: whoever connects waits
	python3 -c '
import socket, time
s = socket.socket()
s.bind(("127.0.0.1", 0))
s.listen(0)
waiting = []
for i in range(8):
    c = socket.socket()
    c.setblocking(False)
    c.connect_ex(s.getsockname())
    waiting.append(c)
print(s.getsockname()[1], flush=True)
time.sleep(300)' >port &
	listener=$!
	until_true 5 [ -s port ]
	tap_ctl create -a "nbd://127.0.0.1:$(cat port)/a" >/dev/null 2>&1 &
	creating=$!
	until_true 5 eval '[ -n "$(procs td-dial)" ]'
	is_own "$(procs td-dial)"
	kill $listener
	! wait $creating || fail "a disk of nobody"
	is "who connected" "$(procs td-dial)" ""
fi

# --- block devices ---
if loop=$(losetup -f --show "$WORK/a.img" 2>/dev/null); then
	at_exit "losetup -d $loop"
	for mode in none writeback; do
		create "aio:$loop" -o cache=$mode
		guest "$pid" "$minor" write 0 1048576 7 && guest "$pid" "$minor" flush && guest "$pid" "$minor" verify 0 1048576 7 || fail "$loop, $mode"
		guest "$pid" "$minor" discard 0 1048576 || fail "$loop, $mode: discard"
		qemu-io -f raw -c "write -z 1M 1M" -c "write -P 3 2M 64k" -c flush -c "read -P 3 2M 64k" -c "read -P 0 1M 1M" \
			"nbd+unix:///?socket=$TAPDISK_CONTROL_DIR/nbd$pid.$minor" >said 2>&1 || fail "$loop, $mode: $(cat said)"
		tap_ctl pause -p "$pid" -m "$minor" && tap_ctl unpause -p "$pid" -m "$minor" || fail "$loop, $mode: a pause"
		kill -KILL "$pid"
		until_true 5 gone "$pid"
		expect 0 tap_ctl revive -m "$minor"
		find_pid
		is_own "$pid"
		destroy
	done
fi

# --- room that ext4 keeps for root ---
room()
{
	local all

	truncate -s 96M fs.img
	mkfs.ext4 -q -F -m 40 fs.img && mkdir -p fs && mount -o loop fs.img fs 2>/dev/null || return 1
	at_exit "umount -l $WORK/fs"
	chmod 777 fs
	truncate -s 40M fs/raw.img
	"$top_builddir/bin/vhd-util" create -n fs/d.vhd -s 24 || fail "vhd-util"
	# all that is not root's, by somebody who is not
	(cd fs && setpriv --reuid 12345 --regid 12345 --clear-groups dd if=/dev/zero of=full bs=4k status=none 2>/dev/null)
	all=$(stat -f -c %a fs)
	[ "$all" -lt 64 ] || fail "there are $all blocks for others"
}
if command -v mkfs.ext4 >/dev/null && command -v setpriv >/dev/null && room; then
	at=0
	for engine in libaio io_uring threads; do
		for mode in none writeback directsync; do
			export TAPDISK_IO=$engine
			create "aio:$WORK/fs/raw.img" -o cache=$mode
			unset TAPDISK_IO
			guest "$pid" "$minor" write $at 1048576 8 && guest "$pid" "$minor" flush && guest "$pid" "$minor" verify $at 1048576 8 || fail "$engine, $mode: the room of root"
			has "$engine, $mode: it did not wait" "$(tap_ctl stats -p "$pid" -m "$minor")" '"no_space": false'
			at=$((at + 1048576))
			destroy
		done
	done
	create "vhd:$WORK/fs/d.vhd" -o cache=writeback
	guest "$pid" "$minor" write 0 4194304 9 && guest "$pid" "$minor" flush && guest "$pid" "$minor" verify 0 4194304 9 || fail "a vhd in the room of root"
	destroy
	# and there it ends: the guest waits, until there is some again
	dd if=/dev/zero of=fs/more bs=64k status=none 2>/dev/null
	create "aio:$WORK/fs/raw.img" -o cache=none
	guest "$pid" "$minor" write $((30 << 20)) 1048576 10 &
	writes=$!
	until_true 10 eval 'tap_ctl list --json | grep -q "space"'
	rm fs/more
	wait $writes || fail "a write that waited for room"
	guest "$pid" "$minor" verify $((30 << 20)) 1048576 10 || fail "what waited"
	destroy
else
	echo "no ext4 can be mounted here: its part is not tested"
fi

# --- FUSE, of root's alone ---
if command -v nbdfuse >/dev/null && [ -c /dev/fuse ]; then
	create "aio:$WORK/b.img" -o cache=writeback
	server=$pid of_server=$minor
	mkdir fuse
	nbdfuse fuse/disk "nbd+unix:///?socket=$TAPDISK_CONTROL_DIR/nbd$pid.$minor" &
	at_exit "fusermount3 -uz $WORK/fuse 2>/dev/null || umount -l $WORK/fuse 2>/dev/null"
	for _ in $(seq 100); do [ ! -e fuse/disk ] || break; sleep 0.05; done
	if [ -e fuse/disk ]; then
		case $(grep " $WORK/fuse fuse" /proc/mounts) in *allow_other*) fail "this FUSE is not root's alone" ;; esac
		for mode in none writeback; do
			create "aio:$WORK/fuse/disk" -o cache=$mode
			is_own "$pid"
			guest "$pid" "$minor" write 0 1048576 11 && guest "$pid" "$minor" flush && guest "$pid" "$minor" verify 0 1048576 11 || fail "FUSE, $mode"
			tap_ctl pause -p "$pid" -m "$minor" && tap_ctl unpause -p "$pid" -m "$minor" || fail "FUSE, $mode: a pause"
			guest "$pid" "$minor" verify 0 1048576 11 || fail "FUSE, $mode, after a pause"
			guest "$pid" "$minor" discard 0 1048576
			destroy
		done
	else
		echo "nbdfuse mounts nothing here: FUSE is not tested"
	fi
	pid=$server minor=$of_server
	umount fuse 2>/dev/null
	destroy
fi
exit 0
