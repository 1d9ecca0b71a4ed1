/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tapdisk/blkif/blkif-abi.c against Xen's own headers.  They are included twice under other names:
 * as they are, and packed to four bytes, which is how a 32-bit x86 compiler lays the same text out.
 */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <check.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/blkif-front.h"

#ifdef HAVE_XEN
#define __XEN_TOOLS__ 1
#define xen_mb()      __sync_synchronize()
#define xen_rmb()     __sync_synchronize()
#define xen_wmb()     __sync_synchronize()
#include <xen/xen.h>
#include <xen/grant_table.h>
#include <xen/io/ring.h>

#define PASTE_(p, x)             p##_##x
#define PASTE(p, x)              PASTE_(p, x)
#define blkif_request            PASTE(PREFIX, request)
#define blkif_request_t          PASTE(PREFIX, request_t)
#define blkif_request_segment    PASTE(PREFIX, request_segment)
#define blkif_request_discard    PASTE(PREFIX, request_discard)
#define blkif_request_discard_t  PASTE(PREFIX, request_discard_t)
#define blkif_request_indirect   PASTE(PREFIX, request_indirect)
#define blkif_request_indirect_t PASTE(PREFIX, request_indirect_t)
#define blkif_response           PASTE(PREFIX, response)
#define blkif_response_t         PASTE(PREFIX, response_t)
#define blkif_sring_entry        PASTE(PREFIX, sring_entry)
#define blkif_sring              PASTE(PREFIX, sring)
#define blkif_sring_t            PASTE(PREFIX, sring_t)
#define blkif_front_ring         PASTE(PREFIX, front_ring)
#define blkif_front_ring_t       PASTE(PREFIX, front_ring_t)
#define blkif_back_ring          PASTE(PREFIX, back_ring)
#define blkif_back_ring_t        PASTE(PREFIX, back_ring_t)
#define PREFIX                   x64
#include <xen/io/blkif.h>
#undef __XEN_PUBLIC_IO_BLKIF_H__
#undef PREFIX
#define PREFIX x32
#pragma pack(push, 4)
#include <xen/io/blkif.h>
#pragma pack(pop)
#undef blkif_sring /* our own from here on */

struct numbers {
	const char *name;
	enum blkif_abi abi;
	unsigned slots[BLKIF_MAX_RING_ORDER + 1];
	size_t head, stride;
	size_t op, nr, handle, id, sector, seg, seg_size, seg_first, seg_last;
	size_t flag, d_handle, d_id, d_sector, d_count;
	size_t inner, i_id, i_sector, i_handle, i_nr, i_pages;
	size_t rsp_id, rsp_op, rsp_status, rsp_size;
};

#define SLOTS(P, order) __CONST_RING_SIZE(P, 4096u << (order))
#define NUMBERS(P, ABI)                                                                            \
	{                                                                                          \
		.name = #P, .abi = ABI,                                                            \
		.slots = {SLOTS(P, 0), SLOTS(P, 1), SLOTS(P, 2), SLOTS(P, 3), SLOTS(P, 4)},        \
		.head = offsetof(struct P##_sring, ring), .stride = sizeof(union P##_sring_entry), \
		.op = offsetof(struct P##_request, operation),                                     \
		.nr = offsetof(struct P##_request, nr_segments),                                   \
		.handle = offsetof(struct P##_request, handle),                                    \
		.id = offsetof(struct P##_request, id),                                            \
		.sector = offsetof(struct P##_request, sector_number),                             \
		.seg = offsetof(struct P##_request, seg),                                          \
		.seg_size = sizeof(struct P##_request_segment),                                    \
		.seg_first = offsetof(struct P##_request_segment, first_sect),                     \
		.seg_last = offsetof(struct P##_request_segment, last_sect),                       \
		.flag = offsetof(struct P##_request_discard, flag),                                \
		.d_handle = offsetof(struct P##_request_discard, handle),                          \
		.d_id = offsetof(struct P##_request_discard, id),                                  \
		.d_sector = offsetof(struct P##_request_discard, sector_number),                   \
		.d_count = offsetof(struct P##_request_discard, nr_sectors),                       \
		.inner = offsetof(struct P##_request_indirect, indirect_op),                       \
		.i_id = offsetof(struct P##_request_indirect, id),                                 \
		.i_sector = offsetof(struct P##_request_indirect, sector_number),                  \
		.i_handle = offsetof(struct P##_request_indirect, handle),                         \
		.i_nr = offsetof(struct P##_request_indirect, nr_segments),                        \
		.i_pages = offsetof(struct P##_request_indirect, indirect_grefs),                  \
		.rsp_id = offsetof(struct P##_response, id),                                       \
		.rsp_op = offsetof(struct P##_response, operation),                                \
		.rsp_status = offsetof(struct P##_response, status),                               \
		.rsp_size = sizeof(struct P##_response)                                            \
	}

#ifdef __i386__
static const struct numbers tables[] = {NUMBERS(x32, BLKIF_X86_32), NUMBERS(x32, BLKIF_NATIVE)};
#else
static const struct numbers tables[] = {NUMBERS(x64, BLKIF_X86_64), NUMBERS(x32, BLKIF_X86_32),
					NUMBERS(x64, BLKIF_NATIVE)};
#endif
#define TABLES (int)(sizeof(tables) / sizeof(*tables))

#define PAGES 16
#define BYTES (PAGES * 4096)

static uint8_t *new_ring(int fill)
{
	uint8_t *ring = aligned_alloc(4096, BYTES);

	ck_assert_ptr_nonnull(ring);
	memset(ring, fill, BYTES);
	return ring;
}

static uint64_t peek(const uint8_t *p, size_t n)
{
	uint64_t v = 0;

	memcpy(&v, p, n);
	return v;
}

static struct blkif_desc sample(uint8_t op)
{
	struct blkif_desc d;

	memset(&d, 0, sizeof(d));
	d.op = op;
	d.nr_segs = 0xf7;
	d.handle = 0xca01;
	d.id = 0x1122334455667788;
	d.sector = 0x99aabbccddeeff01;
	if (op == BLKIF_DISCARD)
		d.nr_sectors = 0xf0e0d0c0b0a09080;
	if (op == BLKIF_INDIRECT) {
		d.nr_indirect = 0xb1b2;
		for (unsigned i = 0; i < BLKIF_INDIRECT_PAGES; i++)
			d.page[i] = 0xbeef0000 + i;
	}
	if (op == BLKIF_DISCARD || op == BLKIF_INDIRECT)
		return d;
	for (unsigned i = 0; i < BLKIF_MAX_SEGS; i++)
		d.seg[i] = (struct blkif_seg){.ref = 0xdead0000 + i,
					      .first = (uint8_t)(200 + i),
					      .last = (uint8_t)(100 + i)};
	return d;
}

static void same(const struct blkif_desc *a, const struct blkif_desc *b)
{
	ck_assert_uint_eq(a->op, b->op);
	ck_assert_uint_eq(a->nr_segs, b->nr_segs);
	ck_assert_uint_eq(a->handle, b->handle);
	ck_assert_uint_eq(a->id, b->id);
	ck_assert_uint_eq(a->sector, b->sector);
	ck_assert_uint_eq(a->nr_sectors, b->nr_sectors);
	ck_assert_uint_eq(a->nr_indirect, b->nr_indirect);
	for (unsigned i = 0; i < BLKIF_MAX_SEGS; i++) {
		ck_assert_uint_eq(a->seg[i].ref, b->seg[i].ref);
		ck_assert_uint_eq(a->seg[i].first, b->seg[i].first);
		ck_assert_uint_eq(a->seg[i].last, b->seg[i].last);
	}
}

/* Where Xen's text puts each field is where ours is found, there and back. */
static void check_rw(const struct numbers *t, struct blkif_sring *ring, unsigned slots,
		     uint32_t idx)
{
	struct blkif_desc want = sample(BLKIF_OP_WRITE), got;
	const uint8_t *r = (uint8_t *)ring + t->head + (idx % slots) * t->stride;

	blkif_put_request(t->abi, ring, slots, idx, &want);
	ck_assert_uint_eq(r[t->op], want.op);
	ck_assert_uint_eq(r[t->nr], want.nr_segs);
	ck_assert_uint_eq(peek(r + t->handle, 2), want.handle);
	ck_assert_uint_eq(peek(r + t->id, 8), want.id);
	ck_assert_uint_eq(peek(r + t->sector, 8), want.sector);
	for (unsigned i = 0; i < BLKIF_MAX_SEGMENTS_PER_REQUEST; i++) {
		const uint8_t *s = r + t->seg + i * t->seg_size;

		ck_assert_uint_eq(peek(s, 4), want.seg[i].ref);
		ck_assert_uint_eq(s[t->seg_first], want.seg[i].first);
		ck_assert_uint_eq(s[t->seg_last], want.seg[i].last);
	}
	memset(&got, 0xee, sizeof(got));
	blkif_get_request(t->abi, ring, slots, idx, &got);
	same(&got, &want);
}

static void check_others(const struct numbers *t, struct blkif_sring *ring, unsigned slots,
			 uint32_t idx)
{
	struct blkif_desc want = sample(BLKIF_OP_DISCARD), got;
	uint8_t *r = (uint8_t *)ring + t->head + (idx % slots) * t->stride;

	blkif_put_request(t->abi, ring, slots, idx, &want);
	ck_assert_uint_eq(r[t->flag], want.nr_segs);
	ck_assert_uint_eq(peek(r + t->d_handle, 2), want.handle);
	ck_assert_uint_eq(peek(r + t->d_id, 8), want.id);
	ck_assert_uint_eq(peek(r + t->d_sector, 8), want.sector);
	ck_assert_uint_eq(peek(r + t->d_count, 8), want.nr_sectors);
	memset(&got, 0xee, sizeof(got));
	blkif_get_request(t->abi, ring, slots, idx, &got);
	same(&got, &want);

	want = sample(BLKIF_OP_INDIRECT);
	blkif_put_request(t->abi, ring, slots, idx, &want);
	ck_assert_uint_eq(r[t->inner], want.nr_segs);
	ck_assert_uint_eq(peek(r + t->i_id, 8), want.id);
	ck_assert_uint_eq(peek(r + t->i_sector, 8), want.sector);
	ck_assert_uint_eq(peek(r + t->i_handle, 2), want.handle);
	ck_assert_uint_eq(peek(r + t->i_nr, 2), want.nr_indirect);
	for (unsigned i = 0; i < BLKIF_INDIRECT_PAGES; i++)
		ck_assert_uint_eq(peek(r + t->i_pages + i * 4, 4), want.page[i]);
	memset(&got, 0xee, sizeof(got));
	blkif_get_request(t->abi, ring, slots, idx, &got);
	same(&got, &want);
}

/* Every byte of a response is written, padding too, and no other byte of the ring. */
static void check_response(const struct numbers *t, struct blkif_sring *ring, unsigned slots,
			   uint32_t idx)
{
	uint8_t *r = (uint8_t *)ring + t->head + (idx % slots) * t->stride,
		*before = new_ring(0xa5);
	uint64_t id;
	uint8_t op;
	int16_t status;

	memset(ring, 0xa5, BYTES);
	blkif_put_response(t->abi, ring, slots, idx, 0x8877665544332211, 9, BLKIF_RSP_EOPNOTSUPP);
	ck_assert_uint_eq(peek(r + t->rsp_id, 8), 0x8877665544332211);
	ck_assert_uint_eq(r[t->rsp_op], 9);
	ck_assert_int_eq((int16_t)peek(r + t->rsp_status, 2), BLKIF_RSP_EOPNOTSUPP);
	for (size_t i = 8; i < t->rsp_size; i++)
		if (i != t->rsp_op && i != t->rsp_status && i != t->rsp_status + 1)
			ck_assert_uint_eq(r[i], 0);
	blkif_get_response(t->abi, ring, slots, idx, &id, &op, &status);
	ck_assert_uint_eq(id, 0x8877665544332211);
	ck_assert_uint_eq(op, 9);
	ck_assert_int_eq(status, BLKIF_RSP_EOPNOTSUPP);
	memset(r, 0xa5, t->rsp_size);
	ck_assert_mem_eq(ring, before, BYTES);
	free(before);
}

START_TEST(test_layout)
{
	const struct numbers *t = &tables[_i];
	uint8_t *ring = new_ring(0xcc);

	ck_assert_uint_eq(sizeof(struct blkif_sring), t->head);
	for (unsigned order = 0; order <= BLKIF_MAX_RING_ORDER; order++) {
		unsigned slots = blkif_slots(t->abi, 1u << order);
		uint32_t idx[] = {0, 5, slots - 1, slots, 0u - 3};

		ck_assert_uint_eq(slots, t->slots[order]);
		ck_assert_uint_le(slots, BLKIF_MAX_SLOTS);
		for (unsigned i = 0; i < sizeof(idx) / sizeof(*idx); i++) {
			check_rw(t, (struct blkif_sring *)ring, slots, idx[i]);
			check_others(t, (struct blkif_sring *)ring, slots, idx[i]);
			check_response(t, (struct blkif_sring *)ring, slots, idx[i]);
		}
	}
	free(ring);
}
END_TEST

START_TEST(test_head)
{
	ck_assert_uint_eq(offsetof(struct blkif_sring, req_prod),
			  offsetof(struct x64_sring, req_prod));
	ck_assert_uint_eq(offsetof(struct blkif_sring, req_event),
			  offsetof(struct x64_sring, req_event));
	ck_assert_uint_eq(offsetof(struct blkif_sring, rsp_prod),
			  offsetof(struct x64_sring, rsp_prod));
	ck_assert_uint_eq(offsetof(struct blkif_sring, rsp_event),
			  offsetof(struct x64_sring, rsp_event));
	ck_assert_uint_eq(BLKIF_MAX_SEGS, BLKIF_MAX_SEGMENTS_PER_REQUEST);
	ck_assert_uint_eq(BLKIF_INDIRECT_PAGES, BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST);
	ck_assert_uint_eq(sizeof(struct blkif_seg), sizeof(struct x64_request_segment));
	ck_assert_int_eq(BLKIF_READ, BLKIF_OP_READ);
	ck_assert_int_eq(BLKIF_WRITE, BLKIF_OP_WRITE);
	ck_assert_int_eq(BLKIF_WRITE_BARRIER, BLKIF_OP_WRITE_BARRIER);
	ck_assert_int_eq(BLKIF_FLUSH_DISKCACHE, BLKIF_OP_FLUSH_DISKCACHE);
	ck_assert_int_eq(BLKIF_DISCARD, BLKIF_OP_DISCARD);
	ck_assert_int_eq(BLKIF_INDIRECT, BLKIF_OP_INDIRECT);
	ck_assert_int_eq(BLKIF_OKAY, BLKIF_RSP_OKAY);
	ck_assert_int_eq(BLKIF_ERROR, BLKIF_RSP_ERROR);
	ck_assert_int_eq(BLKIF_EOPNOTSUPP, BLKIF_RSP_EOPNOTSUPP);
}
END_TEST
#endif /* HAVE_XEN */

START_TEST(test_names)
{
	ck_assert_int_eq(blkif_abi_find("native"), BLKIF_NATIVE);
	ck_assert_int_eq(blkif_abi_find("x86_64"), BLKIF_X86_64);
	ck_assert_int_eq(blkif_abi_find("x86_64-abi"), BLKIF_X86_64);
	ck_assert_int_eq(blkif_abi_find("x86_32-abi"), BLKIF_X86_32);
	ck_assert_int_eq(blkif_abi_find("x86_32"), BLKIF_X86_32);
	ck_assert_int_eq(blkif_abi_find(""), -1);
	ck_assert_int_eq(blkif_abi_find("native-abi"), -1);
	ck_assert_int_eq(blkif_abi_find("x86_3"), -1);
	ck_assert_int_eq(blkif_abi_find("x86_32-abi "), -1);
	ck_assert_int_eq(blkif_abi_find("arm-abi"), -1);
	ck_assert_str_eq(blkif_abi_name(BLKIF_X86_32), "x86_32");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("blkif-abi");
	TCase *t = tcase_create("layout");
	SRunner *r = srunner_create(s);
	int failed;

	suite_add_tcase(s, t);
	tcase_add_test(t, test_names);
#ifdef HAVE_XEN
	tcase_add_test(t, test_head);
	tcase_add_loop_test(t, test_layout, 0, TABLES);
#endif
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
