#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Random reads, writes, discards, zeroes and flushes, 16 at a time, with reopens, on every kind of qcow2: each read is compared with a plain
# model; qemu-img finds nothing wrong in the image afterwards, no leak either, and reads the same from it.
# SEED=N repeats a run; STEPS=N makes it longer.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/qcow-lib.sh"

SEED=${SEED:-$RANDOM}
STEPS=${STEPS:-120}
echo "SEED=$SEED"
reference
cd "$WORK" || exit 1 # where qemu-img looks for data files

storm() # NAME [OPTION]
{
	expect 0 tdimg ${2:-} "qcow2:$WORK/$1.qcow2" storm "$SEED" "$STEPS" "$WORK/$1.model"
	expect 0 qemu-img check -q "$WORK/$1.qcow2"
	expect 0 qemu-img compare -q -f qcow2 -F raw "$WORK/$1.qcow2" "$WORK/$1.model"
	rm -f "$WORK/$1.model"
	SEED=$((SEED + 1))
}
each_format storm
# the raw data file alone is the disk
make_image raw data_file=raw.data,data_file_raw=on
expect 0 tdimg "qcow2:$WORK/raw.qcow2" storm "$SEED" "$STEPS" "$WORK/raw.model"
cmp "$WORK/raw.data" "$WORK/raw.model" || fail "the raw data file is not what the disk is"

for z in zlib zstd; do
	qemu-img convert -q -c -f raw -O qcow2 -o compression_type=$z ref.raw $z.qcow2 && storm $z
done
qemu-img convert -q -c -f raw -O qcow2 -o extended_l2=on ref.raw zext.qcow2 && storm zext

# snapshots keep what they hold
for o in cluster_size=64k extended_l2=on compat=0.10; do
	rm -f snap.qcow2
	qemu-img convert -q -f raw -O qcow2 -o $o ref.raw snap.qcow2 && qemu-img snapshot -c before snap.qcow2
	storm snap
	qemu-img convert -q -l before -O raw snap.qcow2 snap.raw
	qemu-img compare -q -f raw -F raw snap.raw ref.raw || fail "a snapshot has changed under the disk ($o, SEED=$SEED)"
done

# past the page cache, where the file system lets us
make_image direct cluster_size=64k
run tdimg -d "qcow2:$WORK/direct.qcow2" info
[ "$RC" != 0 ] || storm direct -d
