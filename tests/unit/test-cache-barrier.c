/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The cache layer's barriers (C4 at the top of tapdisk/cache/cache.c). */
#include "tests/support/test-cache.h"

START_TEST(a_barrier_is_drain_flush_write_flush_release)
{
	struct guest_req *w, *b, *later, *r;

	begin("none");
	w = wr(1);
	b = submit(TD_WRITE, TD_BARRIER, 2);
	later = wr(3);
	r = rd(4);
	ck_assert_uint_eq(img.npending, 1);
	test_image_complete(&img, 0, 0);
	ck_assert_int_eq(w->done, 1);
	expect(0, TD_FLUSH, 0);
	test_image_complete(&img, 0, 0);
	expect(0, TD_WRITE, 2);
	ck_assert_uint_eq(test_image_at(&img, 0)->flags & ~(unsigned)TD_FUA, 0);
	ck_assert_uint_eq(img.npending, 1);
	test_image_complete(&img, 0, 0);
	expect(0, TD_FLUSH, 0);
	ck_assert_uint_eq(img.npending, 1);
	ck_assert_int_eq(b->done, 0);
	test_image_complete(&img, 0, 0);
	ck_assert_int_eq(b->done, 1);
	expect(0, TD_WRITE, 3);
	expect(1, TD_READ, 4);
	test_image_drain(&img);
	ck_assert(later->done && r->done);
	end();
}
END_TEST

START_TEST(an_empty_barrier_is_drain_and_flush)
{
	struct guest_req *w, *b;

	begin("none");
	w = wr(1);
	b = submit(TD_FLUSH, TD_BARRIER, 0);
	ck_assert_uint_eq(img.nflushes, 0);
	test_image_complete(&img, 0, 0);
	expect(0, TD_FLUSH, 0);
	test_image_complete(&img, 0, 0);
	ck_assert_uint_lt(w->order, b->order);
	ck_assert_uint_eq(img.npending, 0);
	end();
}
END_TEST

START_TEST(a_barrier_waits_for_a_flush_before_it)
{
	struct guest_req *f, *b;

	begin("none");
	wr(1);
	test_image_drain(&img);
	f = fl();
	b = submit(TD_WRITE, TD_BARRIER, 2);
	ck_assert_uint_eq(img.npending, 1);
	test_image_complete(&img, 0, 0);
	ck_assert_int_eq(f->done, 1);
	expect(0, TD_WRITE, 2); /* the drain's flush has nothing new to do */
	test_image_drain(&img);
	ck_assert_int_eq(b->err, 0);
	ck_assert_uint_eq(img.nflushes, 2);
	end();
}
END_TEST

START_TEST(barriers_in_a_row_are_answered_in_order)
{
	begin("none");
	for (unsigned i = 0; i < 10; i++) {
		submit(TD_WRITE, TD_BARRIER, i);
		rd(100 + i);
	}
	while (img.npending) {
		ck_assert_uint_eq(img.npending, 1); /* a read between two barriers is alone too */
		test_image_complete(&img, 0, 0);
	}
	for (unsigned i = 0; i < nreq; i++)
		ck_assert_uint_eq(reqs[i].order, i + 1);
	end();
}
END_TEST

START_TEST(a_barrier_whose_write_fails_lets_the_others_go)
{
	struct guest_req *b, *w;

	begin("none");
	b = submit(TD_WRITE, TD_BARRIER, 2);
	w = wr(3);
	test_image_complete(&img, 0, 0);
	test_image_complete(&img, 0, -EIO);
	ck_assert_int_eq(b->err, -EIO);
	expect(0, TD_WRITE, 3);
	test_image_drain(&img);
	ck_assert_int_eq(w->err, 0);
	end();
}
END_TEST

START_TEST(a_preflush_is_flush_write_flush_and_holds_nobody_up)
{
	struct guest_req *p, *w;

	begin("none");
	wr(1);
	p = submit(TD_WRITE, TD_PREFLUSH, 2);
	expect(1, TD_FLUSH, 0);
	w = wr(3);
	expect(2, TD_WRITE, 3);
	test_image_complete(&img, 1, 0);
	expect(2, TD_WRITE, 2);
	test_image_complete(&img, 2, 0);
	expect(2, TD_FLUSH, 0);
	ck_assert_int_eq(p->done, 0);
	test_image_complete(&img, 2, 0);
	ck_assert_int_eq(p->done, 1);
	ck_assert_int_eq(w->done, 0);
	test_image_drain(&img);
	end();
}
END_TEST

START_TEST(five_hundred_barriers_at_once_need_little_stack)
{
	begin("none");
	img.at_once = true;
	wr(1);
	img.at_once = false;
	rd(1); /* holds the first barrier up, so that all are queued */
	for (unsigned i = 0; i < 512; i++)
		submit(i & 1 ? TD_FLUSH : TD_WRITE, TD_BARRIER, i);
	img.at_once = true;
	test_image_complete(&img, 0, 0);
	ck_assert_uint_eq(nanswered, nreq);
	for (unsigned i = 0; i < nreq; i++)
		ck_assert_uint_eq(reqs[i].order, i + 1);
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cache barriers");

	SUITE_ADD(s, a_barrier_is_drain_flush_write_flush_release);
	SUITE_ADD(s, an_empty_barrier_is_drain_and_flush);
	SUITE_ADD(s, a_barrier_waits_for_a_flush_before_it);
	SUITE_ADD(s, barriers_in_a_row_are_answered_in_order);
	SUITE_ADD(s, a_barrier_whose_write_fails_lets_the_others_go);
	SUITE_ADD(s, a_preflush_is_flush_write_flush_and_holds_nobody_up);
	SUITE_ADD(s, five_hundred_barriers_at_once_need_little_stack);
	return suite_run(s);
}
