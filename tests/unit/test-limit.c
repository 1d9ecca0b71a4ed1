/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A disk's limits (RT2, RT3, RT5 and the words of tapdisk/limit.h), on a clock of the test's. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tapdisk/limit.h"
#include "tests/support/suite.h"

#define S  UINT64_C(1000000000)
#define MS UINT64_C(1000000)

static struct limit l;
static struct limit_rates r;
static uint64_t now;

static void setup(void)
{
	memset(&l, 0, sizeof l);
	memset(&r, 0, sizeof r);
	now = 1000 * S;
}

static void set(void)
{
	limit_set(&l, &r, now);
}

/* Who asks for one request after the other until `until', sleeping as it is told to: how many went.
 */
static unsigned ask_until(struct limit_place *p, bool write, uint64_t bytes, uint64_t until)
{
	unsigned n = 0;

	while (now < until) {
		uint64_t due = limit_take(&l, p, write, bytes, now);

		if (due) {
			ck_assert_uint_gt(due, now);
			now = due < until ? due : until;
		} else {
			n++;
		}
	}
	return n;
}

START_TEST(without_a_limit_nothing_is_on)
{
	set();
	ck_assert(!limit_on(&l));
	r.bytes[LIMIT_WRITE] = 4096;
	set();
	ck_assert(limit_on(&l));
	r.bytes[LIMIT_WRITE] = 0;
	set();
	ck_assert(!limit_on(&l));
}
END_TEST

START_TEST(a_rate_is_kept_and_reached)
{
	struct limit_place p = {0};
	unsigned n;

	r.iops[LIMIT_ALL] = 100;
	set();
	n = ask_until(&p, false, 4096, now + 100 * S);
	ck_assert_uint_ge(n, 10000 - 1);
	ck_assert_uint_le(n, 10000 + 11); /* the burst of 100 ms is 10 requests more */
	ck_assert_uint_gt(l.n.waits, 9000);
	ck_assert_uint_gt(l.n.ns, 99 * S - S);

	memset(&r, 0, sizeof r);
	r.bytes[LIMIT_WRITE] = 1 << 20;
	set();
	p = (struct limit_place){0};
	n = ask_until(&p, true, 65536, now + 100 * S);
	ck_assert_uint_ge(n, 1600 - 1);
	ck_assert_uint_le(n, 1600 + 3);
}
END_TEST

START_TEST(the_strictest_rate_counts_and_reads_are_not_writes)
{
	struct limit_place p = {0}, q = {0};

	r.iops[LIMIT_WRITE] = 10;
	r.bytes[LIMIT_ALL] = 1 << 20;
	set();
	ck_assert_uint_le(ask_until(&p, true, 4096, now + 100 * S), 1000 + 2);
	/* reads: bytes alone count, 256 requests of 4 KiB in a second */
	ck_assert_uint_ge(ask_until(&q, false, 4096, now + 100 * S), 25600 - 1);
}
END_TEST

START_TEST(an_idle_disk_saves_up_its_burst_and_no_more)
{
	struct limit_place p = {0};
	unsigned n = 0;

	r.iops[LIMIT_ALL] = 10;
	r.burst = 2000;
	set();
	now += 3600 * S;
	while (!limit_take(&l, &p, false, 512, now))
		n++;
	ck_assert_uint_eq(n, 21); /* 2 s of it, and the one that is due */
	setup();
	r.iops[LIMIT_ALL] = 10;
	set();
	n = 0;
	p = (struct limit_place){0};
	while (!limit_take(&l, &p, false, 512, now)) /* nothing has been saved up yet */
		n++;
	ck_assert_uint_eq(n, 1);
}
END_TEST

/* A host that wakes late, as epoll does by up to a millisecond: the rate is reached. */
START_TEST(who_is_woken_late_catches_up)
{
	struct limit_place p = {0};
	uint64_t until;
	unsigned n = 0;

	r.iops[LIMIT_ALL] = 20000;
	set();
	for (until = now + 10 * S; now < until; now += 7 * MS)
		while (!limit_take(&l, &p, true, 512, now))
			n++;
	ck_assert_uint_ge(n, 199000);
	ck_assert_uint_le(n, 200000 + 2001);
}
END_TEST

START_TEST(a_large_request_goes_when_its_time_has_come_and_the_next_waits_for_it)
{
	struct limit_place p = {0};

	r.bytes[LIMIT_ALL] = 4096;
	set();
	ck_assert_uint_eq(limit_take(&l, &p, true, 64 << 20, now), 0);
	ck_assert_uint_eq(limit_take(&l, &p, true, 512, now), now + 16384 * S);
	now += 16384 * S;
	ck_assert_uint_eq(limit_take(&l, &p, true, 512, now), 0);
}
END_TEST

/* RT3: however often one of them asks. */
START_TEST(rings_take_turns_request_by_request)
{
	struct limit_place p[3] = {{0}};
	unsigned n[3] = {0};
	uint64_t until;

	r.iops[LIMIT_ALL] = 1000;
	set();
	for (until = now + 10 * S; now < until; now += MS / 10) {
		for (int i = 0; i < 50; i++)
			n[0] += !limit_take(&l, &p[0], true, 4096, now);
		n[1] += !limit_take(&l, &p[1], true, 4096, now);
		if (now / (MS / 10) % 10 == 0)
			n[2] += !limit_take(&l, &p[2], false, 512, now);
	}
	for (int i = 0; i < 3; i++) {
		ck_assert_uint_ge(n[i], 10000 / 3 - 150);
		ck_assert_uint_le(n[i], 10000 / 3 + 150);
	}
	/* one that has nothing to do leaves its share to the others */
	n[1] = 0;
	p[0] = (struct limit_place){0};
	set();
	ck_assert_uint_ge(ask_until(&p[1], true, 4096, now + 10 * S), 9990);
}
END_TEST

START_TEST(a_change_counts_at_once_and_places_are_forgotten)
{
	struct limit_place p = {0};

	r.bytes[LIMIT_ALL] = 4096;
	set();
	ck_assert_uint_eq(limit_take(&l, &p, true, 1 << 20, now), 0);
	ck_assert_uint_gt(limit_take(&l, &p, true, 4096, now), now + 200 * S);
	r.bytes[LIMIT_ALL] = 8192;
	set();
	ck_assert_uint_eq(limit_take(&l, &p, true, 4096, now), 0);
	ck_assert_uint_eq(limit_take(&l, &p, true, 4096, now), now + S / 2);
	/* a request of another size, or kind, has not paid */
	ck_assert_uint_gt(limit_take(&l, &p, true, 65536, now + S / 2), now + S / 2);
}
END_TEST

START_TEST(what_is_given_back_may_go_again)
{
	struct limit_place p = {0};

	r.bytes[LIMIT_READ] = 4096;
	set();
	ck_assert_uint_eq(limit_take(&l, &p, false, 2 << 20, now), 0);
	limit_give_back(&l, false, (2 << 20) - 4096);
	ck_assert_uint_eq(limit_take(&l, &p, false, 512, now), now + S);
	/* more than there is, as after a change in between */
	limit_give_back(&l, false, UINT64_C(1) << 32);
	p = (struct limit_place){0};
	ck_assert_uint_eq(limit_take(&l, &p, false, 4096, now), 0);
	ck_assert_uint_le(limit_take(&l, &p, false, 4096, now), now + S);
	/* what could not go for another reason goes without paying twice */
	setup();
	r.bytes[LIMIT_READ] = 4096;
	set();
	p = (struct limit_place){0};
	ck_assert_uint_eq(limit_take(&l, &p, false, 1 << 20, now), 0);
	for (int i = 0; i < 3; i++) {
		limit_keep(&l, &p, false, 1 << 20);
		ck_assert_uint_eq(limit_take(&l, &p, false, 1 << 20, now), 0);
	}
	ck_assert_uint_eq(limit_take(&l, &p, false, 512, now), now + 256 * S);
	ck_assert_uint_eq(l.n.waits, 1);
}
END_TEST

#define PAYS 50000

static void *payer(void *arg)
{
	struct limit_place p = {0};

	for (uint64_t i = 0; i < PAYS; i++)
		limit_take(&l, &p, true, 512 + i % 2 * 512, now); /* never the same twice */
	return NULL;
}

/* RT4 */
START_TEST(threads_pay_each_their_own)
{
	pthread_t t[3];

	r.iops[LIMIT_ALL] = 1000000;
	r.bytes[LIMIT_WRITE] = 1000000000;
	set();
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(pthread_create(&t[i], NULL, payer, NULL), 0);
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	ck_assert_uint_eq(l.iops[LIMIT_ALL].next, now + UINT64_C(3000) * PAYS);
	ck_assert_uint_eq(l.bytes[LIMIT_WRITE].next, now + UINT64_C(3) * PAYS * 768);
	ck_assert_uint_eq(l.n.waits, 3 * PAYS - 1); /* the first of all had not to wait */
}
END_TEST

START_TEST(who_waits_looks_again_in_half_a_second)
{
	ck_assert(limit_delay(now + 1000 * S, now) == 0.5);
	ck_assert(limit_delay(now + 200 * MS, now) == 0.2);
	ck_assert(limit_delay(now - 1, now) == 0);
}
END_TEST

static int word(const char *text)
{
	static struct td_err err;
	const char *eq = strchr(text, '=');

	err.code = 0;
	ck_assert(limit_is_word(text, (size_t)(eq - text)));
	return limit_set_word(&r, text, (size_t)(eq - text), eq + 1, &err);
}

START_TEST(words_say_it_and_say_it_again)
{
	static const char *const good[] = {"limit-iops=500",        "limit-iops-read=1",
					   "limit-iops-write=300",  "limit-bytes=1048576",
					   "limit-bytes-read=4096", "limit-bytes-write=10485760",
					   "limit-burst=5000"},
				 *const bad[] = {"limit=all",
						 "limit-iops=",
						 "limit-iops=-1",
						 "limit-iops= 1",
						 "limit-iops=many",
						 "limit-iops=10KB",
						 "limit-iops=10k",
						 "limit-bytes=4095",
						 "limit-bytes=1024T1",
						 "limit-bytes=9999T",
						 "limit-bytes=99999999999999999999",
						 "limit-burst=0",
						 "limit-burst=600001"};
	char text[64];

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		ck_assert_msg(word(bad[i]) == -EINVAL, "%s", bad[i]);
	memset(&r, 0, sizeof r);
	ck_assert(!limit_word(&r, 0, text));
	for (size_t i = 0; i < sizeof good / sizeof *good; i++)
		ck_assert_msg(word(good[i]) == 0, "%s", good[i]);
	for (unsigned i = 0; i < sizeof good / sizeof *good; i++) {
		ck_assert(limit_word(&r, i, text));
		ck_assert_str_eq(text, good[i]);
	}
	ck_assert(!limit_word(&r, sizeof good / sizeof *good, text));
	ck_assert_int_eq(word("limit-bytes=10M"), 0);
	ck_assert_uint_eq(r.bytes[LIMIT_ALL], 10 << 20);
	ck_assert_int_eq(word("limit-iops=0"), 0);
	ck_assert_uint_eq(r.iops[LIMIT_ALL], 0);
	ck_assert_int_eq(word("limit=none"), 0);
	ck_assert(!limit_word(&r, 0, text) && r.said);
	ck_assert(!limit_is_word("limits", 6) && !limit_is_word("cache", 5) &&
		  !limit_is_word("limit-iop", 9));
}
END_TEST

static void add(Suite *s, const char *name, const TTest *test)
{
	TCase *tc = tcase_create(name);

	tcase_set_timeout(tc, SUITE_PATIENCE);
	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_add_test(tc, test);
	suite_add_tcase(s, tc);
}

#define ADD(test) add(s, #test, test)

int main(void)
{
	Suite *s = suite_create("limit");

	ADD(without_a_limit_nothing_is_on);
	ADD(a_rate_is_kept_and_reached);
	ADD(the_strictest_rate_counts_and_reads_are_not_writes);
	ADD(an_idle_disk_saves_up_its_burst_and_no_more);
	ADD(who_is_woken_late_catches_up);
	ADD(a_large_request_goes_when_its_time_has_come_and_the_next_waits_for_it);
	ADD(rings_take_turns_request_by_request);
	ADD(a_change_counts_at_once_and_places_are_forgotten);
	ADD(what_is_given_back_may_go_again);
	ADD(threads_pay_each_their_own);
	ADD(who_waits_looks_again_in_half_a_second);
	ADD(words_say_it_and_say_it_again);
	return suite_run(s);
}
