/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Persistent grants (rules PG1 to PG5 in tapdisk/blkif/blkif-persist.c): data in the guest's pages,
 * and R6. */
#include <stdlib.h>
#include <string.h>

#include "tests/support/test-ring.h"

#define CAP 2048 /* pages that stay mapped */

static void begin_persistent(void)
{
	persistent = true;
	begin(BLKIF_NATIVE, 1);
}

/* An image's part of a request: in pieces. */
static void seen_iov(struct test_image *t, struct td_req *r)
{
	char *p = disk + r->off;
	uint64_t sum = 0;

	for (int i = 0; i < r->iovcnt; i++) {
		if (r->op == TD_READ)
			memcpy(r->iov[i].iov_base, p, r->iov[i].iov_len);
		else if (r->op == TD_WRITE)
			memcpy(p, r->iov[i].iov_base, r->iov[i].iov_len);
		p += r->iov[i].iov_len;
		sum += r->iov[i].iov_len;
	}
	ck_assert_uint_eq(sum, r->len);
}

static int ask_ref(uint8_t op, uint64_t sector, uint32_t ref)
{
	struct blkif_desc d = desc(op, 1, sector, 1);

	d.seg[0].ref = ref;
	return ask(d);
}

START_TEST(data_stay_in_the_guests_pages)
{
	struct blkif_desc d = desc(BLKIF_WRITE, 1, 0, 11);

	begin_persistent();
	img.seen = seen_iov;
	for (unsigned i = 0; i < 11; i++)
		memset(g.mem[i], (int)i + 1, 4096);
	d.seg[2] = (struct blkif_seg){.ref = 20, .first = 3, .last = 4};
	memset(g.mem[20], 0x20, 4096);
	ck_assert_int_eq(ask(d), BLKIF_OKAY);
	ck_assert(disk[0] == 1 && disk[8191] == 2 && disk[8192] == 0x20 && disk[9215] == 0x20 &&
		  disk[9216] == 4);
	memset(g.mem, 0x5a, sizeof g.mem);
	d.op = BLKIF_READ;
	ck_assert_int_eq(ask(d), BLKIF_OKAY);
	ck_assert(g.mem[0][0] == 1 && g.mem[1][4095] == 2 && g.mem[3][0] == 4 &&
		  g.mem[10][4095] == 11);
	ck_assert(g.mem[20][1535] == 0x5a && g.mem[20][1536] == 0x20 && g.mem[20][2559] == 0x20 &&
		  g.mem[20][2560] == 0x5a);
	ck_assert_uint_eq(g.copies, 0);
	ck_assert_uint_eq(g.maps, 11); /* each once */
	ck_assert_uint_eq(blkif_stats(ring).mapped, 2);
	end();
}
END_TEST

START_TEST(indirect_requests_too)
{
	struct blkif_desc d = {
		.op = BLKIF_INDIRECT, .nr_segs = BLKIF_WRITE, .id = 3, .nr_indirect = 500};
	struct blkif_seg *s = (struct blkif_seg *)(void *)g.mem[PAGES - 1];

	begin_persistent();
	img.seen = seen_iov;
	d.page[0] = PAGES - 1;
	for (unsigned i = 0; i < 500; i++) {
		/* no two are neighbours */
		s[i] = (struct blkif_seg){.ref = 1000 - 2 * i, .last = 7};
		memset(g.mem[1000 - 2 * i], (int)i, 4096);
	}
	ck_assert_int_eq(ask(d), BLKIF_OKAY);
	for (unsigned i = 0; i < 500; i++)
		ck_assert_int_eq(disk[i * 4096 + 4095], (char)i);
	ck_assert_uint_eq(g.copies, 1); /* of the segments */
	end();
}
END_TEST

START_TEST(without_the_frontends_word_all_is_copied)
{
	persistent = false;
	begin(BLKIF_NATIVE, 1);
	ck_assert_int_eq(ask(desc(BLKIF_READ, 1, 0, 2)), BLKIF_OKAY);
	ck_assert(!g.maps && g.copies == 1);
	end();
}
END_TEST

START_TEST(g2_what_cannot_be_mapped_is_copied)
{
	struct blkif_desc d = desc(BLKIF_WRITE, 1, 0, 3);

	begin_persistent();
	ck_assert_int_eq(ask(desc(BLKIF_WRITE, 1, 8, 2)), BLKIF_OKAY);
	g.refuse_page = true;
	memset(g.mem, 0x44, sizeof g.mem);
	/* two of its pages are mapped, and are let go again */
	ck_assert_int_eq(ask(d), BLKIF_OKAY);
	ck_assert(disk[0] == 0x44 && disk[12287] == 0x44 && g.copies == 1);
	d.op = BLKIF_READ;
	ck_assert_int_eq(ask(d), BLKIF_OKAY);
	d.seg[1].ref = PAGES;
	ck_assert_int_eq(ask(d), BLKIF_ERROR);
	ck_assert_uint_eq(g.pages_mapped, 2);
	end();
}
END_TEST

START_TEST(r6_pages_are_capped_and_the_least_recently_used_goes)
{
	begin_persistent();
	img.seen = seen_iov;
	for (uint32_t i = 0; i < CAP; i++)
		ck_assert_int_eq(ask_ref(BLKIF_READ, 0, i), BLKIF_OKAY);
	ck_assert(g.pages_mapped == CAP && g.maps == CAP);
	/* used again: 1 is the oldest now */
	ck_assert_int_eq(ask_ref(BLKIF_READ, 0, 0), BLKIF_OKAY);
	ck_assert_int_eq(ask_ref(BLKIF_READ, 0, CAP), BLKIF_OKAY);
	ck_assert(g.pages_mapped == CAP && g.maps == CAP + 1);
	ck_assert_int_eq(ask_ref(BLKIF_READ, 0, 0), BLKIF_OKAY);
	ck_assert_uint_eq(g.maps, CAP + 1);
	ck_assert_int_eq(ask_ref(BLKIF_READ, 0, 1), BLKIF_OKAY);
	ck_assert_uint_eq(g.maps, CAP + 2);
	end(); /* which looks that all are unmapped */
}
END_TEST

START_TEST(g1_a_page_in_use_stays)
{
	begin_persistent();
	img.seen = NULL;
	img.at_once = false;
	put(desc(BLKIF_READ, 7, 0, 1)); /* page 0 */
	kick();
	turns(2);
	img.at_once = true;
	for (uint32_t i = 1; i < CAP + 20; i++) {
		uint64_t id;
		uint8_t op;
		struct blkif_desc d = desc(BLKIF_READ, 1, 0, 1);

		d.seg[0].ref = i;
		put(d);
		kick();
		turns(2);
		ck_assert_int_eq(response(&id, &op), BLKIF_OKAY);
	}
	ck_assert_uint_eq(g.maps, CAP + 20);
	test_image_drain(&img);
	turns(2);
	ck_assert_uint_eq(nresponses(), 1);
	g.cons++;
	ck_assert_int_eq(ask_ref(BLKIF_READ, 0, 0), BLKIF_OKAY);
	ck_assert_uint_eq(g.maps, CAP + 20); /* it was there still */
	end();
}
END_TEST

START_TEST(g3_a_frontend_that_never_uses_a_page_twice_is_copied_in_the_end)
{
	begin_persistent();
	for (uint32_t i = 0; i < 12 * CAP; i++)
		ck_assert_int_eq(ask_ref(BLKIF_READ, 0, i % PAGES), BLKIF_OKAY);
	ck_assert_uint_eq(g.maps, 9 * CAP);
	ck_assert(g.pages_mapped == CAP && g.copies > CAP);
	end();
}
END_TEST

START_TEST(g5_what_is_decrypted_is_not_read_into_the_guests_pages)
{
	begin_persistent();
	img.seen = seen_iov;
	bdisk.decrypts = true;
	ck_assert_int_eq(ask_ref(BLKIF_READ, 0, 3), BLKIF_OKAY);
	ck_assert(!g.maps && g.copies == 1);
	ck_assert_int_eq(ask_ref(BLKIF_WRITE, 0, 3), BLKIF_OKAY); /* which is encrypted in a copy */
	ck_assert(g.maps == 1 && g.copies == 1);
	ck_assert_int_eq(ask_ref(BLKIF_READ, 0, 3), BLKIF_OKAY); /* mapped or not */
	ck_assert_uint_eq(g.copies, 2);
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("blkif-persist");

	SUITE_ADD(s, data_stay_in_the_guests_pages);
	SUITE_ADD(s, indirect_requests_too);
	SUITE_ADD(s, without_the_frontends_word_all_is_copied);
	SUITE_ADD(s, g2_what_cannot_be_mapped_is_copied);
	SUITE_ADD(s, r6_pages_are_capped_and_the_least_recently_used_goes);
	SUITE_ADD(s, g1_a_page_in_use_stays);
	SUITE_ADD(s, g3_a_frontend_that_never_uses_a_page_twice_is_copied_in_the_end);
	SUITE_ADD(s, g5_what_is_decrypted_is_not_read_into_the_guests_pages);
	return suite_run(s);
}
