#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# qcow images of version 1, made by qemu-img: read as it reads them, and written so that it reads what we wrote.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/qcow-lib.sh"
cd "$WORK" || exit 1
SEED=${SEED:-$RANDOM}
echo "SEED=$SEED"
reference

reads() # IMAGE RAW
{
	expect 0 tdimg -r "qcow:$WORK/$1" dump out.raw
	expect 0 qemu-img compare -q -f raw -F raw out.raw "$2"
}
storm()
{
	expect 0 tdimg "qcow:$WORK/$1" storm "$SEED" "${STEPS:-150}" "$1.model"
	expect 0 qemu-img compare -q -f qcow -F raw "$1" "$1.model"
	SEED=$((SEED + 1))
}
qemu-img convert -q -f raw -O qcow ref.raw plain.qcow && reads plain.qcow ref.raw && storm plain.qcow
qemu-img convert -q -c -f raw -O qcow ref.raw zip.qcow # 7.2 ends with 1, though all is there
expect 0 qemu-img compare -q -f qcow -F raw zip.qcow ref.raw
reads zip.qcow ref.raw && storm zip.qcow
qemu-img create -q -f qcow empty.qcow 48M && storm empty.qcow
qemu-img create -q -f qcow -b ref.raw -F raw over.qcow 48M && reads over.qcow ref.raw 2>/dev/null
storm over.qcow
# past the page cache, where the file system lets us
run tdimg -d "qcow:$WORK/empty.qcow" info
[ "$RC" != 0 ] || expect 0 tdimg -d "qcow:$WORK/empty.qcow" storm "$SEED" 60 empty.qcow.model
expect 0 qemu-img compare -q -f qcow -F raw empty.qcow empty.qcow.model

# malformed ones: a reason, and no more
bad() # WHAT TEXT OFFSET BYTES
{
	qemu-img create -q -f qcow bad.qcow 48M
	printf %b "$4" | dd of=bad.qcow bs=1 seek="$3" conv=notrunc status=none
	expect 1 tdimg -r "qcow:$WORK/bad.qcow" dump out.raw
	has "$1" "$ERR" "$2"
}
bad "a qcow2" "open it as qcow2:" 7 '\x02'
bad "tiny clusters" "clusters of 2^8" 32 '\x08'
bad "huge clusters" "clusters of 2^255" 32 '\xff'
bad "tiny L2 tables" "L2 tables of 2^5" 33 '\x05'
bad "a disk of 8 EiB" "at most" 24 '\x7f'
bad "an L1 table in the header" "cannot be" 47 '\x08'
bad "an L1 table beyond the end" "beyond the end" 41 '\x7f'
bad "encryption" "encrypted" 39 '\x01'
bad "another encryption" "unknown" 39 '\x02'
bad "a backing name beyond the header" "backing file" 8 '\x00\x00\x00\x00\x00\xff\x00\x00\x00\x00\x00\x10'

# Upon an image of the same kind, or a qcow2, that stands on nothing: read as QEMU reads it, which looks at the file for its format.
qemu-img convert -q -f raw -O qcow2 ref.raw ref2.qcow2
qemu-img convert -q -f raw -O qcow ref.raw ref1.qcow
for below in ref1.qcow:qcow ref2.qcow2:qcow2; do
	qemu-img create -q -f qcow -b ${below%:*} -F ${below#*:} on.qcow
	reads on.qcow ref.raw
	rm -f on.qcow.model
	storm on.qcow
done
# One that stands on another file may be a raw disk whose guest has written that header, to read the file: it is refused.
qemu-img create -q -f qcow2 -b ref.raw -F raw over2.qcow2
qemu-img create -q -f qcow2 -o data_file=data2.data data2.qcow2 1M
qemu-img create -q -f qcow -b ref.raw -F raw over1.qcow
for below in over1.qcow:qcow over2.qcow2:qcow2 data2.qcow2:qcow2; do
	qemu-img create -q -f qcow -b ${below%:*} -F ${below#*:} on.qcow
	expect 1 tdimg -r "qcow:$WORK/on.qcow" info
	has "a backing file that may be anything" "$ERR" "qemu-img convert"
done

# One that was cut off is not written: a new cluster would come into a lost one's place.
for len in 65536 1000; do
	expect 0 qemu-img convert -q -f raw -O qcow ref.raw cut.qcow
	truncate -s -$len cut.qcow
	before=$(sha256sum <cut.qcow)
	expect 1 tdimg "qcow:$WORK/cut.qcow" storm "$SEED" 5 cut.model
	[[ $ERR = *"beyond the file"* || $ERR = *"cut off"* ]] || fail "of $len lost bytes it says: $ERR"
	is "without its last $len bytes it stays as it is" "$(sha256sum <cut.qcow)" "$before"
done
