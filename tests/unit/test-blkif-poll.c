/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Staying awake after work (rules P1 to P3 in tapdisk/blkif/blkif-poll.c).  Times are such that no
 * machine is too slow for them. */
#include <string.h>
#include <sys/eventfd.h>

#include "lib/io/clock.h"
#include "tapdisk/blkif/blkif-ring.h"
#include "tests/support/test-ring.h"

#define LONG 60000000u /* us */

/* Pushes a request as a frontend does, with an event only if it is asked for; true: it was. */
static bool push(struct blkif_desc d)
{
	uint32_t old = g.prod;

	put(d);
	__atomic_store_n(&g.ring.sring.req_prod, g.prod, __ATOMIC_SEQ_CST);
	if (g.prod - g.ring.sring.req_event >= g.prod - old)
		return false;
	eventfd_write(g.kick, 1);
	return true;
}

static void answered(void)
{
	uint64_t id;
	uint8_t op;

	for (int i = 0; i < 1000 && !nresponses(); i++)
		turns(1);
	ck_assert_int_eq(response(&id, &op), BLKIF_OKAY);
}

/* A ring that is awake, and stays so for a long time. */
static void begin_awake(void)
{
	polling_us = LONG;
	polling_idle = 0;
	begin(BLKIF_NATIVE, 1);
	/* the first work ever is the first after a long time, and the window that it finds is
	 * halved */
	ring->poll.window = UINT64_C(2000) * LONG;
	ck_assert(push(desc(BLKIF_READ, 1, 0, 1)));
	answered();
	ck_assert(ring->poll.on);
}

START_TEST(without_being_asked_for_it_sleeps_at_once)
{
	polling_us = 0;
	begin(BLKIF_NATIVE, 1);
	for (int i = 0; i < 10; i++) {
		ck_assert(push(desc(BLKIF_READ, 1, 0, 1)));
		answered();
		ck_assert(!ring->poll.on);
	}
	end();
}
END_TEST

START_TEST(awake_it_asks_for_no_events_and_misses_no_request)
{
	begin_awake();
	for (int i = 0; i < 50; i++) {
		ck_assert(!push(desc(i % 2 ? BLKIF_READ : BLKIF_WRITE, 1, 0, 1)));
		answered();
	}
	ck_assert_uint_eq(g.acks, 1);
	ck_assert_uint_ge(blkif_stats(ring).polled, 50);
	end();
}
END_TEST

START_TEST(p1_it_goes_to_sleep_when_the_window_is_over_and_asks_for_an_event)
{
	begin_awake();
	ring->poll.window = 0;
	while (ring->poll.on)
		turns(1);
	ck_assert_uint_eq(g.ring.sring.req_event, g.prod + 1);
	ck_assert(push(desc(BLKIF_READ, 1, 0, 1)));
	answered();
	end();
}
END_TEST

START_TEST(a_request_that_comes_as_it_goes_to_sleep_is_found)
{
	begin_awake();
	for (int i = 0; i < 20; i++) {
		ring->poll.on ? ck_assert(!push(desc(BLKIF_READ, 1, 0, 1)))
			      : (void)push(desc(BLKIF_READ, 1, 0, 1));
		ring->poll.window = i % 2; /* over when it looks next */
		answered();
	}
	end();
}
END_TEST

START_TEST(p2_a_busy_host_keeps_it_asleep)
{
	polling_us = LONG;
	polling_idle = 100;
	begin(BLKIF_NATIVE, 1);
	for (int i = 0; i < 50; i++) {
		ck_assert(push(desc(BLKIF_READ, 1, 0, 1))); /* within a second of the first look,
							       which has nothing to compare with */
		ring->poll.looked = ring->poll.looked ? td_clock_now() : 0;
		ring->poll.host_idle = false;
		answered();
		ck_assert(!ring->poll.on);
	}
	ck_assert_uint_gt(ring->poll.total_ticks, 0); /* it did look */
	/* a host that was all idle: what has been spun counts as idle */
	ring->poll.looked = 1;
	ring->poll.spun = UINT64_MAX / 1000;
	ring->poll.total_ticks -= 100;
	ring->poll.window = UINT64_C(2000) * LONG;
	ck_assert(push(desc(BLKIF_READ, 1, 0, 1)));
	answered();
	ck_assert(ring->poll.on);
	end();
}
END_TEST

START_TEST(p3_the_window_follows_the_work)
{
	uint64_t was;

	polling_us = LONG;
	polling_idle = 0;
	begin(BLKIF_NATIVE, 1);
	(void)push(desc(BLKIF_READ, 1, 0, 1)); /* the first for a long time */
	answered();
	ring->poll.window = 0;
	while (ring->poll.on)
		turns(1);
	ck_assert_uint_eq(ring->poll.window, 0);
	(void)push(desc(BLKIF_READ, 1, 0, 1)); /* soon after */
	answered();
	was = ring->poll.window;
	ck_assert_uint_gt(was, 0);
	while (ring->poll.on)
		turns(1);
	ring->poll.last = td_clock_now() - was - 1;
	(void)push(desc(BLKIF_READ, 1, 0, 1)); /* after it went to sleep, but soon */
	turns(1);
	ck_assert_uint_ge(ring->poll.window, 2 * was);
	answered();
	blkif_poll_stop(ring);
	was = ring->poll.window;
	ring->poll.last = 1; /* long ago */
	g.prod == g.cons ? (void)0 : ck_abort();
	blkif_poll_work(ring, UINT64_C(2000) * LONG);
	ck_assert_uint_lt(ring->poll.window, was);
	end();
}
END_TEST

START_TEST(a_ring_that_is_held_or_broken_does_not_stay_awake)
{
	begin_awake();
	blkif_hold(ring);
	ck_assert(!ring->poll.on);
	(void)push(desc(BLKIF_READ, 1, 0, 1));
	turns(5);
	ck_assert_uint_eq(nresponses(), 0);
	blkif_run(ring);
	answered();
	g.prod += 1000;
	kick();
	turns(3);
	ck_assert(blkif_is_broken(ring) && !ring->poll.on);
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("blkif-poll");

	SUITE_ADD(s, without_being_asked_for_it_sleeps_at_once);
	SUITE_ADD(s, awake_it_asks_for_no_events_and_misses_no_request);
	SUITE_ADD(s, p1_it_goes_to_sleep_when_the_window_is_over_and_asks_for_an_event);
	SUITE_ADD(s, a_request_that_comes_as_it_goes_to_sleep_is_found);
	SUITE_ADD(s, p2_a_busy_host_keeps_it_asleep);
	SUITE_ADD(s, p3_the_window_follows_the_work);
	SUITE_ADD(s, a_ring_that_is_held_or_broken_does_not_stay_awake);
	return suite_run(s);
}
