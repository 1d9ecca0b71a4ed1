/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is read from beneath is kept in the leaf (LF1 to LF5 of tapdisk/leaf-cache.h).  Leaf and
 * parent are the test's: it completes their requests by hand, and knows what each sector of the
 * leaf holds.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tapdisk/leaf-cache.h"
#include "tests/support/fault-io.h"
#include "tests/support/on-fiber.h"
#include "tests/support/suite.h"
#include "tests/support/test-image.h"

#define NREQ   32
#define MOST   128 /* sectors of a request */
#define SECTOR 512

static struct ev_loop *loop;
static struct fault_io fio;
static struct test_image leaf, parent; /* all requests are in parent.pending */
static struct leaf_cache *cache;
static struct td_err err;
static unsigned idles;

/* a guest's */
static struct ask {
	struct td_req req, child;
	struct iovec iov;
	unsigned char data[MOST * SECTOR], value;
	bool busy;
	int err;
} asks[NREQ];

/* The leaf's sectors: 0 none, 1 as the parent's, else a guest's value. */
static unsigned char sectors[TEST_IMAGE_SECTORS];

static void on_idle(void *owner)
{
	ck_assert_ptr_eq(owner, &leaf);
	idles++;
}

static bool ours(const struct td_req *r)
{
	return (const char *)r >= (const char *)asks &&
	       (const char *)r < (const char *)(asks + NREQ);
}

static struct td_gate *below;                /* optional: a gate that is there before */
static const char *place = "/proc/self/exe"; /* on a file system that has room */

static void begin(void)
{

	loop = ev_loop_new(EVFLAG_AUTO);
	fault_io_new(&fio, loop, 512, 512);
	test_image_open(&leaf, 0);
	test_image_open(&parent, TD_FILE_PARENT | TD_FILE_RDONLY);
	leaf.image->io = parent.image->io = fio.io;
	free(leaf.image->path);
	leaf.image->path = strdup(place);
	leaf.image->gate = below;
	leaf.image->backing = parent.image;
	memset(sectors, 0, sizeof sectors);
	memset(asks, 0, sizeof asks);
	idles = 0;
	ck_assert_int_eq(leaf_cache_open(leaf.image, on_idle, &leaf, &cache, &err), 0);
	ck_assert_ptr_nonnull(cache);
}

static void end(void)
{
	struct td_image *lc = leaf.image->backing;

	ck_assert(!leaf_cache_busy(cache));
	test_image_close(&leaf);
	td_image_close(lc);
	test_image_close(&parent);
	fault_io_free(&fio);
	ev_loop_destroy(loop);
}

static void turns(int n)
{
	while (n--)
		ev_run(loop, EVRUN_NOWAIT);
}

static void on_done(struct td_req *r, int e)
{
	struct ask *a = td_entry(r, struct ask, req);

	a->busy = false;
	a->err = e;
}

static void on_child(struct td_req *r, int e)
{
	td_req_put(r->parent, e);
}

static struct ask *ask(enum td_op op, uint64_t sector, uint64_t n, unsigned char value)
{
	struct ask *a = asks;

	while (a->busy)
		ck_assert(++a < asks + NREQ);
	a->busy = true;
	a->value = value;
	memset(a->data, value, sizeof a->data);
	a->iov = (struct iovec){a->data, n * SECTOR};
	a->req = (struct td_req){.op = op,
				 .off = sector * SECTOR,
				 .len = n * SECTOR,
				 .iov = &a->iov,
				 .iovcnt = 1,
				 .io = fio.io,
				 .done = on_done};
	td_submit(leaf.image, &a->req);
	return a;
}

/* As a driver does with a read of what its image lacks. */
static struct ask *read_below(uint64_t sector, uint64_t n)
{
	struct ask *a = ask(TD_READ, sector, n, 0);

	td_list_del(&a->req.link);
	parent.npending--;
	td_req_split(&a->req);
	td_req_child(&a->req, &a->child);
	a->child.op = TD_READ;
	a->child.off = a->req.off;
	a->child.len = a->req.len;
	a->child.iov = &a->iov;
	a->child.iovcnt = 1;
	a->child.done = on_child;
	td_submit(leaf.image->backing, &a->child);
	td_req_put(&a->req, 0);
	return a;
}

static void apply(const struct td_req *r)
{
	const unsigned char *data = r->iov ? r->iov[0].iov_base : NULL;

	for (uint64_t i = 0; r->image == leaf.image && r->op != TD_READ && i < r->len / SECTOR; i++)
		sectors[r->off / SECTOR + i] = r->op == TD_WRITE ? data[i * SECTOR] : 2;
	if (r->image == parent.image)
		memset(r->iov[0].iov_base, 1, r->len);
}

static void complete(unsigned i, int e)
{
	struct td_req *r = test_image_at(&parent, i);

	ck_assert_ptr_nonnull(r);
	if (!e)
		apply(r);
	test_image_complete(&parent, i, e);
}

/* The write of kept data that is at the leaf, or NULL; *at: its place among the pending. */
static struct td_req *keeping(unsigned *at)
{
	struct td_req *r;

	for (*at = 0; (r = test_image_at(&parent, *at)); ++*at)
		if (r->image == leaf.image && !ours(r))
			return r;
	return NULL;
}

/* until it comes */
static struct td_req *kept(void)
{
	struct td_req *r = NULL;
	unsigned at;

	for (int k = 0; k < 2000 && !r; k++) {
		turns(1);
		usleep(50);
		r = keeping(&at);
	}
	ck_assert_ptr_nonnull(r);
	return r;
}

static void at_rest(void)
{
	for (int k = 0; k < 2000 && (leaf_cache_busy(cache) || parent.npending); k++) {
		while (parent.npending)
			complete(0, 0);
		turns(1);
		usleep(50);
	}
	ck_assert(!leaf_cache_busy(cache));
}

static void holds_sectors(uint64_t sector, uint64_t n, unsigned char value)
{
	for (uint64_t i = sector; i < sector + n; i++)
		ck_assert_msg(sectors[i] == value, "sector %d: %d, not %d", (int)i, sectors[i],
			      value);
}

START_TEST(what_is_read_beneath_is_written_into_the_leaf_after_the_answer)
{
	struct ask *a;

	begin();
	a = read_below(8, 16);
	complete(0, 0);
	ck_assert(!a->busy && !a->err && a->data[0] == 1);
	ck_assert_uint_eq(parent.npending, 0); /* LF1 */
	kept();
	ck_assert(leaf_cache_busy(cache));
	at_rest();
	ck_assert_uint_gt(idles, 0);
	holds_sectors(8, 16, 1);
	holds_sectors(0, 8, 0);
	holds_sectors(24, 8, 0);
	ck_assert_uint_eq(leaf_cache_stats(cache).kept, 16);
	end();
}
END_TEST

START_TEST(a_change_since_the_read_is_not_written_over)
{
	begin();
	read_below(0, 16); /* a change before the parent has answered */
	ask(TD_WRITE, 4, 1, 50);
	complete(0, 0);
	at_rest();
	holds_sectors(4, 1, 50);

	read_below(32, 16); /* one before the write of the kept begins */
	complete(0, 0);
	ask(TD_WRITE_ZEROES, 40, 2, 0);
	at_rest();
	holds_sectors(40, 2, 2);

	ask(TD_DISCARD, 70, 2, 0); /* one that was under way when the read was sent down */
	read_below(64, 16);
	complete(1, 0);
	complete(0, 0);
	at_rest();
	holds_sectors(70, 2, 2);
	ck_assert_uint_eq(leaf_cache_stats(cache).kept, 0);
	ck_assert_uint_eq(leaf_cache_stats(cache).left_out, 48);
	end();
}
END_TEST

START_TEST(a_change_waits_for_the_write_of_kept_data_that_it_meets)
{
	struct ask *a;
	unsigned at;

	begin();
	read_below(0, 16);
	complete(0, 0);
	kept();
	a = ask(TD_WRITE, 10, 20, 60);
	ask(TD_WRITE, 100, 1, 61); /* which it does not meet */
	ck_assert_uint_eq(parent.npending, 2);
	ck_assert_ptr_nonnull(keeping(&at));
	complete(at, 0);
	turns(3);
	ck_assert_ptr_eq(test_image_at(&parent, 1), &a->req);
	at_rest();
	holds_sectors(0, 10, 1);
	holds_sectors(10, 20, 60);
	end();
}
END_TEST

START_TEST(a_write_of_kept_data_that_fails_is_nobodys)
{
	struct ask *a;
	unsigned at;

	begin();
	a = read_below(0, 16);
	complete(0, 0);
	kept();
	keeping(&at);
	complete(at, -ENOSPC);
	at_rest();
	ck_assert(!a->busy && !a->err);
	read_below(32, 16); /* none is tried before the next look (LF4) */
	complete(0, 0);
	at_rest();
	ck_assert_uint_eq(leaf_cache_stats(cache).kept, 0);
	a = read_below(0, 16);
	complete(0, -EIO);
	ck_assert(!a->busy && a->err == -EIO);
	at_rest();
	end();
}
END_TEST

START_TEST(what_exceeds_the_memory_is_not_kept)
{
	unsigned n = LEAF_CACHE_MEMORY / (MOST * SECTOR);

	begin();
	for (unsigned i = 0; i < n + 3; i++) {
		read_below(i % 30 * MOST, MOST);
		complete(0, 0);
	}
	at_rest();
	ck_assert_uint_eq(leaf_cache_stats(cache).left_out, 3 * MOST);
	ck_assert_uint_eq(leaf_cache_stats(cache).kept, n * MOST);
	end();
}
END_TEST

START_TEST(a_leaf_that_is_read_only_or_has_no_parent_keeps_nothing)
{
	struct leaf_cache *none;

	begin();
	ck_assert_int_eq(leaf_cache_open(parent.image, on_idle, &leaf, &none, &err), 0);
	ck_assert_ptr_null(none);
	leaf.image->file_flags |= TD_FILE_RDONLY;
	ck_assert_int_eq(leaf_cache_open(leaf.image, on_idle, &leaf, &none, &err), 0);
	ck_assert_ptr_null(none);
	leaf.image->file_flags = 0;
	end();
}
END_TEST

START_TEST(nothing_is_kept_on_a_file_system_that_is_full)
{
	struct ask *a;

	place = "/proc/self/status"; /* of a file system that never has any */
	begin();
	a = read_below(0, 16);
	complete(0, 0);
	ck_assert(!a->busy && !a->err);
	at_rest();
	ck_assert_uint_eq(leaf_cache_stats(cache).kept, 0);
	ck_assert_uint_eq(leaf_cache_stats(cache).left_out, 16);
	end();
}
END_TEST

START_TEST(other_threads_write_through_the_main_one)
{
	begin();
	ck_assert(!leaf.image->gate->lets(leaf.image->gate, 0, 4096));
	end();
}
END_TEST

static unsigned nlogged;

static bool log_it(struct td_gate *g, struct td_req *req)
{
	nlogged++;
	return false;
}

/* A log of changed blocks, for example. */
START_TEST(what_is_kept_is_no_change_for_the_gate_below)
{
	struct td_gate gate = {.holds = log_it};

	below = &gate;
	nlogged = 0;
	begin();
	ask(TD_WRITE, 64, 8, 9);
	complete(0, 0);
	ck_assert_uint_eq(nlogged, 1);
	read_below(0, 16);
	at_rest();
	ck_assert_uint_eq(leaf_cache_stats(cache).kept, 16);
	ck_assert_uint_eq(nlogged, 1);
	end();
}
END_TEST

/* Each sector ends as its last acknowledged change left it, in whatever order things complete. */
START_TEST(no_change_is_lost_in_any_order)
{
	static unsigned char last[TEST_IMAGE_SECTORS]; /* a guest's value; 0: none */
	static bool claimed[TEST_IMAGE_SECTORS];       /* by a change under way */
	unsigned char value = 3;

	srandom((unsigned)_i);
	begin();
	memset(last, 0, sizeof last);
	for (int step = 0; step < 2000; step++) {
		unsigned s = (unsigned)random() % 200, n = 1 + (unsigned)random() % 40, busy = 0;
		bool mine = false;

		memset(claimed, 0, sizeof claimed);
		for (struct ask *a = asks; a < asks + NREQ; a++) {
			busy += a->busy;
			for (uint64_t i = 0; a->busy && a->req.op == TD_WRITE && i < a->req.len;
			     i += SECTOR)
				claimed[(a->req.off + i) / SECTOR] = true;
		}
		for (unsigned i = s; i < s + n; i++)
			mine = mine || claimed[i];
		switch (busy < NREQ ? random() % 4 : 3) {
		case 0:
			if (!mine && !last[s]) /* a driver sends down what the leaf lacks */
				read_below(s, 1);
			break;
		case 1: /* a guest orders its own: no two that overlap at once */
			if (mine)
				break;
			value = value == 255 ? 3 : value + 1;
			memset(last + s, value, n);
			ask(TD_WRITE, s, n, value);
			break;
		default:
			turns(1);
			if (parent.npending)
				complete((unsigned)random() % parent.npending, 0);
		}
	}
	at_rest();
	for (unsigned i = 0; i < 240; i++)
		ck_assert_msg(last[i] ? sectors[i] == last[i] : sectors[i] < 2,
			      "sector %u: %d, its last change was %d", i, sectors[i], last[i]);
	ck_assert_uint_gt(leaf_cache_stats(cache).kept, 0);
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("leaf-cache");

	SUITE_ADD(s, what_is_read_beneath_is_written_into_the_leaf_after_the_answer);
	SUITE_ADD(s, a_change_since_the_read_is_not_written_over);
	SUITE_ADD(s, a_change_waits_for_the_write_of_kept_data_that_it_meets);
	SUITE_ADD(s, a_write_of_kept_data_that_fails_is_nobodys);
	SUITE_ADD(s, what_exceeds_the_memory_is_not_kept);
	SUITE_ADD(s, a_leaf_that_is_read_only_or_has_no_parent_keeps_nothing);
	SUITE_ADD(s, nothing_is_kept_on_a_file_system_that_is_full);
	SUITE_ADD(s, other_threads_write_through_the_main_one);
	SUITE_ADD(s, what_is_kept_is_no_change_for_the_gate_below);
	SUITE_ADD_LOOP(s, no_change_is_lost_in_any_order, 20);
	return suite_run(s);
}
