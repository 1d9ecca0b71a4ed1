/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The cache-mode layer, rule by rule (C1 to C3, C5 and C6 at the top of tapdisk/cache/cache.c). */
#include "tests/support/test-cache.h"

/* --- C1 --- */

START_TEST(durable_modes_send_each_write_with_fua)
{
	static const struct {
		const char *mode;
		unsigned fua;
	} t[] = {{"none", 0},
		 {"writeback", 0},
		 {"unsafe", 0},
		 {"directsync", 1},
		 {"writethrough", 1}};

	for (unsigned i = 0; i < 5; i++) {
		begin(t[i].mode);
		wr(1);
		rd(2);
		ck_assert_uint_eq(test_image_at(&img, 0)->flags, t[i].fua ? TD_FUA : 0);
		ck_assert_uint_eq(test_image_at(&img, 1)->flags, 0);
		submit(TD_WRITE, TD_FUA, 3);
		ck_assert_uint_eq(test_image_at(&img, 2)->flags, TD_FUA);
		test_image_drain(&img);
		end();
	}
}
END_TEST

START_TEST(a_durable_discard_is_answered_by_a_flush_behind_it)
{
	static const struct {
		const char *mode;
		unsigned flags;
		bool lasts;
	} t[] = {{"none", 0, false},
		 {"none", TD_FUA, true},
		 {"directsync", 0, true},
		 {"writethrough", 0, true},
		 {"writeback", TD_FUA, true}};

	for (unsigned i = 0; i < sizeof t / sizeof *t; i++) {
		struct guest_req *a, *b;

		begin(t[i].mode);
		a = submit(TD_DISCARD, t[i].flags, 1);
		b = submit(TD_WRITE_ZEROES, t[i].flags | TD_UNMAP, 2);
		expect(0, TD_DISCARD, 1);
		ck_assert_uint_eq(test_image_at(&img, 0)->flags, 0);
		ck_assert_uint_eq(test_image_at(&img, 1)->flags, TD_UNMAP);
		test_image_complete(&img, 0, 0);
		ck_assert_int_eq(a->done, !t[i].lasts);
		ck_assert_int_eq(b->done, 0);
		test_image_drain(&img);
		ck_assert(a->done && b->done && !a->err && !b->err);
		/* the second came while the first's flush ran */
		ck_assert_uint_eq(img.nflushes, t[i].lasts ? 2 : 0);
		end();
	}
}
END_TEST

START_TEST(durable_discards_share_a_flush_and_one_that_fails_is_for_good)
{
	struct guest_req *a, *b, *c;

	begin("directsync");
	a = submit(TD_DISCARD, 0, 1);
	b = submit(TD_DISCARD, 0, 2);
	c = submit(TD_DISCARD, 0, 3);
	test_image_complete(&img, 0, 0);
	test_image_complete(&img, 0, 0);
	test_image_complete(&img, 0, -EIO); /* itself, which says nothing of what is on the disk */
	ck_assert_int_eq(c->err, -EIO);
	ck_assert_int_eq(cache.sticky, 0);
	ck_assert_uint_eq(img.nflushes, 1);
	test_image_complete(&img, 0, 0);
	ck_assert(a->done && !a->err && !b->done);
	ck_assert_uint_eq(img.nflushes, 2);
	test_image_complete(&img, 0, -EIO);
	ck_assert_int_eq(b->err, -EIO);
	ck_assert_int_eq(cache.sticky, -EIO);
	ck_assert_int_eq(wr(4)->err, -EIO);
	end();
}
END_TEST

START_TEST(a_flush_reaches_the_image_in_every_mode)
{
	for (const struct td_cache_mode *m = td_cache_modes; m->name; m++) {
		begin(m->name);
		wr(1);
		fl();
		ck_assert_uint_eq(img.nflushes, 1);
		test_image_drain(&img);
		end();
	}
}
END_TEST

START_TEST(modes_are_the_table_of_the_design)
{
	static const struct {
		const char *name;
		bool direct, fua, tell, drop, share;
	} t[] = {{"none", true, false, true, false, true},
		 {"directsync", true, true, false, false, true},
		 {"writethrough", false, true, false, false, false},
		 {"writeback", false, false, true, false, false},
		 {"unsafe", false, false, true, true, false}};

	ck_assert_str_eq(td_cache_modes[0].name, "none");
	for (unsigned i = 0; i < 5; i++) {
		const struct td_cache_mode *m = td_cache_mode_find(t[i].name);

		ck_assert_ptr_nonnull(m);
		ck_assert(!!(m->file_flags & TD_FILE_DIRECT) == t[i].direct &&
			  m->fua_every_write == t[i].fua);
		ck_assert(m->advertise_flush == t[i].tell && m->drop_flush == t[i].drop &&
			  m->shareable == t[i].share);
		ck_assert(!!(m->file_flags & TD_FILE_NOSYNC) == t[i].drop);
	}
	ck_assert_ptr_null(td_cache_mode_find("None"));
	ck_assert_ptr_null(td_cache_mode_find(""));
}
END_TEST

/* --- C2, C3 --- */

START_TEST(the_first_flush_reaches_the_image_without_a_write)
{
	struct guest_req *f;

	begin("none");
	f = fl();
	expect(0, TD_FLUSH, 0);
	ck_assert_int_eq(f->done, 0);
	test_image_drain(&img);
	ck_assert_int_eq(f->err, 0);
	end();
}
END_TEST

START_TEST(nothing_new_needs_no_flush)
{
	begin("none");
	settle_first();
	rd(1);
	test_image_drain(&img);
	ck_assert_int_eq(fl()->done, 1);
	ck_assert_int_eq(fl()->done, 1);
	ck_assert_uint_eq(img.nflushes, 1);
	end();
}
END_TEST

START_TEST(a_write_in_flight_is_not_what_a_flush_waits_for)
{
	struct guest_req *w, *f;

	begin("none");
	settle_first();
	w = wr(1);
	f = fl();
	ck_assert_int_eq(f->done, 1); /* nothing has been acknowledged since */
	ck_assert_int_eq(w->done, 0);
	test_image_drain(&img);
	f = fl();
	ck_assert_int_eq(f->done, 0);
	test_image_drain(&img);
	end();
}
END_TEST

START_TEST(a_flush_covers_what_completed_before_it_was_issued_only)
{
	struct guest_req *f1, *f2;

	begin("none");
	wr(1);
	wr(2);
	test_image_complete(&img, 0, 0);
	f1 = fl();
	expect(1, TD_FLUSH, 0);
	test_image_complete(&img, 0, 0); /* the second write completes while the flush runs */
	f2 = fl();
	ck_assert_uint_eq(img.nflushes, 1);
	test_image_complete(&img, 0, 0);
	ck_assert_int_eq(f1->done, 1);
	ck_assert_int_eq(f2->done, 0);
	expect(0, TD_FLUSH, 0); /* it gets its own */
	test_image_drain(&img);
	ck_assert_uint_eq(img.nflushes, 2);
	end();
}
END_TEST

START_TEST(a_flush_during_a_flush_with_nothing_new_needs_none_of_its_own)
{
	begin("none");
	wr(1);
	test_image_drain(&img);
	fl();
	fl();
	ck_assert_uint_eq(nanswered, 1);
	test_image_complete(&img, 0, 0);
	ck_assert_uint_eq(nanswered, 3);
	ck_assert_uint_eq(img.nflushes, 1);
	end();
}
END_TEST

START_TEST(a_second_flush_with_nothing_new_fails_with_the_first)
{
	struct guest_req *f;

	begin("none");
	wr(1);
	test_image_drain(&img);
	fl();
	f = fl();
	ck_assert_int_eq(f->done, 0); /* it must not be answered before what it relies on */
	test_image_complete(&img, 0, -EIO);
	ck_assert_int_eq(f->err, -EIO);
	ck_assert_uint_eq(img.nflushes, 1);
	end();
}
END_TEST

START_TEST(one_flush_answers_all_that_waited_for_it)
{
	begin("none");
	wr(1);
	wr(2);
	test_image_complete(&img, 0, 0);
	fl();
	test_image_complete(&img, 0, 0);
	for (int i = 0; i < 20; i++)
		fl();
	test_image_complete(&img, 0, 0);
	ck_assert_uint_eq(nanswered, 3);
	test_image_complete(&img, 0, 0);
	ck_assert_uint_eq(nanswered, 23);
	ck_assert_uint_eq(img.nflushes, 2);
	end();
}
END_TEST

START_TEST(a_failed_write_counts_as_a_change)
{
	begin("none");
	settle_first();
	wr(1);
	test_image_complete(&img, 0, -EIO);
	ck_assert_int_eq(fl()->done, 0);
	test_image_drain(&img);
	end();
}
END_TEST

/* --- C5, C6 --- */

static void break_flush(void)
{
	wr(0);
	test_image_drain(&img);
	fl();
	test_image_complete(&img, 0, -EIO);
	ck_assert_int_eq(reqs[nreq - 1].err, -EIO);
	ck_assert_int_eq(cache.sticky, -EIO);
}

/* The kernel tells of a write-back error once: the durable write may have taken what the running
 * flush would have been told. */
START_TEST(a_durable_write_that_fails_takes_the_running_flush_with_it)
{
	struct guest_req *f;

	begin("writeback");
	wr(0);
	test_image_drain(&img);
	f = fl(); /* with the image, item 0 */
	submit(TD_WRITE, TD_FUA, 1);
	test_image_complete(&img, 1, -EIO);
	ck_assert_int_eq(reqs[nreq - 1].err, -EIO);
	test_image_complete(&img, 0, 0);
	ck_assert_int_eq(f->err, -EIO);
	end();
}
END_TEST

/* So it may have taken what another durable write would have been told, and so may a flush. */
START_TEST(a_failure_takes_the_running_durable_writes_with_it)
{
	struct guest_req *w;

	for (unsigned flush = 0; flush < 2; flush++) {
		begin("writeback");
		wr(0);
		test_image_drain(&img);
		w = submit(TD_WRITE, TD_FUA, 1);
		if (flush)
			fl();
		else
			submit(TD_WRITE, TD_FUA, 2);
		test_image_complete(&img, 1, -EIO);
		ck_assert_int_eq(reqs[nreq - 1].err, -EIO);
		test_image_complete(&img, 0, 0);
		ck_assert_int_eq(w->err, -EIO);
		end();
	}
}
END_TEST

START_TEST(a_failed_flush_fails_all_later_writes_and_flushes_but_no_read)
{
	for (const struct td_cache_mode *m = td_cache_modes; m->name; m++) {
		begin(m->name);
		break_flush();
		ck_assert_uint_eq(nchanged, 1);
		ck_assert_int_eq(wr(1)->err, -EIO);
		ck_assert_int_eq(fl()->err, -EIO);
		ck_assert_int_eq(submit(TD_WRITE, TD_BARRIER, 1)->err, -EIO);
		ck_assert_int_eq(submit(TD_FLUSH, TD_BARRIER, 1)->err, -EIO);
		ck_assert_int_eq(submit(TD_WRITE, TD_PREFLUSH, 1)->err, -EIO);
		ck_assert_uint_eq(img.nwrites, 1);
		ck_assert_uint_eq(img.nflushes, 1);
		rd(1);
		test_image_drain(&img);
		ck_assert_int_eq(reqs[nreq - 1].err, 0);
		end();
	}
}
END_TEST

START_TEST(a_failed_flush_fails_the_flushes_that_arrived_while_it_ran)
{
	struct guest_req *f, *b, *w;

	begin("none");
	wr(1);
	wr(2);
	test_image_complete(&img, 0, 0);
	fl();
	test_image_complete(&img, 0, 0);
	f = fl();
	b = submit(TD_WRITE, TD_BARRIER, 3);
	w = wr(4);
	test_image_complete(&img, 0, -EIO);
	ck_assert(f->done && f->err == -EIO && b->done && b->err == -EIO && w->done &&
		  w->err == -EIO);
	ck_assert_uint_eq(img.npending, 0);
	end();
}
END_TEST

START_TEST(sticky_survives_a_pause_and_not_a_new_open)
{
	begin("none");
	break_flush();
	cache_quiesce(&cache);
	cache_detach(&cache);
	cache_attach(&cache, cache.mode, img.image, &img.io, false);
	cache_resume(&cache);
	ck_assert_int_eq(wr(1)->err, -EIO);
	cache_quiesce(&cache);
	cache_detach(&cache);
	cache_attach(&cache, cache.mode, img.image, &img.io, true);
	cache_resume(&cache);
	wr(1);
	fl();
	test_image_drain(&img);
	ck_assert_int_eq(reqs[nreq - 1].err, 0);
	ck_assert_int_eq(reqs[nreq - 2].err, 0);
	end();
}
END_TEST

/* Past the page cache too: the store's cache was flushed for it, and that failed once, for all that
 * was in it. */
START_TEST(a_failed_durable_write_is_sticky)
{
	static const struct {
		const char *mode;
		unsigned flags;
	} t[] = {{"writethrough", 0}, {"directsync", 0}, {"none", TD_FUA}, {"writeback", TD_FUA}};

	for (unsigned i = 0; i < sizeof t / sizeof *t; i++) {
		begin(t[i].mode);
		submit(TD_WRITE, t[i].flags, 1);
		test_image_complete(&img, 0, -EIO);
		ck_assert_int_eq(cache.sticky, -EIO);
		ck_assert_int_eq(fl()->err, -EIO);
		ck_assert_int_eq(wr(1)->err, -EIO);
		end();
	}
	begin("writeback"); /* not durable, not a verdict on others */
	wr(1);
	test_image_complete(&img, 0, -EIO);
	ck_assert_int_eq(cache.sticky, 0);
	ck_assert_int_eq(reqs[0].err, -EIO);
	end();
}
END_TEST

START_TEST(a_flush_that_fails_while_writes_wait_for_space_fails_them)
{
	struct guest_req *w1, *w2;

	begin("none");
	settle_first();
	wr(1);
	test_image_drain(&img);
	w1 = wr(2);
	test_image_complete(&img, 0, -ENOSPC);
	w2 = wr(3);
	fl();
	test_image_complete(&img, 0, -EIO);
	retry_now();
	ck_assert_uint_eq(img.npending, 0); /* nothing may be written any more */
	ck_assert(w1->done && w1->err == -EIO && w2->done && w2->err == -EIO);
	ck_assert(!cache.out_of_space && !ev_is_active(&cache.retry));
	end();
}
END_TEST

START_TEST(dirty_means_that_a_flush_would_do_something)
{
	begin("none");
	ck_assert(cache_dirty(&cache)); /* what a predecessor left behind */
	settle_first();
	ck_assert(!cache_dirty(&cache));
	wr(1);
	test_image_drain(&img);
	ck_assert(cache_dirty(&cache));
	fl();
	test_image_complete(&img, 0, -EIO);
	ck_assert(!cache_dirty(&cache)); /* nothing that a flush could still do */
	end();
	begin("unsafe"); /* which syncs nothing, but has metadata to write */
	wr(1);
	test_image_drain(&img);
	ck_assert(cache_dirty(&cache));
	end();
}
END_TEST

START_TEST(a_cache_that_is_gone_takes_no_request)
{
	struct td_req r = {.op = TD_FLUSH};

	begin("none");
	end();
	cache_submit(&cache, &r);
}
END_TEST

START_TEST(an_image_that_is_gone_takes_no_request)
{
	struct td_image image = *(begin("none"), img.image);
	struct td_req r = {.op = TD_FLUSH, .io = &img.io, .done = answered};

	image.magic = 0;
	td_submit(&image, &r);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cache");

	SUITE_ADD(s, modes_are_the_table_of_the_design);
	SUITE_ADD(s, durable_modes_send_each_write_with_fua);
	SUITE_ADD(s, a_durable_discard_is_answered_by_a_flush_behind_it);
	SUITE_ADD(s, durable_discards_share_a_flush_and_one_that_fails_is_for_good);
	SUITE_ADD(s, a_flush_reaches_the_image_in_every_mode);
	SUITE_ADD(s, the_first_flush_reaches_the_image_without_a_write);
	SUITE_ADD(s, nothing_new_needs_no_flush);
	SUITE_ADD(s, a_write_in_flight_is_not_what_a_flush_waits_for);
	SUITE_ADD(s, a_flush_covers_what_completed_before_it_was_issued_only);
	SUITE_ADD(s, a_flush_during_a_flush_with_nothing_new_needs_none_of_its_own);
	SUITE_ADD(s, a_second_flush_with_nothing_new_fails_with_the_first);
	SUITE_ADD(s, one_flush_answers_all_that_waited_for_it);
	SUITE_ADD(s, a_failed_write_counts_as_a_change);
	SUITE_ADD(s, a_durable_write_that_fails_takes_the_running_flush_with_it);
	SUITE_ADD(s, a_failure_takes_the_running_durable_writes_with_it);
	SUITE_ADD(s, a_failed_flush_fails_all_later_writes_and_flushes_but_no_read);
	SUITE_ADD(s, a_failed_flush_fails_the_flushes_that_arrived_while_it_ran);
	SUITE_ADD(s, sticky_survives_a_pause_and_not_a_new_open);
	SUITE_ADD(s, a_failed_durable_write_is_sticky);
	SUITE_ADD(s, a_flush_that_fails_while_writes_wait_for_space_fails_them);
	SUITE_ADD(s, dirty_means_that_a_flush_would_do_something);
	SUITE_ADD_ABORT(s, a_cache_that_is_gone_takes_no_request);
	SUITE_ADD_ABORT(s, an_image_that_is_gone_takes_no_request);
	return suite_run(s);
}
