/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The bytes of qcow2, without a file: headers there and back, refcounts of every width, compressed
 * places. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/qcow/qcow-format.h"
#include "drivers/qcow/qcow-luks.h"
#include "lib/bytes.h"
#include "tests/support/suite.h"

static struct td_err err;

static struct qcow_header sane(void)
{
	return (struct qcow_header){.version = 3,
				    .cluster_bits = 16,
				    .size = UINT64_C(10) << 30,
				    .l1_size = 20,
				    .l1_off = 0x30000,
				    .ref_off = 0x10000,
				    .ref_clusters = 1,
				    .ref_order = 4};
}

static int decode(const unsigned char *buf, struct qcow_header *h)
{
	int rc;

	memset(&err, 0, sizeof err);
	rc = qcow_header_decode(buf, 512, "x", h, &err);
	return rc ? rc : qcow_extensions_decode(buf, 65536, "x", h, &err);
}

START_TEST(a_header_comes_back_as_it_went)
{
	unsigned char *buf = calloc(1, 65536);
	struct qcow_header h = sane(), back;

	strcpy(h.backing, "base.raw");
	strcpy(h.backing_format, "raw");
	h.compat = QCOW_COMPAT_LAZY;
	h.incompat = QCOW_INCOMPAT_ZIP | QCOW_INCOMPAT_EXTL2;
	h.compression = QCOW_ZSTD;
	h.l1_size = 41;
	ck_assert_int_eq(qcow_header_encode(&h, buf, 65536), 0);
	ck_assert_int_eq(decode(buf, &back), 0);
	ck_assert_uint_eq(back.version, 3);
	ck_assert_uint_eq(back.size, h.size);
	ck_assert_uint_eq(back.l1_off, h.l1_off);
	ck_assert_uint_eq(back.l1_size, 41);
	ck_assert_uint_eq(back.ref_off, h.ref_off);
	ck_assert_uint_eq(back.incompat, h.incompat);
	ck_assert_uint_eq(back.compat, h.compat);
	ck_assert_uint_eq(back.compression, QCOW_ZSTD);
	ck_assert_str_eq(back.backing, "base.raw");
	ck_assert_str_eq(back.backing_format, "raw");
	free(buf);
}
END_TEST

START_TEST(version_two_has_no_more_than_its_fields)
{
	unsigned char *buf = calloc(1, 65536);
	struct qcow_header h = sane(), back;

	h.version = 2;
	ck_assert_int_eq(qcow_header_encode(&h, buf, 65536), 0);
	ck_assert_int_eq(decode(buf, &back), 0);
	ck_assert_uint_eq(back.length, 72);
	ck_assert_uint_eq(back.ref_order, 4);
	ck_assert_uint_eq(back.incompat, 0);
	free(buf);
}
END_TEST

START_TEST(a_header_fits_into_the_smallest_cluster_or_says_so)
{
	unsigned char buf[512] = {0};
	struct qcow_header h = sane();

	h.cluster_bits = 9;
	ck_assert_int_eq(qcow_header_encode(&h, buf, sizeof buf), 0);
	memset(h.backing, 'a', 500);
	ck_assert_int_eq(qcow_header_encode(&h, buf, sizeof buf), -ENOSPC);
}
END_TEST

START_TEST(every_cut_of_a_header_ends_well)
{
	unsigned char *buf = calloc(1, 65536);
	struct qcow_header h = sane(), back;

	strcpy(h.backing, "base.raw");
	strcpy(h.backing_format, "raw");
	ck_assert_int_eq(qcow_header_encode(&h, buf, 65536), 0);
	for (size_t len = 0; len < 700; len++) {
		/* so that a sanitizer sees a step beyond */
		unsigned char *cut = malloc(len ? len : 1);

		memcpy(cut, buf, len);
		if (qcow_header_decode(cut, len, "x", &back, NULL) == 0)
			qcow_extensions_decode(cut, len, "x", &back, NULL);
		free(cut);
	}
	free(buf);
}
END_TEST

START_TEST(refcounts_of_each_width_keep_their_neighbours)
{
	unsigned char buf[512];

	for (unsigned order = 0; order <= 6; order++) {
		uint64_t n = sizeof buf * 8 >> order, max = qcow_ref_max(order);

		memset(buf, 0, sizeof buf);
		for (uint64_t i = 0; i < n; i++)
			qcow_ref_set(buf, order, i, i * UINT64_C(2654435761) & max);
		for (uint64_t i = 0; i < n; i++)
			ck_assert_uint_eq(qcow_ref_get(buf, order, i),
					  i * UINT64_C(2654435761) & max);
		qcow_ref_set(buf, order, 1, max);
		qcow_ref_set(buf, order, 1, 0);
		ck_assert_uint_eq(qcow_ref_get(buf, order, 0), 0);
		ck_assert_uint_eq(qcow_ref_get(buf, order, 2), 2 * UINT64_C(2654435761) & max);
	}
}
END_TEST

START_TEST(sub_byte_refcounts_begin_at_the_lowest_bit)
{
	unsigned char buf[1] = {0};

	qcow_ref_set(buf, 0, 0, 1);
	ck_assert_uint_eq(buf[0], 1);
	qcow_ref_set(buf, 2, 1, 0xa);
	ck_assert_uint_eq(buf[0], 0xa1);
}
END_TEST

START_TEST(a_compressed_place_is_of_bounded_length)
{
	uint64_t off, len;

	/* 64 KiB clusters: 54 bits of offset, 8 of sectors */
	qcow_zip_range(16, QCOW_ZIPPED | UINT64_C(3) << 54 | 0x12345, &off, &len);
	ck_assert_uint_eq(off, 0x12345);
	ck_assert_uint_eq(len, 4 * 512 - 0x145);
	for (unsigned bits = 9; bits <= 21; bits++) {
		qcow_zip_range(bits, ~QCOW_COPIED, &off, &len);
		ck_assert_uint_le(len, UINT64_C(2) << bits);
	}
	qcow1_zip_range(12, QCOW1_ZIPPED | UINT64_C(0x123) << 51 | 0x4567, &off, &len);
	ck_assert_uint_eq(off, 0x4567);
	ck_assert_uint_eq(len, 0x123);
}
END_TEST

START_TEST(tables_that_overlap_are_seen)
{
	struct qcow_header h = sane();

	ck_assert_int_eq(qcow_tables_check(&h, 0x40000, "x", NULL), 0);
	h.l1_off = 0x10000;
	ck_assert_int_eq(qcow_tables_check(&h, 0x40000, "x", NULL), -EINVAL);
	h = sane();
	ck_assert_int_eq(qcow_tables_check(&h, 0x30000, "x", NULL), -EINVAL);
}
END_TEST

/* The digest of the key is computed for each slot that is tried, so that it costs as often. */
START_TEST(what_a_luks_header_costs_is_bounded_with_its_digests)
{
	uint8_t b[LUKS_HEADER] = "LUKS\xba\xbe\0\1aes";
	struct luks l;

	strcpy((char *)b + 40, "xts-plain64");
	strcpy((char *)b + 72, "sha256");
	td_put_be32(b + 108, 32);
	for (unsigned i = 0; i < LUKS_SLOTS; i++) {
		td_put_be32(b + 208 + i * 48, 0x00ac71f3);
		td_put_be32(b + 208 + i * 48 + 4, 1u << 22);
		td_put_be32(b + 208 + i * 48 + 40, 8 + i * 256);
		td_put_be32(b + 208 + i * 48 + 44, 4000);
	}
	td_put_be32(b + 164, 1u << 22);
	ck_assert_int_eq(luks_decode(b, 4 << 20, "x", &l, NULL), 0);
	td_put_be32(b + 164, (1u << 22) + 1);
	memset(&err, 0, sizeof err);
	ck_assert_int_eq(luks_decode(b, 4 << 20, "x", &l, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "iterations"));
	td_put_be32(b + 208, 0x0000dead);
	ck_assert_int_eq(luks_decode(b, 4 << 20, "x", &l, NULL), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("qcow-format");

	SUITE_ADD(s, a_header_comes_back_as_it_went);
	SUITE_ADD(s, version_two_has_no_more_than_its_fields);
	SUITE_ADD(s, a_header_fits_into_the_smallest_cluster_or_says_so);
	SUITE_ADD(s, every_cut_of_a_header_ends_well);
	SUITE_ADD(s, refcounts_of_each_width_keep_their_neighbours);
	SUITE_ADD(s, sub_byte_refcounts_begin_at_the_lowest_bit);
	SUITE_ADD(s, a_compressed_place_is_of_bounded_length);
	SUITE_ADD(s, tables_that_overlap_are_seen);
	SUITE_ADD(s, what_a_luks_header_costs_is_bounded_with_its_digests);
	return suite_run(s);
}
