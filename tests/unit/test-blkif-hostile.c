/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The ring's consumer against frontends that do not behave (rules R1 to R5 in
 * tapdisk/blkif/blkif.c). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#include "tests/support/test-ring.h"

/* --- R1 to R5 --- */

static void scribble(void)
{
	memset(g.ring.bytes + 64, 0xFF, sizeof g.ring.bytes - 64);
}

START_TEST(r1_a_request_that_changes_after_it_was_taken_changes_nothing)
{
	begin(BLKIF_NATIVE, 1);
	g.on_copy = scribble; /* at the earliest moment that a guest has */
	memset(g.mem[0], 0x77, 4096);
	ck_assert_int_eq(ask(desc(BLKIF_WRITE, 42, 16, 1)), BLKIF_OKAY);
	ck_assert_int_eq(disk[16 * 512], 0x77);
	ck_assert_int_eq(disk[24 * 512], as_made(24));
	img.at_once = false;
	put(desc(BLKIF_READ, 43, 16, 1));
	kick();
	turns(1);
	scribble();
	memset(g.mem, 0, sizeof g.mem);
	test_image_drain(&img);
	g.on_copy = NULL;
	turns(2);
	ck_assert_int_eq(g.mem[0][0], 0x77);
	end();
}
END_TEST

static void expect_stopped(void)
{
	ck_assert(blkif_is_broken(ring));
	ck_assert_uint_eq(nbroken, 1);
	ck_assert_ptr_nonnull(strstr(blkif_why(ring), "more requests"));
	kick();
	turns(3);
	blkif_run(ring); /* an unpause does not mend it */
	turns(3);
	ck_assert(blkif_is_broken(ring) && nbroken == 1);
	end();
}

START_TEST(r2_a_producer_that_runs_away_stops_the_ring)
{
	begin(BLKIF_NATIVE, 1);
	g.prod = g.slots + 1;
	kick();
	turns(2);
	ck_assert_uint_eq(blkif_stats(ring).taken, 0);
	expect_stopped();
}
END_TEST

START_TEST(r2_a_producer_that_goes_back_stops_the_ring)
{
	begin(BLKIF_NATIVE, 1);
	for (unsigned i = 0; i < 3; i++)
		ck_assert_int_eq(ask(desc(BLKIF_READ, 1, 0, 1)), BLKIF_OKAY);
	g.prod--;
	kick();
	turns(2);
	expect_stopped();
}
END_TEST

START_TEST(r2_a_producer_that_takes_back_what_is_under_way_stops_the_ring)
{
	begin(BLKIF_NATIVE, 1);
	img.at_once = false;
	for (unsigned i = 0; i < 3; i++)
		put(desc(BLKIF_READ, i, 0, 1));
	kick();
	turns(2);
	g.prod--;
	kick();
	turns(2);
	ck_assert(blkif_is_broken(ring));
	test_image_drain(&img);
	turns(2);
	expect_stopped();
}
END_TEST

START_TEST(r2_unanswered_requests_count)
{
	begin(BLKIF_NATIVE, 1);
	img.at_once = false;
	for (unsigned i = 0; i < g.slots; i++)
		put(desc(BLKIF_READ, i, i, 1));
	kick();
	turns(2);
	ck_assert_uint_eq(blkif_inflight(ring), g.slots);
	put(desc(BLKIF_READ, 99, 0, 1)); /* over one that is not answered */
	kick();
	turns(2);
	ck_assert(blkif_is_broken(ring));
	test_image_drain(&img); /* what it owes, it answers */
	turns(2);
	ck_assert_uint_eq(nresponses(), g.slots);
	expect_stopped();
}
END_TEST

static void lie_about_rsp_prod(void)
{
	g.ring.sring.rsp_prod += 1000;
}

START_TEST(r2_our_own_index_is_never_read_back)
{
	begin(BLKIF_NATIVE, 1);
	g.on_copy = lie_about_rsp_prod;
	for (unsigned i = 0; i < 100; i++)
		/* it is written right again */
		ck_assert_int_eq(ask(desc(BLKIF_READ, i, 0, 1)), BLKIF_OKAY);
	end();
}
END_TEST

START_TEST(r3_every_byte_of_a_response_is_written)
{
	for (int abi = 0; abi < 3; abi++) {
		unsigned size = abi == BLKIF_X86_32 ? 12 : 16;

		begin((enum blkif_abi)abi, 1);
		put(desc(BLKIF_READ, 0, 0, 1));
		memset(g.ring.bytes + 64 + 1, 0xEE, 1); /* nr_segs: malformed, the short way out */
		kick();
		turns(2);
		memset(g.ring.bytes + 64, 0xEE, 112);
		g.cons = 1;
		img.at_once = false;
		g.prod = 1;
		for (unsigned i = 1; i <= g.slots; i++)
			put(desc(BLKIF_READ, 0, 0, 1)); /* the last of these takes slot 0 again */
		kick();
		turns(2);
		memset(g.ring.bytes + 64, 0xEE, sizeof g.ring.bytes - 64);
		test_image_drain(&img);
		turns(2);
		ck_assert_uint_eq(nresponses(), g.slots);
		for (unsigned i = 0; i < g.slots; i++) {
			const char *slot =
				g.ring.bytes + 64 + i * (abi == BLKIF_X86_32 ? 108 : 112);

			for (unsigned k = 0; k < size; k++)
				ck_assert_int_eq(slot[k], 0); /* id 0, READ, OKAY, padding */
			ck_assert_int_eq(slot[size], (char)0xEE);
		}
		end();
	}
}
END_TEST

START_TEST(r4_segments_that_are_out_of_bounds_are_refused)
{
	static const uint8_t ops[] = {BLKIF_READ, BLKIF_WRITE, BLKIF_WRITE_BARRIER,
				      BLKIF_FLUSH_DISKCACHE};

	begin(BLKIF_NATIVE, 1);
	for (unsigned i = 0; i < 4; i++) {
		ck_assert_int_eq(ask(desc(ops[i], 1, 0, 12)), BLKIF_ERROR);
		ck_assert_int_eq(ask(desc(ops[i], 1, 0, 255)), BLKIF_ERROR);
		ck_assert_int_eq(ask_seg(ops[i], 0, 3, 2), BLKIF_ERROR);
		ck_assert_int_eq(ask_seg(ops[i], 0, 0, 8), BLKIF_ERROR);
		ck_assert_int_eq(ask_seg(ops[i], 0, 8, 8), BLKIF_ERROR);
		ck_assert_int_eq(ask_seg(ops[i], 0, 0, 255), BLKIF_ERROR);
		ck_assert_int_eq(ask_seg(ops[i], 0, 255, 255), BLKIF_ERROR);
	}
	ck_assert_int_eq(ask(desc(BLKIF_READ, 1, 0, 0)), BLKIF_ERROR);
	ck_assert_int_eq(ask(desc(BLKIF_WRITE, 1, 0, 0)), BLKIF_ERROR);
	ck_assert_uint_eq(blkif_stats(ring).malformed, 30);
	ck_assert_uint_eq(img.nreads + img.nwrites + img.nflushes, 0);
	ck_assert_uint_eq(g.copies, 0);
	ck_assert_int_eq(ask(desc(BLKIF_READ, 1, 0, 11)), BLKIF_OKAY); /* the ring goes on */
	end();
}
END_TEST

START_TEST(r4_sectors_beyond_the_end_are_refused_and_none_wraps)
{
	static const uint64_t bad[] = {
		TEST_IMAGE_SECTORS, TEST_IMAGE_SECTORS - 7, UINT64_MAX,        UINT64_MAX - 7,
		UINT64_MAX - 8,     UINT64_C(1) << 55,      UINT64_C(1) << 63, UINT32_MAX,
		INT64_MAX};

	begin(BLKIF_NATIVE, 1);
	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
		ck_assert_int_eq(ask(desc(BLKIF_READ, 1, bad[i], 1)), BLKIF_ERROR);
		ck_assert_int_eq(ask(desc(BLKIF_WRITE, 1, bad[i], 1)), BLKIF_ERROR);
	}
	ck_assert_uint_eq(img.nreads + img.nwrites, 0);
	ck_assert_int_eq(ask(desc(BLKIF_READ, 1, TEST_IMAGE_SECTORS - 8, 1)), BLKIF_OKAY);
	ck_assert_int_eq(ask_seg(BLKIF_WRITE, TEST_IMAGE_SECTORS - 1, 7, 7), BLKIF_OKAY);
	end();
}
END_TEST

START_TEST(r4_a_read_only_disk_takes_reads_and_empty_flushes)
{
	begin(BLKIF_NATIVE, 1);
	bdisk.read_only = true;
	ck_assert_int_eq(ask(desc(BLKIF_READ, 1, 0, 1)), BLKIF_OKAY);
	ck_assert_int_eq(ask(desc(BLKIF_FLUSH_DISKCACHE, 1, 0, 0)), BLKIF_OKAY);
	ck_assert_int_eq(ask(desc(BLKIF_WRITE, 1, 0, 1)), BLKIF_ERROR);
	ck_assert_int_eq(ask(desc(BLKIF_WRITE_BARRIER, 1, 0, 1)), BLKIF_ERROR);
	ck_assert_int_eq(ask(desc(BLKIF_WRITE_BARRIER, 1, 0, 0)), BLKIF_ERROR);
	ck_assert_int_eq(ask(desc(BLKIF_FLUSH_DISKCACHE, 1, 0, 1)), BLKIF_ERROR);
	ck_assert(ask(desc(BLKIF_DISCARD, 1, 0, 0)) != BLKIF_OKAY);
	ck_assert_uint_eq(img.nwrites, 0);
	end();
}
END_TEST

START_TEST(r5_a_bad_grant_fails_its_own_request_alone)
{
	uint64_t id;
	uint8_t op;
	struct blkif_desc bad[2] = {desc(BLKIF_WRITE, 101, 0, 11), desc(BLKIF_READ, 103, 0, 2)};

	begin(BLKIF_NATIVE, 1);
	bad[0].seg[5].ref = PAGES;
	bad[1].seg[1].ref = UINT32_MAX;
	memset(g.mem, 0x66, sizeof g.mem);
	put(desc(BLKIF_WRITE, 100, 96, 1));
	put(bad[0]);
	put(desc(BLKIF_READ, 102, 96, 1));
	put(bad[1]);
	put(desc(BLKIF_WRITE, 104, 200, 3));
	kick();
	turns(3);
	ck_assert_uint_eq(nresponses(), 5);
	for (unsigned i = 0; i < 5; i++) {
		int status = response(&id, &op);

		ck_assert_int_eq(status, id == 101 || id == 103 ? BLKIF_ERROR : BLKIF_OKAY);
	}
	ck_assert_uint_eq(img.nwrites, 2); /* the bad one's never came there */
	ck_assert_uint_eq(blkif_stats(ring).copy_errors, 2);
	ck_assert(disk[96 * 512] == 0x66 && disk[200 * 512] == 0x66 && disk[0] == 0);
	end();
}
END_TEST

/* --- everything at random --- */

static void random_desc(struct blkif_desc *d)
{
	unsigned char *p = (unsigned char *)d;

	for (size_t i = 0; i < sizeof *d; i++)
		p[i] = (unsigned char)rand();
	d->op = rand() % 8 ? (uint8_t)(rand() % 7) : d->op;
	d->nr_segs = rand() % 4 ? (uint8_t)(rand() % 13) : d->nr_segs;
	d->sector = rand() % 2 ? (uint64_t)rand() % (TEST_IMAGE_SECTORS + 8) : d->sector;
	for (unsigned i = 0; i < BLKIF_MAX_SEGS; i++)
		if (rand() % 64)
			d->seg[i] =
				(struct blkif_seg){(uint32_t)rand() % PAGES, (uint8_t)(rand() % 4),
						   (uint8_t)(4 + rand() % 4), 0};
}

START_TEST(nonsense_is_answered_or_stops_the_ring)
{
	unsigned seed = getenv("SEED") ? (unsigned)atoi(getenv("SEED")) : (unsigned)time(NULL),
		 okay = 0;

	fprintf(stderr, "seed %u\n", seed);
	srand(seed);
	for (int round = 0; round < 30; round++) {
		begin((enum blkif_abi)(round % 3), 1u << round % 5);
		img.at_once = false;
		for (int step = 0; step < 300; step++) {
			unsigned room = g.slots - (g.prod - g.cons);
			struct blkif_desc d;

			for (unsigned n = room ? (unsigned)rand() % room : 0; n; n--) {
				random_desc(&d);
				put(d);
			}
			kick();
			turns(1);
			for (unsigned n = (unsigned)rand() % (img.npending + 1); n; n--)
				test_image_complete(&img, (unsigned)rand() % img.npending, 0);
			turns(1);
			while (nresponses()) {
				uint64_t id;
				uint8_t op;

				okay += response(&id, &op) == BLKIF_OKAY;
			}
		}
		ck_assert(!blkif_is_broken(ring));
		g.ring.sring.req_prod = (uint32_t)rand() | 0x10000;
		eventfd_write(g.kick, 1);
		turns(2);
		ck_assert(blkif_is_broken(ring));
		while (blkif_inflight(ring)) {
			test_image_drain(&img);
			turns(1);
		}
		end();
	}
	ck_assert_uint_gt(okay, 1000);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("blkif-hostile");

	SUITE_ADD(s, r1_a_request_that_changes_after_it_was_taken_changes_nothing);
	SUITE_ADD(s, r2_a_producer_that_runs_away_stops_the_ring);
	SUITE_ADD(s, r2_a_producer_that_goes_back_stops_the_ring);
	SUITE_ADD(s, r2_a_producer_that_takes_back_what_is_under_way_stops_the_ring);
	SUITE_ADD(s, r2_unanswered_requests_count);
	SUITE_ADD(s, r2_our_own_index_is_never_read_back);
	SUITE_ADD(s, r3_every_byte_of_a_response_is_written);
	SUITE_ADD(s, r4_segments_that_are_out_of_bounds_are_refused);
	SUITE_ADD(s, r4_sectors_beyond_the_end_are_refused_and_none_wraps);
	SUITE_ADD(s, r4_a_read_only_disk_takes_reads_and_empty_flushes);
	SUITE_ADD(s, r5_a_bad_grant_fails_its_own_request_alone);
	SUITE_ADD(s, nonsense_is_answered_or_stops_the_ring);
	return suite_run(s);
}
