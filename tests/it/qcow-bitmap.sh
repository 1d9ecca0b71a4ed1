#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Persistent dirty bitmaps: one that is on tells of what was written through our driver, as QEMU reads it; one that is off stays as it is; and
# after a disk that was not closed they say of themselves that they are not to be believed.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/qcow-lib.sh"
command -v python3 >/dev/null || skip "python3 is not installed"
cd "$WORK" || exit 1

flags() # IMAGE NAME: of the bitmap, in one line
{
	qemu-img info --output=json "$1" | python3 -c 'import json, sys
for b in json.load(sys.stdin)["format-specific"]["data"].get("bitmaps", []):
    if b["name"] == sys.argv[1]: print(",".join(sorted(b["flags"])) or "none")' "$2"
}
# The ranges that a bitmap names, merged, read from the image's bytes
ranges() # IMAGE NAME
{
	python3 - "$1" "$2" <<-'END'
		import struct, sys
		d, name = open(sys.argv[1], 'rb').read(), sys.argv[2].encode()
		bits = struct.unpack('>I', d[20:24])[0]
		at, size = struct.unpack('>I', d[100:104])[0], 1 << bits
		while True:
		    kind, n = struct.unpack('>II', d[at:at + 8])
		    if kind == 0x23852875: break
		    assert kind
		    at += 8 + (n + 7) // 8 * 8
		count, _, length, where = struct.unpack('>IIQQ', d[at + 8:at + 32])
		for i in range(count):
		    table, entries, flags, kind, shift, n, extra = struct.unpack('>QIIBBHI', d[where:where + 24])
		    if d[where + 24 + extra:where + 24 + extra + n] == name: break
		    where += (24 + extra + n + 7) // 8 * 8
		else: sys.exit('no such bitmap')
		data = b''
		for i in range(entries):
		    e, = struct.unpack('>Q', d[table + 8 * i:table + 8 * i + 8])
		    o = e & 0xfffffffffffe00
		    data += d[o:o + size].ljust(size, b'\0') if o else (b'\xff' if e & 1 else b'\0') * size
		last = None
		for bit in range(struct.unpack('>Q', d[24:32])[0] >> shift):
		    if data[bit // 8] >> bit % 8 & 1:
		        if last is not None and last[1] == bit: last[1] += 1
		        else:
		            if last: print(last[0] << shift, last[1] - last[0] << shift)
		            last = [bit, bit + 1]
		if last: print(last[0] << shift, last[1] - last[0] << shift)
	END
}

qemu-img create -q -f qcow2 a.qcow2 20M && qemu-img bitmap --add a.qcow2 on && qemu-img bitmap --add --disable a.qcow2 off &&
	qemu-img bitmap --add -g 4k a.qcow2 fine || skip "this qemu-img has no bitmaps"
truncate -s 20M part.raw
printf 'x' | dd of=part.raw bs=1 seek=$((3 << 20)) conv=notrunc status=none
expect 0 tdimg "qcow2:$WORK/a.qcow2" load part.raw # which writes whole MiB
expect 0 qemu-img check -q a.qcow2
is "a bitmap that is on" "$(ranges a.qcow2 on)" "3145728 1048576"
is "a fine one" "$(ranges a.qcow2 fine)" "3145728 1048576"
is "one that is off" "$(ranges a.qcow2 off)" ""
is "its flags" "$(flags a.qcow2 on)" auto
is "the flags of the one that is off" "$(flags a.qcow2 off)" none

# once more, by QEMU and by us: both are kept
qemu-io -c "write -q 10M 64k" a.qcow2
printf 'x' | dd of=part.raw bs=1 seek=$((19 << 20)) conv=notrunc status=none
expect 0 tdimg "qcow2:$WORK/a.qcow2" load part.raw
expect 0 qemu-img check -q a.qcow2
is "by both" "$(ranges a.qcow2 on | tr '\n' ' ')" "3145728 1048576 10485760 65536 19922944 1048576 "
is "read-only, nothing changes" "$(cp a.qcow2 b.qcow2; tdimg -r "qcow2:$WORK/b.qcow2" dump out.raw; cmp a.qcow2 b.qcow2 && echo same)" same

# in use while a disk is open; and a tapdisk that was killed leaves it so
tap_ctl create -a "qcow2:$WORK/a.qcow2" >marker || fail "tap-ctl create"
kill -KILL "$(procs tapdisk)"
free() { qemu-img info a.qcow2 >/dev/null 2>&1; }
until_true 20 free
is "after a kill" "$(flags a.qcow2 on)" auto,in-use
is "the one that is off, after a kill" "$(flags a.qcow2 off)" none
expect 0 tdimg "qcow2:$WORK/a.qcow2" load part.raw
is "not to be believed any more" "$(flags a.qcow2 on)" auto,in-use
expect 0 qemu-img check -q a.qcow2

# what makes no sense is not believed, and does no harm
dir=$(python3 -c 'd = open("a.qcow2", "rb").read(); at = d.index(bytes.fromhex("23852875")); print(int.from_bytes(d[at + 24:at + 32], "big"))')
for change in "0 x7fffffff00000000" "8 x7fffffff" "16 x09" "17 x3f" "18 xffff" "20 xffffffff"; do
	qemu-img create -q -f qcow2 b.qcow2 20M && qemu-img bitmap --add b.qcow2 on
	dir=$(python3 -c 'd = open("b.qcow2", "rb").read(); at = d.index(bytes.fromhex("23852875")); print(int.from_bytes(d[at + 24:at + 32], "big"))')
	python3 -c 'import sys; f = open("b.qcow2", "r+b"); f.seek(int(sys.argv[1])); f.write(bytes.fromhex(sys.argv[2][1:]))' $((dir + ${change% *})) "${change#* }"
	run tdimg "qcow2:$WORK/b.qcow2" load part.raw
	[ "$RC" -le 1 ] || fail "a bitmap with $change: exit code $RC: $ERR"
done
