/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A disk is handed to another process: never does that wait without end, for space, a server or a
 * store. */
#include "tests/support/test-vbd.h"

struct giving {
	double began;
	int rc;
	bool done;
};

static void run_give(void *arg)
{
	struct giving *x = arg;

	err.code = 0;
	err.text[0] = 0;
	x->rc = vbd_give(v, &x->began, &err);
	x->done = true;
}

static void begin_give(struct giving *x)
{
	*x = (struct giving){0};
	ck_assert_int_eq(td_fiber_start(loop, run_give, x), 0);
}

static int end_give(struct giving *x)
{
	while (!x->done) {
		turns(1);
		usleep(50);
	}
	if (x->rc)
		ck_assert(err.code == -x->rc && err.text[0]);
	return x->rc;
}

static int give(void)
{
	struct giving x;

	begin_give(&x);
	return end_give(&x);
}

static void run_take_back(void *arg)
{
	vbd_take_back(v);
	*(bool *)arg = true;
}

static void take_back(void)
{
	bool done = false;

	ck_assert_int_eq(td_fiber_start(loop, run_take_back, &done), 0);
	while (!done)
		turns(1);
}

/* --- a client's request, apart from any ring --- */

static struct request {
	struct td_req req;
	struct iovec iov;
	int rc;
	bool done;
} one, two;

static char memory[8192] __attribute__((aligned(4096)));

static void on_done(struct td_req *req, int rc)
{
	struct request *r = td_entry(req, struct request, req);

	r->rc = rc;
	r->done = true;
}

static void put_req(struct request *r, enum td_op op, unsigned flags, uint64_t off)
{
	r->iov = (struct iovec){memory, 4096};
	r->done = false;
	r->req = (struct td_req){.op = op, .flags = flags, .done = on_done};
	if (op == TD_WRITE) {
		r->req.off = off;
		r->req.len = 4096;
		r->req.iov = &r->iov;
		r->req.iovcnt = 1;
	}
	cache_submit(&v->cache, &r->req);
}

static void await(const struct request *r)
{
	while (!r->done) {
		turns(1);
		usleep(50);
	}
	ck_assert_int_eq(r->rc, 0);
}

static void begin_open(void)
{
	begin_marked();
	ck_assert_int_eq(DO(.what = OPEN), 0);
	fault_io_clear(&fio);
	put_req(&two, TD_WRITE, 0, 0);
	await(&two);
}

/* What is behind a barrier, as the handover's own flush, waits as long as that does. */
START_TEST(a_barrier_without_space_does_not_keep_the_disk)
{
	begin_open();
	fault_io_clear(&fio);
	fault_io_rule(&fio, 2, -ENOSPC); /* flush, write, flush */
	put_req(&one, TD_WRITE, TD_BARRIER, 4096);
	turns(8);
	ck_assert(v->cache.out_of_space && !one.done);
	ev_timer_stop(loop, &v->cache.retry); /* nobody makes room */
	ck_assert_int_eq(give(), 0);
	ck_assert(!v->leaf && !v->ahead_runs);
	take_back();
	ck_assert_ptr_nonnull(v->leaf);
	await(&one);
	end_marked();
}
END_TEST

/* Space ends while its flush is in the queue. */
START_TEST(a_flush_that_comes_to_wait_for_space_is_left)
{
	struct giving x;

	begin_open();
	fio.manual = true;
	put_req(&one, TD_WRITE, TD_BARRIER, 4096);
	turns(4);
	ck_assert_uint_eq(fio.nrunning, 1); /* the barrier's first flush */
	begin_give(&x);
	turns(8);
	ck_assert(v->ahead_runs && !x.done);
	fault_io_complete(&fio, 0);
	fio.manual = false;
	fault_io_clear(&fio);
	fault_io_rule(&fio, 1, -ENOSPC); /* the barrier's write */
	while (!v->cache.out_of_space)
		turns(1);
	ev_timer_stop(loop, &v->cache.retry);
	ck_assert_int_eq(end_give(&x), 0);
	ck_assert(!v->ahead_runs);
	take_back();
	await(&one);
	end_marked();
}
END_TEST

/* One that the image has cannot be left: the disk stays, and its flush may end whenever it likes.
 */
START_TEST(a_flush_that_does_not_end_keeps_the_disk_here)
{
	struct giving x;

	begin_open();
	fio.manual = true;
	begin_give(&x);
	turns(8);
	ck_assert_uint_eq(fio.nrunning, 1);
	td_image_away(v->leaf, "gone");
	ck_assert_int_eq(end_give(&x), -ETIMEDOUT);
	ck_assert(v->ahead_runs && v->leaf && !vbd_state(v));
	td_image_away(v->leaf, NULL);
	ck_assert_int_eq(DO(.what = PAUSE, .timeout = 1), -ETIMEDOUT);
	fio.manual = false;
	fault_io_complete(&fio, 0);
	turns(8);
	ck_assert(!v->ahead_runs);
	put_req(&two, TD_WRITE, 0, 0);
	await(&two);
	ck_assert_int_eq(give(), 0);
	take_back();
	end_marked();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vbd-give");

	SUITE_ADD(s, a_barrier_without_space_does_not_keep_the_disk);
	SUITE_ADD(s, a_flush_that_comes_to_wait_for_space_is_left);
	SUITE_ADD(s, a_flush_that_does_not_end_keeps_the_disk_here);
	return suite_run(s);
}
