/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A lane, where a write is more than one operation, where there is no space, and at its ends. */
#include "tests/support/test-lane.h"

/* L6 */
START_TEST(no_write_beside_a_read_modify_write)
{
	struct queue_msg still;
	struct ring_req *w;

	file.st.off_align = 4096;
	whole = true;
	begin("none");
	w = submit(TD_WRITE, 0, 8); /* a part of a block */
	UNTIL(img.npending);
	ck_assert_uint_eq(img.nwrites, 1);
	ck_assert(lanes_closed(&cache));
	test_image_drain(&img);
	UNTIL(is_done(w) && !lanes_closed(&cache));
	/* one of another ring waits until the lane is closed */
	stop_thread(&still);
	at_home(TD_WRITE, 0, 9);
	turns();
	ck_assert_uint_eq(img.nwrites, 1);
	sem_post(&awake);
	UNTIL(img.npending);
	ck_assert(lanes_closed(&cache));
	test_image_drain(&img);
	UNTIL(!lanes_closed(&cache));
	turns();
	/* a whole block goes fast ... */
	w = &reqs[nreq];
	w->big = true;
	submit(TD_WRITE, 0, 16);
	UNTIL(is_done(w));
	ck_assert(!w->err && img.nwrites == 2);
	end();
	/* ... but not into a format */
	whole = false;
	told = true;
	begin("none");
	for (unsigned i = 0; i < 2; i++) {
		w = &reqs[nreq];
		w->big = true;
		submit(TD_WRITE, 0, 16);
		UNTIL(img.npending);
		ck_assert_uint_eq(img.nwrites, i + 1);
		test_image_drain(&img);
		UNTIL(is_done(w));
	}
	end();
	file.st.off_align = 1;
}
END_TEST

/* C7: what finds no space is made again at home, which waits for some. */
START_TEST(no_space)
{
	whole = true;
	begin("writeback");
	fill_up();
	struct ring_req *w = submit(TD_WRITE, 0, 8);
	UNTIL(img.npending);
	ck_assert(!is_done(w) && img.nwrites == 1);
	test_image_complete(&img, 0, -ENOSPC);
	ck_assert(cache.out_of_space && !is_done(w));
	UNTIL(img.npending); /* the timer's */
	test_image_drain(&img);
	UNTIL(is_done(w));
	ck_assert(!w->err && !cache.out_of_space);
	end();
}
END_TEST

/* C4: what was fast when a BARRIER came behind it, and found no space, is not held behind it. */
START_TEST(no_space_before_a_barrier)
{
	struct queue_msg still;

	whole = true;
	for (int pause = 0; pause < 2; pause++) {
		begin("writeback");
		fill_up();
		stop_thread(&still); /* so that the BARRIER has left before the write is back */
		struct ring_req *w = submit(TD_WRITE, 0, 8), *b = submit(TD_FLUSH, TD_BARRIER, 0);

		if (pause)
			cache_quiesce(&cache);
		sem_post(&awake);
		if (pause) {
			UNTIL(cache_image_idle(&cache));
			cache_resume(&cache);
		}
		UNTIL(img.npending);
		ck_assert(img.nwrites == 1 && !img.nflushes);
		test_image_complete(&img, 0, -ENOSPC);
		ev_feed_event(home.loop, &cache.retry, EV_TIMER);
		UNTIL(img.npending);
		ck_assert(img.nwrites == 2 && !img.nflushes);
		test_image_complete(&img, 0, 0);
		UNTIL(img.npending);
		ck_assert(img.nflushes == 1 && !is_done(b));
		DRAIN_UNTIL(is_done(w) && is_done(b));
		end();
	}
}
END_TEST

/* The write that is to see whether there is space waits until the lanes are closed; a pause may
 * come meanwhile. */
START_TEST(the_look_for_space_waits_for_the_lane)
{
	struct queue_msg still;

	file.st.off_align = 4096;
	whole = true;
	for (int pause = 0; pause < 2; pause++) {
		begin("none");
		at_home(TD_WRITE, 0, 8); /* a part of a block */
		UNTIL(img.npending);
		test_image_complete(&img, 0, -ENOSPC);
		UNTIL(!lanes_closed(&cache));
		turns();
		stop_thread(&still);
		ev_feed_event(home.loop, &cache.retry, EV_TIMER);
		turns();
		ck_assert(cache.probe && !img.npending);
		if (pause)
			cache_quiesce(&cache);
		sem_post(&awake);
		if (pause) {
			UNTIL(cache_image_idle(&cache));
			cache_resume(&cache);
		}
		UNTIL(img.npending || !cache.probe);
		ck_assert(img.npending == 1 && img.nwrites == 2);
		test_image_drain(&img);
		ck_assert(home_done && !home_err && !cache.out_of_space);
		end();
	}
	file.st.off_align = 1;
}
END_TEST

/* L6: zeroes for a part of a block may be a read-modify-write too. */
START_TEST(no_write_beside_zeroes_for_a_part_of_a_block)
{
	struct queue_msg still;

	file.st.off_align = 4096;
	whole = true;
	begin("none");
	struct ring_req *r = submit(TD_READ, 0, 0);
	DRAIN_UNTIL(is_done(r));
	UNTIL(!lanes_closed(&cache));
	turns();
	stop_thread(&still);
	at_home(TD_WRITE_ZEROES, 0, 9);
	turns();
	ck_assert_uint_eq(img.npending, 0);
	sem_post(&awake);
	UNTIL(img.npending);
	ck_assert(lanes_closed(&cache));
	test_image_drain(&img);
	end();
	file.st.off_align = 1;
}
END_TEST

/* A change for which the lanes were closed fails instead, as a flush has: they open again, for
 * reads. */
START_TEST(open_again_after_nothing_came_of_it)
{
	struct td_req flush = {.op = TD_FLUSH, .done = home_answered};
	struct queue_msg still;
	struct ring_req *r;

	whole = false;
	told = true;
	begin("none");
	r = submit(TD_WRITE, 0, 5);
	DRAIN_UNTIL(is_done(r));
	stop_thread(&still);
	at_home(TD_DISCARD, 0, 5);
	cache_submit(&cache, &flush);
	ck_assert_uint_eq(img.nflushes, 1);
	test_image_complete(&img, 0, -EIO);
	ck_assert(cache.sticky && home_done == 1);
	sem_post(&awake);
	UNTIL(home_done == 2);
	ck_assert_int_eq(home_err, -EIO);
	UNTIL(!lanes_closed(&cache));
	end();
}
END_TEST

/* A thread that was there before the first disk was open uses the engine that the disk was opened
 * with. */
START_TEST(the_home_threads_choice_of_an_engine)
{
	whole = true;
	choice = "threads";
	early = true;
	begin("none");
	struct ring_req *w = submit(TD_WRITE, 0, 8);
	DRAIN_UNTIL(is_done(w));
	ck_assert_uint_eq(lane_stats(lane).fast[1], 1);
	ck_assert_str_eq(lane_io(lane)->ops->name, "threads");
	end();
	choice = NULL;
	early = false;
}
END_TEST

enum { LANE_ENTRIES = 6 };

START_TEST(a_lane_that_is_gone_is_noticed_by_each_entry)
{
	static uint64_t zeroes[64];
	struct lane *gone = (struct lane *)zeroes;
	struct lane_op op = {0};
	struct td_req r = {.op = TD_FLUSH};

	switch (_i) {
	case 0:
		lane_submit(gone, &op, &r);
		break;
	case 1:
		lane_io(gone);
		break;
	case 2:
		lane_stats(gone);
		break;
	case 3:
		lane_tell(gone, LANE_IDLE, NULL, NULL);
		break;
	case 4:
		lane_call(gone, NULL, NULL);
		break;
	case 5:
		lane_free(gone);
		break;
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("lane-space");

	SUITE_ADD(s, no_write_beside_a_read_modify_write);
	SUITE_ADD(s, no_space);
	SUITE_ADD(s, no_space_before_a_barrier);
	SUITE_ADD(s, the_look_for_space_waits_for_the_lane);
	SUITE_ADD(s, no_write_beside_zeroes_for_a_part_of_a_block);
	SUITE_ADD(s, open_again_after_nothing_came_of_it);
	SUITE_ADD(s, the_home_threads_choice_of_an_engine);
	SUITE_ADD_LOOP_ABORT(s, a_lane_that_is_gone_is_noticed_by_each_entry, LANE_ENTRIES);
	return suite_run(s);
}
