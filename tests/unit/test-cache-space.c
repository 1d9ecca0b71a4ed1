/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The cache layer without space (C7 and C8 at the top of tapdisk/cache/cache.c). */
#include "tests/support/test-cache.h"

/* --- C7 --- */

START_TEST(writes_without_space_wait_and_are_tried_again)
{
	struct guest_req *w1, *w2, *w3, *r;

	begin("none");
	w1 = wr(1);
	w2 = wr(2);
	test_image_complete(&img, 0, -ENOSPC);
	ck_assert(cache.out_of_space && nchanged == 1 && ev_is_active(&cache.retry));
	test_image_complete(&img, 0, -EDQUOT);
	ck_assert_uint_eq(nchanged, 1);
	w3 = wr(3);
	r = rd(4);
	ck_assert_uint_eq(img.npending, 1); /* reads go on, writes do not */
	test_image_complete(&img, 0, 0);
	ck_assert(r->done && !w1->done && !w2->done && !w3->done);
	retry_now();
	ck_assert_uint_eq(img.npending, 1); /* one, to see */
	test_image_complete(&img, 0, -ENOSPC);
	ck_assert_uint_eq(img.npending, 0);
	retry_now();
	test_image_complete(&img, 0, 0);
	ck_assert(!cache.out_of_space && nchanged == 2 && !ev_is_active(&cache.retry));
	ck_assert_uint_eq(img.npending, 2);
	test_image_drain(&img);
	ck_assert(!w1->err && !w2->err && !w3->err);
	end();
}
END_TEST

START_TEST(a_success_elsewhere_does_not_mean_that_there_is_space)
{
	begin("none");
	wr(1);
	wr(2);
	wr(3);
	test_image_complete(&img, 0, -ENOSPC);
	test_image_complete(&img, 0, 0); /* an overwrite, say */
	ck_assert(cache.out_of_space);
	ck_assert_uint_eq(img.npending, 1);
	ck_assert_uint_eq(nchanged, 1);
	test_image_drain(&img);
	retry_now();
	test_image_drain(&img);
	ck_assert(!cache.out_of_space);
	end();
}
END_TEST

START_TEST(a_look_for_space_is_one_write_at_a_time)
{
	begin("none");
	wr(1);
	wr(2);
	test_image_complete(&img, 0, -ENOSPC);
	test_image_complete(&img, 0, -ENOSPC);
	retry_now();
	retry_now(); /* the store takes longer than the timer */
	ck_assert_uint_eq(img.npending, 1);
	test_image_drain(&img);
	ck_assert(!cache.out_of_space);
	end();
}
END_TEST

START_TEST(a_look_for_space_that_fails_otherwise_ends_the_wait)
{
	struct guest_req *w;

	begin("none");
	w = wr(1);
	test_image_complete(&img, 0, -ENOSPC);
	retry_now();
	test_image_complete(&img, 0, -EIO);
	ck_assert_int_eq(w->err, -EIO);
	ck_assert(!cache.out_of_space && !ev_is_active(&cache.retry));
	end();
}
END_TEST

START_TEST(no_space_is_reported_when_asked_for)
{
	begin("none");
	cache.report_enospc = true;
	wr(1);
	test_image_complete(&img, 0, -ENOSPC);
	ck_assert(reqs[0].err == -ENOSPC && !cache.out_of_space && !cache.sticky);
	end();
}
END_TEST

START_TEST(a_barriers_write_waits_for_space_too)
{
	struct guest_req *b, *w;

	begin("none");
	b = submit(TD_WRITE, TD_BARRIER, 1);
	w = wr(2);
	test_image_complete(&img, 0, 0);
	test_image_complete(&img, 0, -ENOSPC);
	ck_assert(!b->done && !w->done && cache.out_of_space);
	retry_now();
	test_image_drain(&img);
	ck_assert(b->err == 0 && w->err == 0 && b->order < w->order);
	end();
}
END_TEST

static unsigned ntorn;

static void on_torn(struct cache *c)
{
	ntorn++;
}

/* A mirror's copy may have it, and the image not. */
START_TEST(a_write_that_has_waited_and_then_fails_is_told_as_torn)
{
	struct guest_req *w;

	begin("none");
	ntorn = 0;
	cache.torn = on_torn;
	w = wr(1);
	test_image_complete(&img, 0, -ENOSPC);
	ck_assert_uint_eq(ntorn, 0); /* it may still come to the image */
	cache_quiesce(&cache);
	cache_detach(&cache);
	cache_attach(&cache, cache.mode, img.image, &img.io, false);
	cache.sticky = -EIO; /* as of a sync that has failed at the opening */
	cache_resume(&cache);
	ck_assert(w->done && w->err == -EIO);
	ck_assert_uint_eq(ntorn, 1);
	end();
}
END_TEST

START_TEST(out_of_space_lasts_over_a_pause)
{
	begin("none");
	wr(1);
	test_image_complete(&img, 0, -ENOSPC);
	cache_quiesce(&cache);
	retry_now();
	ck_assert_uint_eq(img.npending, 0);
	rd(5); /* in front of nobody */
	cache_detach(&cache);
	cache_attach(&cache, cache.mode, img.image, &img.io, false);
	cache_resume(&cache);
	ck_assert(cache.out_of_space);
	expect(0, TD_WRITE, 1);
	test_image_drain(&img);
	ck_assert(!cache.out_of_space);
	end();
}
END_TEST

/* --- C8 --- */

START_TEST(a_flush_without_space_waits_and_is_tried_again)
{
	struct guest_req *f, *late, *w, *r;

	begin("none");
	wr(1);
	test_image_drain(&img);
	f = fl();
	test_image_complete(&img, 0, -ENOSPC);
	ck_assert(!f->done && cache.out_of_space && !cache.sticky && nchanged == 1 &&
		  ev_is_active(&cache.retry));
	late = fl();
	w = wr(2);
	r = rd(3);
	ck_assert_uint_eq(img.npending, 1); /* the read */
	test_image_drain(&img);
	ck_assert(r->done && !w->done);
	retry_now();
	ck_assert_uint_eq(img.npending, 2); /* the write, to see, and the flush */
	test_image_complete(&img, 0, -ENOSPC);
	test_image_complete(&img, 0, -EDQUOT);
	ck_assert(!f->done && !late->done && !w->done && nchanged == 1);
	retry_now();
	test_image_drain(&img);
	ck_assert(f->done && !f->err && late->done && !late->err && w->done && !w->err);
	ck_assert(!cache.out_of_space && nchanged == 2 && !ev_is_active(&cache.retry));
	end();
}
END_TEST

START_TEST(a_flush_alone_finds_that_there_is_space_again)
{
	struct guest_req *f;

	begin("writeback");
	wr(1);
	test_image_drain(&img);
	f = fl();
	test_image_complete(&img, 0, -ENOSPC);
	retry_now();
	expect(0, TD_FLUSH, 0);
	test_image_complete(&img, 0, 0);
	ck_assert(f->done && !f->err && !cache.out_of_space && nchanged == 2 &&
		  !ev_is_active(&cache.retry));
	end();
}
END_TEST

START_TEST(a_barriers_flush_waits_for_space_too)
{
	struct guest_req *b, *behind;

	begin("none");
	b = submit(TD_WRITE, TD_BARRIER, 1);
	behind = wr(2);
	test_image_complete(&img, 0, -ENOSPC); /* its first flush */
	ck_assert(!b->done && cache.out_of_space);
	retry_now();
	test_image_complete(&img, 0, 0);
	test_image_complete(&img, 0, 0); /* its write */
	expect(0, TD_FLUSH, 0);
	test_image_complete(&img, 0, -ENOSPC); /* its second */
	ck_assert(!b->done && !behind->done && cache.out_of_space);
	retry_now();
	test_image_drain(&img);
	ck_assert(b->done && !b->err && behind->done && !behind->err && b->order < behind->order &&
		  !cache.out_of_space);
	end();
}
END_TEST

START_TEST(a_flush_without_space_is_a_failed_one_when_that_is_to_be_reported)
{
	struct guest_req *f;

	begin("none");
	cache.report_enospc = true;
	wr(1);
	test_image_drain(&img);
	f = fl();
	test_image_complete(&img, 0, -ENOSPC);
	ck_assert(f->done && f->err == -ENOSPC && cache.sticky && !cache.out_of_space);
	end();
}
END_TEST

START_TEST(a_flush_that_waits_for_space_fails_with_a_flush_to_disk)
{
	struct guest_req *f;

	begin("none");
	wr(1);
	test_image_drain(&img);
	f = fl();
	test_image_complete(&img, 0, -ENOSPC);
	retry_now();
	test_image_complete(&img, 0, -EIO);
	ck_assert(f->done && f->err == -EIO && cache.sticky);
	retry_now();
	ck_assert(!cache.out_of_space && !ev_is_active(&cache.retry));
	end();
}
END_TEST

START_TEST(a_flush_waits_for_space_over_a_pause)
{
	struct guest_req *f;

	begin("none");
	wr(1);
	test_image_drain(&img);
	f = fl();
	test_image_complete(&img, 0, -ENOSPC);
	cache_quiesce(&cache);
	retry_now();
	ck_assert_uint_eq(img.npending, 0);
	cache_flush(&cache);
	test_image_complete(&img, 0, -ENOSPC);
	ck_assert(cache_image_idle(&cache) && cache_dirty(&cache) && !cache.sticky && !f->done);
	cache_resume(&cache);
	retry_now();
	test_image_drain(&img);
	ck_assert(f->done && !f->err && !cache.out_of_space && !cache_dirty(&cache));
	end();
}
END_TEST

/* The first that finds no space does so while the disk comes to rest: no look for space is under
 * way that would send it again. */
START_TEST(a_flush_that_finds_no_space_in_a_pause_goes_on_after_it)
{
	struct guest_req *f;

	begin("none");
	wr(1);
	test_image_drain(&img);
	f = fl();
	cache_quiesce(&cache);
	test_image_complete(&img, 0, -ENOSPC);
	ck_assert(cache_image_idle(&cache) && cache_dirty(&cache) && !f->done &&
		  !cache.out_of_space);
	cache_resume(&cache);
	ck_assert_uint_eq(img.npending, 1);
	test_image_drain(&img);
	ck_assert(f->done && !f->err && !cache_dirty(&cache));
	end();
}
END_TEST

static bool second_leaves(const struct cache *c, const struct td_req *req)
{
	return req == &reqs[1].r;
}

START_TEST(a_leaving_guests_flush_does_not_wait_for_space)
{
	struct guest_req *mine, *theirs;

	begin("none");
	wr(1);
	test_image_drain(&img);
	mine = fl();
	test_image_complete(&img, 0, -ENOSPC);
	theirs = fl();
	cache.leaves = second_leaves;
	cache_cancel(&cache, -EIO);
	ck_assert(mine->done && mine->err == -EIO && !theirs->done && cache.out_of_space);
	retry_now();
	cache.leaves = all_leave;
	test_image_complete(&img, 0, -ENOSPC);
	ck_assert(theirs->done && theirs->err == -ENOSPC);
	retry_now();
	ck_assert(!cache.out_of_space && !ev_is_active(&cache.retry));
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cache without space");

	SUITE_ADD(s, writes_without_space_wait_and_are_tried_again);
	SUITE_ADD(s, a_success_elsewhere_does_not_mean_that_there_is_space);
	SUITE_ADD(s, a_look_for_space_is_one_write_at_a_time);
	SUITE_ADD(s, a_look_for_space_that_fails_otherwise_ends_the_wait);
	SUITE_ADD(s, no_space_is_reported_when_asked_for);
	SUITE_ADD(s, a_flush_without_space_waits_and_is_tried_again);
	SUITE_ADD(s, a_flush_alone_finds_that_there_is_space_again);
	SUITE_ADD(s, a_barriers_flush_waits_for_space_too);
	SUITE_ADD(s, a_flush_without_space_is_a_failed_one_when_that_is_to_be_reported);
	SUITE_ADD(s, a_flush_that_waits_for_space_fails_with_a_flush_to_disk);
	SUITE_ADD(s, a_flush_waits_for_space_over_a_pause);
	SUITE_ADD(s, a_flush_that_finds_no_space_in_a_pause_goes_on_after_it);
	SUITE_ADD(s, a_leaving_guests_flush_does_not_wait_for_space);
	SUITE_ADD(s, a_barriers_write_waits_for_space_too);
	SUITE_ADD(s, a_write_that_has_waited_and_then_fails_is_told_as_torn);
	SUITE_ADD(s, out_of_space_lasts_over_a_pause);
	return suite_run(s);
}
