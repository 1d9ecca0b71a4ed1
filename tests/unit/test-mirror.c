/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A mirror (MI1 to MI7 of tapdisk/mirror/mirror.h), between two images whose requests the test
 * carries out and completes by hand, in any order. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tapdisk/mirror/mirror.h"
#include "tests/support/on-fiber.h"
#include "tests/support/suite.h"
#include "tests/support/wall-clock.h"

#define SIZE (8u << 20)
#define NREQ 64

static struct ev_loop *loop;
static struct td_io io;
static struct td_err err;

/* One end. */
static struct side {
	struct td_image *image;
	struct td_list pending; /* td_req.link */
	unsigned npending, seen[TD_WRITE_ZEROES + 1], fua;
	int zeroes_err; /* what WRITE_ZEROES ends with */
	bool abandoned;
	unsigned char data[SIZE];
} leaf, copy;

static struct mirror *m;
static unsigned nfailed;
static struct td_req reqs[NREQ];
static struct iovec iov[NREQ][2];
static unsigned char buf[NREQ][1 << 16];
static int done[NREQ], errs[NREQ];

/* --- an end --- */

static int side_open(struct td_image *image, struct td_err *e)
{
	image->info = (struct td_image_info){.size = SIZE, .physical = 512, .discard = true};
	return 0;
}

static void side_close(struct td_image *image)
{
}

static struct side *side_of(const struct td_image *image)
{
	return image == leaf.image ? &leaf : &copy;
}

static void side_submit(struct td_image *image, struct td_req *req)
{
	struct side *s = side_of(image);

	ck_assert(!s->abandoned || s == &leaf);
	s->seen[req->op]++;
	s->fua += (req->flags & TD_FUA) != 0;
	s->npending++;
	td_list_add(&s->pending, &req->link);
}

static void carry_out(struct side *s, const struct td_req *req)
{
	uint64_t at = req->off;

	if (req->op == TD_WRITE_ZEROES || req->op == TD_DISCARD)
		memset(s->data + req->off, 0, req->len);
	for (int i = 0; req->op == TD_WRITE && i < req->iovcnt; at += req->iov[i++].iov_len)
		memcpy(s->data + at, req->iov[i].iov_base, req->iov[i].iov_len);
}

/* The i-th of those that are pending there. */
static void complete(struct side *s, unsigned i, int e)
{
	struct td_list *l = s->pending.next;
	struct td_req *req;

	while (i--)
		l = l->next;
	ck_assert(l != &s->pending);
	req = td_entry(l, struct td_req, link);
	td_list_del(l);
	s->npending--;
	if (req->op == TD_WRITE_ZEROES && !e)
		e = s->zeroes_err;
	if (!e)
		carry_out(s, req);
	td_req_done(req, e);
}

/* as an NBD client does it */
static void side_abandon(struct td_image *image, const char *why)
{
	struct side *s = side_of(image);

	s->abandoned = true;
	while (s->npending)
		complete(s, 0, -EIO);
}

static const struct td_driver by_hand = {
	.name = "test",
	.type = 101,
	.open = side_open,
	.close = side_close,
	.submit = side_submit,
	.abandon = side_abandon,
};
/* one in the kernel, which cannot be given up */
static const struct td_driver in_kernel = {
	.name = "test",
	.type = 101,
	.open = side_open,
	.close = side_close,
	.submit = side_submit,
};

/* --- the whole --- */

static void on_failed(void *owner)
{
	ck_assert_ptr_eq(owner, &m);
	nfailed++;
}

static void open_side(struct side *s, const struct td_driver *d)
{
	memset(s, 0, sizeof *s);
	td_list_init(&s->pending);
	ck_assert_int_eq(td_image_open_how(d, s == &leaf ? "leaf" : "copy", &(struct td_how){0},
					   &io, &s->image, &err),
			 0);
}

static void begin_with(const struct td_driver *d, int patience)
{
	loop = ev_loop_new(EVFLAG_AUTO);
	io = (struct td_io){.loop = loop};
	open_side(&leaf, &by_hand);
	open_side(&copy, d);
	memset(done, 0, sizeof done);
	memset(reqs, 0, sizeof reqs);
	nfailed = 0;
	ck_assert_int_eq(mirror_open(leaf.image, copy.image, patience, on_failed, &m, &m, &err), 0);
}

static void begin(void)
{
	begin_with(&by_hand, 0);
}

static void end(void)
{
	mirror_close(m);
	td_image_close(leaf.image);
	td_image_close(copy.image);
	ev_loop_destroy(loop);
}

static void on_done(struct td_req *r, int e)
{
	done[r - reqs]++;
	errs[r - reqs] = e;
}

static void ask(unsigned i, enum td_op op, uint64_t off, uint64_t len)
{
	uint64_t half = len / 1024 * 512;

	ck_assert(op != TD_WRITE || len <= sizeof buf[i]);
	memset(buf[i], (int)(rand() % 255 + 1), sizeof buf[i]);
	iov[i][0] = (struct iovec){buf[i], half ? half : len};
	iov[i][1] = (struct iovec){buf[i] + half, len - half};
	reqs[i] = (struct td_req){.op = op,
				  .off = off,
				  .len = len,
				  .iov = iov[i],
				  .iovcnt = half ? 2 : 1,
				  .done = on_done,
				  .io = &io};
	done[i] = 0;
	td_submit(mirror_image(m), &reqs[i]);
}

static void drain(void)
{
	while (leaf.npending || copy.npending)
		complete(leaf.npending ? &leaf : &copy, 0, 0);
}

static void answered(unsigned i, int e)
{
	ck_assert_int_eq(done[i], 1);
	ck_assert_int_eq(errs[i], e);
}

START_TEST(a_change_is_answered_when_both_have_it)
{
	static const enum td_op ops[] = {TD_WRITE, TD_FLUSH};

	for (unsigned first = 0; first < 2; first++)
		for (unsigned k = 0; k < 2; k++) {
			bool range = ops[k] != TD_FLUSH;

			begin();
			ask(0, ops[k], range ? 4096 : 0, range ? 8192 : 0);
			ck_assert(leaf.npending == 1 && copy.npending == 1);
			complete(first ? &leaf : &copy, 0, 0);
			ck_assert_int_eq(done[0], 0);
			complete(first ? &copy : &leaf, 0, 0);
			answered(0, 0);
			ck_assert_mem_eq(leaf.data, copy.data, SIZE);
			end();
		}
}
END_TEST

START_TEST(reads_are_the_leafs_alone)
{
	begin();
	ask(0, TD_READ, 0, 4096);
	ck_assert(leaf.npending == 1 && !copy.npending);
	complete(&leaf, 0, -EIO);
	answered(0, -EIO);
	ck_assert_uint_eq(nfailed, 0);
	end();
}
END_TEST

START_TEST(a_durable_write_is_durable_at_both)
{
	begin();
	ask(0, TD_WRITE, 0, 512);
	drain();
	ck_assert(!leaf.fua && !copy.fua);
	reqs[1] = reqs[0];
	reqs[1].flags = TD_FUA;
	td_submit(mirror_image(m), &reqs[1]);
	drain();
	ck_assert(leaf.fua == 1 && copy.fua == 1);
	end();
}
END_TEST

START_TEST(the_copys_failure_is_told_and_the_guest_hears_nothing)
{
	static const int errnos[] = {-EIO, -ENOSPC, -ECONNRESET};

	for (unsigned e = 0; e < 3; e++)
		for (unsigned leaf_first = 0; leaf_first < 2; leaf_first++) {
			begin();
			ask(0, TD_WRITE, 0, 4096);
			ask(1, TD_WRITE, 65536, 4096);
			ask(2, TD_FLUSH, 0, 0);
			ask(3, TD_WRITE, 0, 4096); /* behind the first */
			ck_assert_uint_eq(copy.npending, 3);
			if (leaf_first)
				complete(&leaf, 0, 0);
			complete(&copy, 0, errnos[e]);
			ck_assert_uint_eq(nfailed, 1);
			ck_assert_ptr_nonnull(strstr(mirror_why(m), strerror(-errnos[e])));
			ck_assert(copy.abandoned && !copy.npending);
			while (leaf.npending)
				complete(&leaf, 0, 0);
			for (unsigned i = 0; i < 4; i++)
				answered(i, 0);
			/* from then on, it is as if there were none */
			ask(5, TD_DISCARD, 0, 65536);
			ask(6, TD_FLUSH, 0, 0);
			while (leaf.npending)
				complete(&leaf, 0, 0);
			answered(5, 0);
			answered(6, 0);
			ck_assert_uint_eq(nfailed, 1);
			end();
		}
}
END_TEST

START_TEST(the_leafs_failure_is_the_guests)
{
	begin();
	ask(0, TD_WRITE, 0, 4096);
	complete(&leaf, 0, -EIO);
	ck_assert_int_eq(done[0], 0);
	complete(&copy, 0, 0);
	answered(0, -EIO);
	mirror_fail(m, "as the cache layer says");
	mirror_fail(m, "again");
	ck_assert_uint_eq(nfailed, 1);
	ck_assert_str_eq(mirror_why(m), "as the cache layer says");
	end();
}
END_TEST

START_TEST(what_overlaps_goes_one_after_the_other_and_in_order)
{
	begin();
	ask(0, TD_WRITE, 4096, 4096);
	ask(1, TD_WRITE, 4096, 512);
	ask(2, TD_DISCARD, 0, SIZE); /* behind both */
	ask(3, TD_WRITE, 1 << 20, 4096);
	ask(4, TD_FLUSH, 0, 0);
	ask(5, TD_READ, 4096, 512);
	/* the last write waits too: the discard before it has not begun */
	ck_assert_uint_eq(leaf.seen[TD_WRITE], 1);
	ck_assert_uint_eq(copy.seen[TD_WRITE], 1);
	ck_assert_uint_eq(leaf.seen[TD_FLUSH] + leaf.seen[TD_READ], 2);
	ck_assert_uint_eq(mirror_stats(m).waited, 3);
	complete(&leaf, 0, 0);
	ck_assert_uint_eq(leaf.seen[TD_WRITE], 1);
	complete(&copy, 0, 0);
	answered(0, 0);
	ck_assert_uint_eq(leaf.seen[TD_WRITE], 2);
	drain();
	for (unsigned i = 0; i < 6; i++)
		answered(i, 0);
	ck_assert_mem_eq(leaf.data, copy.data, SIZE);
	end();
}
END_TEST

START_TEST(a_change_beside_another_waits_for_nothing)
{
	begin();
	ask(0, TD_WRITE, 4096, 4096);
	ask(1, TD_WRITE, 8192, 4096);
	ask(2, TD_WRITE, 0, 4096);
	ck_assert_uint_eq(leaf.seen[TD_WRITE], 3);
	ck_assert_uint_eq(mirror_stats(m).waited, 0);
	drain();
	end();
}
END_TEST

START_TEST(zeroes_and_discards_go_to_the_leaf_first)
{
	static const enum td_op ops[] = {TD_WRITE_ZEROES, TD_DISCARD};

	for (unsigned k = 0; k < 2; k++) {
		begin();
		ask(0, ops[k], 0, 65536);
		ck_assert(leaf.npending == 1 && !copy.npending);
		complete(&leaf, 0, 0);
		ck_assert_int_eq(done[0], 0);
		ck_assert_uint_eq(copy.seen[ops[k]], 1);
		complete(&copy, 0, 0);
		answered(0, 0);
		/* what the leaf cannot do has changed nothing on either */
		ask(1, ops[k], 0, 65536);
		complete(&leaf, 0, -EOPNOTSUPP);
		answered(1, -EOPNOTSUPP);
		ck_assert_uint_eq(copy.seen[ops[k]], 1);
		ck_assert_uint_eq(nfailed, 0);
		end();
	}
}
END_TEST

START_TEST(a_copy_that_cannot_zero_gets_zeroes_written)
{
	static const uint64_t lens[] = {512, 65536, 1 << 20, (3 << 20) + 512};
	static const enum td_op ops[] = {TD_WRITE_ZEROES, TD_DISCARD};

	for (unsigned k = 0; k < 8; k++) {
		begin();
		memset(leaf.data, 0xee, SIZE);
		memset(copy.data, 0xee, SIZE);
		copy.zeroes_err = -EOPNOTSUPP;
		copy.image->info.discard = false;
		ask(0, ops[k % 2], 1024, lens[k / 2]);
		ask(1, TD_WRITE, 1024, 512); /* behind all of it */
		while (!done[0]) {
			ck_assert_int_eq(done[1], 0);
			complete(leaf.npending ? &leaf : &copy, 0, 0);
		}
		answered(0, 0);
		drain();
		answered(1, 0);
		ck_assert_uint_eq(copy.seen[TD_WRITE],
				  (lens[k / 2] + (1 << 20) - 1) / (1 << 20) + 1);
		ck_assert_mem_eq(leaf.data, copy.data, SIZE);
		ck_assert_uint_eq(nfailed, 0);
		end();
	}
}
END_TEST

START_TEST(a_copy_that_does_not_answer_has_failed_after_a_while)
{
	begin_with(&by_hand, 1);
	for (int k = 0; k < 3; k++) { /* idle for longer: it was asked for nothing */
		usleep(400000);
		ev_run(loop, EVRUN_NOWAIT);
	}
	ask(0, TD_WRITE, 0, 4096);
	complete(&leaf, 0, 0);
	ev_run(loop, EVRUN_NOWAIT);
	ck_assert(!nfailed && !done[0]);
	while (!nfailed)
		ev_run(loop, EVRUN_ONCE);
	answered(0, 0);
	ck_assert_ptr_nonnull(strstr(mirror_why(m), "not answered for 1 s"));
	end();
}
END_TEST

static double since(const struct timespec *start)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)(t.tv_sec - start->tv_sec) + (double)(t.tv_nsec - start->tv_nsec) / 1e9;
}

/* Of `patience' s, in which the mirror looks four times; false: the machine was held up for as
 * long. */
static bool outlives_a_jump(int patience)
{
	double was = ev_time();
	struct timespec start;
	unsigned bad;

	clock_gettime(CLOCK_MONOTONIC, &start);
	begin_with(&by_hand, patience);
	ask(0, TD_WRITE, 0, 4096);
	complete(&leaf, 0, 0);
	jump = 3600; /* which libev notices twice a second */
	while (ev_now(loop) < was + 3000 || since(&start) < patience * 0.6) {
		usleep(50000);
		ev_run(loop, EVRUN_NOWAIT);
	}
	bad = nfailed;
	if (!bad)
		complete(&copy, 0, 0);
	answered(0, 0);
	jump = 0;
	end();
	ck_assert(!bad || since(&start) >= patience);
	return !bad;
}

START_TEST(a_clock_that_is_set_fails_no_mirror_and_keeps_none)
{
	int tries = 5;

	while (!outlives_a_jump(2))
		ck_assert_int_gt(--tries, 0);

	begin_with(&by_hand, 1);
	ask(0, TD_WRITE, 0, 4096);
	complete(&leaf, 0, 0);
	jump = -3600;
	for (int k = 0; k < 200 && !nfailed; k++) {
		usleep(100000);
		ev_run(loop, EVRUN_NOWAIT);
	}
	ck_assert_uint_eq(nfailed, 1);
	jump = 0;
	answered(0, 0);
	end();
}
END_TEST

/* A connection that ends between two requests: what its server had taken may be lost with it. */
START_TEST(a_copy_that_is_found_bad_has_failed)
{
	begin();
	ask(0, TD_WRITE, 0, 4096);
	td_image_fault(copy.image, "the server has closed the connection");
	ck_assert_uint_eq(nfailed, 1);
	ck_assert_str_eq(mirror_why(m), "the server has closed the connection");
	while (leaf.npending)
		complete(&leaf, 0, 0);
	answered(0, 0);
	end();
	/* while it is closed nobody is there to hear of it */
	begin();
	mirror_close(m);
	td_image_fault(copy.image, "too late");
	ck_assert_uint_eq(nfailed, 0);
	td_image_close(leaf.image);
	td_image_close(copy.image);
	ev_loop_destroy(loop);
}
END_TEST

START_TEST(a_copy_in_the_kernel_keeps_the_memory_that_it_has)
{
	begin_with(&in_kernel, 0);
	ask(0, TD_WRITE, 0, 4096);
	ask(1, TD_WRITE, 0, 4096); /* behind it */
	ask(2, TD_WRITE, 65536, 4096);
	complete(&copy, 1, -EIO);
	ck_assert_uint_eq(nfailed, 1);
	while (leaf.npending)
		complete(&leaf, 0, 0);
	answered(1, 0);
	answered(2, 0);
	ck_assert_int_eq(done[0], 0);
	complete(&copy, 0, 0);
	answered(0, 0);
	end();
}
END_TEST

START_TEST(a_disk_that_grows_leaves_its_mirror_behind)
{
	begin();
	leaf.image->info.size = SIZE / 2;
	copy.image->info.size = SIZE / 2;
	mirror_resized(m);
	ck_assert_uint_eq(nfailed, 0);
	leaf.image->info.size = SIZE;
	mirror_resized(m);
	ck_assert_uint_eq(nfailed, 1);
	ask(0, TD_WRITE, SIZE - 512, 512);
	complete(&leaf, 0, 0);
	answered(0, 0);
	end();
}
END_TEST

START_TEST(other_threads_write_past_it_only_when_it_has_failed)
{
	const struct td_gate *g;

	begin();
	g = mirror_image(m)->gate;
	ck_assert(!g->lets(g, 0, 4096));
	mirror_fail(m, "so");
	ck_assert(g->lets(g, 0, 4096));
	end();
}
END_TEST

/* Requests at random, many of which overlap, completed in any order: when all is answered, both
 * ends hold the same; and what was answered was at both before. */
START_TEST(both_hold_the_same)
{
	srand((unsigned)_i + 1);
	begin();
	copy.zeroes_err = _i % 2 ? -EOPNOTSUPP : 0;
	copy.image->info.discard = _i % 3;
	for (int step = 0; step < 20000; step++) {
		unsigned i = (unsigned)rand() % NREQ;
		uint64_t off = (uint64_t)rand() % (_i % 4 ? 64 : SIZE / 512) * 512,
			 len = (uint64_t)(rand() % 64 + 1) * 512;
		struct side *s = rand() % 2 ? &leaf : &copy;
		int op = rand() % 20;

		len = len > SIZE - off ? SIZE - off : len;
		if (rand() % 3 && (!reqs[i].done || done[i])) {
			if (op < 17)
				ask(i, TD_WRITE, off, len);
			else if (op == 17)
				ask(i, TD_FLUSH, 0, 0);
			else
				ask(i, op == 18 ? TD_DISCARD : TD_WRITE_ZEROES, off,
				    rand() % 8 ? len : SIZE - off);
		}
		if (s->npending)
			complete(s, (unsigned)rand() % s->npending, 0);
		if (step % 1000 == 999) {
			drain();
			ck_assert_mem_eq(leaf.data, copy.data, SIZE);
		}
	}
	drain();
	for (unsigned i = 0; i < NREQ; i++)
		ck_assert(!reqs[i].done || (done[i] == 1 && !errs[i]));
	ck_assert_uint_eq(nfailed, 0);
	end();
}
END_TEST

/* --- a copy that is a part of the disk --- */

static unsigned nredirected, nlost;
static bool slowly;    /* the record is written when the test says so */
static int unrecorded; /* or cannot be */

static void on_lost(void *owner, int e)
{
	ck_assert(e == -EIO || e == -ENOSPC);
	nlost++;
}

static void on_full(void *owner)
{
	ck_assert_ptr_eq(owner, &m);
	nredirected++;
	if (!slowly)
		mirror_redirect(m, unrecorded);
}

static void begin_joined(enum mirror_part part, bool redirected)
{
	begin();
	nredirected = nlost = 0;
	slowly = false;
	unrecorded = 0;
	mirror_join(m, part, redirected, on_full, on_lost);
	ck_assert_int_eq(mirror_part(m), part);
}

static bool is_durable(const struct side *s)
{
	return td_entry(s->pending.next, struct td_req, link)->flags & TD_FUA;
}

START_TEST(a_copy_that_is_read_gets_what_the_leaf_has_and_is_durable)
{
	begin_joined(MIRROR_READ, false);
	ask(0, TD_WRITE, 4096, 8192);
	ck_assert(leaf.npending == 1 && !copy.npending && !is_durable(&leaf));
	complete(&leaf, 0, 0);
	ck_assert(copy.npending == 1 && is_durable(&copy) && !done[0]);
	complete(&copy, 0, 0);
	answered(0, 0);
	ck_assert_mem_eq(leaf.data, copy.data, SIZE);
	ask(1, TD_FLUSH, 0, 0);
	ck_assert(leaf.npending == 1 && copy.npending == 1);
	drain();
	answered(1, 0);
	ask(2, TD_DISCARD, 0, 65536); /* which need not do anything */
	answered(2, 0);
	ask(3, TD_WRITE_ZEROES, 0, 65536);
	answered(3, -EOPNOTSUPP);
	ck_assert(!leaf.npending && !copy.npending);
	end();
}
END_TEST

/* It holds what the leaf lacks: without it the disk would be another. */
START_TEST(a_copy_that_is_read_does_not_fail_alone)
{
	static const int errors[] = {-EIO, -ENOSPC};

	for (unsigned i = 0; i < 2; i++) {
		begin_joined(MIRROR_READ, false);
		ask(0, TD_WRITE, 0, 4096);
		complete(&leaf, 0, 0);
		complete(&copy, 0, errors[i]);
		answered(0, errors[i]);
		ck_assert_uint_eq(nlost, 1); /* it was to be durable */
		ask(1, TD_WRITE, 0, 4096);
		complete(&leaf, 0, -EIO);
		answered(1, -EIO);
		ck_assert(!copy.npending);
		ask(2, TD_FLUSH, 0, 0);
		complete(&leaf, 0, 0);
		complete(&copy, 0, -EIO);
		answered(2, -EIO);
		ck_assert_uint_eq(nlost, 1);
		mirror_fail(m, "a test");
		ck_assert(!nfailed && !mirror_why(m) && !nredirected);
		ask(3, TD_WRITE, 0, 4096);
		drain();
		answered(3, 0);
		ck_assert_mem_eq(leaf.data, copy.data, SIZE);
		end();
	}
}
END_TEST

START_TEST(a_full_leaf_is_left_out_where_the_copy_has_all)
{
	for (unsigned by_flush = 0; by_flush < 2; by_flush++) {
		begin_joined(MIRROR_READ, false);
		ask(0, TD_WRITE, 65536, 4096); /* under way meanwhile */
		if (by_flush) {
			ask(1, TD_FLUSH, 0, 0);
			complete(&copy, 0, 0);
		} else {
			ask(1, TD_WRITE, 0, 4096);
		}
		complete(&leaf, 1, -ENOSPC);
		ck_assert_uint_eq(nredirected, 1);
		if (!by_flush) {
			ck_assert(copy.npending == 1 && !done[1]);
			complete(&copy, 0, 0);
		}
		answered(1, 0);
		complete(&leaf, 0, -ENOSPC);
		ck_assert(copy.npending == 1 && !done[0]);
		complete(&copy, 0, 0);
		answered(0, 0);
		ask(2, TD_WRITE, 8192, 4096);
		ck_assert(!leaf.npending && copy.npending == 1 && is_durable(&copy));
		ask(3, TD_WRITE, 8192, 4096); /* overlaps */
		ck_assert_uint_eq(copy.npending, 1);
		drain();
		answered(2, 0);
		answered(3, 0);
		ask(4, TD_READ, 0, 4096);
		ck_assert(!leaf.npending && copy.npending == 1);
		drain();
		answered(4, 0);
		ask(5, TD_FLUSH, 0, 0);
		ck_assert(!leaf.npending && copy.npending == 1);
		drain();
		answered(5, 0);
		ask(6, TD_WRITE, 0, 4096);
		complete(&copy, 0, -ENOSPC); /* and now nothing is left */
		answered(6, -ENOSPC);
		ck_assert(nredirected == 1 && mirror_is_redirected(m));
		end();
	}
}
END_TEST

START_TEST(a_standby_takes_the_very_write_that_found_no_space)
{
	begin_joined(MIRROR_STANDBY, false);
	ck_assert_ptr_eq(copy.image->backing, leaf.image);
	ask(0, TD_WRITE, 0, 4096);
	ask(1, TD_WRITE, 65536, 4096);
	ask(2, TD_FLUSH, 0, 0);
	ck_assert(leaf.npending == 3 && !copy.npending);
	complete(&leaf, 0, -ENOSPC);
	ck_assert(nredirected == 1 && copy.npending == 1 && is_durable(&copy) && !done[0]);
	complete(&leaf, 0, 0); /* is in the leaf, beneath the copy */
	answered(1, 0);
	ck_assert_uint_eq(copy.npending, 1);
	complete(&copy, 0, 0);
	answered(0, 0);
	complete(&leaf, 0, -ENOSPC); /* metadata: nothing but space makes that durable */
	answered(2, -ENOSPC);
	ask(3, TD_FLUSH, 0, 0);
	ck_assert(leaf.npending == 1 && copy.npending == 1);
	complete(&copy, 0, 0);
	ck_assert(!done[3]);
	complete(&leaf, 0, 0);
	answered(3, 0);
	ask(4, TD_READ, 0, 4096);
	ask(5, TD_WRITE, 4096, 4096);
	ck_assert(!leaf.npending && copy.npending == 2);
	drain();
	answered(4, 0);
	answered(5, 0);
	end();
	ck_assert(!nfailed);
}
END_TEST

/* A death before the record says so leaves a disk whose leaf is read first. */
START_TEST(what_finds_no_space_waits_until_a_successor_would_know)
{
	for (enum mirror_part part = MIRROR_READ; part <= MIRROR_STANDBY; part++) {
		begin_joined(part, false);
		slowly = true;
		ask(0, TD_WRITE, 0, 4096);
		ask(1, TD_WRITE, 65536, 4096);
		ask(2, TD_WRITE, 0, 4096); /* overlaps the first */
		complete(&leaf, 0, -ENOSPC);
		complete(&leaf, 0, -EDQUOT);
		ck_assert(nredirected == 1 && !copy.npending && !done[0] && !done[1]);
		ask(3, TD_READ, 0, 4096);
		ask(4, TD_WRITE, 131072, 4096);
		ck_assert(leaf.npending == 2 && !copy.npending); /* as before, meanwhile */
		complete(&leaf, 0, 0);
		answered(3, 0);
		mirror_redirect(m, 0);
		ck_assert(copy.npending == 2 && is_durable(&copy) && !done[0] && !done[1]);
		complete(&copy, 0, 0);
		complete(&copy, 0, 0);
		answered(0, 0);
		answered(1, 0);
		ck_assert(copy.npending == 1); /* and what waited for them */
		complete(&leaf, 0, -ENOSPC);   /* that was under way there */
		ck_assert(nredirected == 1 && copy.npending == 2);
		drain();
		answered(2, 0);
		answered(4, 0);
		end();
	}
}
END_TEST

START_TEST(without_a_record_there_is_no_space)
{
	for (enum mirror_part part = MIRROR_READ; part <= MIRROR_STANDBY; part++) {
		begin_joined(part, false);
		slowly = true;
		ask(0, TD_WRITE, 0, 4096);
		ask(1, TD_WRITE, 65536, 4096);
		complete(&leaf, 0, -ENOSPC);
		complete(&leaf, 0, -ENOSPC);
		mirror_redirect(m, -EROFS);
		answered(0, -ENOSPC);
		answered(1, -ENOSPC);
		ck_assert(!copy.npending && !mirror_is_redirected(m) && !nlost);
		slowly = false;
		unrecorded = -EIO;
		ask(0, TD_WRITE, 0, 4096); /* once more */
		ck_assert(leaf.npending == 1);
		complete(&leaf, 0, -ENOSPC);
		answered(0, -ENOSPC);
		ck_assert(nredirected == 2 && !copy.npending);
		unrecorded = 0;
		ask(0, TD_WRITE, 0, 4096);
		complete(&leaf, 0, -ENOSPC);
		ck_assert(copy.npending == 1 && mirror_is_redirected(m));
		drain();
		answered(0, 0);
		end();
	}
}
END_TEST

START_TEST(a_successor_goes_on_with_a_full_leaf)
{
	for (enum mirror_part part = MIRROR_READ; part <= MIRROR_STANDBY; part++) {
		begin_joined(part, true);
		ask(0, TD_WRITE, 0, 4096);
		ask(1, TD_READ, 8192, 4096);
		ck_assert(!leaf.npending && copy.npending == 2);
		drain();
		answered(0, 0);
		answered(1, 0);
		ck_assert(!nredirected);
		end();
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("mirror");

	SUITE_ADD(s, a_change_is_answered_when_both_have_it);
	SUITE_ADD(s, reads_are_the_leafs_alone);
	SUITE_ADD(s, a_durable_write_is_durable_at_both);
	SUITE_ADD(s, the_copys_failure_is_told_and_the_guest_hears_nothing);
	SUITE_ADD(s, the_leafs_failure_is_the_guests);
	SUITE_ADD(s, what_overlaps_goes_one_after_the_other_and_in_order);
	SUITE_ADD(s, a_change_beside_another_waits_for_nothing);
	SUITE_ADD(s, zeroes_and_discards_go_to_the_leaf_first);
	SUITE_ADD(s, a_copy_that_cannot_zero_gets_zeroes_written);
	SUITE_ADD(s, a_copy_that_does_not_answer_has_failed_after_a_while);
	SUITE_ADD(s, a_clock_that_is_set_fails_no_mirror_and_keeps_none);
	SUITE_ADD(s, a_copy_that_is_found_bad_has_failed);
	SUITE_ADD(s, a_copy_in_the_kernel_keeps_the_memory_that_it_has);
	SUITE_ADD(s, a_disk_that_grows_leaves_its_mirror_behind);
	SUITE_ADD(s, other_threads_write_past_it_only_when_it_has_failed);
	SUITE_ADD_LOOP(s, both_hold_the_same, 6);
	SUITE_ADD(s, a_copy_that_is_read_gets_what_the_leaf_has_and_is_durable);
	SUITE_ADD(s, a_copy_that_is_read_does_not_fail_alone);
	SUITE_ADD(s, a_full_leaf_is_left_out_where_the_copy_has_all);
	SUITE_ADD(s, a_standby_takes_the_very_write_that_found_no_space);
	SUITE_ADD(s, what_finds_no_space_waits_until_a_successor_would_know);
	SUITE_ADD(s, without_a_record_there_is_no_space);
	SUITE_ADD(s, a_successor_goes_on_with_a_full_leaf);
	return suite_run(s);
}
