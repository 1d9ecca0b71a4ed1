/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The ring's consumer against frontends that behave, and against those that do not (rules R1 to R11
 * in tapdisk/blkif/blkif.c). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/test-ring.h"

/* --- what works --- */

START_TEST(data_goes_both_ways_in_every_abi_and_ring_size)
{
	for (int abi = 0; abi < 3; abi++)
		for (unsigned pages = 1; pages <= 16; pages *= 2) {
			begin((enum blkif_abi)abi, pages);
			ck_assert_uint_eq(g.slots, 32 * pages);
			for (unsigned k = 0; k < 3; k++) {
				for (unsigned i = 0; i < BLKIF_MAX_SEGS; i++)
					memset(g.mem[i], (int)(k * 16 + i + 1), 4096);
				ck_assert_int_eq(ask(desc(BLKIF_WRITE, 1, k * 88, 11)), BLKIF_OKAY);
			}
			memset(g.mem, 0, sizeof g.mem);
			ck_assert_int_eq(ask(desc(BLKIF_READ, 1, 88, 11)), BLKIF_OKAY);
			for (unsigned i = 0; i < BLKIF_MAX_SEGS; i++)
				ck_assert_int_eq(g.mem[i][4095], (int)(16 + i + 1));
			end();
		}
}
END_TEST

START_TEST(parts_of_pages_are_copied_and_no_byte_more)
{
	struct blkif_desc d = desc(BLKIF_READ, 1, 100, 2);

	begin(BLKIF_NATIVE, 1);
	memset(g.mem, 0x5a, sizeof g.mem);
	d.seg[0] = (struct blkif_seg){.ref = 3, .first = 2, .last = 2};
	d.seg[1] = (struct blkif_seg){.ref = 4, .first = 6, .last = 7};
	ck_assert_int_eq(ask(d), BLKIF_OKAY);
	ck_assert_mem_eq(g.mem[3] + 1024, disk + 51200, 512);
	ck_assert_mem_eq(g.mem[4] + 3072, disk + 51712, 1024);
	ck_assert(g.mem[3][1023] == 0x5a && g.mem[3][1536] == 0x5a && g.mem[4][3071] == 0x5a &&
		  g.mem[5][0] == 0x5a);
	d.op = BLKIF_WRITE;
	d.sector = 200;
	ck_assert_int_eq(ask(d), BLKIF_OKAY);
	ck_assert_mem_eq(disk + 200 * 512, disk + 100 * 512, 1536);
	ck_assert_int_eq(disk[203 * 512], as_made(203));
	end();
}
END_TEST

START_TEST(a_full_ring_of_512_is_one_copy_and_one_notify)
{
	begin(BLKIF_X86_64, 16);
	ck_assert_uint_eq(g.slots, 512);
	for (unsigned round = 0; round < 5; round++) { /* over the ring's end and again */
		g.copies = g.notified = 0;
		for (unsigned i = 0; i < 512; i++)
			put(desc(round & 1 ? BLKIF_READ : BLKIF_WRITE, i, i, 11));
		kick();
		turns(3);
		ck_assert_uint_eq(nresponses(), 512);
		ck_assert_uint_eq(g.copies, 1);
		ck_assert_uint_eq(g.notified, 1);
		for (unsigned i = 0; i < 512; i++) {
			uint64_t id;
			uint8_t op;

			ck_assert_int_eq(response(&id, &op), BLKIF_OKAY);
			ck_assert_uint_eq(id, i);
		}
		g.ring.sring.rsp_event = g.cons + 1;
	}
	end();
}
END_TEST

START_TEST(equal_ids_are_all_answered)
{
	begin(BLKIF_NATIVE, 1);
	img.at_once = false;
	for (unsigned i = 0; i < 4; i++)
		put(desc(BLKIF_READ, 0, i, 1));
	put(desc(BLKIF_WRITE_BARRIER, 0, 0, 0));
	put(desc(BLKIF_FLUSH_DISKCACHE, 0, 0, 0));
	kick();
	turns(2);
	ck_assert_uint_eq(nresponses(), 0);
	test_image_complete(&img, 2, 0);
	turns(1);
	ck_assert_uint_eq(nresponses(), 1);
	test_image_drain(&img);
	turns(2);
	test_image_drain(&img);
	turns(2);
	ck_assert_uint_eq(nresponses(), 6);
	end();
}
END_TEST

START_TEST(flushes_and_barriers_with_and_without_data)
{
	struct blkif_desc d = desc(BLKIF_FLUSH_DISKCACHE, 5, UINT64_MAX, 0);

	begin(BLKIF_NATIVE, 1);
	ck_assert_int_eq(ask(d), BLKIF_OKAY); /* its sector means nothing */
	ck_assert_uint_eq(cache.n.flushes, 1);
	d.op = BLKIF_WRITE_BARRIER;
	ck_assert_int_eq(ask(d), BLKIF_OKAY);
	ck_assert_uint_eq(cache.n.barriers, 1);
	ck_assert_int_eq(ask(desc(BLKIF_WRITE_BARRIER, 6, 8, 1)), BLKIF_OKAY);
	ck_assert_uint_eq(cache.n.barriers, 2);
	ck_assert_int_eq(ask(desc(BLKIF_FLUSH_DISKCACHE, 6, 8, 1)), BLKIF_OKAY);
	ck_assert_uint_eq(img.nwrites, 2);
	ck_assert_int_eq(ask(desc(BLKIF_WRITE_BARRIER, 6, TEST_IMAGE_SECTORS, 1)), BLKIF_ERROR);
	ck_assert_int_eq(ask(desc(BLKIF_FLUSH_DISKCACHE, 6, TEST_IMAGE_SECTORS, 1)), BLKIF_ERROR);
	end();
}
END_TEST

START_TEST(what_is_not_offered_is_not_supported)
{
	static const uint8_t ops[] = {4, BLKIF_DISCARD, 7, 128, 255};

	begin(BLKIF_NATIVE, 1);
	for (unsigned i = 0; i < sizeof ops; i++)
		ck_assert_int_eq(ask(desc(ops[i], 9, 0, 1)), BLKIF_EOPNOTSUPP);
	ck_assert_uint_eq(img.nreads + img.nwrites, 0);
	end();
}
END_TEST

static int discard(uint64_t sector, uint64_t n, uint8_t flag)
{
	struct blkif_desc d = desc(BLKIF_DISCARD, 9, sector, 0);

	d.nr_sectors = n;
	d.nr_segs = flag;
	return ask(d);
}

static struct td_req seen_discard;

static void on_seen(struct test_image *t, struct td_req *req)
{
	if (req->op == TD_DISCARD)
		seen_discard = *req;
}

START_TEST(a_discard_goes_down_within_the_disk_only)
{
	for (unsigned abi = 0; abi < 3; abi++) {
		begin((enum blkif_abi)abi, 1);
		bdisk.discard = true;
		img.seen = on_seen;
		ck_assert_int_eq(discard(8, TEST_IMAGE_SECTORS - 8, 0), BLKIF_OKAY);
		ck_assert_uint_eq(seen_discard.off, 8 * 512);
		ck_assert_uint_eq(seen_discard.len, (TEST_IMAGE_SECTORS - 8) * 512);
		memset(&seen_discard, 0, sizeof seen_discard);
		/* a secure one is not offered */
		ck_assert_int_eq(discard(8, 8, 1), BLKIF_EOPNOTSUPP);
		ck_assert_int_eq(discard(8, 0, 0), BLKIF_ERROR);
		ck_assert_int_eq(discard(8, TEST_IMAGE_SECTORS - 7, 0), BLKIF_ERROR);
		ck_assert_int_eq(discard(TEST_IMAGE_SECTORS, 1, 0), BLKIF_ERROR);
		ck_assert_int_eq(discard(8, UINT64_MAX - 7, 0), BLKIF_ERROR);
		ck_assert_int_eq(discard(UINT64_MAX, 2, 0), BLKIF_ERROR);
		/* whose bytes would wrap */
		ck_assert_int_eq(discard(8, UINT64_C(1) << 55, 0), BLKIF_ERROR);
		bdisk.read_only = true;
		ck_assert_int_eq(discard(8, 8, 0), BLKIF_ERROR);
		bdisk.read_only = false;
		ck_assert_uint_eq(seen_discard.len, 0);
		img.at_once_err = -EOPNOTSUPP;
		ck_assert_int_eq(discard(8, 8, 0), BLKIF_EOPNOTSUPP);
		end();
	}
}
END_TEST

START_TEST(errors_of_the_disk_come_back)
{
	begin(BLKIF_NATIVE, 1);
	memset(g.mem, 0x5a, sizeof g.mem);
	img.at_once_err = -EIO;
	ck_assert_int_eq(ask(desc(BLKIF_READ, 1, 0, 1)), BLKIF_ERROR);
	ck_assert_int_eq(g.mem[0][0], 0x5a); /* R11: nothing of a failed read goes to the guest */
	ck_assert_int_eq(ask(desc(BLKIF_WRITE, 1, 0, 1)), BLKIF_ERROR);
	ck_assert_uint_eq(blkif_stats(ring).errors, 2);
	ck_assert_uint_eq(blkif_stats(ring).malformed, 0);
	end();
}
END_TEST

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

/* --- events --- */

START_TEST(the_guest_is_notified_by_the_rule_of_the_ring)
{
	begin(BLKIF_NATIVE, 1);
	ck_assert_int_eq(ask(desc(BLKIF_READ, 1, 0, 1)), BLKIF_OKAY);
	ck_assert_uint_eq(g.notified, 1);
	g.ring.sring.rsp_event = g.cons; /* polling: it does not want to hear */
	ck_assert_int_eq(ask(desc(BLKIF_READ, 1, 0, 1)), BLKIF_OKAY);
	ck_assert_uint_eq(g.notified, 1);
	g.ring.sring.rsp_event = g.cons + 3; /* only with the third from here */
	ask(desc(BLKIF_READ, 1, 0, 1));
	ask(desc(BLKIF_READ, 1, 0, 1));
	ck_assert_uint_eq(g.notified, 1);
	ask(desc(BLKIF_READ, 1, 0, 1));
	ck_assert_uint_eq(g.notified, 2);
	ck_assert_uint_eq(blkif_stats(ring).kicks_out, 2);
	end();
}
END_TEST

START_TEST(an_event_is_asked_for_with_the_next_request)
{
	begin(BLKIF_NATIVE, 1);
	img.at_once = false;
	for (unsigned i = 0; i < 3; i++)
		put(desc(BLKIF_READ, 1, 0, 1));
	kick();
	turns(1);
	ck_assert_uint_eq(g.ring.sring.req_event, 4);
	test_image_drain(&img);
	turns(2);
	end();
}
END_TEST

START_TEST(a_request_without_an_event_is_found_when_others_are_answered)
{
	begin(BLKIF_NATIVE, 1);
	img.at_once = false;
	put(desc(BLKIF_READ, 1, 0, 1));
	kick();
	turns(1);
	put(desc(BLKIF_READ, 2, 0, 1));
	g.ring.sring.req_prod = g.prod;
	test_image_drain(&img);
	turns(1);
	ck_assert_uint_eq(img.npending, 1);
	test_image_drain(&img);
	turns(1);
	end();
}
END_TEST

START_TEST(r8_a_storm_of_empty_events_is_answered_ever_later)
{
	unsigned before;

	begin(BLKIF_NATIVE, 1);
	for (unsigned i = 0; i < 10000; i++) {
		kick();
		turns(1);
	}
	ck_assert_uint_lt(g.acks, 2000); /* 10,000 without the rule; how many exactly, time says */
	before = g.acks;
	put(desc(BLKIF_READ, 1, 0, 1));
	kick();
	for (int i = 0; i < 100 && !nresponses(); i++)
		ev_run(loop, EVRUN_ONCE);
	ck_assert_uint_eq(nresponses(), 1); /* a request is served all the same */
	g.cons++;
	ck_assert_uint_le(g.acks - before, 3);
	before = g.acks;
	ck_assert_int_eq(ask(desc(BLKIF_READ, 1, 0, 1)), BLKIF_OKAY); /* and ends the storm */
	end();
}
END_TEST

START_TEST(events_for_requests_that_were_found_already_are_no_storm)
{
	begin(BLKIF_NATIVE, 1);
	img.at_once = false;
	put(desc(BLKIF_READ, 0, 0, 1));
	kick();
	turns(1);
	for (unsigned i = 1; i < 300; i++) {
		put(desc(BLKIF_READ, i, 0, 1));
		__atomic_store_n(&g.ring.sring.req_prod, g.prod, __ATOMIC_RELEASE);
		test_image_complete(&img, 0, 0);
		ev_invoke_pending(loop);  /* its answer brings the next request with it */
		eventfd_write(g.kick, 1); /* and the event for that comes after */
		turns(1);
		ck_assert_uint_eq(img.npending, 1);
	}
	ck_assert_uint_eq(blkif_stats(ring).kicks_in, 300);
	test_image_drain(&img);
	turns(1);
	end();
}
END_TEST

static unsigned fed;

/* A guest on another processor that puts a request for each response. */
static void feed(void)
{
	put(desc(BLKIF_READ, 1, 0, 1));
	__atomic_store_n(&g.ring.sring.req_prod, g.prod, __ATOMIC_RELEASE);
	fed++;
}

START_TEST(a_busy_guest_leaves_the_loop_to_others)
{
	begin(BLKIF_NATIVE, 1);
	g.on_copy = feed;
	feed();
	kick();
	turns(1);
	ck_assert_uint_gt(fed, 10);
	ck_assert_uint_lt(fed, 100); /* one turn came to an end */
	turns(20);
	ck_assert_uint_gt(fed, 100); /* and the ring goes on by itself in the next */
	g.on_copy = NULL;
	turns(3);
	end();
}
END_TEST

static void busy(struct ev_loop *l, ev_io *w, int revents)
{
}

START_TEST(a_busy_guest_is_not_starved_by_another_disk)
{
	int fd = eventfd(1, EFD_NONBLOCK);
	ev_io other;

	begin(BLKIF_NATIVE, 1);
	ev_io_init(&other, busy, fd, EV_READ); /* something is pending in every turn */
	ev_io_start(loop, &other);
	g.on_copy = feed;
	feed();
	kick();
	turns(1);
	fed = 0;
	turns(20);
	ck_assert_uint_gt(fed, 100);
	g.on_copy = NULL;
	turns(3);
	ev_io_stop(loop, &other);
	close(fd);
	end();
}
END_TEST

/* --- hold, run, connect --- */

START_TEST(a_held_ring_takes_nothing_and_loses_nothing)
{
	begin(BLKIF_NATIVE, 1);
	img.at_once = false;
	put(desc(BLKIF_READ, 1, 0, 1));
	kick();
	turns(1);
	blkif_hold(ring);
	blkif_hold(ring);
	put(desc(BLKIF_READ, 2, 0, 1));
	kick();
	turns(3);
	ck_assert_uint_eq(blkif_inflight(ring), 1);
	nidle = 0;
	test_image_drain(&img);
	turns(3);
	ck_assert_uint_eq(nresponses(), 1); /* what was taken is answered */
	ck_assert_uint_eq(nidle, 1);
	ck_assert_uint_eq(blkif_stats(ring).taken, 1);
	blkif_run(ring);
	ck_assert_uint_eq(img.npending, 1);
	test_image_drain(&img);
	turns(2);
	ck_assert_uint_eq(nresponses(), 2);
	end();
}
END_TEST

START_TEST(a_connection_that_fails_leaves_nothing_behind)
{
	struct blkif *first;
	struct td_err err = {0};

	begin(BLKIF_NATIVE, 1);
	first = ring;
	g.refuse_map = true;
	ck_assert_int_eq(try_connect(BLKIF_NATIVE, 1, &err), -EFAULT);
	g.refuse_map = false;
	g.refuse_bind = true;
	err.code = 0;
	ck_assert_int_eq(try_connect(BLKIF_NATIVE, 1, &err), -ENOENT);
	g.refuse_bind = false;
	g.ring.sring.rsp_prod = 5;
	err.code = 0;
	ck_assert_int_eq(try_connect(BLKIF_NATIVE, 1, &err), -EBUSY);
	ck_assert_ptr_nonnull(strstr(err.text, "served before"));
	ck_assert(g.mapped == 1 && g.bound == 1 && g.closed == 0); /* the first's */
	ring = first;
	end();
	blkif_disconnect(NULL);
}
END_TEST

START_TEST(r7_connecting_again_and_again_is_harmless)
{
	begin(BLKIF_NATIVE, 1);
	for (unsigned i = 0; i < 200; i++) {
		put(desc(BLKIF_READ, 1, 0, 1));
		kick();
		if (i % 3)
			turns(1);
		blkif_hold(ring);
		turns(2);
		blkif_disconnect(ring);
		ck_assert(g.mapped == 0 && g.bound == 0 && g.closed == i + 1);
		memset(g.ring.bytes, 0, sizeof g.ring.bytes);
		g.prod = g.cons = 0;
		ck_assert_int_eq(try_connect((enum blkif_abi)(i % 3), 1u << i % 5, NULL), 0);
		blkif_run(ring);
	}
	g.closed = 0;
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
	Suite *s = suite_create("blkif");

	SUITE_ADD(s, data_goes_both_ways_in_every_abi_and_ring_size);
	SUITE_ADD(s, parts_of_pages_are_copied_and_no_byte_more);
	SUITE_ADD(s, a_full_ring_of_512_is_one_copy_and_one_notify);
	SUITE_ADD(s, equal_ids_are_all_answered);
	SUITE_ADD(s, flushes_and_barriers_with_and_without_data);
	SUITE_ADD(s, what_is_not_offered_is_not_supported);
	SUITE_ADD(s, a_discard_goes_down_within_the_disk_only);
	SUITE_ADD(s, errors_of_the_disk_come_back);
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
	SUITE_ADD(s, the_guest_is_notified_by_the_rule_of_the_ring);
	SUITE_ADD(s, an_event_is_asked_for_with_the_next_request);
	SUITE_ADD(s, a_request_without_an_event_is_found_when_others_are_answered);
	SUITE_ADD(s, r8_a_storm_of_empty_events_is_answered_ever_later);
	SUITE_ADD(s, events_for_requests_that_were_found_already_are_no_storm);
	SUITE_ADD(s, a_busy_guest_leaves_the_loop_to_others);
	SUITE_ADD(s, a_busy_guest_is_not_starved_by_another_disk);
	SUITE_ADD(s, a_held_ring_takes_nothing_and_loses_nothing);
	SUITE_ADD(s, a_connection_that_fails_leaves_nothing_behind);
	SUITE_ADD(s, r7_connecting_again_and_again_is_harmless);
	SUITE_ADD(s, nonsense_is_answered_or_stops_the_ring);
	return suite_run(s);
}
