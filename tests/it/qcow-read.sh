#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Images made by qemu-img in every option read the same through our driver as the raw file that they were made of.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/qcow-lib.sh"
command -v python3 >/dev/null || skip "python3 is not installed"

count=0
same() # NAME RAW
{
	expect 0 tdimg -r "qcow2:$WORK/$1.qcow2" dump "$WORK/out.raw"
	qemu-img compare -q -f raw -F raw "$WORK/out.raw" "$WORK/$2" || fail "$1 does not read as qemu-img reads it"
	count=$((count + 1))
}

reference

# converted: the data itself in the image
convert() # NAME OPTIONS [-c]
{
	(cd "$WORK" && qemu-img convert -q ${3:-} -f raw -O qcow2 -o "$2" ref.raw "$1.qcow2") || fail "qemu-img convert -o $2"
	same "$1" ref.raw
	rm -f "$WORK/$1.qcow2"
}
for cs in 512 1k 4k 64k 2M; do
	convert plain cluster_size=$cs
	convert zlib cluster_size=$cs,compression_type=zlib -c
done
for o in compat=0.10 refcount_bits=1 refcount_bits=64 lazy_refcounts=on extended_l2=on extended_l2=on,cluster_size=2M preallocation=metadata; do
	convert plain "$o"
done
for o in compression_type=zstd compression_type=zstd,cluster_size=2M compression_type=zstd,extended_l2=on; do
	convert zstd "$o" -c
done
convert v2zlib compat=0.10 -c
(cd "$WORK" && qemu-img create -q -f qcow2 -o data_file=x.data,data_file_raw=on x.qcow2 41942528 &&
	qemu-img convert -q -n -f raw -O qcow2 ref.raw x.qcow2) || fail "an external data file"
same x ref.raw

# empty ones, and those that show a shorter raw file; then written by qemu-io in patterns, with zeroes and discards
written()
{
	local commands=() i at

	for i in $(seq 30); do
		at=$((RANDOM * 512 * 2 % 41000000 / 512 * 512))
		commands+=(-c "write -q -P $((RANDOM % 255 + 1)) $at $((512 * (RANDOM % 300 + 1)))")
	done
	commands+=(-c "write -q -z 1M 300k" -c "write -q -z -u 9M 2M" -c "discard -q 5M 1M")
	(cd "$WORK" && qemu-io "${commands[@]}" "$1.qcow2" >qemu-io.out 2>&1 && qemu-img convert -f qcow2 -O raw "$1.qcow2" want.raw) || { cat "$WORK/qemu-io.out"; fail "qemu-io on $1"; }
	same "$1" want.raw
}
each_format written

# a chain: raw < qcow2 < compressed qcow2 < qcow2, of different sizes and cluster sizes
(
	cd "$WORK" || exit 1
	qemu-img create -q -f qcow2 -b ref.raw -F raw chain1.qcow2 44M
	qemu-io -c "write -q -P 9 2M 3M" -c "write -q -z 10M 1M" chain1.qcow2
	qemu-img convert -q -c -f qcow2 -O qcow2 -o backing_file=ref.raw,backing_fmt=raw,cluster_size=16k chain1.qcow2 chain2.qcow2
	qemu-img create -q -f qcow2 -o cluster_size=4k,backing_file=chain2.qcow2,backing_fmt=qcow2 chain3.qcow2 60M
	qemu-io -c "write -q -P 1 43M 3M" -c "write -q -P 2 0 700" chain3.qcow2
	qemu-img convert -f qcow2 -O raw chain3.qcow2 want.raw
) || fail "the chain"
cd / && same chain3 want.raw # and from another directory: names start from the image's

# upon a VHD, whose size and reading are its own; written, too
(
	cd "$WORK" || exit 1
	qemu-img convert -q -f raw -O vpc -o subformat=dynamic,force_size=on ref.raw below.vhd
	qemu-img create -q -f qcow2 -b below.vhd -F vpc onvhd.qcow2 44M
	qemu-io -c "write -q -P 9 2M 3M" -c "write -q -z 10M 1M" -c "write -q -P 3 39M 4M" onvhd.qcow2
	qemu-img convert -f qcow2 -O raw onvhd.qcow2 want.raw
) || fail "a qcow2 upon a VHD"
same onvhd want.raw
expect 0 tdimg "qcow2:$WORK/onvhd.qcow2" storm 1 60 "$WORK/onvhd.model"
expect 0 qemu-img compare -q -f qcow2 -F raw "$WORK/onvhd.qcow2" "$WORK/onvhd.model"

# internal snapshots are left alone, and the active layer is what is read
(cd "$WORK" && qemu-img convert -q -f raw -O qcow2 ref.raw snap.qcow2 && qemu-img snapshot -c before snap.qcow2 &&
	qemu-io -c "write -q -P 5 0 4M" snap.qcow2 && qemu-img convert -f qcow2 -O raw snap.qcow2 want.raw) || fail "a snapshot"
same snap want.raw
echo "$count images read as they should"

# a disk of 16 TiB, written all over: its tables stay within a bound
make_image huge cluster_size=64k 16T
if ! grep -q '^#define TD_SANITIZED' "$top_builddir/config.h"; then
	expect 0 tdimg "qcow2:$WORK/huge.qcow2" writes 1 3000 512
	expect 0 python3 - "$top_builddir/tests/support/tdimg" "qcow2:$WORK/huge.qcow2" <<-'END'
		import resource, subprocess, sys
		subprocess.run([sys.argv[1], sys.argv[2], "writes", "2", "3000", "512"], check=True)
		most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
		assert most < 32 * 1024, f"{most} KiB"
	END
fi
