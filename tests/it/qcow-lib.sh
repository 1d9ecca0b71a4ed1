# SPDX-License-Identifier: LGPL-2.1-or-later
# What the tests of qcow images share; sourced after lib.sh.
#
#   tdimg ARG...                an image through our drivers
#   reference                   makes $WORK/ref.raw (40 MiB less a bit: data, holes, zeroes) and ref.qcow2 of the same contents
#   each_format CMD             runs CMD NAME for a qcow2 image $WORK/NAME.qcow2 of every kind that qemu-img makes, empty, or on ref.raw
#                               where it has a backing file; NAME's first letter b says so

command -v qemu-img >/dev/null && command -v qemu-io >/dev/null || skip "qemu-img and qemu-io are not there (Debian: qemu-utils)"

tdimg()
{
	timeout 250 "$top_builddir/tests/support/tdimg" "$@"
}

reference()
{
	head -c 3M /dev/urandom >"$WORK/ref.raw"
	truncate -s 8M "$WORK/ref.raw"
	seq 1 1000000 | head -c 5000000 >>"$WORK/ref.raw"
	head -c 700000 /dev/urandom | dd of="$WORK/ref.raw" bs=512 seek=60000 conv=notrunc status=none
	truncate -s 41942528 "$WORK/ref.raw" # a multiple of 512, not of anything larger
}

make_image() # NAME OPTIONS [SIZE]
{
	(cd "$WORK" && rm -f "$1.qcow2" "$1.data" && qemu-img create -q -f qcow2 -o "$2" "$1.qcow2" "${3:-48M}") || fail "qemu-img create -o $2"
}

each_format()
{
	local cs rb n
	local below=backing_file=ref.raw,backing_fmt=raw

	for cs in 512 4k 64k 2M; do
		for rb in 1 8 64; do
			make_image "c$cs-$rb" "cluster_size=$cs,refcount_bits=$rb"
		done
		make_image "b$cs" "cluster_size=$cs,$below"
	done
	for rb in 2 4 16 32; do
		make_image "r$rb" "refcount_bits=$rb"
	done
	make_image v2 compat=0.10
	make_image bv2 "compat=0.10,$below"
	make_image ext extended_l2=on
	make_image bext16k "extended_l2=on,cluster_size=16k,$below"
	make_image data data_file=data.data
	make_image bdata "data_file=bdata.data,$below"
	make_image bdataext "data_file=bdataext.data,extended_l2=on,$below"
	make_image raw data_file=raw.data,data_file_raw=on
	make_image lazy lazy_refcounts=on
	make_image pre preallocation=metadata
	make_image full preallocation=falloc
	make_image odd cluster_size=64k 41942528
	for n in "$WORK"/*.qcow2; do
		n=${n##*/}
		[ "$n" = ref.qcow2 ] || "$1" "${n%.qcow2}"
	done
}
