/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* INDIRECT requests: their segments stand in a page of the guest's, which is as little to be
 * trusted as the ring. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/test-ring.h"

#define SEGS_PAGE (PAGES - 1) /* of the guest's memory: where the segments stand */
#define WHOLE     512         /* pages of the image: the largest request covers it */

static struct blkif_seg *segs(void)
{
	return (struct blkif_seg *)(void *)g.mem[SEGS_PAGE];
}

/* n whole pages; of few pages of memory, over and over */
static struct blkif_desc indirect(uint8_t op, uint64_t id, uint64_t sector, unsigned n)
{
	struct blkif_desc d = {.op = BLKIF_INDIRECT,
			       .nr_segs = op,
			       .id = id,
			       .sector = sector,
			       .nr_indirect = (uint16_t)n};

	d.page[0] = SEGS_PAGE;
	for (unsigned i = 0; i < n && i < WHOLE; i++)
		segs()[i] = (struct blkif_seg){.ref = i % 32, .last = 7};
	return d;
}

START_TEST(an_indirect_request_carries_two_mebibytes_in_every_abi)
{
	for (int abi = 0; abi < 3; abi++) {
		begin((enum blkif_abi)abi, 1);
		for (unsigned i = 0; i < 32; i++)
			memset(g.mem[i], (int)i + 1, 4096);
		ck_assert_int_eq(ask(indirect(BLKIF_WRITE, 1, 0, WHOLE)), BLKIF_OKAY);
		for (unsigned i = 0; i < WHOLE; i++)
			ck_assert(disk[i * 4096] == (char)(i % 32 + 1) &&
				  disk[i * 4096 + 4095] == (char)(i % 32 + 1));
		ck_assert_uint_eq(img.nwrites, 1);
		memset(g.mem, 0, sizeof g.mem);
		ck_assert_int_eq(ask(indirect(BLKIF_READ, 2, 8, 40)), BLKIF_OKAY);
		/* pages 32 and 40 of the disk, the second time round */
		ck_assert(g.mem[31][0] == 1 && g.mem[7][4095] == 9);
		ck_assert_uint_eq(blkif_stats(ring).indirect, 2);
		end();
	}
}
END_TEST

START_TEST(parts_of_pages_are_copied_and_no_byte_more)
{
	struct blkif_desc d;

	begin(BLKIF_NATIVE, 1);
	memset(g.mem, 0x5a, sizeof g.mem);
	d = indirect(BLKIF_READ, 1, 100, 2);
	segs()[0] = (struct blkif_seg){.ref = 3, .first = 2, .last = 2, .pad = 0xffff};
	segs()[1] = (struct blkif_seg){.ref = 4, .first = 6, .last = 7};
	ck_assert_int_eq(ask(d), BLKIF_OKAY);
	ck_assert_mem_eq(g.mem[3] + 1024, disk + 51200, 512);
	ck_assert_mem_eq(g.mem[4] + 3072, disk + 51712, 1024);
	ck_assert(g.mem[3][1023] == 0x5a && g.mem[3][1536] == 0x5a && g.mem[4][3071] == 0x5a &&
		  g.mem[5][0] == 0x5a);
	end();
}
END_TEST

static void scribble(void)
{
	memset(g.mem[SEGS_PAGE], 0xFF, 4096);
	memset(g.ring.bytes + 64, 0xFF, sizeof g.ring.bytes - 64);
}

START_TEST(r1_segments_that_change_after_they_were_copied_change_nothing)
{
	begin(BLKIF_NATIVE, 1);
	g.on_copy = scribble;
	memset(g.mem[0], 0x77, 4096);
	ck_assert_int_eq(ask(indirect(BLKIF_WRITE, 42, 16, 1)), BLKIF_OKAY);
	ck_assert_int_eq(disk[16 * 512], 0x77);
	ck_assert_int_eq(disk[24 * 512], as_made(24));
	memset(g.mem[0], 0, 4096);
	ck_assert_int_eq(ask(indirect(BLKIF_READ, 43, 16, 1)), BLKIF_OKAY);
	ck_assert_int_eq(g.mem[0][0], 0x77);
	end();
}
END_TEST

START_TEST(r4_numbers_that_are_out_of_bounds_are_refused)
{
	static const unsigned counts[] = {0, 513, 4096, 65535};
	static const uint8_t inner[] = {BLKIF_WRITE_BARRIER,
					BLKIF_FLUSH_DISKCACHE,
					4,
					BLKIF_DISCARD,
					BLKIF_INDIRECT,
					77,
					255};
	static const struct blkif_seg bad[] = {{.first = 3, .last = 2},
					       {.last = 8},
					       {.first = 8, .last = 8},
					       {.last = 255},
					       {.first = 255, .last = 255}};

	begin(BLKIF_NATIVE, 1);
	for (unsigned w = 0; w < 2; w++) {
		for (unsigned i = 0; i < 4; i++)
			ck_assert_int_eq(ask(indirect((uint8_t)w, 1, 0, counts[i])), BLKIF_ERROR);
		for (unsigned i = 0; i < 5; i++) {
			struct blkif_desc d = indirect((uint8_t)w, 1, 0, 100);

			segs()[99] = bad[i];
			ck_assert_int_eq(ask(d), BLKIF_ERROR);
		}
		ck_assert_int_eq(ask(indirect((uint8_t)w, 1, 8, WHOLE)), BLKIF_ERROR);
		ck_assert_int_eq(ask(indirect((uint8_t)w, 1, UINT64_MAX - 7, 2)), BLKIF_ERROR);
	}
	for (unsigned i = 0; i < sizeof inner; i++)
		ck_assert_int_eq(ask(indirect(inner[i], 1, 0, 1)), BLKIF_ERROR);
	bdisk.read_only = true;
	ck_assert_int_eq(ask(indirect(BLKIF_WRITE, 1, 0, 1)), BLKIF_ERROR);
	ck_assert_uint_eq(img.nreads + img.nwrites + img.nflushes, 0);
	ck_assert_uint_eq(blkif_stats(ring).malformed, 2 * 11 + 7 + 1);
	ck_assert_int_eq(ask(indirect(BLKIF_READ, 1, 0, WHOLE)), BLKIF_OKAY);
	end();
}
END_TEST

START_TEST(r5_a_bad_grant_fails_its_own_request_alone)
{
	struct blkif_desc no_page, no_data;
	uint64_t id;
	uint8_t op;

	begin(BLKIF_NATIVE, 1);
	no_page = indirect(BLKIF_WRITE, 100, 0, 5);
	no_page.page[0] = PAGES;
	put(no_page);
	put(indirect(BLKIF_WRITE, 101, 96, 12));
	segs()[11].ref = UINT32_MAX;
	no_data = desc(BLKIF_WRITE, 102, 200, 3);
	put(no_data);
	kick();
	turns(3);
	ck_assert_uint_eq(nresponses(), 3);
	for (unsigned i = 0; i < 3; i++) {
		int status = response(&id, &op);

		ck_assert_int_eq(status, id == 102 ? BLKIF_OKAY : BLKIF_ERROR);
		ck_assert_int_eq(op, BLKIF_WRITE);
	}
	ck_assert_uint_eq(img.nwrites, 1);
	ck_assert_uint_eq(blkif_stats(ring).copy_errors, 2);
	end();
}
END_TEST

/* A guest can have many large requests in a large ring: we hold room for some at a time, and no
 * order is lost by that. */
START_TEST(what_finds_no_room_stays_in_the_ring_in_order)
{
	unsigned answered = 0, before = 0;
	uint64_t id;
	uint8_t op;

	begin(BLKIF_NATIVE, 16);
	img.at_once = false;
	for (unsigned i = 0; i < 100; i++)
		put(indirect(BLKIF_READ, i, 0, WHOLE));
	put(desc(BLKIF_WRITE_BARRIER, 100, 0, 1));
	put(desc(BLKIF_READ, 101, 0, 1));
	kick();
	turns(5);
	ck_assert_uint_lt(img.npending, 100);
	ck_assert_uint_ge(img.npending, 8);
	ck_assert_uint_eq(blkif_stats(ring).taken, img.npending);
	ck_assert_uint_eq(ev_pending_count(loop), 0); /* it waits, and does not spin */
	while (answered < 102) {
		ck_assert_uint_ge(img.npending, 1);
		test_image_complete(&img, 0, 0);
		turns(2);
		for (; nresponses(); answered++) {
			ck_assert_int_eq(response(&id, &op), BLKIF_OKAY);
			before += id < 100;
			if (id >= 100)
				ck_assert_uint_eq(before, 100);
		}
	}
	end();
}
END_TEST

START_TEST(nonsense_in_the_page_is_answered)
{
	unsigned seed = getenv("SEED") ? (unsigned)atoi(getenv("SEED")) : (unsigned)time(NULL),
		 okay = 0, n = 2000;

	fprintf(stderr, "seed %u\n", seed);
	srand(seed);
	begin(BLKIF_NATIVE, 1);
	for (unsigned i = 0; i < n; i++) {
		struct blkif_desc d = indirect((uint8_t)(rand() % 16 ? rand() % 2 : rand()), 1,
					       (uint64_t)rand() % 4200, (unsigned)rand() % 530);

		if (rand() % 8 == 0)
			for (unsigned k = 0; k < 4096; k += 1 + (unsigned)rand() % 2000)
				g.mem[SEGS_PAGE][k] = (char)rand();
		if (rand() % 16 == 0)
			d.page[0] = (uint32_t)rand();
		okay += ask(d) == BLKIF_OKAY;
	}
	ck_assert(!blkif_is_broken(ring) && okay > n / 20 && okay < n);
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("blkif-indirect");

	SUITE_ADD(s, an_indirect_request_carries_two_mebibytes_in_every_abi);
	SUITE_ADD(s, parts_of_pages_are_copied_and_no_byte_more);
	SUITE_ADD(s, r1_segments_that_change_after_they_were_copied_change_nothing);
	SUITE_ADD(s, r4_numbers_that_are_out_of_bounds_are_refused);
	SUITE_ADD(s, r5_a_bad_grant_fails_its_own_request_alone);
	SUITE_ADD(s, what_finds_no_room_stays_in_the_ring_in_order);
	SUITE_ADD(s, nonsense_in_the_page_is_answered);
	return suite_run(s);
}
