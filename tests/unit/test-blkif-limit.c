/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A disk's limits at its ring (RT1, RT5 and RT6 of tapdisk/limit.h).  Rates are such that no
 * machine is slow enough for what waits to go. */
#include <string.h>

#include "lib/io/clock.h"
#include "tapdisk/blkif/blkif-ring.h"
#include "tests/support/test-ring.h"

static void limit(uint64_t bytes, uint64_t writes)
{
	struct limit_rates r = {.bytes = {[LIMIT_ALL] = bytes, [LIMIT_WRITE] = writes}};

	limit_set(&bdisk.rates, &r, td_clock_now());
}

/* Puts it; is it answered? */
static bool goes(struct blkif_desc d)
{
	uint64_t id;
	uint8_t op;

	put(d);
	kick();
	turns(20);
	if (!nresponses())
		return false;
	ck_assert_int_eq(response(&id, &op), BLKIF_OKAY);
	return true;
}

static void answered(unsigned n)
{
	uint64_t id;
	uint8_t op;

	while (nresponses() < n)
		ev_run(loop, EVRUN_ONCE);
	while (n--)
		ck_assert_int_eq(response(&id, &op), BLKIF_OKAY);
}

/* 44 KiB cost eleven thousand seconds and more */
#define LARGE desc(BLKIF_WRITE, 1, 0, 11)
#define SLOW  4

START_TEST(what_has_to_wait_stays_in_the_ring_and_holds_nothing)
{
	begin(BLKIF_NATIVE, 1);
	limit(SLOW, 0);
	ck_assert(goes(LARGE));
	g.copies = 0;
	for (int i = 0; i < 5; i++)
		ck_assert(!goes(desc(BLKIF_READ, (uint64_t)i, 0, 1)));
	ck_assert_uint_eq(blkif_inflight(ring), 0);
	ck_assert_uint_eq(blkif_stats(ring).taken, 1);
	ck_assert_uint_eq(g.copies, 0);
	ck_assert_uint_eq(bdisk.rates.n.waits, 1); /* it is always the same one that asks */
	ck_assert(ev_is_active(&ring->pace));
	/* and a pause has nothing to wait for */
	blkif_hold(ring);
	ck_assert(!ev_is_active(&ring->pace));
	turns(20);
	ck_assert_uint_eq(nresponses(), 0);
	blkif_run(ring);
	turns(20);
	ck_assert_uint_eq(nresponses(), 0);
	ck_assert(ev_is_active(&ring->pace));
	limit(0, 0);
	answered(5);
	end();
}
END_TEST

START_TEST(a_lifted_limit_wakes_the_ring_without_an_event)
{
	begin(BLKIF_NATIVE, 1);
	limit(SLOW, 0);
	ck_assert(goes(LARGE));
	ck_assert(!goes(LARGE));
	limit(UINT64_C(1) << 40, 0);
	answered(1);
	ck_assert(goes(LARGE));
	end();
}
END_TEST

START_TEST(a_ring_that_waits_does_not_stay_awake)
{
	polling_us = 10000;
	polling_idle = 0;
	begin(BLKIF_NATIVE, 1);
	limit(SLOW, 0);
	ring->poll.window.guest = UINT64_C(1000) * polling_us;
	ring->poll.window.credit = BLKIF_POLL_STORE;
	ck_assert(goes(LARGE));
	ck_assert(!goes(LARGE));
	while (ring->poll.on)
		turns(1);
	turns(20);
	ck_assert(!ring->poll.on);
	ck_assert(ev_is_active(&ring->pace));
	limit(0, 0);
	answered(1);
	end();
}
END_TEST

START_TEST(a_flush_is_free_and_reads_pass_a_limit_of_writes)
{
	begin(BLKIF_NATIVE, 1);
	limit(0, SLOW);
	ck_assert(goes(LARGE));
	ck_assert(goes(desc(BLKIF_FLUSH_DISKCACHE, 2, 0, 0)));
	for (int i = 0; i < 5; i++)
		ck_assert(goes(desc(BLKIF_READ, 3, 0, 11)));
	ck_assert(!goes(desc(BLKIF_WRITE, 4, 0, 1)));
	ck_assert(!goes(desc(BLKIF_READ, 5, 0, 1))); /* behind it */
	limit(0, 0);
	answered(2);
	end();
}
END_TEST

START_TEST(an_indirect_pays_for_its_bytes_and_not_for_whole_pages)
{
	struct blkif_desc d = {.op = BLKIF_INDIRECT, .nr_segs = BLKIF_READ, .nr_indirect = 100};
	struct blkif_seg *seg = (void *)g.mem[200];

	begin(BLKIF_NATIVE, 1);
	for (unsigned i = 0; i < 100; i++)
		seg[i] = (struct blkif_seg){.ref = i, .first = 0, .last = 0};
	d.page[0] = 200;
	limit(1, 0);
	ck_assert(goes(d));
	ck_assert_uint_le(bdisk.rates.bytes[LIMIT_ALL].next,
			  td_clock_now() + UINT64_C(51200) * 1000000000);
	ck_assert(!goes(d));
	limit(0, 0);
	answered(1);
	end();
}
END_TEST

START_TEST(a_malformed_request_does_not_wait)
{
	begin(BLKIF_NATIVE, 1);
	limit(SLOW, 0);
	ck_assert(goes(LARGE));
	put(desc(BLKIF_WRITE, 1, 0, 0));
	put(desc(99, 1, 0, 1));
	kick();
	turns(20);
	ck_assert_uint_eq(nresponses(), 2);
	g.cons += 2;
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("blkif-limit");

	SUITE_ADD(s, what_has_to_wait_stays_in_the_ring_and_holds_nothing);
	SUITE_ADD(s, a_lifted_limit_wakes_the_ring_without_an_event);
	SUITE_ADD(s, a_ring_that_waits_does_not_stay_awake);
	SUITE_ADD(s, a_flush_is_free_and_reads_pass_a_limit_of_writes);
	SUITE_ADD(s, an_indirect_pays_for_its_bytes_and_not_for_whole_pages);
	SUITE_ADD(s, a_malformed_request_does_not_wait);
	return suite_run(s);
}
