/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random requests, completed in random order, with pauses and lack of space in between, against a
 * model of what a disk with a volatile cache holds.  Each request is answered once; a flush's
 * promise holds; nothing passes a barrier.
 *
 * The model is the worst disk there is: a flush makes durable only what was complete when it was
 * sent.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tapdisk/cache/cache.h"
#include "tests/support/suite.h"
#include "tests/support/test-image.h"

#define SECTORS 40
#define DEPTH   24
#define STEPS   15000

struct model {
	uint32_t sector[SECTORS]; /* the number of the request that wrote it last */
};

struct guest_req {
	struct td_req r;
	struct iovec iov;
	uint32_t data[128]; /* [0]: number */
	uint32_t number;
	bool busy;
	struct model promise; /* FLUSH and BARRIER: what had been acknowledged when it came */
};

static struct ev_loop *loop;
static struct test_image img;
static struct cache cache;
static struct guest_req reqs[DEPTH];
static struct model acked, disk, durable, at_flush;
static uint32_t number;
static unsigned nbusy, nflushed;
static bool sector_busy[SECTORS];

static void hold_promise(const struct model *m)
{
	for (unsigned s = 0; s < SECTORS; s++)
		ck_assert_uint_ge(durable.sector[s], m->sector[s]);
}

static void answered(struct td_req *r, int err)
{
	struct guest_req *g = td_entry(r, struct guest_req, r);

	ck_assert(g->busy && err == 0);
	g->busy = false;
	nbusy--;
	if (r->op == TD_WRITE) {
		acked.sector[r->off / 512] = g->number;
		sector_busy[r->off / 512] = false;
	}
	if (r->op == TD_FLUSH || (r->flags & (TD_BARRIER | TD_PREFLUSH))) {
		hold_promise(&g->promise);
		nflushed++;
	}
	if (r->op == TD_WRITE &&
	    ((r->flags & (TD_BARRIER | TD_PREFLUSH)) || cache.mode->fua_every_write))
		ck_assert_uint_ge(durable.sector[r->off / 512], g->number);
}

/* The image gets a request: is it allowed to, now? */
static void seen(struct test_image *t, struct td_req *child)
{
	uint32_t n;

	ck_assert(!cache.quiesced);
	if (child->op == TD_FLUSH) {
		at_flush = disk;
		return;
	}
	n = *(uint32_t *)child->iov->iov_base;
	for (unsigned i = 0; i < DEPTH; i++) {
		if (!reqs[i].busy || !(reqs[i].r.flags & TD_BARRIER))
			continue;
		ck_assert_uint_ge(reqs[i].number, n); /* nothing passes it forwards */
		if (reqs[i].number != n)
			continue;
		for (unsigned k = 0; k < DEPTH; k++) /* nor does it pass anything */
			ck_assert(!reqs[k].busy || reqs[k].number >= n);
		hold_promise(&acked);
	}
}

/* The image is done with its i-th request. */
static void complete(unsigned i)
{
	struct td_req *child = test_image_at(&img, i);
	int err = child->op == TD_WRITE && rand() % 100 == 0 ? -ENOSPC : 0;

	if (child->op == TD_FLUSH) {
		for (unsigned s = 0; s < SECTORS; s++)
			if (durable.sector[s] < at_flush.sector[s])
				durable.sector[s] = at_flush.sector[s];
	} else if (child->op == TD_WRITE && !err) {
		disk.sector[child->off / 512] = *(uint32_t *)child->iov->iov_base;
		if (child->flags & TD_FUA)
			durable.sector[child->off / 512] = disk.sector[child->off / 512];
	}
	test_image_complete(&img, i, err);
}

static void submit_one(void)
{
	static const struct {
		enum td_op op;
		unsigned flags, share;
	} mix[] = {{TD_WRITE, 0, 50},          {TD_READ, 0, 75},
		   {TD_FLUSH, 0, 85},          {TD_WRITE, TD_BARRIER, 90},
		   {TD_FLUSH, TD_BARRIER, 93}, {TD_WRITE, TD_PREFLUSH, 98},
		   {TD_WRITE, TD_FUA, 100}};
	unsigned k = 0, pick = (unsigned)rand() % 100, s = (unsigned)rand() % SECTORS;
	struct guest_req *g = reqs;

	while (g < reqs + DEPTH && g->busy)
		g++;
	while (mix[k].share <= pick)
		k++;
	/* two writes of one sector at a time have no order: the model asks for none */
	if (g == reqs + DEPTH || (mix[k].op == TD_WRITE && sector_busy[s]))
		return;
	g->number = g->data[0] = ++number;
	g->promise = acked;
	g->busy = true;
	nbusy++;
	g->iov = (struct iovec){g->data, sizeof g->data};
	g->r = (struct td_req){.op = mix[k].op,
			       .flags = mix[k].flags,
			       .done = answered,
			       .iov = &g->iov,
			       .iovcnt = 1};
	if (g->r.op != TD_FLUSH) {
		g->r.off = s * 512;
		g->r.len = 512;
	}
	if (g->r.op == TD_WRITE)
		sector_busy[s] = true;
	cache_submit(&cache, &g->r);
}

static void pause_step(const char *mode)
{
	if (!cache.quiesced) {
		cache_quiesce(&cache);
	} else if (rand() % 2 && cache_image_idle(&cache)) {
		if (rand() % 2 && cache_dirty(&cache)) {
			img.seen = NULL; /* the flush before the close is sent while quiesced */
			at_flush = disk;
			cache_flush(&cache);
			img.seen = seen;
			complete(0);
			ck_assert_mem_eq(&durable, &disk, sizeof disk);
		}
		cache_detach(&cache);
		cache_attach(&cache, td_cache_mode_find(mode), img.image, &img.io, false);
		cache_resume(&cache);
	} else if (img.npending) {
		cache_resume(&cache); /* the pause took too long */
	}
}

static void nothing(struct cache *c)
{
}

static void storm(const char *mode, unsigned seed)
{
	fprintf(stderr, "cache=%s, seed %u\n", mode, seed);
	srand(seed);
	loop = ev_loop_new(EVFLAG_AUTO);
	test_image_open(&img, td_cache_mode_find(mode)->file_flags);
	img.seen = seen;
	cache_init(&cache, loop, NULL);
	cache.changed = cache.idle = nothing;
	cache_attach(&cache, td_cache_mode_find(mode), img.image, &img.io, true);
	cache_resume(&cache);
	for (int i = 0; i < STEPS; i++) {
		unsigned what = (unsigned)rand() % 100;

		if (what < 45)
			submit_one();
		else if (what < 95 && img.npending)
			complete((unsigned)rand() % img.npending);
		else if (what < 97)
			pause_step(mode);
		else if (cache.out_of_space)
			ev_invoke(loop, &cache.retry, EV_TIMER);
	}
	for (int i = 0; nbusy && i < 100000; i++) {
		if (cache.quiesced)
			cache_resume(&cache);
		if (img.npending)
			complete((unsigned)rand() % img.npending);
		else if (cache.out_of_space)
			ev_invoke(loop, &cache.retry, EV_TIMER);
	}
	ck_assert_uint_eq(nbusy, 0); /* nothing was lost */
	ck_assert_uint_gt(nflushed, 300);
	ck_assert_uint_lt(img.nflushes, nflushed * 2);
	cache_quiesce(&cache);
	cache_detach(&cache);
	cache_fini(&cache);
	test_image_close(&img);
	ev_loop_destroy(loop);
}

static unsigned new_seed(void)
{
	const char *given = getenv("SEED");

	return given ? (unsigned)atoi(given) : (unsigned)time(NULL);
}

START_TEST(a_storm_keeps_every_promise_of_none)
{
	storm("none", new_seed());
}
END_TEST

START_TEST(a_storm_keeps_every_promise_of_directsync)
{
	storm("directsync", new_seed());
}
END_TEST

START_TEST(a_storm_keeps_every_promise_of_writethrough)
{
	storm("writethrough", new_seed());
}
END_TEST

START_TEST(storms_of_known_seeds)
{
	storm("none", 1);
	memset(&acked, 0, sizeof acked);
	memset(&disk, 0, sizeof disk);
	memset(&durable, 0, sizeof durable);
	number = nflushed = 0;
	storm("writeback", 2);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cache storm");

	SUITE_ADD(s, a_storm_keeps_every_promise_of_none);
	SUITE_ADD(s, a_storm_keeps_every_promise_of_directsync);
	SUITE_ADD(s, a_storm_keeps_every_promise_of_writethrough);
	SUITE_ADD(s, storms_of_known_seeds);
	return suite_run(s);
}
