/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How long it pays to stay awake (rules P3 to P5 of tapdisk/blkif/blkif-poll.c), and whether the
 * host has the time (P2): on a clock and a host that are made up. */
#include <check.h>
#include <unistd.h>

#include "tapdisk/blkif/blkif-poll.h"
#include "tests/support/suite.h"

#define US UINT64_C(1000)
#define MS UINT64_C(1000000)

static struct blkif_window w;
static uint64_t now, requests, most, disk_most, burnt;

/* There was work `gap' after the last; until then it has been awake as long as its window said. */
static void work(uint64_t gap, bool out, unsigned good)
{
	uint64_t window = w.until > now ? w.until - now : 0, awake = gap < window ? gap : window;

	burnt += awake;
	blkif_window_spun(&w, awake);
	now += gap;
	requests += good;
	blkif_window_work(&w, most, disk_most, out, requests, now);
}

/* A request, which the disk answers after `disk', and which comes `guest' after the last answer. */
static void request(uint64_t guest, uint64_t disk)
{
	work(guest, true, 1);
	work(disk, false, 0);
}

static uint64_t window(void)
{
	return w.until > now ? w.until - now : 0;
}

static void fresh(void)
{
	w = (struct blkif_window){0};
	now = 1000 * MS;
	requests = burnt = 0;
	most = BLKIF_POLL_GUEST;
	disk_most = BLKIF_POLL_DISK;
}

START_TEST(p3_quick_requests_open_the_window_up_to_its_longest)
{
	uint64_t was = 0;

	fresh();
	for (int i = 0; i < 10; i++) {
		request(20 * US, 50 * US);
		ck_assert_uint_ge(window(), was);
		ck_assert_uint_le(window(), most);
		was = window();
	}
	ck_assert_uint_ge(was, 20 * US);
	most = 10 * US; /* the owner's cap */
	request(5 * US, 50 * US);
	ck_assert_uint_le(window(), 10 * US);
}
END_TEST

START_TEST(p3_late_requests_close_it)
{
	fresh();
	for (int i = 0; i < 10; i++)
		request(20 * US, 50 * US);
	for (int i = 0; i < 3; i++)
		request(5 * MS, 50 * US);
	ck_assert_uint_eq(window(), 0);
	for (int i = 0; i < 1000; i++) {
		request(5 * MS, 300 * US);
		burnt = i < 20 ? 0 : burnt; /* until the disk is known to be slow */
	}
	ck_assert_uint_eq(burnt, 0);
}
END_TEST

/* Just beyond the longest window: near enough to be tried, always in vain. */
START_TEST(p3_windows_in_vain_become_rare)
{
	fresh();
	for (int i = 0; i < 10000; i++)
		request(most + 20 * US, 300 * US);
	ck_assert_uint_gt(burnt, 0);                 /* it has tried */
	ck_assert_uint_lt(burnt, 10000 * most / 20); /* and learnt */
}
END_TEST

START_TEST(p3_a_disk_that_answers_just_after_the_window_is_soon_not_waited_for)
{
	fresh();
	for (int i = 0; i < 10000; i++) {
		uint64_t late;

		work(5 * MS, true, 1);
		late = window();
		/* asleep it seems quick, awake it never comes in time */
		work(late ? late + 5 * US : 60 * US, false, 0);
	}
	ck_assert_uint_gt(burnt, 0);
	ck_assert_uint_lt(burnt, 10000 * 60 * US / 10);
}
END_TEST

START_TEST(p4_an_index_that_moves_without_a_request_burns_nothing)
{
	fresh();
	w.guest = most; /* as if it had paid until now */
	for (int i = 0; i < 100000; i++)
		work(10 * US, i % 2, 0);
	ck_assert_uint_eq(burnt, 0);
}
END_TEST

START_TEST(p4_what_was_earned_is_burnt_and_no_more)
{
	fresh();
	most = 8 * MS; /* xenopsd's */
	for (int i = 0; i < 1000; i++)
		request(20 * US, 50 * US);
	burnt = requests = 0;
	w.requests = 0;
	for (int i = 0; i < 100000; i++)
		work(10 * US, i % 2, 0);
	ck_assert_uint_gt(burnt, 0);
	ck_assert_uint_le(burnt, BLKIF_POLL_STORE);
}
END_TEST

/* Whatever a guest does with the time between its requests, and whatever its owner allows. */
START_TEST(p4_a_request_burns_no_more_than_its_bound)
{
	static const uint64_t gaps[] = {1 * US, 31 * US, 100 * US, 1 * MS, 3999 * US, 7999 * US};

	for (unsigned i = 0; i < sizeof gaps / sizeof *gaps; i++)
		for (int cap = 0; cap < 2; cap++) {
			fresh();
			most = cap ? 8 * MS : BLKIF_POLL_GUEST;
			for (int k = 0; k < 10000; k++)
				request(gaps[i], 100 * US);
			ck_assert_uint_le(burnt, requests * BLKIF_POLL_EARN + BLKIF_POLL_STORE);
			ck_assert_uint_le(burnt, now - 1000 * MS);
		}
	fresh();
	most = 8 * MS;
	for (int k = 0; k < 10000; k++)
		request(7999 * US, 100 * US); /* one in each of the longest windows */
	ck_assert_uint_le(burnt, (now - 1000 * MS) / 30);
}
END_TEST

START_TEST(p5_a_fast_disk_is_waited_for)
{
	fresh();
	for (int i = 0; i < 20; i++)
		request(5 * MS, 60 * US);
	work(5 * MS, true, 1);
	ck_assert_uint_ge(window(), 60 * US);
	ck_assert_uint_le(window(), 120 * US);
	disk_most = 10 * US; /* the owner's cap */
	work(60 * US, false, 0);
	work(5 * MS, true, 1);
	ck_assert_uint_eq(window(), 0);
}
END_TEST

START_TEST(p5_a_slow_disk_is_not)
{
	fresh();
	most = 8 * MS;
	disk_most = 8 * MS;
	for (int i = 0; i < 1000; i++) {
		work(20 * MS, true, 1);
		ck_assert_uint_eq(window(), 0);
		work(4 * MS, false, 0);
	}
	/* it has become quick */
	for (int i = 0; i < 40; i++)
		request(20 * MS, 50 * US);
	work(20 * MS, true, 1);
	ck_assert_uint_ge(window(), 50 * US);
}
END_TEST

START_TEST(at_rest_there_is_no_window)
{
	fresh();
	ck_assert_uint_eq(window(), 0);
	request(1 * US, 1 * US);
	now += 3600000 * MS;
	ck_assert_uint_eq(window(), 0);
}
END_TEST

/* --- the host --- */

static uint64_t idle_ticks, all_ticks;
static bool broken;
static unsigned read_ticks;

static bool made_up(uint64_t *idle, uint64_t *total)
{
	read_ticks++;
	*idle = idle_ticks;
	*total = all_ticks;
	return !broken;
}

/* Two processors, of which so many percent were idle for so long. */
static void passes(uint64_t ms, unsigned percent)
{
	uint64_t ticks = ms * (uint64_t)sysconf(_SC_CLK_TCK) / 1000 * 2;

	all_ticks += ticks;
	idle_ticks += ticks * percent / 100;
	now += ms * MS;
}

static void fresh_host(struct blkif_idle *h)
{
	*h = (struct blkif_idle){0};
	broken = false;
	now = 1000 * MS;
	all_ticks = idle_ticks = read_ticks = 0;
	blkif_idle_source(made_up);
}

START_TEST(p2_a_host_is_idle_when_it_was_lately)
{
	struct blkif_idle h;

	fresh_host(&h);
	ck_assert(!blkif_idle_judge(&h, 50, now)); /* nothing to compare with */
	passes(200, 80);
	ck_assert(blkif_idle_judge(&h, 50, now));
	passes(1000, 40);
	ck_assert(!blkif_idle_judge(&h, 50, now));
	passes(1000, 60);
	ck_assert(blkif_idle_judge(&h, 50, now));
	ck_assert(!blkif_idle_judge(&h, 50, now + 3600000 * MS)); /* hours ago is not lately */
	passes(3600200, 60);
	ck_assert(blkif_idle_judge(&h, 50, now));
	blkif_idle_source(NULL);
}
END_TEST

START_TEST(p2_the_host_is_asked_once_a_second)
{
	struct blkif_idle h;

	fresh_host(&h);
	for (int i = 0; i < 10000; i++) {
		passes(1, 90);
		blkif_idle_judge(&h, 50, now);
	}
	ck_assert_uint_le(read_ticks, 12);
	ck_assert_uint_ge(read_ticks, 9);
	blkif_idle_source(NULL);
}
END_TEST

/* One of two processors is ours, and burns all its time for nothing; the other is idle or not. */
START_TEST(p2_what_we_burn_counts_as_idle_and_what_others_burn_does_not)
{
	struct blkif_idle h;

	fresh_host(&h);
	blkif_idle_judge(&h, 60, now);
	passes(200, 50);
	blkif_idle_judge(&h, 60, now);
	ck_assert(!h.says);
	for (int i = 0; i < 900; i++)
		blkif_idle_step(&h, 1000);
	for (int i = 0; i < 99; i++)
		for (int k = 0; k < 10000; k++)
			blkif_idle_step(&h, 1000);
	passes(1000, 50);
	ck_assert(blkif_idle_judge(&h, 60, now));
	passes(1000, 50); /* now others do */
	ck_assert(!blkif_idle_judge(&h, 60, now));
	blkif_idle_source(NULL);
}
END_TEST

START_TEST(p2_it_ends_at_once_where_others_take_the_processor)
{
	struct blkif_idle h;

	fresh_host(&h);
	blkif_idle_judge(&h, 50, now);
	passes(200, 90);
	ck_assert(blkif_idle_judge(&h, 50, now));
	for (int i = 0; i < 100000; i++)
		blkif_idle_step(&h, 2000); /* our own looks */
	ck_assert(blkif_idle_judge(&h, 50, now));
	for (int i = 0; i < 3; i++)
		blkif_idle_step(&h, 2 * MS);
	ck_assert(!blkif_idle_judge(&h, 50, now));
	passes(500, 90);
	ck_assert(!blkif_idle_judge(&h, 50, now)); /* until the next look at the host */
	passes(600, 90);
	ck_assert(blkif_idle_judge(&h, 50, now));
	blkif_idle_source(NULL);
}
END_TEST

START_TEST(p2_a_host_that_cannot_be_asked_is_busy_unless_nobody_cares)
{
	struct blkif_idle h;

	fresh_host(&h);
	broken = true;
	for (int i = 0; i < 10; i++) {
		passes(1000, 100);
		ck_assert(!blkif_idle_judge(&h, 50, now));
		ck_assert(blkif_idle_judge(&h, 0, now));
	}
	blkif_idle_source(NULL);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("blkif-window");

	SUITE_ADD(s, p3_quick_requests_open_the_window_up_to_its_longest);
	SUITE_ADD(s, p3_late_requests_close_it);
	SUITE_ADD(s, p3_windows_in_vain_become_rare);
	SUITE_ADD(s, p3_a_disk_that_answers_just_after_the_window_is_soon_not_waited_for);
	SUITE_ADD(s, p4_an_index_that_moves_without_a_request_burns_nothing);
	SUITE_ADD(s, p4_what_was_earned_is_burnt_and_no_more);
	SUITE_ADD(s, p4_a_request_burns_no_more_than_its_bound);
	SUITE_ADD(s, p5_a_fast_disk_is_waited_for);
	SUITE_ADD(s, p5_a_slow_disk_is_not);
	SUITE_ADD(s, at_rest_there_is_no_window);
	SUITE_ADD(s, p2_a_host_is_idle_when_it_was_lately);
	SUITE_ADD(s, p2_the_host_is_asked_once_a_second);
	SUITE_ADD(s, p2_what_we_burn_counts_as_idle_and_what_others_burn_does_not);
	SUITE_ADD(s, p2_it_ends_at_once_where_others_take_the_processor);
	SUITE_ADD(s, p2_a_host_that_cannot_be_asked_is_busy_unless_nobody_cares);
	return suite_run(s);
}
