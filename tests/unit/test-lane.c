/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What goes past the home thread, and what has to wait for it: flushes, barriers, faults (L1 to L6
 * of tapdisk/cache/lane.h). */
#include "tests/support/test-lane.h"

/* The whole disk is known: reads and writes never come home; a FLUSH on another ring covers them,
 * and there is nothing new after it. */
START_TEST(a_flush_counts_what_went_past)
{
	char buf[512];

	whole = true;
	begin("writeback");
	struct ring_req *w = submit(TD_WRITE, 0, 8);
	UNTIL(is_done(w));
	ck_assert_int_eq(w->err, 0);
	ck_assert_uint_eq(img.nwrites, 0);
	ck_assert_int_eq(pread(file.fd, buf, 512, 8 * 512), 512);
	ck_assert(!memcmp(buf, w->buf, 512));
	ck_assert(cache_dirty(&cache));
	at_home(TD_FLUSH, 0, 0);
	ck_assert(img.nflushes == 1 && !home_done);
	test_image_drain(&img);
	ck_assert(home_done == 1 && !cache_dirty(&cache));
	at_home(TD_FLUSH, 0, 0);
	ck_assert(img.nflushes == 1 && home_done == 1);
	/* the lane's own FLUSH takes the way home */
	struct ring_req *w2 = submit(TD_WRITE, 0, 9), *f;
	UNTIL(is_done(w2));
	f = submit(TD_FLUSH, 0, 0);
	UNTIL(img.npending);
	ck_assert(img.nflushes == 2 && !is_done(f));
	test_image_drain(&img);
	UNTIL(is_done(f));
	ck_assert_uint_eq(lane_stats(lane).fast[1], 2);
	ck_assert(!cache_dirty(&cache));
	end();
}
END_TEST

/* A BARRIER and a pause wait until the lane has said that it is closed, however long its thread
 * takes. */
START_TEST(what_stops_all_waits_for_the_lane)
{
	struct queue_msg still;

	whole = true;
	begin("none");
	struct ring_req *w = submit(TD_WRITE, 0, 1);
	UNTIL(is_done(w));
	stop_thread(&still);
	at_home(TD_FLUSH, TD_BARRIER, 0);
	turns();
	ck_assert_uint_eq(img.nflushes, 0);
	sem_post(&awake);
	UNTIL(img.npending);
	ck_assert_uint_eq(img.nflushes, 1);
	w = submit(TD_WRITE, 0, 2); /* while it is under way: stands behind it */
	usleep(1000);
	turns();
	ck_assert(!is_done(w) && !img.nwrites);
	DRAIN_UNTIL(home_done && is_done(w));
	/* and it is open again */
	UNTIL(!lanes_closed(&cache));
	turns();
	stop_thread(&still);
	cache_quiesce(&cache);
	turns();
	ck_assert(!cache_image_idle(&cache));
	sem_post(&awake);
	UNTIL(cache_image_idle(&cache));
	w = submit(TD_WRITE, 0, 3);
	usleep(1000);
	turns();
	ck_assert(!is_done(w));
	cache_resume(&cache);
	DRAIN_UNTIL(is_done(w));
	end();
}
END_TEST

/* What comes after the lane's own BARRIER goes behind it, though the lane has not heard yet that it
 * is to close. */
START_TEST(a_barrier_of_its_own)
{
	whole = true;
	begin("none");
	struct ring_req *w1 = submit(TD_WRITE, 0, 1), *b = submit(TD_WRITE, TD_BARRIER, 2),
			*w2 = submit(TD_WRITE, 0, 3);

	UNTIL(img.npending);
	ck_assert(is_done(w1) && img.nflushes == 1 && !is_done(b));
	turns();
	ck_assert(!is_done(w2) && !img.nwrites);
	test_image_complete(&img, 0, 0);
	ck_assert(img.nwrites == 1 && img.npending == 1 && !is_done(w2)); /* the BARRIER's own */
	DRAIN_UNTIL(is_done(b) && is_done(w2));
	end();
}
END_TEST

/* A place is learnt from the first request, and forgotten by a discard, which waits for the lane.
 */
START_TEST(a_place_is_forgotten)
{
	struct queue_msg still;
	struct ring_req *r;

	whole = false;
	told = true;
	begin("none");
	r = submit(TD_READ, 0, 5);
	UNTIL(img.npending);
	test_image_drain(&img);
	UNTIL(is_done(r));
	r = submit(TD_READ, 0, 6); /* in the same 64 KiB */
	UNTIL(is_done(r));
	ck_assert(img.nreads == 1 && r->buf[0] == 0);
	stop_thread(&still);
	at_home(TD_DISCARD, 0, 5);
	turns();
	ck_assert_uint_eq(img.npending, 0);
	sem_post(&awake);
	UNTIL(img.npending);
	r = submit(TD_READ, 0, 6); /* beside it */
	UNTIL(img.npending == 2);
	told = false; /* it is nowhere now */
	test_image_drain(&img);
	UNTIL(is_done(r) && home_done);
	r = submit(TD_READ, 0, 6);
	UNTIL(img.npending);
	ck_assert(!is_done(r));
	test_image_drain(&img);
	UNTIL(is_done(r));
	end();
}
END_TEST

/* L5: no write goes fast after a flush that failed, nor a durable one through the page cache or
 * into a format. */
START_TEST(a_failed_flush_reaches_the_lane)
{
	whole = true;
	begin("none");
	struct ring_req *w = submit(TD_WRITE, 0, 1);
	UNTIL(is_done(w));
	at_home(TD_FLUSH, 0, 0);
	test_image_complete(&img, 0, -EIO);
	ck_assert(home_done == 1 && home_err == -EIO);
	w = submit(TD_WRITE, 0, 2);
	UNTIL(is_done(w));
	ck_assert(w->err == -EIO && !img.nwrites);
	w = submit(TD_READ, 0, 2);
	UNTIL(is_done(w));
	ck_assert(!w->err && w->buf[0] == 0);
	end();
}
END_TEST

static void on_fault(struct td_image *image)
{
	lanes_update(&cache);
}

/* An image that its driver trusts no more: nothing goes past it. */
START_TEST(a_fault_closes_the_lane)
{
	whole = true;
	begin("none");
	struct ring_req *w = submit(TD_WRITE, 0, 1);
	UNTIL(is_done(w));
	ck_assert_uint_eq(img.nwrites, 0);
	turns(); /* that it is open has been said */
	img.image->failed = on_fault;
	td_image_fault(img.image, "by hand");
	w = submit(TD_WRITE, 0, 2);
	UNTIL(img.npending);
	test_image_complete(&img, 0, -EIO);
	UNTIL(is_done(w));
	ck_assert_int_eq(w->err, -EIO);
	img.image->failed = NULL;
	end();
}
END_TEST

START_TEST(a_durable_write_comes_home)
{
	whole = true;
	begin("writethrough");
	struct ring_req *w = submit(TD_WRITE, 0, 1), *r = submit(TD_READ, 0, 2);
	UNTIL(img.npending && is_done(r));
	ck_assert(img.nwrites == 1 && img.nfua == 1 && !is_done(w));
	test_image_drain(&img);
	UNTIL(is_done(w));
	end();
}
END_TEST

/* L5: past the page cache it goes fast; one that fails is a failed flush, before its guest hears of
 * it. */
START_TEST(a_durable_write_that_fails_on_a_lane_is_sticky)
{
	whole = true;
	begin("directsync");
	struct ring_req *w = submit(TD_WRITE, 0, 1);
	UNTIL(is_done(w));
	ck_assert(!w->err && !img.nwrites && !cache.sticky);
	int blind = open(path, O_RDONLY | O_CLOEXEC);
	ck_assert_int_ge(dup2(blind, file.fd), 0);
	close(blind);
	w = submit(TD_WRITE, 0, 2);
	UNTIL(is_done(w));
	ck_assert_int_eq(w->err, -EBADF);
	ck_assert_int_eq(cache.sticky, -EBADF);
	ck_assert_int_eq(nchanged, 1);
	w = submit(TD_WRITE, 0, 3);
	UNTIL(is_done(w));
	ck_assert_int_eq(w->err, -EIO);
	at_home(TD_FLUSH, 0, 0);
	ck_assert(home_done == 1 && home_err == -EIO && !img.nflushes);
	ck_assert_uint_eq(lane_stats(lane).fast[1], 2);
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("lane");

	SUITE_ADD(s, a_flush_counts_what_went_past);
	SUITE_ADD(s, what_stops_all_waits_for_the_lane);
	SUITE_ADD(s, a_barrier_of_its_own);
	SUITE_ADD(s, a_place_is_forgotten);
	SUITE_ADD(s, a_failed_flush_reaches_the_lane);
	SUITE_ADD(s, a_fault_closes_the_lane);
	SUITE_ADD(s, a_durable_write_comes_home);
	SUITE_ADD(s, a_durable_write_that_fails_on_a_lane_is_sticky);
	return suite_run(s);
}
