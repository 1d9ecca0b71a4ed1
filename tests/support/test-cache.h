/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A cache layer over an image completed by hand, and the requests of a guest; for tests of its
 * rules. */
#ifndef TESTS_TEST_CACHE_H
#define TESTS_TEST_CACHE_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tapdisk/cache/cache.h"
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

static inline void answered(struct td_req *r, int err)
{
	struct guest_req *g = td_entry(r, struct guest_req, r);

	g->done++;
	g->err = err;
	g->order = ++nanswered;
}

static inline void changed(struct cache *c)
{
	nchanged++;
}

static inline void idle(struct cache *c)
{
	nidle++;
}

static inline void begin(const char *mode)
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

static inline void end(void)
{
	for (unsigned i = 0; i < nreq; i++)
		ck_assert_int_eq(reqs[i].done, 1);
	cache_quiesce(&cache);
	cache_detach(&cache);
	cache_fini(&cache);
	test_image_close(&img);
	ev_loop_destroy(loop);
}

static inline struct guest_req *submit(enum td_op op, unsigned flags, unsigned sector)
{
	struct guest_req *g = &reqs[nreq++];

	ck_assert_uint_le(nreq, NREQ);
	g->iov = (struct iovec){g->buf, sizeof g->buf};
	g->r = (struct td_req){
		.op = op, .flags = flags, .done = answered, .iov = &g->iov, .iovcnt = 1};
	if (op != TD_FLUSH) {
		g->r.off = sector * 512;
		g->r.len = 512;
	}
	cache_submit(&cache, &g->r);
	return g;
}

static inline struct guest_req *rd(unsigned s)
{
	return submit(TD_READ, 0, s);
}
static inline struct guest_req *wr(unsigned s)
{
	return submit(TD_WRITE, 0, s);
}
static inline struct guest_req *fl(void)
{
	return submit(TD_FLUSH, 0, 0);
}

/* The image's i-th pending request is this one. */
static inline void expect(unsigned i, enum td_op op, unsigned sector)
{
	struct td_req *r = test_image_at(&img, i);

	ck_assert_ptr_nonnull(r);
	ck_assert_int_eq(r->op, op);
	if (op != TD_FLUSH)
		ck_assert_uint_eq(r->off, sector * 512);
}

/* A write and a flush of it, so that later flushes have something old to compare with. */
static inline void settle_first(void)
{
	wr(0);
	test_image_drain(&img);
	fl();
	test_image_drain(&img);
	ck_assert_uint_eq(nanswered, 2);
	ck_assert_uint_eq(cache.flushed, cache.written);
}

static inline void retry_now(void)
{
	ev_invoke(loop, &cache.retry, EV_TIMER);
}

/* A cache.leaves: whoever is there goes. */
static inline bool all_leave(const struct cache *c, const struct td_req *req)
{
	return true;
}

#endif
