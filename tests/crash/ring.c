/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/crash/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/crash/process.h"
#include "tests/support/blkif-front.h"

#define SLOTS 32
#define SEGS  BLKIF_MAX_SEGS

struct slot {
	size_t name;
	bool busy;
	uint32_t n; /* sectors */
	struct blkif_desc desc;
	unsigned char data[SEGS * TD_PAGE];
};

struct ring {
	struct ev_loop *loop;
	void (*told)(void *arg);
	void *arg;
	int memfd, kick, call;
	unsigned char *mem; /* page 0: the ring; then SEGS pages a slot */
	size_t bytes;
	struct blkif_sring *shared;
	uint32_t prod, cons;
	struct slot slot[SLOTS];
};

static void rung(void *arg)
{
	struct ring *r = arg;

	r->told(r->arg);
}

struct ring *ring_new(struct ev_loop *loop, void (*told)(void *arg), void *arg)
{
	struct ring *r = calloc(1, sizeof *r);

	if (!r)
		abort();
	*r = (struct ring){.loop = loop,
			   .told = told,
			   .arg = arg,
			   .memfd = memfd_create("crash", MFD_CLOEXEC | MFD_ALLOW_SEALING),
			   .kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
			   .call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
			   .bytes = (1 + SLOTS * SEGS) * (size_t)TD_PAGE};
	if (r->memfd < 0 || r->kick < 0 || r->call < 0 ||
	    ftruncate(r->memfd, (off_t)r->bytes) < 0 ||
	    fcntl(r->memfd, F_ADD_SEALS, F_SEAL_SHRINK) < 0)
		abort();
	r->mem = mmap(NULL, r->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, r->memfd, 0);
	if (r->mem == MAP_FAILED)
		abort();
	r->shared = (struct blkif_sring *)(void *)r->mem;
	r->shared->req_event = r->shared->rsp_event = 1;
	process_bell(r->call, rung, r);
	return r;
}

void ring_owner(struct ring *r, void *arg)
{
	r->arg = arg;
}

void ring_reset(struct ring *r)
{
	uint64_t n;

	memset(r->mem, 0, TD_PAGE);
	r->shared->req_event = r->shared->rsp_event = 1;
	r->prod = r->cons = 0;
	for (unsigned i = 0; i < SLOTS; i++)
		r->slot[i].busy = false;
	if (read(r->kick, &n, sizeof n) < 0)
		return; /* nobody had kicked */
}

void ring_free(struct ring *r)
{
	munmap(r->mem, r->bytes);
	close(r->memfd);
	close(r->kick);
	close(r->call);
	free(r);
}

int ring_reach(struct ring *r, struct td_xport **x, struct td_err *err)
{
	return td_xport_mem(fcntl(r->memfd, F_DUPFD_CLOEXEC, 0), fcntl(r->kick, F_DUPFD_CLOEXEC, 0),
			    fcntl(r->call, F_DUPFD_CLOEXEC, 0), x, err);
}

void ring_params(unsigned queue, bool persistent, struct blkif_params *p)
{
	memset(p, 0, sizeof *p);
	p->domid = 1;
	p->devid = 1;
	p->pages = 1;
	p->queue = queue;
	p->persistent = persistent;
}

int ring_connect(struct ring *r, struct vbd *v, bool persistent, struct td_err *err)
{
	struct blkif_params p;
	struct td_xport *x;
	int rc = ring_reach(r, &x, err);

	ring_params(0, persistent, &p);
	return rc < 0 ? rc : vbd_connect(v, &x, 1, "mem", &p, 0, err);
}

static struct slot *find(struct ring *r, size_t name)
{
	for (unsigned i = 0; i < SLOTS; i++)
		if (r->slot[i].busy && r->slot[i].name == name)
			return &r->slot[i];
	abort();
}

static struct slot *idle(const struct ring *r)
{
	for (unsigned i = 0; i < SLOTS; i++)
		if (!r->slot[i].busy)
			return (struct slot *)&r->slot[i];
	return NULL;
}

bool ring_room(const struct ring *r)
{
	return idle(r);
}

static unsigned char *page(struct ring *r, uint32_t ref)
{
	return r->mem + (size_t)ref * TD_PAGE;
}

unsigned char *ring_build(struct ring *r, size_t name, uint32_t n, struct rng *rng)
{
	struct slot *s = idle(r);
	uint32_t left = n;

	s->busy = true;
	s->name = name;
	s->n = n;
	s->desc = (struct blkif_desc){.id = (uint64_t)(s - r->slot)};
	for (unsigned i = 0; left; i++) {
		struct blkif_seg *g = &s->desc.seg[i];
		uint32_t room = (SEGS - 1 - i) * 8, least = left > room ? left - room : 1,
			 most = left < 8 ? left : 8;
		uint32_t len = rng ? least + (uint32_t)rng_below(rng, most - least + 1) : most;

		g->ref = 1 + (uint32_t)(s - r->slot) * SEGS + i;
		g->first = rng ? (uint8_t)rng_below(rng, 8 - len + 1) : 0;
		g->last = (uint8_t)(g->first + len - 1);
		left -= len;
		s->desc.nr_segs = (uint8_t)(i + 1);
	}
	return s->data;
}

/* Between the request's data and the guest's pages. */
static void move(struct ring *r, struct slot *s, bool to_pages)
{
	unsigned char *p = s->data;

	for (unsigned i = 0; i < s->desc.nr_segs; i++) {
		const struct blkif_seg *g = &s->desc.seg[i];
		unsigned char *at = page(r, g->ref) + g->first * 512;
		size_t len = (size_t)(g->last - g->first + 1) * 512;

		if (to_pages)
			memcpy(at, p, len);
		else
			memcpy(p, at, len);
		p += len;
	}
}

void ring_put(struct ring *r, size_t name, uint8_t op, uint64_t sector)
{
	struct slot *s = find(r, name);

	s->desc.op = op;
	s->desc.sector = s->n ? sector : UINT64_MAX; /* an empty flush's means nothing */
	move(r, s, true);
	blkif_put_request(BLKIF_NATIVE, r->shared, SLOTS, r->prod++, &s->desc);
}

void ring_push(struct ring *r)
{
	uint32_t old = r->shared->req_prod;

	if (old == r->prod)
		return;
	__atomic_store_n(&r->shared->req_prod, r->prod, __ATOMIC_RELEASE);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (r->prod - r->shared->req_event < r->prod - old)
		eventfd_write(r->kick, 1);
}

bool ring_reap(struct ring *r, size_t *name, int *status)
{
	uint64_t id;
	uint8_t op;
	int16_t s;

	r->shared->rsp_event = r->cons + 1;
	if (r->shared->rsp_prod == r->cons)
		return false;
	blkif_get_response(BLKIF_NATIVE, r->shared, SLOTS, r->cons++, &id, &op, &s);
	if (id >= SLOTS || !r->slot[id].busy || op != r->slot[id].desc.op)
		abort(); /* an answer to what was never asked */
	*name = r->slot[id].name;
	*status = s;
	return true;
}

unsigned char *ring_data(struct ring *r, size_t name, uint32_t n)
{
	struct slot *s = find(r, name);

	move(r, s, false);
	return s->data;
}

void ring_release(struct ring *r, size_t name)
{
	find(r, name)->busy = false;
}
