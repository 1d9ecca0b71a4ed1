/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A lane (rules L1 to L6 at the top of tapdisk/cache/lane.h), with a thread of its own, beside the
 * home thread, which is the test's: what goes fast stands in a file, what goes slow comes to an
 * image that is completed by hand.
 */
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/io/file.h"
#include "tapdisk/cache/lane.h"
#include "tests/support/on-fiber.h"
#include "tests/support/suite.h"
#include "tests/support/test-image.h"

#define NREQ 32

struct ring_req {
	struct td_req r;
	struct lane_op op;
	struct queue_msg go;
	struct iovec iov;
	char buf[4096] __attribute__((aligned(4096)));
	bool big;      /* a block of 4096 */
	int done, err; /* atomic: times answered, in the lane's thread */
};

static struct queue home;
static struct test_image img;
static struct td_driver driver;
static struct td_file file;
static struct cache cache;
static struct lane *lane;
static struct ring_req reqs[NREQ];
static unsigned nreq, nidle, nchanged;
static bool whole, told;   /* what the image tells of its places */
static const char *choice; /* of the engine, by the disk that is opened first */
static bool early;         /* the lane's thread is there before */
static char path[] = "/tmp/test-lane.XXXXXX";

static bool tell_map(struct td_image *image, uint64_t off, uint64_t len, struct td_map *out)
{
	*out = whole ? (struct td_map){.len = UINT64_MAX, .file = &file, .whole = true}
		     : (struct td_map){.off = off & ~UINT64_C(65535),
				       .len = 65536,
				       .file = &file,
				       .at = off & ~UINT64_C(65535)};
	return whole || told;
}

static void on_changed(struct cache *c)
{
	nchanged++;
}

static void on_idle(struct cache *c)
{
	nidle++;
}

static void begin(const char *mode)
{
	const struct td_cache_mode *m = td_cache_mode_find(mode);
	struct td_err err = {0};
	struct td_io *io;

	strcpy(path + strlen(path) - 6, "XXXXXX");
	memset(&home, 0, sizeof home);
	home.loop = ev_loop_new(EVFLAG_AUTO);
	setenv("TAPDISK_THREADS", "2", 1);
	if (early)
		queue_for_ring(&home, 1);
	ck_assert_int_eq(queue_engine(&home, choice, m->file_flags & TD_FILE_DIRECT, &io, &err), 0);
	test_image_open(&img, m->file_flags);
	driver = *img.image->driver;
	driver.map = tell_map;
	img.image->driver = &driver;
	file = (struct td_file){
		.fd = mkostemp(path, O_CLOEXEC),
		.st = {.off_align = file.st.off_align ? file.st.off_align : 1, .mem_align = 1},
		.io = io};
	ck_assert_int_ge(file.fd, 0);
	ck_assert_int_eq(ftruncate(file.fd, TEST_IMAGE_SECTORS * 512), 0);
	td_list_init(&file.changes);
	cache_init(&cache, home.loop, NULL);
	cache.changed = on_changed;
	cache.idle = on_idle;
	cache_attach(&cache, m, img.image, io, true);
	cache_resume(&cache);
	memset(reqs, 0, sizeof reqs);
	nreq = nidle = nchanged = 0;
	lane = lane_new(&cache, &home, queue_for_ring(&home, 1));
	ck_assert_ptr_nonnull(lane);
}

static void free_lane(void *arg)
{
	lane_free(lane);
}

static void end(void)
{
	on_fiber(home.loop, free_lane, NULL);
	for (unsigned i = 0; i < nreq; i++)
		ck_assert_int_eq(reqs[i].done, 1);
	cache_quiesce(&cache);
	cache_detach(&cache);
	cache_fini(&cache);
	img.image->driver = &driver;
	test_image_close(&img);
	queue_fini(&home);
	ev_loop_destroy(home.loop);
	close(file.fd);
	unlink(path);
}

/* --- the ring --- */

static void answered(struct td_req *r, int err)
{
	struct ring_req *g = td_entry(r, struct ring_req, r);

	g->err = err;
	__atomic_store_n(&g->done, g->done + 1, __ATOMIC_RELEASE);
}

static void go(struct queue_msg *m)
{
	struct ring_req *g = td_entry(m, struct ring_req, go);

	lane_submit(lane, &g->op, &g->r);
	if (lane_io(lane))
		td_io_commit(lane_io(lane));
}

/* Comes into the lane's ring, in its thread. */
static struct ring_req *submit(enum td_op op, unsigned flags, unsigned sector)
{
	struct ring_req *g = &reqs[nreq++];

	g->iov = (struct iovec){g->buf, g->big ? 4096 : 512};
	memset(g->buf, (int)nreq, sizeof g->buf);
	g->r = (struct td_req){
		.op = op, .flags = flags, .done = answered, .iov = &g->iov, .iovcnt = 1};
	if (op != TD_FLUSH) {
		g->r.off = sector * 512;
		g->r.len = g->iov.iov_len;
	}
	g->go.fn = go;
	queue_post(home.others[0], &g->go);
	return g;
}

static bool is_done(const struct ring_req *g)
{
	return __atomic_load_n(&g->done, __ATOMIC_ACQUIRE);
}

/* The home loop, until something holds. */
#define UNTIL(what)                                                                                \
	while (!(what)) {                                                                          \
		ev_run(home.loop, EVRUN_NOWAIT);                                                   \
		usleep(100);                                                                       \
	}

/* The same, with all completed that comes to the image. */
#define DRAIN_UNTIL(what)                                                                          \
	while (!(what)) {                                                                          \
		ev_run(home.loop, EVRUN_NOWAIT);                                                   \
		test_image_drain(&img);                                                            \
		usleep(100);                                                                       \
	}

static sem_t asleep, awake;

static void sleeps(struct queue_msg *m)
{
	sem_post(&asleep);
	sem_wait(&awake);
}

/* The lane's thread stands still: it hears of nothing. */
static void stop_thread(struct queue_msg *m)
{
	sem_init(&asleep, 0, 0);
	sem_init(&awake, 0, 0);
	m->fn = sleeps;
	queue_post(home.others[0], m);
	sem_wait(&asleep);
}

static void turns(void)
{
	for (int i = 0; i < 20; i++)
		ev_run(home.loop, EVRUN_NOWAIT);
}

/* From now on no write to the file finds space. */
static void fill_up(void)
{
	int full = open("/dev/full", O_RDWR | O_CLOEXEC);

	ck_assert_int_ge(dup2(full, file.fd), 0);
	close(full);
}

/* Home requests, as of ring 0. */
static struct td_req home_req;
static int home_done, home_err;

static void home_answered(struct td_req *r, int err)
{
	home_done++;
	home_err = err;
}

static void at_home(enum td_op op, unsigned flags, unsigned sector)
{
	static char buf[512];
	static struct iovec iov = {buf, sizeof buf};

	home_done = 0;
	home_req = (struct td_req){.iov = &iov,
				   .iovcnt = 1,
				   .op = op,
				   .flags = flags,
				   .done = home_answered,
				   .off = op == TD_FLUSH ? 0 : sector * 512,
				   .len = op == TD_FLUSH ? 0 : 512};
	cache_submit(&cache, &home_req);
}

/* --- tests --- */

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
	Suite *s = suite_create("lane");

	SUITE_ADD(s, a_flush_counts_what_went_past);
	SUITE_ADD(s, what_stops_all_waits_for_the_lane);
	SUITE_ADD(s, a_barrier_of_its_own);
	SUITE_ADD(s, a_place_is_forgotten);
	SUITE_ADD(s, a_failed_flush_reaches_the_lane);
	SUITE_ADD(s, a_fault_closes_the_lane);
	SUITE_ADD(s, a_durable_write_comes_home);
	SUITE_ADD(s, a_durable_write_that_fails_on_a_lane_is_sticky);
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
