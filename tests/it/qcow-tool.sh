#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# td-qcow: what it makes, checks, resizes and merges, judged by qemu-img; and what it repairs.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/qcow-lib.sh"
command -v python3 >/dev/null || skip "python3 is not installed"
cd "$WORK" || exit 1

q() { timeout 250 "$top_builddir/bin/td-qcow" "$@"; }
clean() # IMAGE: says qemu-img, and td-qcow
{
	expect 0 qemu-img check -q "$1"
	expect 0 q check "$1"
}
same() { expect 0 qemu-img compare -q "$1" "$2"; }
SEED=${SEED:-$RANDOM}
echo "SEED=$SEED"
fill() { expect 0 tdimg "qcow2:$1" storm "$SEED" "${3:-60}" "$2"; SEED=$((SEED + 1)); }

# create, in every option; then used, and as good as before
for o in cluster_size=512 cluster_size=64k,refcount_bits=1 cluster_size=2M,refcount_bits=64 compat=0.10 extended_l2=on lazy_refcounts=on \
	compression_type=zstd preallocation=metadata preallocation=metadata,cluster_size=512,refcount_bits=64 preallocation=falloc \
	preallocation=full,extended_l2=on data_file=a.data data_file=b.data,data_file_raw=on preallocation=metadata,data_file=c.data; do
	expect 0 q create -f -o "$o" a.qcow2 20M
	clean a.qcow2
	is "create -o $o: the disk's size" "$(qemu-img info --output=json a.qcow2 | sed -n 's/^    "virtual-size": \([0-9]*\),/\1/p')" 20971520
	rm -f a.raw
	fill a.qcow2 a.raw 40
	clean a.qcow2
	same a.qcow2 a.raw
done
expect 17 q create a.qcow2 20M
has "create over a file" "$ERR" "--force"
expect 22 q create -o cluster_size=3000 x.qcow2 1M
expect 22 q create -o what=1 x.qcow2 1M
has "an unknown option" "$ERR" "cluster_size"
for none in "x.qcow2 0" "-o size=0 x.qcow2" "-b a.qcow2 -F qcow2 x.qcow2 0K"; do
	expect 22 q create $none
	has "a disk without a byte" "$ERR" "a disk has more than '0"
done
expect 1 q create -b /etc/passwd -F raw x.qcow2
expect 1 q create -b ../x -F raw x.qcow2
expect 22 q create -b a.qcow2 x.qcow2
# names without room in the first cluster: said before what was there is gone
long=$(printf 'd%.0s' {1..200})
mkdir "$long"
expect 0 q create "$long/$long" 4M
expect 0 q create x.qcow2 4M
expect 36 q create -f -o cluster_size=512 -b "$long/$long" -F qcow2 x.qcow2
has "why" "$ERR" "do not fit into the first cluster"
clean x.qcow2
rm -r x.qcow2 "$long"
expect 22 q nothing

# resize, both ways
for o in cluster_size=64k cluster_size=512 extended_l2=on compat=0.10; do
	rm -f a.raw
	expect 0 q create -f -o $o a.qcow2 10M
	fill a.qcow2 a.raw
	expect 0 q resize a.qcow2 3G
	clean a.qcow2
	truncate -s 3G a.raw
	same a.qcow2 a.raw
	expect 22 q resize a.qcow2 5M
	expect 0 q resize --shrink a.qcow2 5M
	clean a.qcow2
	truncate -s 5M a.raw
	same a.qcow2 a.raw
	expect 0 q resize a.qcow2 +20M
	truncate -s 25M a.raw
	same a.qcow2 a.raw
done

# snapshot and commit
for o in cluster_size=64k cluster_size=4k extended_l2=on compat=0.10; do
	rm -f ./*.raw
	expect 0 q create -f base.qcow2 20M
	fill base.qcow2 base.raw
	expect 0 q snapshot -f "$WORK/base.qcow2" "$WORK/over.qcow2"
	same over.qcow2 base.raw
	expect 0 q create -f -o $o -b base.qcow2 -F qcow2 over.qcow2 30M
	fill over.qcow2 over.raw
	expect 0 q commit over.qcow2
	clean base.qcow2
	clean over.qcow2
	same base.qcow2 over.raw
	same over.qcow2 over.raw
	is "an image after commit" "$(q map --json over.qcow2 | grep -c '"depth": 0, "present": true')" 0
done

# map says the same of data as qemu-img does
fill over.qcow2 over.raw
data() { grep -o '"start": [0-9]*, "length": [0-9]*, "depth": [0-9]*, "present": true, "zero": false, "data": true.*offset": [0-9]*' "$1"; }
q map --json over.qcow2 >map.ours && qemu-img map --output=json over.qcow2 | sed 's/"compressed": [a-z]*, //' >map.theirs
is "map" "$(data map.ours)" "$(data map.theirs)"

# info
expect 0 q info over.qcow2
is "info" "$OUT" "$(qemu-img info over.qcow2 | sed 's/ (actual path:.*)//; /^Child node/,$d')"
# internal snapshots are listed, with what they are called and how large the disk was
expect 0 q create -f snap.qcow2 8M
rm -f snap.raw
fill snap.qcow2 snap.raw
qemu-img snapshot -c first snap.qcow2 && qemu-img snapshot -c 'a second, with blanks' snap.qcow2 || fail "qemu-img snapshot"
expect 0 q info snap.qcow2
# QEMU 10 spaces them otherwise, and counts hours by four digits
snapshots() { grep -A3 '^Snapshot' | sed 's/VM_/VM /g; s/ 00*\([0-9][0-9]:..:\)/ \1/; s/   */ /g'; }
is "info of snapshots" "$(snapshots <<<"$OUT")" "$(qemu-img info snap.qcow2 | snapshots)"
fill snap.qcow2 snap.raw
clean snap.qcow2
expect 0 q info snap.qcow2
has "info after more writes" "$OUT" "a second, with blanks"
q info --json over.qcow2 | python3 -c 'import json, sys; i = json.load(sys.stdin); assert i["backing-filename"] == "base.qcow2" and i["virtual-size"] == 31457280, i' ||
	fail "info --json"

# names that a stranger chose: each is in the JSON, whatever bytes it has, and none makes a line of the text
name=$(printf 'u\377\nformat: raw')
expect 0 q create "$name" 8M
qemu-img snapshot -c x "./$name" || fail "qemu-img snapshot"
python3 - "$name" <<'EOF' || fail "the names"
import struct, sys
with open(sys.argv[1], "r+b") as f:
    backing = b"/etc/sh\xff\nvirtual size: 1\x1b[2J"
    f.seek(60)
    snapshots, = struct.unpack(">IQ", f.read(12))[1:]
    f.seek(snapshots + 12)
    id_len, name_len = struct.unpack(">HH", f.read(4))
    f.seek(snapshots + 36)
    extra, = struct.unpack(">I", f.read(4))
    f.seek(snapshots + 40 + extra + id_len)
    assert f.read(name_len) == b"x"
    f.seek(-1, 1)
    f.write(b"\xfe")
    f.seek(8)
    f.write(struct.pack(">QI", 1024, len(backing)))
    f.seek(1024)
    f.write(backing)
EOF
q info --json "$name" | python3 -c 'import json, sys; i = json.load(sys.stdin)
assert i["filename"] == "u\\xff\nformat: raw" and i["backing-filename"].startswith("/etc/sh\\xff\n"), i
assert i["snapshots"][0]["name"] == "\\xfe", i' || fail "info --json of such names"
q check --json "$name" | python3 -c 'import json, sys; i = json.load(sys.stdin); assert i["filename"].startswith("u") and i["total-clusters"], i' ||
	fail "check --json of such a name"
expect 0 q info "$name"
is "lines of a virtual size" "$(grep -ac '^virtual size' <<<"$OUT")" 1
is "lines of a forged format" "$(grep -ac '^format' <<<"$OUT")" 0
has "the backing file" "$OUT" '\x0avirtual size: 1\x1b[2J'
expect 2 q info "none$name"
is "lines of an error" "$(grep -avc '^==[0-9]*==WARNING' <<<"$ERR")" 1 # without a sanitizer's

# what somebody else has broken: seen by both, and mended
poke() { printf %b "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }
fresh() { rm -f a.raw; expect 0 q create -f "${@:2}" a.qcow2 20M; fill a.qcow2 a.raw 80; rm -f "$1"; cp a.qcow2 "$1"; }
number() { python3 -c 'import sys; f = open(sys.argv[1], "rb"); f.seek(int(sys.argv[2])); print(int.from_bytes(f.read(int(sys.argv[3])), "big"))' "$@"; }

fresh leak.qcow2
table=$(number leak.qcow2 48 8) block=$(number leak.qcow2 "$table" 8)
poke leak.qcow2 $((block + 2 * 2000)) '\x00\x01'
truncate -s $((65536 * 2001)) leak.qcow2
expect 3 q check leak.qcow2
expect 0 q check -r leaks leak.qcow2
clean leak.qcow2

fresh free.qcow2 # a cluster that is in use counts as free
l1=$(number free.qcow2 40 8) l2=$(($(number free.qcow2 "$l1" 8) & 0xfffffffffffe00))
poke free.qcow2 $((block + 2 * (l2 / 65536))) '\x00\x00'
expect 2 q check free.qcow2
expect 0 q check -r all free.qcow2
clean free.qcow2
same free.qcow2 a.raw

fresh gone.qcow2 # the refcount table is empty
poke gone.qcow2 "$table" '\x00\x00\x00\x00\x00\x00\x00\x00'
expect 2 q check gone.qcow2
expect 0 q check -r all gone.qcow2
clean gone.qcow2
same gone.qcow2 a.raw

fresh flag.qcow2 # "mine alone" is missing
poke flag.qcow2 "$l1" '\x00'
expect 2 q check flag.qcow2
expect 0 q check -r all flag.qcow2
clean flag.qcow2

# the dirty mark, with counts that are out of date: repaired when a disk is opened, read-only opens leave it
fresh dirty.qcow2 -o lazy_refcounts=on
poke dirty.qcow2 $((block + 2 * (l2 / 65536))) '\x00\x00'
poke dirty.qcow2 79 '\x01'
expect 0 tdimg -r "qcow2:$WORK/dirty.qcow2" info
expect 2 qemu-img check -q dirty.qcow2
expect 0 tdimg "qcow2:$WORK/dirty.qcow2" info
clean dirty.qcow2
same dirty.qcow2 a.raw
# the corrupt mark: not written to
fresh corrupt.qcow2
poke corrupt.qcow2 79 '\x02'
expect 1 tdimg "qcow2:$WORK/corrupt.qcow2" info
has "an image that is marked as corrupt" "$ERR" "td-qcow check"
expect 0 tdimg -r "qcow2:$WORK/corrupt.qcow2" info
expect 0 q check -r all corrupt.qcow2
expect 0 tdimg "qcow2:$WORK/corrupt.qcow2" info

# features that are unknown here: one that a writer may ignore stays, one that says "as long as nobody writes who does not know me" goes with the
# first opening for writing
fresh future.qcow2
poke future.qcow2 80 '\x80'
poke future.qcow2 88 '\x80'
expect 0 tdimg -r "qcow2:$WORK/future.qcow2" info
is "the autoclear bits after a look" "$(number future.qcow2 88 1)" 128
expect 0 tdimg "qcow2:$WORK/future.qcow2" info
is "the autoclear bits after an opening" "$(number future.qcow2 88 1)" 0
is "the compatible bits" "$(number future.qcow2 80 1)" 128
same future.qcow2 a.raw

# an image in use is left alone
marker=$(tap_ctl create -a "qcow2:$WORK/a.qcow2") || fail "tap-ctl create of a qcow2"
pid=$(tap_ctl list | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
expect 16 q resize a.qcow2 +1G
expect 16 q check -r all a.qcow2
expect 0 tap_ctl destroy -p "$pid" -m "${marker##*-}"
clean a.qcow2
