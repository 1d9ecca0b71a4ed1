/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A lane for tests of its rules (L1 to L6 at the top of tapdisk/cache/lane.h), with a thread of its
 * own, beside the home thread, which is the test's: what goes fast stands in a file, what goes slow
 * comes to an image that is completed by hand.
 */
#ifndef TESTS_TEST_LANE_H
#define TESTS_TEST_LANE_H

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

static inline bool tell_map(struct td_image *image, uint64_t off, uint64_t len, struct td_map *out)
{
	*out = whole ? (struct td_map){.len = UINT64_MAX, .file = &file, .whole = true}
		     : (struct td_map){.off = off & ~UINT64_C(65535),
				       .len = 65536,
				       .file = &file,
				       .at = off & ~UINT64_C(65535)};
	return whole || told;
}

static inline void on_changed(struct cache *c)
{
	nchanged++;
}

static inline void on_idle(struct cache *c)
{
	nidle++;
}

static inline void begin(const char *mode)
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

static inline void free_lane(void *arg)
{
	lane_free(lane);
}

static inline void end(void)
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

static inline void answered(struct td_req *r, int err)
{
	struct ring_req *g = td_entry(r, struct ring_req, r);

	g->err = err;
	__atomic_store_n(&g->done, g->done + 1, __ATOMIC_RELEASE);
}

static inline void go(struct queue_msg *m)
{
	struct ring_req *g = td_entry(m, struct ring_req, go);

	lane_submit(lane, &g->op, &g->r);
	td_io_ahead(lane_io(lane), 1);
}

/* Comes into the lane's ring, in its thread. */
static inline struct ring_req *submit(enum td_op op, unsigned flags, unsigned sector)
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

static inline bool is_done(const struct ring_req *g)
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

static inline void sleeps(struct queue_msg *m)
{
	sem_post(&asleep);
	sem_wait(&awake);
}

/* The lane's thread stands still: it hears of nothing. */
static inline void stop_thread(struct queue_msg *m)
{
	sem_init(&asleep, 0, 0);
	sem_init(&awake, 0, 0);
	m->fn = sleeps;
	queue_post(home.others[0], m);
	sem_wait(&asleep);
}

static inline void turns(void)
{
	for (int i = 0; i < 20; i++)
		ev_run(home.loop, EVRUN_NOWAIT);
}

/* From now on no write to the file finds space. */
static inline void fill_up(void)
{
	int full = open("/dev/full", O_RDWR | O_CLOEXEC);

	ck_assert_int_ge(dup2(full, file.fd), 0);
	close(full);
}

/* Home requests, as of ring 0. */
static struct td_req home_req;
static int home_done, home_err;

static inline void home_answered(struct td_req *r, int err)
{
	home_done++;
	home_err = err;
}

static inline void at_home(enum td_op op, unsigned flags, unsigned sector)
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

#endif
