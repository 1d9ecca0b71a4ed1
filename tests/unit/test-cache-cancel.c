/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The cache layer in a pause, and when a guest leaves. */
#include "tests/support/test-cache.h"

/* In these tests, a guest of two: those below sector 100. */
static bool low_leave(const struct cache *c, const struct td_req *req)
{
	return req->off < 100 * 512;
}

START_TEST(quiesced_nothing_goes_to_the_image_and_nothing_is_lost)
{
	struct guest_req *w, *b;

	begin("none");
	w = wr(1);
	b = submit(TD_WRITE, TD_BARRIER, 2);
	cache_quiesce(&cache);
	wr(3);
	rd(4);
	fl();
	nidle = 0;
	test_image_complete(&img, 0, 0);
	ck_assert_uint_ge(nidle, 1);
	ck_assert_int_eq(w->done, 1);
	ck_assert_uint_eq(img.npending, 0);
	ck_assert(cache_image_idle(&cache) && cache_dirty(&cache));
	cache_flush(&cache);
	test_image_complete(&img, 0, 0);
	ck_assert(!cache_dirty(&cache) && !b->done);
	cache_detach(&cache);
	cache_attach(&cache, cache.mode, img.image, &img.io, false);
	cache_resume(&cache);
	expect(0, TD_WRITE, 2); /* the flush before the pause was the barrier's first */
	test_image_drain(&img);
	end();
}
END_TEST

START_TEST(idle_is_told_even_when_nothing_was_there)
{
	begin("none");
	cache_quiesce(&cache);
	ck_assert_uint_eq(nidle, 1);
	end();
}
END_TEST

START_TEST(cancel_answers_all_that_the_image_does_not_have)
{
	struct guest_req *w, *b, *h;

	begin("none");
	w = wr(1);
	b = submit(TD_WRITE, TD_BARRIER, 2);
	h = rd(3);
	cache_quiesce(&cache);
	cache.leaves = all_leave;
	cache_cancel(&cache, -EIO);
	ck_assert(!w->done && b->done && h->done && b->err == -EIO && h->err == -EIO);
	test_image_drain(&img);
	ck_assert_int_eq(w->err, 0);
	cache_resume(&cache);
	rd(7);
	test_image_drain(&img);
	end();
}
END_TEST

START_TEST(cancel_while_paused_answers_each_kind)
{
	begin("none");
	wr(1);
	submit(TD_WRITE, TD_PREFLUSH, 2); /* its flush is with the image */
	fl();                             /* waits for the next */
	wr(9);
	cache_quiesce(&cache);
	test_image_drain(&img); /* preflush: now to write, parked */
	submit(TD_WRITE, TD_BARRIER, 3);
	submit(TD_FLUSH, TD_BARRIER, 3);
	rd(4);
	wr(5);
	fl();
	cache.leaves = all_leave;
	cache_cancel(&cache, -EIO);
	ck_assert_uint_eq(nanswered, nreq);
	end();
}
END_TEST

START_TEST(cancel_without_space_reaches_a_barrier_behind_the_writes)
{
	begin("none");
	wr(1);
	test_image_complete(&img, 0, -ENOSPC);
	fl();
	test_image_drain(&img); /* nothing new for the barrier's first flush: it comes to its write
				   within the cancel */
	submit(TD_WRITE, TD_BARRIER, 2);
	wr(3);
	rd(4);
	cache.leaves = all_leave;
	cache_cancel(&cache, -EIO);
	ck_assert(!cache.out_of_space && !ev_is_active(&cache.retry));
	while (img.npending)
		test_image_complete(&img, 0, -ENOSPC);
	ck_assert_uint_eq(nanswered, nreq);
	end();
}
END_TEST

START_TEST(a_leaving_guest_does_not_wait_for_space)
{
	begin("none");
	wr(1);
	cache.leaves = all_leave;
	test_image_complete(&img, 0, -ENOSPC);
	ck_assert_int_eq(reqs[0].err, -ENOSPC);
	end();
}
END_TEST

START_TEST(cancel_leaves_the_requests_of_others_alone)
{
	struct guest_req *mine, *theirs, *b, *behind;

	begin("none");
	mine = wr(1);
	theirs = wr(101);
	cache_quiesce(&cache);
	behind = wr(2);
	b = submit(TD_WRITE, TD_BARRIER, 102);
	cache.leaves = low_leave;
	test_image_drain(&img);
	cache_cancel(&cache, -EIO);
	ck_assert(mine->done && !mine->err && theirs->done && !theirs->err);
	ck_assert(behind->done && behind->err == -EIO && !b->done);
	cache_resume(&cache);
	test_image_drain(&img);
	ck_assert(b->done && !b->err);
	end();
}
END_TEST

START_TEST(a_guest_that_leaves_a_full_disk_leaves_the_others_waiting)
{
	struct guest_req *mine, *theirs, *b, *late;

	begin("none");
	theirs = wr(101);
	test_image_complete(&img, 0, -ENOSPC);
	mine = wr(1);
	b = submit(TD_WRITE, TD_BARRIER, 2);
	late = wr(103);
	cache.leaves = low_leave;
	cache_cancel(&cache, -EIO);
	ck_assert(mine->done && b->done && b->err == -EIO && !theirs->done && !late->done);
	ck_assert(cache.out_of_space && ev_is_active(&cache.retry));
	cache.leaves = NULL;
	retry_now();
	test_image_drain(&img);
	ck_assert(theirs->done && !theirs->err && late->done && !late->err && !cache.out_of_space);
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cache, pauses and those who leave");

	SUITE_ADD(s, quiesced_nothing_goes_to_the_image_and_nothing_is_lost);
	SUITE_ADD(s, idle_is_told_even_when_nothing_was_there);
	SUITE_ADD(s, cancel_answers_all_that_the_image_does_not_have);
	SUITE_ADD(s, cancel_while_paused_answers_each_kind);
	SUITE_ADD(s, cancel_without_space_reaches_a_barrier_behind_the_writes);
	SUITE_ADD(s, a_leaving_guest_does_not_wait_for_space);
	SUITE_ADD(s, cancel_leaves_the_requests_of_others_alone);
	SUITE_ADD(s, a_guest_that_leaves_a_full_disk_leaves_the_others_waiting);
	return suite_run(s);
}
