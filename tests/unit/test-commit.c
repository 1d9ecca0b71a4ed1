/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The copy of a live commit (LC1, LC3, LC5, LC8 and LC9 of tapdisk/commit.h), from an image into
 * its parent, both the test's: what each block of N says of itself, and what was written to P,
 * when, and in which order with its syncs.  tests/crash/hostlab commits images of the drivers.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/fiber/await.h"
#include "tapdisk/commit.h"
#include "tests/support/fault-io.h"
#include "tests/support/on-fiber.h"
#include "tests/support/suite.h"

#define BLOCK  65536u
#define BLOCKS 64u  /* of N: 4 MiB */
#define WRITES 1024 /* noted of P */

static struct ev_loop *loop;
static struct fault_io fio;
static struct commit c;
static struct td_err err;

static struct side {
	struct td_image *image;
	unsigned char at[2 * BLOCKS]; /* what each block holds; in N also 0: nothing, 1: zeroes */
	unsigned reads, writes, zeroes, syncs, flags;
	int fail_read, fail_write, fail_sync; /* errno */
	bool no_zeroes;
	unsigned synced_at; /* writes and zeroes by then */
} n, p;

static void (*meanwhile)(uint64_t off); /* of a read of N: within it */
static uint64_t largest;

static struct side *side_of(const struct td_image *image)
{
	return image == n.image ? &n : &p;
}

static int put(struct side *s, const struct td_req *req)
{
	const unsigned char *data;

	s->flags |= req->flags;
	for (uint64_t b = req->off / BLOCK; b <= (req->off + req->len - 1) / BLOCK; b++) {
		data = req->iov[0].iov_base;
		s->at[b] = data[b * BLOCK - req->off];
	}
	s->writes++;
	return -s->fail_write;
}

static int get(struct side *s, struct td_req *req)
{
	unsigned char *data = req->iov[0].iov_base;

	for (uint64_t b = req->off / BLOCK; b <= (req->off + req->len - 1) / BLOCK; b++) {
		unsigned char v = s->at[b];

		memset(data + b * BLOCK - req->off, v == 1 ? 0 : v ? v : 0xee, BLOCK);
	}
	s->reads++;
	return -s->fail_read;
}

static int clear(struct side *s, const struct td_req *req)
{
	if (s->no_zeroes)
		return -EOPNOTSUPP;
	memset(s->at + req->off / BLOCK, 0, req->len / BLOCK);
	s->zeroes++;
	return 0;
}

static void submit(struct td_image *image, struct td_req *req)
{
	struct side *s = side_of(image);
	int rc = 0;

	if (req->len > largest)
		largest = req->len;
	switch (req->op) {
	case TD_READ:
		rc = get(s, req);
		if (s == &n && meanwhile)
			meanwhile(req->off);
		break;
	case TD_WRITE:
		rc = put(s, req);
		break;
	case TD_WRITE_ZEROES:
		rc = clear(s, req);
		break;
	case TD_FLUSH:
		s->syncs++;
		s->synced_at = s->writes + s->zeroes;
		rc = -s->fail_sync;
		break;
	default:
		ck_abort();
	}
	td_req_done(req, rc);
}

static int extents(struct td_image *image, uint64_t off, uint64_t len, struct td_extent *out,
		   int max)
{
	const struct side *s = side_of(image);
	unsigned char first = s->at[off / BLOCK];
	uint64_t end = off / BLOCK * BLOCK;

	/* not more than the like of it */
	do
		end += BLOCK;
	while (end < off + len &&
	       (first < 2 ? s->at[end / BLOCK] == first : s->at[end / BLOCK] > 1));
	*out = (struct td_extent){off, (end < off + len ? end : off + len) - off,
				  !first       ? TD_EXTENT_PARENT
				  : first == 1 ? TD_EXTENT_ZERO
					       : 0};
	return 1;
}

static int open_one(struct td_image *image, struct td_err *e)
{
	image->info.size = (uint64_t)BLOCKS * BLOCK;
	image->info.physical = 512;
	image->info.discard = true;
	return 0;
}

static void close_one(struct td_image *image)
{
}

static const struct td_driver driver = {.name = "test",
					.type = 102,
					.open = open_one,
					.close = close_one,
					.submit = submit,
					.extents = extents};

static void begin(bool live)
{
	struct td_how how = {.flags = 0};

	loop = ev_loop_new(EVFLAG_AUTO);
	fault_io_new(&fio, loop, 512, 512);
	memset(&n, 0, sizeof n);
	memset(&p, 0, sizeof p);
	memset(p.at, 7, sizeof p.at);
	meanwhile = NULL;
	largest = 0;
	ck_assert_int_eq(td_image_open_how(&driver, "n", &how, fio.io, &n.image, &err), 0);
	ck_assert_int_eq(td_image_open_how(&driver, "p", &how, fio.io, &p.image, &err), 0);
	c = (struct commit){.from = n.image, .to = p.image};
	ck_assert_int_eq(commit_init(&c, live), 0);
}

static void end(void)
{
	commit_fini(&c);
	ck_assert_ptr_null(n.image->watch);
	td_image_close(n.image);
	td_image_close(p.image);
	fault_io_free(&fio);
	ev_loop_destroy(loop);
}

static int result;

static void copy_main(void *arg)
{
	err.code = 0;
	result = commit_copy(&c, &err);
}

static int copy(void)
{
	on_fiber(loop, copy_main, NULL);
	return result;
}

static void again_main(void *arg)
{
	err.code = 0;
	result = commit_again(&c, *(bool *)arg, &err);
}

static int again(bool rest)
{
	on_fiber(loop, again_main, &rest);
	return result;
}

static void write_main(void *arg)
{
	const uint64_t *block = arg;
	unsigned char data[512];
	struct iovec iov = {data, sizeof data};

	memset(data, 9, sizeof data);
	ck_assert_int_eq(td_await_request(n.image, fio.io, TD_WRITE, 0, *block * BLOCK, sizeof data,
					  &iov, 1),
			 0);
}

/* The guest's, into the leaf: it holds 9 from then on. */
static void guest_writes(uint64_t block)
{
	on_fiber(loop, write_main, &block);
}

/* --- LC1 --- */

START_TEST(what_the_image_holds_is_copied_and_nothing_else_is_touched)
{
	begin(false);
	n.at[3] = 20;
	n.at[4] = 21;
	n.at[9] = 1;
	n.at[BLOCKS - 1] = 22;
	ck_assert_int_eq(copy(), 0);
	for (unsigned b = 0; b < BLOCKS; b++)
		ck_assert_uint_eq(p.at[b], b == 3    ? 20
					   : b == 4  ? 21
					   : b == 9  ? 0
					   : n.at[b] ? 22
						     : 7);
	ck_assert_uint_le(p.writes, 3); /* the first piece is a small one */
	ck_assert_uint_eq(p.zeroes, 1);
	ck_assert_uint_eq(n.writes + n.zeroes, 0);
	end();
}
END_TEST

START_TEST(a_parent_that_cannot_zero_gets_zeroes_written)
{
	begin(false);
	p.no_zeroes = true;
	n.at[9] = n.at[10] = 1;
	ck_assert_int_eq(copy(), 0);
	for (unsigned b = 0; b < BLOCKS; b++)
		ck_assert_uint_eq(p.at[b], b == 9 || b == 10 ? 0 : 7);
	end();
}
END_TEST

START_TEST(beyond_a_smaller_image_the_parent_gets_zeroes)
{
	begin(false);
	n.image->info.size = (uint64_t)BLOCKS / 2 * BLOCK;
	ck_assert_int_eq(copy(), 0);
	for (unsigned b = 0; b < BLOCKS; b++)
		ck_assert_uint_eq(p.at[b], b < BLOCKS / 2 ? 7 : 0);
	end();
}
END_TEST

START_TEST(one_that_was_begun_goes_on_where_it_was)
{
	begin(false);
	for (unsigned b = 0; b < BLOCKS; b++)
		n.at[b] = (unsigned char)(20 + b);
	c.at = 8 * BLOCK;
	ck_assert_uint_eq(commit_left(&c), (uint64_t)(BLOCKS - 8) * BLOCK);
	ck_assert_int_eq(copy(), 0);
	for (unsigned b = 0; b < BLOCKS; b++)
		ck_assert_uint_eq(p.at[b], b < 8 ? 7 : n.at[b]);
	ck_assert_uint_eq(commit_left(&c), 0);
	end();
}
END_TEST

/* --- LC3 --- */

START_TEST(at_its_end_all_is_durable)
{
	begin(false);
	n.at[3] = 20;
	n.at[9] = 1;
	ck_assert_int_eq(copy(), 0);
	ck_assert_uint_ge(p.syncs, 1);
	ck_assert_uint_eq(p.synced_at, p.writes + p.zeroes);
	end();
}
END_TEST

START_TEST(a_sync_or_a_write_that_fails_is_told)
{
	struct {
		int *fails;
	} each[] = {{&p.fail_sync}, {&p.fail_write}, {&n.fail_read}};

	for (unsigned i = 0; i < 3; i++) {
		begin(_i);
		n.at[3] = 20;
		*each[i].fails = EIO;
		ck_assert_int_eq(copy(), -EIO);
		ck_assert_int_eq(err.code, EIO);
		ck_assert_ptr_nonnull(strstr(err.text, i == 2 ? "n" : "p"));
		end();
	}
}
END_TEST

static unsigned nsaved;
static uint64_t saved_at;

static void on_saved(void *owner)
{
	ck_assert_uint_eq(p.synced_at, p.writes + p.zeroes);
	nsaved++;
	saved_at = c.at;
}

START_TEST(what_is_recorded_as_copied_is_durable_before)
{
	begin(false);
	nsaved = 0;
	memset(n.at, 20, BLOCKS);
	c.saved = on_saved;
	c.saved_at = 0; /* long ago: it is due */
	ck_assert_int_eq(copy(), 0);
	ck_assert_uint_eq(nsaved, 1);
	ck_assert_uint_eq(saved_at, n.image->info.size);
	end();
}
END_TEST

/* --- LC5 --- */

START_TEST(what_changes_after_it_was_copied_is_copied_again)
{
	begin(true);
	n.at[3] = 20;
	ck_assert_int_eq(copy(), 0);
	guest_writes(3);
	guest_writes(5);
	ck_assert_uint_eq(p.at[3], 20);
	ck_assert_uint_eq(commit_left(&c), 2 * BLOCK);
	ck_assert_int_eq(again(true), 0);
	ck_assert_uint_eq(p.at[3], 9);
	ck_assert_uint_eq(p.at[5], 9);
	ck_assert_uint_eq(commit_left(&c), 0);
	ck_assert_uint_eq(p.synced_at, p.writes + p.zeroes);
	end();
}
END_TEST

/* The guest writes a block while the copy has read it. */
static void write_meanwhile(uint64_t off)
{
	if (off / BLOCK != 3)
		return;
	meanwhile = NULL;
	n.at[3] = 9;
	n.image->watch->changed(n.image->watch, 3 * BLOCK, 512);
}

START_TEST(what_changes_while_it_is_copied_is_copied_once_more)
{
	begin(true);
	n.at[3] = 20;
	if (!_i)
		meanwhile = write_meanwhile;
	ck_assert_int_eq(copy(), 0);
	if (_i) { /* while it is copied the second time */
		guest_writes(3);
		n.at[3] = 21;
		meanwhile = write_meanwhile;
		ck_assert_int_eq(again(false), 0);
	}
	ck_assert_uint_eq(commit_left(&c), BLOCK);
	ck_assert_int_eq(again(true), 0);
	ck_assert_uint_eq(p.at[3], 9);
	end();
}
END_TEST

START_TEST(a_change_across_blocks_marks_each_of_them)
{
	begin(true);
	ck_assert_int_eq(copy(), 0);
	n.image->watch->changed(n.image->watch, 4 * BLOCK - 512, 2 * BLOCK);
	ck_assert_uint_eq(commit_left(&c), 3 * BLOCK);
	n.at[3] = n.at[4] = n.at[5] = 9;
	ck_assert_int_eq(again(true), 0);
	for (unsigned b = 3; b < 6; b++)
		ck_assert_uint_eq(p.at[b], 9);
	end();
}
END_TEST

START_TEST(a_block_that_could_not_be_copied_again_stays_marked)
{
	begin(true);
	ck_assert_int_eq(copy(), 0);
	guest_writes(3);
	p.fail_write = EIO;
	ck_assert_int_eq(again(false), -EIO);
	ck_assert_uint_eq(commit_left(&c), BLOCK);
	p.fail_write = 0;
	ck_assert_int_eq(again(true), 0);
	ck_assert_uint_eq(p.at[3], 9);
	end();
}
END_TEST

START_TEST(at_rest_a_failed_sync_is_told)
{
	begin(true);
	ck_assert_int_eq(copy(), 0);
	p.fail_sync = EIO;
	ck_assert_int_eq(again(true), -EIO);
	end();
}
END_TEST

/* --- LC6 --- */

static void stop_meanwhile(uint64_t off)
{
	commit_stop(&c);
}

START_TEST(one_that_was_stopped_ends_as_cancelled_at_once)
{
	begin(_i);
	memset(n.at, 20, BLOCKS);
	meanwhile = stop_meanwhile;
	ck_assert_int_eq(copy(), -ECANCELED);
	ck_assert_uint_eq(n.reads, 1);
	end();
}
END_TEST

/* --- LC8 --- */

START_TEST(it_goes_in_small_pieces_and_no_faster_than_its_rate)
{
	double began;

	begin(false);
	memset(n.at, 20, BLOCKS);
	c.rate = 16u << 20;
	began = ev_time();
	ck_assert_int_eq(copy(), 0);
	ck_assert(ev_time() - began >= 0.24); /* 4 MiB; no more than a tick less than a quarter */
	ck_assert_uint_le(largest, 512u << 10);
	end();
}
END_TEST

static uint64_t nasked;

static uint64_t on_asked(void *owner)
{
	return ++nasked;
}

static bool slept;
static unsigned nslept, piece_us;
static uint64_t first;

static void on_turn(struct ev_loop *l, ev_check *w, int revents)
{
	slept |= c.sleeper != NULL;
}

static void take_time(uint64_t off)
{
	ck_assert_ptr_null(c.sleeper);
	nslept += slept;
	slept = false;
	first = first ? first : largest;
	usleep(piece_us);
}

/* 4 MiB, a piece of which takes so long; the seconds of it all. */
static double copy_slowly(unsigned us)
{
	ev_check turn;
	double began;

	nasked = nslept = 0;
	slept = false;
	first = 0;
	piece_us = us;
	memset(n.at, 20, BLOCKS);
	meanwhile = take_time;
	ev_check_init(&turn, on_turn);
	ev_check_start(loop, &turn);
	began = ev_time();
	ck_assert_int_eq(copy(), 0);
	ev_check_stop(loop, &turn);
	return ev_time() - began;
}

START_TEST(where_guests_ask_it_goes_in_small_pieces_with_long_pauses)
{
	double took;

	begin(false);
	c.asked = _i ? on_asked : NULL;
	took = copy_slowly(500);
	ck_assert_uint_eq(first, 64u << 10);
	ck_assert_uint_le(largest, 512u << 10);
	ck_assert_uint_eq(nslept, _i ? n.reads - 1 : 0);
	ck_assert_uint_eq(nasked, _i ? n.reads : 0);
	/* at 8 MiB a second: no more than a tick less than half a one */
	if (_i)
		ck_assert(took >= 0.48);
	end();
}
END_TEST

START_TEST(where_pieces_are_slow_they_grow_and_it_waits_as_long_as_each_took)
{
	double took;

	begin(false);
	c.asked = on_asked;
	took = copy_slowly(32000);
	ck_assert_uint_eq(largest, 512u << 10);
	ck_assert_uint_eq(nslept, n.reads - 1);
	ck_assert(took >= n.reads * 0.063);
	end();
}
END_TEST

START_TEST(with_a_rate_it_is_that_fast_whatever_guests_ask)
{
	begin(false);
	c.asked = on_asked;
	c.rate = 1u << 30;
	copy_slowly(500);
	ck_assert_uint_eq(largest, 512u << 10);
	ck_assert_uint_eq(nslept, n.reads - 1);
	end();
}
END_TEST

/* --- LC9 --- */

/* Whatever is copied, all has changed by then. */
static void change_all(uint64_t off)
{
	usleep(500);
	n.image->watch->changed(n.image->watch, 0, n.image->info.size);
}

START_TEST(a_leaf_that_never_rests_comes_to_its_end)
{
	begin(true);
	c.asked = on_asked;
	c.near = 8 * BLOCK;
	nasked = 0;
	memset(n.at, 20, BLOCKS);
	meanwhile = change_all;
	ck_assert_int_eq(copy(), 0);
	ck_assert(!commit_is_near(&c));
	for (int pass = 0; pass < 80 && !commit_is_near(&c); pass++)
		ck_assert_int_eq(again(false), 0);
	ck_assert(commit_is_near(&c));
	ck_assert_uint_eq(c.share, 0);
	end();
}
END_TEST

/* What changes while a guest rests more than the copy does is followed as before. */
START_TEST(what_changes_slowly_costs_guests_nothing)
{
	unsigned share;

	begin(true);
	share = c.share;
	c.asked = on_asked;
	c.near = 0;
	memset(n.at, 20, BLOCKS);
	ck_assert_int_eq(copy(), 0);
	for (uint64_t b = 0; b < BLOCKS; b++)
		n.image->watch->changed(n.image->watch, b * BLOCK, 512);
	ck_assert_int_eq(again(false), 0);
	ck_assert_int_eq(c.share, share);
	ck_assert_uint_eq(commit_left(&c), 0);
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("commit");

	SUITE_ADD(s, what_the_image_holds_is_copied_and_nothing_else_is_touched);
	SUITE_ADD(s, a_parent_that_cannot_zero_gets_zeroes_written);
	SUITE_ADD(s, beyond_a_smaller_image_the_parent_gets_zeroes);
	SUITE_ADD(s, one_that_was_begun_goes_on_where_it_was);
	SUITE_ADD(s, at_its_end_all_is_durable);
	SUITE_ADD_LOOP(s, a_sync_or_a_write_that_fails_is_told, 2);
	SUITE_ADD(s, what_is_recorded_as_copied_is_durable_before);
	SUITE_ADD(s, what_changes_after_it_was_copied_is_copied_again);
	SUITE_ADD_LOOP(s, what_changes_while_it_is_copied_is_copied_once_more, 2);
	SUITE_ADD(s, a_change_across_blocks_marks_each_of_them);
	SUITE_ADD(s, a_block_that_could_not_be_copied_again_stays_marked);
	SUITE_ADD(s, at_rest_a_failed_sync_is_told);
	SUITE_ADD_LOOP(s, one_that_was_stopped_ends_as_cancelled_at_once, 2);
	SUITE_ADD(s, it_goes_in_small_pieces_and_no_faster_than_its_rate);
	SUITE_ADD_LOOP(s, where_guests_ask_it_goes_in_small_pieces_with_long_pauses, 2);
	SUITE_ADD(s, where_pieces_are_slow_they_grow_and_it_waits_as_long_as_each_took);
	SUITE_ADD(s, with_a_rate_it_is_that_fast_whatever_guests_ask);
	SUITE_ADD(s, a_leaf_that_never_rests_comes_to_its_end);
	SUITE_ADD(s, what_changes_slowly_costs_guests_nothing);
	return suite_run(s);
}
