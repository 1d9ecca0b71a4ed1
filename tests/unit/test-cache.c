/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The cache-mode layer, rule by rule (C1 to C7 at the top of tapdisk/cache.c), over an image completed by hand. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tapdisk/cache.h"
#include "tests/support/suite.h"
#include "tests/support/test-image.h"

#define NREQ 600

struct guest_req {
	struct td_req r;
	struct iovec iov;
	char buf[512];
	int done, err; /* times answered; the last answer */
	unsigned order;
};

static struct ev_loop *loop;
static struct test_image img;
static struct cache cache;
static struct guest_req reqs[NREQ];
static unsigned nreq, nanswered, nchanged, nidle;

static void answered(struct td_req *r, int err)
{
	struct guest_req *g = td_entry(r, struct guest_req, r);

	g->done++;
	g->err = err;
	g->order = ++nanswered;
}

static void changed(struct cache *c)
{
	nchanged++;
}

static void idle(struct cache *c)
{
	nidle++;
}

static void begin(const char *mode)
{
	const struct td_cache_mode *m = td_cache_mode_find(mode);

	loop = ev_loop_new(EVFLAG_AUTO);
	test_image_open(&img, m->file_flags);
	cache_init(&cache, loop, NULL);
	cache.changed = changed;
	cache.idle = idle;
	cache_attach(&cache, m, img.image, &img.io, true);
	cache_resume(&cache);
	memset(reqs, 0, sizeof reqs);
	nreq = nanswered = nchanged = nidle = 0;
}

static void end(void)
{
	for (unsigned i = 0; i < nreq; i++)
		ck_assert_int_eq(reqs[i].done, 1);
	cache_quiesce(&cache);
	cache_detach(&cache);
	cache_fini(&cache);
	test_image_close(&img);
	ev_loop_destroy(loop);
}

static struct guest_req *submit(enum td_op op, unsigned flags, unsigned sector)
{
	struct guest_req *g = &reqs[nreq++];

	ck_assert_uint_le(nreq, NREQ);
	g->iov = (struct iovec){g->buf, sizeof g->buf};
	g->r = (struct td_req){.op = op, .flags = flags, .done = answered, .iov = &g->iov, .iovcnt = 1};
	if (op != TD_FLUSH) {
		g->r.off = sector * 512;
		g->r.len = 512;
	}
	cache_submit(&cache, &g->r);
	return g;
}

static struct guest_req *rd(unsigned s) { return submit(TD_READ, 0, s); }
static struct guest_req *wr(unsigned s) { return submit(TD_WRITE, 0, s); }
static struct guest_req *fl(void) { return submit(TD_FLUSH, 0, 0); }

/* The image's i-th pending request is this one. */
static void expect(unsigned i, enum td_op op, unsigned sector)
{
	struct td_req *r = test_image_at(&img, i);

	ck_assert_ptr_nonnull(r);
	ck_assert_int_eq(r->op, op);
	if (op != TD_FLUSH)
		ck_assert_uint_eq(r->off, sector * 512);
}

/* A write and a flush of it, so that later flushes have something old to compare with. */
static void settle_first(void)
{
	wr(0);
	test_image_drain(&img);
	fl();
	test_image_drain(&img);
	ck_assert_uint_eq(nanswered, 2);
	ck_assert_uint_eq(cache.flushed, cache.written);
}

static void retry_now(void)
{
	ev_invoke(loop, &cache.retry, EV_TIMER);
}

/* --- C1 ------------------------------------------------------------------------------------------------------------- */

START_TEST(durable_modes_send_each_write_with_fua)
{
	static const struct { const char *mode; unsigned fua; } t[] = {
		{"none", 0}, {"writeback", 0}, {"unsafe", 0}, {"directsync", 1}, {"writethrough", 1}};

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
	static const struct { const char *name; bool direct, fua, tell, drop, share; } t[] = {
		{"none", true, false, true, false, true}, {"directsync", true, true, false, false, true},
		{"writethrough", false, true, false, false, false}, {"writeback", false, false, true, false, false},
		{"unsafe", false, false, true, true, false}};

	ck_assert_str_eq(td_cache_modes[0].name, "none");
	for (unsigned i = 0; i < 5; i++) {
		const struct td_cache_mode *m = td_cache_mode_find(t[i].name);

		ck_assert_ptr_nonnull(m);
		ck_assert(!!(m->file_flags & TD_FILE_DIRECT) == t[i].direct && m->fua_every_write == t[i].fua);
		ck_assert(m->advertise_flush == t[i].tell && m->drop_flush == t[i].drop && m->shareable == t[i].share);
		ck_assert(!!(m->file_flags & TD_FILE_NOSYNC) == t[i].drop);
	}
	ck_assert_ptr_null(td_cache_mode_find("None"));
	ck_assert_ptr_null(td_cache_mode_find(""));
}
END_TEST

/* --- C2, C3 --------------------------------------------------------------------------------------------------------- */

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

/* --- C5, C6 --------------------------------------------------------------------------------------------------------- */

static void break_flush(void)
{
	wr(0);
	test_image_drain(&img);
	fl();
	test_image_complete(&img, 0, -EIO);
	ck_assert_int_eq(reqs[nreq - 1].err, -EIO);
	ck_assert_int_eq(cache.sticky, -EIO);
}

/* The kernel tells of a write-back error once: the durable write may have taken what the running flush would have been told. */
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
	ck_assert(f->done && f->err == -EIO && b->done && b->err == -EIO && w->done && w->err == -EIO);
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

START_TEST(a_failed_durable_buffered_write_is_sticky)
{
	begin("writethrough");
	wr(1);
	test_image_complete(&img, 0, -EIO);
	ck_assert_int_eq(cache.sticky, -EIO);
	ck_assert_int_eq(fl()->err, -EIO);
	end();
	begin("directsync"); /* past the page cache it is this write's error and no other's */
	wr(1);
	test_image_complete(&img, 0, -EIO);
	ck_assert_int_eq(cache.sticky, 0);
	end();
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

/* --- C4 ------------------------------------------------------------------------------------------------------------- */

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

/* --- C7 ------------------------------------------------------------------------------------------------------------- */

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

static bool all_leave(const struct cache *c, const struct td_req *req)
{
	return true;
}

/* In these tests, a guest of two: those below sector 100. */
static bool low_leave(const struct cache *c, const struct td_req *req)
{
	return req->off < 100 * 512;
}

/* --- C8 ------------------------------------------------------------------------------------------------------------- */

START_TEST(a_flush_without_space_waits_and_is_tried_again)
{
	struct guest_req *f, *late, *w, *r;

	begin("none");
	wr(1);
	test_image_drain(&img);
	f = fl();
	test_image_complete(&img, 0, -ENOSPC);
	ck_assert(!f->done && cache.out_of_space && !cache.sticky && nchanged == 1 && ev_is_active(&cache.retry));
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
	ck_assert(f->done && !f->err && !cache.out_of_space && nchanged == 2 && !ev_is_active(&cache.retry));
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
	ck_assert(b->done && !b->err && behind->done && !behind->err && b->order < behind->order && !cache.out_of_space);
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

/* --- pause, cancel -------------------------------------------------------------------------------------------------- */

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
	test_image_drain(&img);           /* preflush: now to write, parked */
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
	test_image_drain(&img); /* nothing new for the barrier's first flush: it comes to its write within the cancel */
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
	begin("unsafe");
	wr(1);
	test_image_drain(&img);
	ck_assert(!cache_dirty(&cache));
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cache");

	SUITE_ADD(s, modes_are_the_table_of_the_design);
	SUITE_ADD(s, durable_modes_send_each_write_with_fua);
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
	SUITE_ADD(s, a_failed_flush_fails_all_later_writes_and_flushes_but_no_read);
	SUITE_ADD(s, a_failed_flush_fails_the_flushes_that_arrived_while_it_ran);
	SUITE_ADD(s, sticky_survives_a_pause_and_not_a_new_open);
	SUITE_ADD(s, a_failed_durable_buffered_write_is_sticky);
	SUITE_ADD(s, a_flush_that_fails_while_writes_wait_for_space_fails_them);
	SUITE_ADD(s, a_barrier_is_drain_flush_write_flush_release);
	SUITE_ADD(s, an_empty_barrier_is_drain_and_flush);
	SUITE_ADD(s, a_barrier_waits_for_a_flush_before_it);
	SUITE_ADD(s, barriers_in_a_row_are_answered_in_order);
	SUITE_ADD(s, a_barrier_whose_write_fails_lets_the_others_go);
	SUITE_ADD(s, a_preflush_is_flush_write_flush_and_holds_nobody_up);
	SUITE_ADD(s, five_hundred_barriers_at_once_need_little_stack);
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
	SUITE_ADD(s, a_leaving_guests_flush_does_not_wait_for_space);
	SUITE_ADD(s, a_barriers_write_waits_for_space_too);
	SUITE_ADD(s, out_of_space_lasts_over_a_pause);
	SUITE_ADD(s, quiesced_nothing_goes_to_the_image_and_nothing_is_lost);
	SUITE_ADD(s, idle_is_told_even_when_nothing_was_there);
	SUITE_ADD(s, cancel_answers_all_that_the_image_does_not_have);
	SUITE_ADD(s, cancel_while_paused_answers_each_kind);
	SUITE_ADD(s, cancel_without_space_reaches_a_barrier_behind_the_writes);
	SUITE_ADD(s, a_leaving_guest_does_not_wait_for_space);
	SUITE_ADD(s, cancel_leaves_the_requests_of_others_alone);
	SUITE_ADD(s, a_guest_that_leaves_a_full_disk_leaves_the_others_waiting);
	SUITE_ADD(s, dirty_means_that_a_flush_would_do_something);
	return suite_run(s);
}
