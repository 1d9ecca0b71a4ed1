/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/crash/work.h"

#include <string.h>

#define MOST 88 /* sectors in a request on the ring */

/* A place that hurts: near one of a few edges, or where somebody has just been. */
static uint64_t place(struct rng *r, const struct work_disk *d, const struct work *w, uint32_t n)
{
	uint64_t last = d->sectors - n, edge, at;

	switch (rng_below(r, 8)) {
	case 0:
		return rng_below(r, last + 1);
	case 1:
	case 2:
		if (w->n) {
			at = w->op[rng_below(r, w->n)].sector + rng_below(r, 5);
			at -= at >= 2 ? 2 : at;
			return at < last ? at : last;
		}
		/* fall through */
	default:
		edge = rng_below(r, d->sectors / d->edge < 4 ? d->sectors / d->edge + 1 : 4) *
		       d->edge;
		at = edge + rng_below(r, 2 * n + 4);
		at -= at > n ? n : at;
		return at < last ? at : last;
	}
}

static uint32_t length(struct rng *r, const struct work_disk *d)
{
	uint32_t n;

	switch (rng_below(r, 6)) {
	case 0:
		n = 1;
		break;
	case 1:
		n = 8;
		break;
	case 2:
		n = 1 + (uint32_t)rng_below(r, MOST);
		break;
	default:
		n = 1 + (uint32_t)rng_below(r, 10);
	}
	return n < d->sectors / 2 ? n : (uint32_t)(d->sectors / 2);
}

#define WHOLE 512 /* sectors: the largest cluster that is zeroed or discarded as a whole */

/* A request beside the ring. */
static void draw_beside(struct rng *r, const struct work_disk *d, struct plan *p)
{
	unsigned dice = (unsigned)rng_below(r, 16);

	p->flags = rng_chance(r, 60) ? GOP_FUA : 0;
	p->kind = dice < 8 ? GOP_WRITE : dice < 13 ? GOP_ZERO : GOP_DISCARD;
	if (p->kind == GOP_ZERO && rng_chance(r, 50))
		p->flags |= GOP_UNMAP;
	if (p->kind != GOP_WRITE && d->edge > MOST && d->edge <= WHOLE && rng_chance(r, 40)) {
		p->n = d->edge;
		p->sector = p->sector / d->edge * d->edge;
	}
}

/* flushes, beside: percent. */
static struct plan draw(struct rng *r, const struct work_disk *d, const struct work *w,
			unsigned flushes, unsigned beside)
{
	struct plan p = {.kind = GOP_WRITE, .flags = GOP_RING};
	unsigned dice = (unsigned)rng_below(r, 100);

	if (dice < flushes) {
		p.kind = GOP_FLUSH;
		if (rng_chance(r, 15))
			p.flags &= ~GOP_RING;
		return p;
	}
	p.n = length(r, d);
	p.sector = place(r, d, w, p.n);
	dice = (unsigned)rng_below(r, 100);
	if (dice < 12) {
		p.kind = GOP_READ;
	} else if (dice < 17) {
		p.flags |= GOP_PREFLUSH;
	} else if (dice < 24) {
		p.flags |= GOP_BARRIER;
		if (rng_chance(r, 30)) {
			p.kind = GOP_FLUSH;
			p.n = 0;
			p.sector = 0;
		}
	} else if (dice < 25) {
		p = (struct plan){.kind = GOP_SETTLE, .flags = PLAN_PAUSE};
	} else if (d->extras && rng_chance(r, beside)) {
		draw_beside(r, d, &p);
	}
	if (rng_chance(r, 3))
		p.flags |= PLAN_DRAIN;
	return p;
}

/* As a guest sends a large transfer: plain requests of one kind, each where the last one ends. */
static void follow(struct plan *p, const struct plan *last, const struct work_disk *d)
{
	if (!p->n || !last->n || !(p->flags & last->flags & GOP_RING) ||
	    (last->kind != GOP_READ && last->kind != GOP_WRITE) ||
	    last->sector + last->n + p->n > d->sectors)
		return;
	*p = (struct plan){.kind = last->kind,
			   .flags = last->flags & ~(unsigned)PLAN_DRAIN,
			   .sector = last->sector + last->n,
			   .n = p->n};
}

void work_random(struct work *w, const struct work_disk *d, uint64_t seed)
{
	struct rng r = rng_seed(seed, 'w');
	unsigned n = 5 + (unsigned)rng_below(&r, rng_chance(&r, 30) ? 130 : 40),
		 flushes = (unsigned)rng_below(&r, 30);
	unsigned beside = (unsigned)rng_below(&r, rng_chance(&r, 30) ? 90 : 30);

	memset(w, 0, sizeof *w);
	w->depth = 1u << rng_below(&r, 6);
	w->eager = 10 + (unsigned)rng_below(&r, 85);
	w->ragged = rng_chance(&r, 30);
	while (w->n < n) {
		struct plan p = draw(&r, d, w, flushes, beside);

		if (seed % 4 == 3 && w->n && rng_chance(&r, 70))
			follow(&p, &w->op[w->n - 1], d);
		w->op[w->n++] = p;
	}
}

void work_sequence(struct work *w, const struct work_disk *d, unsigned n, bool at_once)
{
	/* a and b share a 4096-byte block, c is across an edge */
	const uint64_t a = 1, b = 2, c = d->edge - 1;
	const struct plan kinds[WORK_KINDS] = {
		{GOP_WRITE, GOP_RING, a, 1},
		{GOP_WRITE, GOP_RING, a, 3},
		{GOP_WRITE, GOP_RING, b, 1},
		{GOP_WRITE, GOP_RING, c, 2},
		{GOP_WRITE, GOP_FUA, a, 1},
		{GOP_WRITE, GOP_RING | GOP_PREFLUSH, a, 2},
		{GOP_WRITE, GOP_RING | GOP_BARRIER, b, 1},
		{GOP_FLUSH, GOP_RING | GOP_BARRIER, 0, 0},
		{GOP_FLUSH, GOP_RING, 0, 0},
		{GOP_ZERO, 0, a, 2},
		{GOP_DISCARD, 0, 0, 8},
		{GOP_READ, GOP_RING, a, 2},
	};
	unsigned len = 1;

	memset(w, 0, sizeof *w);
	for (unsigned of = WORK_KINDS; n >= of; of *= WORK_KINDS) {
		n -= of;
		len++;
	}
	w->n = len;
	w->depth = at_once ? 32 : 1;
	w->eager = 50;
	for (unsigned i = 0; i < len; i++, n /= WORK_KINDS)
		w->op[i] = kinds[n % WORK_KINDS];
}
