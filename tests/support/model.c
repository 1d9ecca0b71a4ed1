/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/support/model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lib/fiber/fiber.h"
#include "tapdisk/chain.h"
#include "tests/support/on-fiber.h"

#define SLOTS  16
#define OP_MAX (96 * 512)

struct slot {
	struct td_req req;
	struct iovec iov[3];
	uint8_t *buf;
	bool busy;
};

static struct ev_loop *loop;
static struct fault_io fio;
static struct td_image *leaf;
static uint8_t *model, *unknown; /* unknown: a byte a sector; discarded, so that it may read as it
				    was or as zeroes */
static struct slot slots[SLOTS];
static const struct model *world;
static int depth;
static unsigned seed;

static void open_it(void *arg)
{
	struct td_err err = {0};
	char spec[40];
	struct td_how how = {.flags = world->flags, .key = world->key};
	int rc;

	snprintf(spec, sizeof spec, "%s:%s", world->type, model_name(depth));
	rc = chain_open(spec, &how, fio.io, &leaf, &err);
	ck_assert_msg(rc == 0, "%s", err.text);
}

static void close_it(void *arg)
{
	chain_close(leaf);
	leaf = NULL;
}

static uint64_t rnd(uint64_t below)
{
	return (((uint64_t)(unsigned)rand() << 31) ^ (unsigned)rand()) % below;
}

static bool overlaps(uint64_t off, uint64_t len)
{
	for (int i = 0; i < SLOTS; i++)
		if (slots[i].busy && slots[i].req.op != TD_FLUSH &&
		    off < slots[i].req.off + slots[i].req.len && slots[i].req.off < off + len)
			return true;
	return false;
}

static void check_read(struct slot *s)
{
	for (uint64_t i = 0; i < s->req.len; i += 512) {
		const uint8_t *got = s->buf + i, *want = model + s->req.off + i;
		static const uint8_t zeroes[512];

		if (!memcmp(got, want, 512) ||
		    (unknown[(s->req.off + i) / 512] && !memcmp(got, zeroes, 512)))
			continue;
		ck_abort_msg("seed %u: sector %llu reads as %02x %02x, not %02x %02x", seed,
			     (unsigned long long)(s->req.off + i) / 512, got[0], got[1], want[0],
			     want[1]);
	}
}

static void done(struct td_req *req, int err)
{
	struct slot *s = td_entry(req, struct slot, req);

	ck_assert_msg(err == 0, "seed %u: op %d at %llu: %s", seed, req->op,
		      (unsigned long long)req->off, strerror(-err));
	s->busy = false;
	switch (req->op) {
	case TD_READ:
		check_read(s);
		break;
	case TD_WRITE:
		memcpy(model + req->off, s->buf, req->len);
		memset(unknown + req->off / 512, 0, req->len / 512);
		break;
	case TD_WRITE_ZEROES:
		memset(model + req->off, 0, req->len);
		memset(unknown + req->off / 512, 0, req->len / 512);
		break;
	case TD_DISCARD:
		memset(unknown + req->off / 512, 1, req->len / 512);
		break;
	default:
		break;
	}
}

/* One to three pieces, cut anywhere that a sector allows. */
static void cut(struct slot *s, uint64_t len)
{
	uint64_t a = rnd(len / 512 + 1) * 512, at = 0;

	s->req.iovcnt = 0;
	for (int i = 0; i < 3 && at < len; i++) {
		uint64_t n = i == 0 && a ? a : i == 1 && at + 512 < len ? 512 : len - at;

		s->iov[s->req.iovcnt++] = (struct iovec){s->buf + at, n};
		at += n;
	}
	s->req.iov = s->iov;
}

static void begin(const struct model *w, struct slot *s)
{
	unsigned what = (unsigned)rnd(100);
	uint64_t len = (1 + rnd(rnd(4) ? 16 : OP_MAX / 512)) * 512, off = rnd(w->size / 512) * 512;

	if (!rnd(3)) /* somewhere where something is */
		off %= w->size / 4096 * 512;
	if (len > w->size - off)
		len = w->size - off;
	memset(&s->req, 0, sizeof s->req);
	s->req.op = what < 35   ? TD_READ
		    : what < 80 ? TD_WRITE
		    : what < 86 ? TD_WRITE_ZEROES
		    : what < 92 ? TD_DISCARD
				: TD_FLUSH;
	s->req.io = fio.io;
	s->req.done = done;
	if (s->req.op != TD_FLUSH) {
		if (overlaps(off, len))
			return;
		s->req.off = off;
		s->req.len = len;
	}
	if (s->req.op == TD_WRITE && !rnd(8))
		s->req.flags |= TD_FUA;
	if (s->req.op == TD_WRITE_ZEROES && rnd(2))
		s->req.flags |= TD_UNMAP;
	if (s->req.op == TD_READ || s->req.op == TD_WRITE)
		cut(s, len);
	for (uint64_t i = 0; s->req.op == TD_WRITE && i < len; i += 512)
		memset(s->buf + i, 1 + (int)rnd(255), 512);
	s->busy = true;
	td_submit(leaf, &s->req);
}

static void drain(void)
{
	for (int i = 0, n = 1; n; i++) {
		ck_assert_msg(i < 100000, "seed %u: it hangs", seed);
		ev_run(loop, EVRUN_NOWAIT);
		n = 0;
		for (int k = 0; k < SLOTS; k++)
			n += slots[k].busy;
	}
}

static void check_all(const struct model *w)
{
	for (uint64_t off = 0; off < w->size; off += OP_MAX) {
		struct slot *s = slots;

		memset(&s->req, 0, sizeof s->req);
		s->req.io = fio.io;
		s->req.done = done;
		s->req.off = off;
		s->req.len = w->size - off < OP_MAX ? w->size - off : OP_MAX;
		s->iov[0] = (struct iovec){s->buf, s->req.len};
		s->req.iov = s->iov;
		s->req.iovcnt = 1;
		s->busy = true;
		td_submit(leaf, &s->req);
		drain();
	}
}

static void make_it(void *arg)
{
	world->make(&fio, depth, world->arg);
}

static void look_at_it(void *arg)
{
	world->closed(&fio, depth, world->arg);
}

static void merge_it(void *arg)
{
	world->merge(&fio, depth, world->arg);
}

static void reopen(const struct model *w, bool snapshot)
{
	drain();
	on_fiber(loop, close_it, NULL);
	on_fiber(loop, look_at_it, NULL);
	if (w->merge && depth && !rnd(3)) {
		on_fiber(loop, merge_it, NULL);
		on_fiber(loop, look_at_it, NULL);
	} else if (snapshot && depth + 1 < w->chain_max) {
		depth++; /* what a parent shows of a discarded sector stays what it is */
		on_fiber(loop, make_it, NULL);
	}
	on_fiber(loop, open_it, NULL);
}

const char *model_name(int n)
{
	static char names[4][16];
	static unsigned turn;
	char *name = names[turn++ % 4];

	snprintf(name, sizeof names[0], "/%d.img", n);
	return name;
}

void model_run(const struct model *w)
{
	const char *given = getenv("SEED");

	seed = given ? (unsigned)atoi(given) : (unsigned)time(NULL) ^ (unsigned)getpid();
	printf("SEED=%u\n", seed);
	srand(seed);
	world = w;
	loop = ev_loop_new(EVFLAG_AUTO);
	fault_io_new(&fio, loop, w->off_align, 512);
	fio.reorder = true;
	fio.grows = w->grows;
	depth = 0;
	on_fiber(loop, make_it, NULL);
	model = calloc(1, w->size);
	unknown = calloc(1, w->size / 512);
	for (int i = 0; i < SLOTS; i++)
		slots[i].buf = aligned_alloc(4096, OP_MAX);
	on_fiber(loop, open_it, NULL);
	for (int i = 0; i < w->steps; i++) {
		struct slot *s = &slots[rnd(SLOTS)];

		fio.nlog = 0;
		if (!s->busy)
			begin(w, s);
		if (!rnd(3))
			ev_run(loop, EVRUN_NOWAIT);
		if (!rnd(w->reopen ? w->reopen : 1000))
			reopen(w, rnd(2));
	}
	reopen(w, false);
	check_all(w);
	on_fiber(loop, close_it, NULL);
	on_fiber(loop, look_at_it, NULL);
	fault_io_free(&fio);
	ev_loop_destroy(loop);
	for (int i = 0; i < SLOTS; i++)
		free(slots[i].buf);
	free(model);
	free(unknown);
}
