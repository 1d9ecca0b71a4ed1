/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A ring that stays awake after work (tapdisk/blkif/blkif-poll.c), on a clock that is made up.  How
 * long it does, and on which hosts, is test-blkif-window's. */
#include <string.h>
#include <sys/eventfd.h>

#include "tapdisk/blkif/blkif-ring.h"
#include "tests/support/fake-clock.h"
#include "tests/support/test-ring.h"

#define MOST 200u /* us */

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

/* A ring that is awake after its first request. */
static void begin_awake(void)
{
	polling_us = MOST;
	polling_idle = 0;
	begin(BLKIF_NATIVE, 1);
	ring->poll.window.guest = UINT64_C(1000) * MOST;
	ck_assert(push(desc(BLKIF_READ, 1, 0, 1)));
	answered();
	ck_assert(ring->poll.on);
	ring->poll.window.disk = UINT64_C(100000); /* its answers come in the next slice */
}

START_TEST(p1_where_the_answer_is_no_it_sleeps_at_once)
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

static bool idle_host(uint64_t *idle, uint64_t *total)
{
	static uint64_t ticks;

	*total = ticks += 100;
	*idle = ticks;
	return true;
}

static bool busy_host(uint64_t *idle, uint64_t *total)
{
	static uint64_t ticks;

	*total = ticks += 100;
	*idle = 0;
	return true;
}

/* Requests that come quickly, and then, after a pause that the first look at the host needs, more;
 * true: it was awake after one of these. */
static bool awake_by_default(bool (*host)(uint64_t *idle, uint64_t *total))
{
	bool was = false;

	blkif_idle_source(host);
	polling_us = BLKIF_POLLING_UNSAID;
	polling_idle = BLKIF_POLLING_IDLE;
	begin(BLKIF_NATIVE, 1);
	for (int i = 0; i < 40; i++) {
		if (i == 20)
			fake_now += 200000000;
		fake_now += 10000;
		(void)push(desc(BLKIF_READ, 1, 0, 1));
		answered();
		was |= ring->poll.on;
	}
	while (ring->poll.on)
		turns(1);
	end();
	blkif_idle_source(NULL);
	return was;
}

START_TEST(p1_where_nothing_is_said_it_stays_awake_on_an_idle_host)
{
	ck_assert(awake_by_default(idle_host));
}
END_TEST

START_TEST(p2_on_a_busy_host_it_does_not)
{
	ck_assert(!awake_by_default(busy_host));
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
	uint64_t begun;

	begin_awake();
	begun = fake_now;
	for (int i = 0; ring->poll.on; i++) {
		turns(1);
		ck_assert_int_lt(i, 100);
	}
	ck_assert_uint_ge(fake_now - begun, UINT64_C(1000) * (MOST - 10));
	ck_assert_uint_lt(fake_now - begun, UINT64_C(1000) * 2 * MOST);
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
		if (i % 2)
			ring->poll.window.until = 0; /* over when it looks next */
		answered();
	}
	end();
}
END_TEST

/* P4: malformed requests, as quick as they may be. */
START_TEST(p4_malformed_requests_burn_nothing)
{
	uint64_t id;
	uint8_t op;

	polling_us = 8000;
	polling_idle = 0;
	begin(BLKIF_NATIVE, 1);
	ring->poll.window.guest = UINT64_C(8000000);
	for (int i = 0; i < 1000; i++) {
		ck_assert(push(desc(99, 1, 0, 1)));
		for (int k = 0; k < 1000 && !nresponses(); k++)
			turns(1);
		(void)response(&id, &op);
		ck_assert(!ring->poll.on);
	}
	end();
}
END_TEST

/* P4: one request in each of the longest windows, as an owner allows them. */
START_TEST(p4_a_request_a_window_keeps_it_awake_for_its_bound_alone)
{
	uint64_t begun, awake = 0;
	unsigned n = 2000;

	polling_us = 8000;
	polling_idle = 0;
	begin(BLKIF_NATIVE, 1);
	for (unsigned i = 0; i < n; i++) {
		(void)push(desc(BLKIF_READ, 1, 0, 1));
		answered();
		begun = fake_now;
		while (ring->poll.on && fake_now - begun < 7000000) {
			uint64_t was = fake_now;

			turns(1);
			awake += fake_now - was;
		}
		fake_now = begun + 7000000;
	}
	ck_assert_uint_gt(awake, 0);
	/* and one slice of what is kept, as a window that has begun is not cut short */
	ck_assert_uint_le(awake, n * BLKIF_POLL_EARN + 2 * BLKIF_POLL_STORE);
	while (ring->poll.on)
		turns(1);
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

	SUITE_ADD(s, p1_where_the_answer_is_no_it_sleeps_at_once);
	SUITE_ADD(s, p1_where_nothing_is_said_it_stays_awake_on_an_idle_host);
	SUITE_ADD(s, p2_on_a_busy_host_it_does_not);
	SUITE_ADD(s, awake_it_asks_for_no_events_and_misses_no_request);
	SUITE_ADD(s, p1_it_goes_to_sleep_when_the_window_is_over_and_asks_for_an_event);
	SUITE_ADD(s, a_request_that_comes_as_it_goes_to_sleep_is_found);
	SUITE_ADD(s, p4_malformed_requests_burn_nothing);
	SUITE_ADD(s, p4_a_request_a_window_keeps_it_awake_for_its_bound_alone);
	SUITE_ADD(s, a_ring_that_is_held_or_broken_does_not_stay_awake);
	return suite_run(s);
}
