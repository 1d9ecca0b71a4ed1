#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Malformed qcow2 images are refused, or their bad parts are, with a reason: no crash, no hang, no memory taken on an image's word, and
# nothing written where a bad entry points.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/qcow-lib.sh"
command -v python3 >/dev/null || skip "python3 is not installed"
cd "$WORK" || exit 1
ulimit -c 0

cat >poke.py <<'END'
import sys
name, *changes = sys.argv[1:]
with open(name, 'r+b') as f:
    for c in changes:
        at, size, value = c.split(':')
        f.seek(int(at, 0))
        f.write(bytes.fromhex(value[1:]) if value[0] == 'x' else (int(value, 0) & (2 ** (8 * int(size)) - 1)).to_bytes(int(size), 'big'))
END
rm -f good.qcow2
qemu-img create -q -f qcow2 good.qcow2 64M && qemu-io -c "write -q -P 1 0 1M" -c "write -q -P 2 40M 1M" good.qcow2 || fail "qemu-img"
number() { python3 -c 'import sys; f = open(sys.argv[1], "rb"); f.seek(int(sys.argv[2])); print(int.from_bytes(f.read(8), "big"))' "$@"; }
l1=$(number good.qcow2 40) ref=$(number good.qcow2 48) mask=$((0xfffffffffffe00))
l2=$(($(number good.qcow2 "$l1") & mask)) block=$(number good.qcow2 "$ref") data=$(($(number good.qcow2 "$l2") & mask))
copied=$((1 << 63))
rm -f sick.qcow2

# Opened neither for writing nor for reading; the memory that it may take is bounded.
refused() # WHAT TEXT CHANGE...
{
	local what=$1 text=$2

	shift 2
	cp good.qcow2 sick.qcow2
	python3 poke.py sick.qcow2 "$@" || fail "poke $what"
	for how in "" -r; do
		run bash -c "[ -n '${TD_SANITIZED:-}' ] || ulimit -v 1000000; exec timeout 250 $top_builddir/tests/support/tdimg $how qcow2:$WORK/sick.qcow2 dump out.raw"
		[ "$RC" = 1 ] || fail "$what ($how): exit code $RC, not 1: $ERR"
		has "$what ($how)" "$ERR" "$text"
	done
}
grep -q '^#define TD_SANITIZED' "$top_builddir/config.h" && TD_SANITIZED=1
refused "not a qcow2" "not a qcow2" 0:4:0
refused "version 1" "version 1" 4:4:1
refused "version 4" "version 4" 4:4:4
refused "clusters of 256 bytes" "clusters of 2^8" 20:4:8
refused "clusters of 4 GiB" "clusters of 2^32" 20:4:32
refused "clusters of 2^0xffffffff" "clusters of" 20:4:0xffffffff
refused "no size" "resize it first" 24:8:0
refused "a size beyond its L1 table" "too small" 24:8:0x7ffffffffffffe00
refused "a size beyond all" "too small" 24:8:0xfffffffffffffe00
refused "an L1 table of 4 Gi entries" "at most" 36:4:0xffffffff
refused "an L1 table beyond the end" "beyond the end" 36:4:0x400000
refused "an L1 table at an odd place" "does not start at a cluster" 40:8:0x30001
refused "an L1 table far away" "beyond the end" 40:8:0x7fffffffffff0000
refused "an L1 table that wraps around" "beyond the end" 40:8:0xffffffffffff0000
refused "the L1 table in the header" "overlap" 40:8:0
refused "the L1 table in the refcount table" "overlap" "40:8:$ref"
refused "a refcount table of 4 Gi clusters" "at most" 56:4:0xffffffff
refused "no refcount table" "no refcount table" 56:4:0
refused "a refcount table far away" "beyond the end" 48:8:0x7fffffffffff0000
refused "4 Gi internal snapshots" "internal snapshots" 60:4:0xffffffff
refused "snapshots beyond the end" "beyond the end" 60:4:60000 64:8:0x7fffff0000
refused "unknown encryption" "encryption" 32:4:7
refused "unknown features" "unknown here" 72:8:0x8000000000000000
refused "a feature that the image names" "sort of thing" 72:8:0x20 "112:8:0x6803f85700000030" "120:2:5" "122:13:x736f7274206f66207468696e67" 168:8:0
refused "an unknown compression" "compression type" 72:8:8 104:1:9
refused "a compression without its bit" "contradict" 104:1:1
refused "extended entries in small clusters" "16 KiB" 72:8:16 20:4:13
refused "a raw data file without a data file" "no data file" 88:8:2
refused "a data file without a name" "does not name it" 72:8:4
refused "refcounts of 128 bits" "2^7" 96:4:7
refused "a header of 4 GiB" "a qcow2 header of" 100:4:0xfffffff8
refused "a header of 8 bytes" "a qcow2 header of" 100:4:8
refused "an extension beyond the header" "beyond the header" 112:8:0x12345678ffffffff
refused "a backing name beyond the header" "outside the first cluster" 8:8:0xfff0 16:4:100
refused "a backing name of 4 GiB" "name of" 8:8:0x200 16:4:0xffffffff
refused "an L1 entry on itself" "other metadata" "$l1:8:$l1"
refused "an L1 entry on the header's other bits" "corrupt" "$l1:8:0x7f00000000000000"
refused "an L1 entry beyond the end" "beyond the end" "$l1:8:0x7fffff0000"

# Names that lead elsewhere
named() # TEXT NAME FORMAT
{
	cp good.qcow2 sick.qcow2
	qemu-img rebase -q -u -b "$2" ${3:+-F "$3"} sick.qcow2 2>/dev/null || fail "rebase to $2"
	run tdimg -r "qcow2:$WORK/sick.qcow2" info
	[ "$RC" = 1 ] || fail "a backing file called $2: exit code $RC: $ERR"
	has "a backing file called $2" "$ERR" "$1"
}
named "plain file names" 'json:{"driver":"file","filename":"/etc/passwd"}' raw
named "plain file names" nbd://localhost/x raw
named "plain file names" nbd:unix:/tmp/x raw
named "plain file names" rbd:rbd/x:conf=/tmp/x raw
named "on an image's word" /etc/passwd raw
named "on an image's word" ../../etc/passwd raw
named "on an image's word" "$WORK/../passwd" raw
named "known" good.qcow2 vmdk
named "No such file" nowhere.raw raw
named "more than" sick.qcow2 qcow2
python3 - <<'END' # a backing file whose format is not recorded
import struct
d = bytearray(open('good.qcow2', 'rb').read())
d[8:20] = struct.pack('>QI', 512, 8)
d[512:520] = b'good.raw'
d[112:120] = bytes(8)
open('sick.qcow2', 'wb').write(d)
END
run tdimg -r "qcow2:$WORK/sick.qcow2" info
has "a backing format that is not recorded" "$ERR" "does not say what format"
qemu-img create -q -f qcow2 -u -b sick.qcow2 -F qcow2 other.qcow2 64M
named "more than" other.qcow2 qcow2 # a loop of two

# An external data file's name likewise; it would be written
data_named() # TEXT NAME [writing: a look is allowed]
{
	rm -f sick.qcow2 data.12chars
	qemu-img create -q -f qcow2 -o data_file=data.12chars sick.qcow2 64M || fail "qemu-img create -o data_file"
	python3 - "$2" <<-'END' || fail "a data file called $2"
		import sys
		name = sys.argv[1].encode()
		assert 8 < len(name) <= 16
		d = bytearray(open('sick.qcow2', 'rb').read())
		at = d.index(b'DATA' + (12).to_bytes(4, 'big') + b'data.12chars')
		d[at + 4:at + 24] = len(name).to_bytes(4, 'big') + name.ljust(16, b'\0')
		open('sick.qcow2', 'wb').write(d)
	END
	for how in "" -r; do
		[ "${3:-}$how" != writing-r ] || continue
		run tdimg $how "qcow2:$WORK/sick.qcow2" info
		[ "$RC" = 1 ] || fail "a data file called $2 ($how): exit code $RC: $ERR"
		has "a data file called $2" "$ERR" "$1"
	done
}
data_named "plain file names" 'json:{"a":1}'
data_named "plain file names" nbd://host/x
data_named "plain file names" host_device:/x
data_named "on an image's word" /etc/passwd
data_named "on an image's word" ../../etc/x
data_named "No such file" nowhere.raw
data_named "in use" sick.qcow2 writing # itself; to look at it does no harm

# Entries that cannot be right: the disk opens; whoever comes upon them gets an error, the image is marked and no more is written.
bad_entry() # WHAT CHANGE...
{
	local what=$1

	shift
	cp good.qcow2 sick.qcow2
	python3 poke.py sick.qcow2 "$@" || fail "poke $what"
	cp sick.qcow2 before.qcow2
	expect 1 tdimg "qcow2:$WORK/sick.qcow2" load big.raw
	has "$what" "$ERR" "corrupt"
	[ "$(($(number sick.qcow2 72) & 2))" = 2 ] || fail "$what: the image is not marked as corrupt"
	expect 1 tdimg "qcow2:$WORK/sick.qcow2" info
	has "$what, opened again" "$ERR" "marked as corrupt"
	# but for the mark, the metadata that the entry pointed to is as it was
	python3 - "$l1" "$ref" "$block" "$l2" <<-'END' || fail "$what: metadata was written over"
		import sys
		a, b = open('before.qcow2', 'rb').read(), open('sick.qcow2', 'rb').read()
		for at in map(int, sys.argv[1:3]):
		    assert a[at:at + 65536][:16] == b[at:at + 65536][:16], hex(at)
		assert a[:72] == b[:72] and a[80:512] == b[80:512], 'header'
		for at in map(int, sys.argv[3:]):
		    assert b[at:at + 65536] != b'\xff' * 65536, hex(at)
	END
}
head -c 64M /dev/zero | tr '\0' '\377' >big.raw
truncate -s 64M big.raw
bad_entry "data on the header" "$l2:8:$((copied))" "$((l2 + 8)):8:$((copied | 65536 * 0 | 512))"
bad_entry "data on the refcount table" "$l2:8:$((copied | ref))"
bad_entry "data on a refcount block" "$l2:8:$((copied | block))"
bad_entry "data on the L1 table" "$l2:8:$((copied | l1))"
bad_entry "data on its own L2 table" "$l2:8:$((copied | l2))"
bad_entry "data at an odd place" "$l2:8:$((copied | (data + 512)))"
bad_entry "data beyond the end" "$l2:8:$((copied | 0x7fff0000))"
bad_entry "data with reserved bits" "$l2:8:$((copied | data | 2))"
bad_entry "a free L2 table" "$((block + 2 * (l2 / 65536))):2:0" "$ref:0:0"
bad_entry "compressed beyond the end" "$l2:8:$((1 << 62 | 0x7fff0000))"

# Compressed rubbish, and a bomb: an error for that cluster, and all else reads
cp good.qcow2 sick.qcow2
python3 poke.py sick.qcow2 "$l2:8:$((1 << 62 | data))"
expect 1 tdimg -r "qcow2:$WORK/sick.qcow2" dump out.raw
has "compressed rubbish" "$ERR" "cannot be decompressed"
python3 - "$l2" "$data" <<'END'
import sys, zlib
l2, data = map(int, sys.argv[1:])
z = zlib.compressobj(9, zlib.DEFLATED, -12)
bomb = z.compress(bytes(50000000)) + z.flush()
d = bytearray(open('good.qcow2', 'rb').read())
d[data:data + 60000] = bomb[:60000].ljust(60000, b'\0')
d[l2:l2 + 8] = (1 << 62 | 117 << 54 | data).to_bytes(8, 'big')
open('sick.qcow2', 'wb').write(d)
END
expect 0 tdimg -r "qcow2:$WORK/sick.qcow2" dump out.raw
is "a bomb reads as a cluster of zeroes" "$(head -c 65536 out.raw | tr -d '\0' | wc -c)" 0

# Any byte of the header, tables and entries changed at random: whatever happens, it ends, and not by a signal
SEED=${SEED:-$RANDOM}
echo "SEED=$SEED"
RANDOM=$SEED
for i in $(seq "${ROUNDS:-25}"); do
	cp good.qcow2 sick.qcow2
	changes=()
	for at in 0 0 "$l1" "$l2" "$ref" "$block"; do
		changes+=("$((at + RANDOM % 128)):1:$((RANDOM % 256))")
	done
	python3 poke.py sick.qcow2 "${changes[@]}"
	run tdimg "qcow2:$WORK/sick.qcow2" writes "$i" 40 4096
	[ "$RC" -le 1 ] || fail "SEED=$SEED round $i (${changes[*]}): exit code $RC: $ERR"
	run timeout 250 "$top_builddir/bin/td-qcow" check -r all sick.qcow2
	[ "$RC" -lt 124 ] || fail "SEED=$SEED round $i (${changes[*]}): check: exit code $RC: $ERR"
done
