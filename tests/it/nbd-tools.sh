# SPDX-License-Identifier: LGPL-2.1-or-later
# The NBD server, seen by the clients that people use: nbdinfo, nbdcopy, qemu-img, qemu-io, fio, libnbd.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/it/nbd-lib.sh"

SIZE=$((48 << 20))
truncate -s $SIZE "$WORK/d.img" "$WORK/src.img"
for at in 0 9 30 31 47; do
	dd if=/dev/urandom of="$WORK/src.img" bs=1M seek=$at count=1 conv=notrunc status=none
done

nbd_disk "aio:$WORK/d.img" -o cache=writeback

# what it says of itself
expect 0 nbdinfo --json "$URI"
for said in '"export-size": 50331648' '"is_read_only": false' '"can_df": true' '"can_fast_zero": true' '"can_flush": true' '"can_fua": true' \
	'"can_multi_conn": true' '"can_trim": true' '"can_zero": true' '"can_cache": false' '"block_size_minimum": 512' \
	'"block_size_maximum": 67108864' '"base:allocation"' '"protocol": "newstyle-fixed"' '"structured": true'; do
	has nbdinfo "$OUT" "$said"
done
expect 0 nbdinfo --list "$URI"
# any export name
expect 0 nbdinfo --size "nbd+unix:///2b1c5f5a-1e0f-4a3b-9d43-a?socket=$SOCK"
is "the size under any name" "$OUT" $SIZE

# there and back
expect 0 nbdcopy "$WORK/src.img" "$URI"
cmp "$WORK/src.img" "$WORK/d.img" || fail "what nbdcopy wrote is not in the file"
expect 0 nbdcopy "$URI" "$WORK/back.img"
cmp "$WORK/src.img" "$WORK/back.img" || fail "what nbdcopy read is not what is in the file"
expect 0 qemu-img compare -f raw -F raw "$WORK/src.img" "$URI"

# holes are seen, and a hole stays one
map=$(nbdinfo --map "$URI" | awk '{ printf "%s+%s:%s ", $1, $2, $3 }')
is "the map" "$map" "0+1048576:0 1048576+8388608:3 9437184+1048576:0 10485760+20971520:3 31457280+2097152:0 33554432+15728640:3 49283072+1048576:0 "
[ "$(du -m "$WORK/d.img" | cut -f1)" -lt 8 ] || fail "nbdcopy has filled the holes"

# qemu's client: it writes zeroes, discards, and flushes
expect 0 qemu-io -f raw -c 'write -P 7 1M 3M' -c 'write -z 2M 1M' -c 'discard 3M 1M' -c 'read -P 7 1M 1M' -c 'read -P 0 2M 1M' -c flush "$URI"
case $OUT in *"Pattern verification failed"*) fail "$OUT" ;; esac
expect 0 qemu-img convert -n -f raw -O raw "$WORK/src.img" "$URI"
expect 0 qemu-img compare -f raw -F raw "$WORK/src.img" "$URI"

# libnbd, with all that the protocol has
expect 0 $nbd_python "$top_srcdir/tests/support/nbd-commands.py" "$URI" "$WORK/d.img"
no_clients() { [ "$(stat_of clients)" = 0 ]; }
until_true 5 no_clients
[ "$(stat_of dropped)" = 0 ] || fail "a well-behaved client was dropped"

# fio checks what it wrote
if command -v fio >/dev/null && fio --enghelp 2>/dev/null | grep -qw nbd; then
	expect 0 fio --name=v --ioengine=nbd --uri="$URI" --rw=randrw --bsrange=512-96k --iodepth=32 --size=24M --verify=crc32c --verify_fatal=1 \
		--randrepeat=0 --output="$WORK/fio.out"
fi
nbd_destroy
is "sockets that are left" "$(entries "$TAPDISK_CONTROL_DIR" "*nbd*")" ""

# an image over a parent: what NBD shows is the chain, and its holes
dd if=/dev/urandom of="$WORK/parent.img" bs=1M count=2 seek=3 status=none
truncate -s 48M "$WORK/parent.img"
chmod a-w "$WORK/parent.img" # a tapdisk takes what is frozen as a parent
expect 0 qemu-img create -q -f qcow2 -b "$WORK/parent.img" -F raw "$WORK/leaf.qcow2"
expect 0 qemu-io -f qcow2 -c 'write -P 5 10M 1M' -c 'write -z 4M 64k' "$WORK/leaf.qcow2"
expect 0 qemu-img convert -O raw "$WORK/leaf.qcow2" "$WORK/leaf.raw"
nbd_disk "qcow2:$WORK/leaf.qcow2" -o cache=writeback
map=$(nbdinfo --map "$URI" | awk '{ printf "%s+%s:%s ", $1, $2, $3 }')
is "the map of a chain" "$map" "0+3145728:3 3145728+1048576:0 4194304+65536:3 4259840+983040:0 5242880+5242880:3 10485760+1048576:0 11534336+38797312:3 "
expect 0 nbdcopy "$URI" "$WORK/back.img"
cmp "$WORK/leaf.raw" "$WORK/back.img" || fail "what NBD shows of a chain is not what qemu-img does"
expect 0 $nbd_python "$top_srcdir/tests/support/nbd-commands.py" "$URI" -
nbd_destroy
expect 0 qemu-img check -q "$WORK/leaf.qcow2"

# direct I/O too, where the store can
if dd if="$WORK/d.img" of=/dev/null iflag=direct count=1 status=none 2>/dev/null; then
	nbd_disk "aio:$WORK/d.img"
	expect 0 nbdcopy "$WORK/src.img" "$URI"
	expect 0 $nbd_python "$top_srcdir/tests/support/nbd-commands.py" "$URI" "$WORK/d.img"
	nbd_destroy
fi

# read-only is said, and kept
tap_ctl create -a "aio:$WORK/d.img" -R >/dev/null || fail "create -R"
PID=$(procs tapdisk) MINOR=0
URI="nbd+unix:///?socket=$TAPDISK_CONTROL_DIR/nbd$PID.0"
expect 0 nbdinfo --json "$URI"
has "read-only" "$OUT" '"is_read_only": true'
has "read-only" "$OUT" '"can_multi_conn": true'
expect 0 $nbd_python -c "
import nbd
h = nbd.NBD(); h.set_strict_mode(0); h.connect_uri('$URI')
for op in (lambda: h.pwrite(b'x' * 512, 0), lambda: h.trim(512, 0), lambda: h.zero(512, 0)):
    try: op()
    except nbd.Error as e: assert e.errno == 'EPERM', e
    else: raise SystemExit('a read-only disk was written')
h.pread(512, 0); h.flush()"
nbd_destroy
