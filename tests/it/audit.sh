# SPDX-License-Identifier: LGPL-2.1-or-later
# tap-ctl audit: what the kernel says of a running disk; it shows O_DIRECT, and what a cached mode leaves in the page cache.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
command -v python3 >/dev/null || skip "python3 is not installed"
cd "$WORK" || exit 99

guest() { expect 0 "$top_builddir/tests/support/tdguest" "$pid" "$minor" "$@"; }
create() # TYPE:PATH WORD...: pid, minor
{
	local marker

	marker=$(tap_ctl create -a "$@") || fail "create $*"
	minor=${marker##*-}
	pid=$(tap_ctl list -m "$minor" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
}
destroy() { expect 0 tap_ctl destroy -p "$pid" -m "$minor"; }
# of the report R: what the Python expression says
of()
{
	tap_ctl audit -p "$pid" -m "$minor" --json >report || fail "audit: $?"
	python3 -c 'import json, sys; R = json.load(open("report")); print(eval(sys.argv[1]))' "$1" || fail "$1: $(cat report)"
}
fresh() # a file that nothing has in the page cache
{
	rm -f "$1" && truncate -s 8M "$1"
}

# --- past the page cache: what the guest has written is not in it
fresh a.img
create "aio:$WORK/a.img" -o cache=none
guest write 0 1048576 3
guest flush
is "O_DIRECT" "$(of 'R["files"][0]["flags"], R["files"][0]["direct"], R["files"][0]["pages"], R["cache"]')" "(['O_RDWR', 'O_DIRECT'], True, 0, 'none')"
is "a lock" "$(of 'R["files"][0]["locks"]')" "['OFDLCK WRITE, bytes 0 to EOF']"
is "as asked" "$(of 'R["as_asked"], R["findings"]')" "(True, [])"
is "its flushes" "$(of 'R["tapdisk"]["flushes"] > 0 and R["tapdisk"]["fdatasyncs"] > 0')" True
# one screen
expect 0 tap_ctl audit -p "$pid" -m "$minor"
for part in "cache=none" "O_RDWR|O_DIRECT" "OFDLCK WRITE, bytes 0 to EOF" "0 pages of 8388608 bytes" "open as it was asked for"; do has "the screen" "$OUT" "$part"; done
# each line of it, but that of a path that is itself as long
long=$(awk 'length > 80' <<<"$OUT")
[ -z "$long" ] || fail "wider than 80: $long"
[ "$(wc -l <<<"$OUT")" -le 40 ] || fail "more than a screen: $OUT"
# somebody else reads the file: that is told, and that it is not the tapdisk
cat a.img >/dev/null
is "another's pages" "$(of 'R["files"][0]["pages"] > 0 and R["as_asked"]')" True
has "who" "$(of 'R["findings"][0]')" "another program"
destroy

# --- through it
fresh b.img
create "aio:$WORK/b.img" -o cache=writeback
guest write 0 1048576 3
is "through the page cache" "$(of 'R["files"][0]["flags"], R["files"][0]["pages"] >= 256, R["as_asked"]')" "(['O_RDWR'], True, True)"
expect 0 tap_ctl pause -p "$pid" -m "$minor"
has "paused" "$(of 'R["findings"]')" "paused"
destroy
expect 2 tap_ctl audit -p 1 -m 77

# --- a chain: each of its files, the parent for reading
"$top_builddir/bin/vhd-util" create -n v.vhd -s 8 && "$top_builddir/bin/vhd-util" snapshot -n w.vhd -p v.vhd || fail vhd-util
create "vhd:$WORK/w.vhd" -o cache=directsync
is "a chain" "$(of '[(f["path"].split("/")[-1], f["flags"]) for f in R["files"]]')" "[('w.vhd', ['O_RDWR', 'O_DIRECT']), ('v.vhd', ['O_RDONLY', 'O_DIRECT'])]"

# --- the devices below, and their flushes, as sysfs has them
device=$(stat -c %Hd:%Ld w.vhd)
export TAPDISK_HOST_ROOT=$WORK/host
block=host/sys/devices/block/dm-0 disk=host/sys/devices/block/sda
mkdir -p host/sys/dev/block "$block/queue" "$disk/queue" "$block/slaves/sda"
ln -s ../../devices/block/dm-0 "host/sys/dev/block/$device"
ln -s ../../devices/block/sda host/sys/dev/block/8:0
echo 8:0 >"$block/slaves/sda/dev"
echo "write back" | tee "$block/queue/write_cache" >"$disk/queue/write_cache"
echo 1 >"$disk/queue/fua"
echo "1 0 8 0 5 0 40 9 0 9 9 0 0 0 0 0 0" >"$block/stat"
echo "1 0 8 0 5 0 40 9 0 9 9 0 0 0 0 7 3" >"$disk/stat"
is "devices" "$(of '[(d["name"], d["write_cache"], d.get("flushes"), d["last"]) for d in R["devices"]]')" \
	"[('dm-0', 'write back', 0, False), ('sda', 'write back', 7, True)]"
guest write 0 65536 3
is "flushes arrive" "$(of 'R["findings"]')" "[]"
# a device that has a cache, and has not seen one of them
echo "1 0 8 0 5 0 40 9 0 9 9 0 0 0 0 0 0" >"$disk/stat"
has "flushes that do not" "$(of 'R["findings"]')" "sda has a volatile write cache"
# DRBD's other host
echo 147:3 >"$block/slaves/sda/dev"
mkdir -p host/proc && echo " 3: cs:Connected ro:Primary/Primary ds:UpToDate/UpToDate C r-----" >host/proc/drbd
is "DRBD" "$(of 'R["files"][0]["drbd_peer"]')" Primary
unset TAPDISK_HOST_ROOT
destroy

# --- a kernel without cachestat(2)
command -v strace >/dev/null && strace -e trace=451 -e inject=451:error=ENOSYS true 2>/dev/null || exit 0
fresh c.img
create "aio:$WORK/c.img" -o cache=writeback
guest write 0 1048576 3
strace -o /dev/null -e trace=451 -e inject=451:error=ENOSYS "$top_builddir/bin/tap-ctl" audit -p "$pid" -m "$minor" --json >report || fail "audit under strace"
is "by mincore" "$(python3 -c 'import json; f = json.load(open("report"))["files"][0]; print(f["pages_by"], f["pages"] >= 256)')" "mincore True"
exit 0
