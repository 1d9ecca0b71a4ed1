/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* lib/io/clock.c: one look at the clock a turn where it is dear, and none that is older than its
 * turn. */
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include "lib/io/clock.h"
#include "tests/support/suite.h"

#define WHILE UINT64_C(5000000) /* ns, which a turn is made to last at least */

static struct ev_loop *loop;
static ev_timer timer;

static uint64_t through_libc(void)
{
	struct timespec t;

	ck_assert_int_eq(clock_gettime(CLOCK_MONOTONIC, &t), 0);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void begin(enum td_clock_kind kind)
{
	td_clock_is(kind, 0);
	loop = ev_loop_new(EVFLAG_AUTO);
	ck_assert_ptr_nonnull(loop);
	td_clock_attach(loop);
}

static void in_a_turn(void (*fn)(struct ev_loop *, ev_timer *, int))
{
	ev_timer_init(&timer, fn, 0.001, 0);
	ev_timer_start(loop, &timer);
	ev_run(loop, 0);
}

static void end(void)
{
	td_clock_detach(loop);
	ev_loop_destroy(loop);
	td_clock_is(TD_CLOCK_CHEAP, 0);
}

static uint64_t seen[2];
static int turns;

static void on_stands(struct ev_loop *l, ev_timer *w, int revents)
{
	uint64_t before = td_clock();
	double loops = ev_now(l);

	usleep(WHILE / 1000);
	ck_assert_uint_eq(td_clock(), before);
	ev_now_update(l); /* libev asks us */
	ck_assert(ev_now(l) == loops);
	ck_assert_uint_ge(through_libc(), before + WHILE); /* who is not libev asks libc */
	seen[turns++] = before;
	if (turns < 2) {
		ev_timer_set(w, 0.001, 0);
		ev_timer_start(l, w);
	}
}

START_TEST(a_turn_has_one_time_and_the_next_one_a_later)
{
	begin(TD_CLOCK_DEAR);
	turns = 0;
	in_a_turn(on_stands);
	ck_assert_int_eq(turns, 2);
	ck_assert_uint_ge(seen[1], seen[0] + WHILE);
	td_clock_detach(loop);
	ck_assert_uint_ge(td_clock(), seen[1] + WHILE);
	ck_assert_uint_ge(through_libc(), seen[1] + WHILE);
	end();
}
END_TEST

static void on_moves(struct ev_loop *l, ev_timer *w, int revents)
{
	uint64_t before = td_clock();

	usleep(WHILE / 1000);
	ck_assert_uint_ge(td_clock(), before + WHILE);
	ck_assert_uint_ge(through_libc(), before + WHILE);
	turns++;
}

START_TEST(a_clock_that_costs_nothing_is_looked_at_each_time)
{
	begin(TD_CLOCK_CHEAP);
	turns = 0;
	in_a_turn(on_moves);
	ck_assert_int_eq(turns, 1);
	end();
}
END_TEST

static void on_update(struct ev_loop *l, ev_timer *w, int revents)
{
	uint64_t before = td_clock();
	double loops = ev_now(l);

	usleep(WHILE / 1000);
	td_clock_update(l);
	/* a wall clock may be set meanwhile, by little */
	ck_assert(ev_now(l) >= loops + WHILE / 2e9);
	ck_assert_uint_ge(td_clock(), before + WHILE);
	turns++;
}

START_TEST(a_turn_that_has_become_long_can_be_told_the_time)
{
	begin(TD_CLOCK_DEAR);
	turns = 0;
	in_a_turn(on_update);
	ck_assert_int_eq(turns, 1);
	end();
}
END_TEST

static void *elsewhere(void *arg)
{
	uint64_t before = td_clock();

	usleep(WHILE / 1000);
	ck_assert_uint_ge(td_clock(), before + WHILE);
	ck_assert_uint_ge(through_libc(), before + WHILE);
	return arg;
}

static void on_thread(struct ev_loop *l, ev_timer *w, int revents)
{
	pthread_t t;

	ck_assert_int_eq(pthread_create(&t, NULL, elsewhere, NULL), 0);
	pthread_join(t, NULL);
	turns++;
}

START_TEST(another_thread_is_told_the_time_as_it_is)
{
	begin(TD_CLOCK_DEAR);
	turns = 0;
	in_a_turn(on_thread);
	ck_assert_int_eq(turns, 1);
	end();
}
END_TEST

START_TEST(other_clocks_are_libcs_and_a_probe_breaks_none)
{
	struct timespec t, real;

	ck_assert_int_eq(clock_gettime(CLOCK_REALTIME, &t), 0);
	ck_assert_int_eq(timespec_get(&real, TIME_UTC), TIME_UTC);
	ck_assert_int_le(real.tv_sec - t.tv_sec, 60);
	ck_assert_int_ne(clock_gettime((clockid_t)999, &t), 0);
	td_clock_probe();
	ck_assert_uint_gt(td_call_cost(), 0);
	ck_assert_uint_lt(td_call_cost(), 1000000000);
	ck_assert_uint_le(td_clock(), td_clock_now());
	td_clock_is(TD_CLOCK_CHEAP, 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("clock");

	SUITE_ADD(s, a_turn_has_one_time_and_the_next_one_a_later);
	SUITE_ADD(s, a_clock_that_costs_nothing_is_looked_at_each_time);
	SUITE_ADD(s, a_turn_that_has_become_long_can_be_told_the_time);
	SUITE_ADD(s, another_thread_is_told_the_time_as_it_is);
	SUITE_ADD(s, other_clocks_are_libcs_and_a_probe_breaks_none);
	return suite_run(s);
}
