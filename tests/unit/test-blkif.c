/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The ring's consumer against frontends that behave (rules R6 to R11 in tapdisk/blkif/blkif.c). */
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
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

static unsigned sent[32], nsent; /* how many requests were there at each commit */

static void on_sent(struct td_io *io)
{
	ck_assert_uint_lt(nsent, 32);
	sent[nsent++] = img.nreads;
}

static void on_read(struct test_image *t, struct td_req *req)
{
	t->io.dirty = true; /* as an operation of an engine would make it */
}

START_TEST(the_first_of_a_batch_goes_to_the_disk_at_once)
{
	static const struct td_io_ops ops = {.name = "counts", .ahead = on_sent};
	static const unsigned expected[] = {1, 2, 4, 8, 12, 16};
	struct td_io own;

	begin(BLKIF_NATIVE, 1);
	own = img.io;
	img.io = (struct td_io){.ops = &ops, .loop = loop, .commit.data = &img.io};
	img.seen = on_read;
	nsent = 0;
	for (unsigned i = 0; i < 16; i++)
		put(desc(BLKIF_READ, i, 8 * i, 1));
	kick();
	turns(4);
	ck_assert_uint_eq(nsent, sizeof expected / sizeof *expected);
	for (unsigned i = 0; i < nsent; i++)
		ck_assert_uint_eq(sent[i], expected[i]);
	img.io = own;
	for (unsigned i = 0; i < 16; i++)
		ck_assert_int_eq(response(&(uint64_t){0}, &(uint8_t){0}), BLKIF_OKAY);
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

int main(void)
{
	Suite *s = suite_create("blkif");

	SUITE_ADD(s, data_goes_both_ways_in_every_abi_and_ring_size);
	SUITE_ADD(s, parts_of_pages_are_copied_and_no_byte_more);
	SUITE_ADD(s, a_full_ring_of_512_is_one_copy_and_one_notify);
	SUITE_ADD(s, the_first_of_a_batch_goes_to_the_disk_at_once);
	SUITE_ADD(s, equal_ids_are_all_answered);
	SUITE_ADD(s, flushes_and_barriers_with_and_without_data);
	SUITE_ADD(s, what_is_not_offered_is_not_supported);
	SUITE_ADD(s, a_discard_goes_down_within_the_disk_only);
	SUITE_ADD(s, errors_of_the_disk_come_back);
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
	return suite_run(s);
}
