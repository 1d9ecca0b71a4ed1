/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The guest of the simulated host: what it asks, by its rings and by NBD, and what it is told. */
#include "tests/crash/host-inside.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define VERIFY_MOST 64u

static void check_order(const struct gop *op, size_t i)
{
	char text[200];

	if (op->status && !H.r->guest.hard_fault && !H.sim.hard) {
		snprintf(text, sizeof text,
			 "request %zu failed (status %d), and nothing had been made to fail that "
			 "cannot be hidden",
			 i + 1, op->status);
		host_blame("I7", text);
	}
	if (op->kind == GOP_FLUSH && op->status && op->ack < H.failed_at)
		H.failed_at = op->ack;
	if (op->kind != GOP_READ && !op->status && op->issue > H.failed_at) {
		snprintf(text, sizeof text, "request %zu succeeded after a flush had failed",
			 i + 1);
		host_blame("I7", text);
	}
}

static void answered(size_t i, int status)
{
	const struct td_cache_mode *mode = H.life[process_current()]->v->opt.mode;
	struct gop *op = &H.r->guest.op[i];

	op->ack = host_tick();
	op->status = status;
	op->flags |= (mode->fua_every_write ? GOP_EACH : 0) | (mode->drop_flush ? GOP_VOID : 0);
	H.outstanding--;
	check_order(op, i);
	host_changed_answered(op);
	host_mirror_answered(i);
	host_say("request %zu is answered: %d", i + 1, status);
}

static void check_read(size_t i, const void *data)
{
	struct verdict v;

	if (H.r->guest.op[i].status || H.r->bad.rule || H.gone)
		return;
	judge_read(&H.r->guest, i, data, &v);
	if (v.rule) {
		H.r->bad = v;
		H.r->bad_at = H.r->clock;
	}
}

static void on_notify(void *arg)
{
	struct ring *ring = arg;
	int was = process_current(), status;
	size_t i;

	host_happens("the guest is told");
	while (ring_reap(ring, &i, &status)) {
		answered(i, status);
		process_lab();
		if (H.r->guest.op[i].kind == GOP_READ && !status)
			check_read(i, ring_data(ring, i, H.r->guest.op[i].n));
		ring_release(ring, i);
		process_back(was);
	}
}

struct ring *host_the_ring(unsigned i)
{
	static LAB struct ring *rings[HISTORY_RINGS] = {NULL};

	if (!rings[i]) {
		rings[i] = ring_new(NULL, on_notify, NULL);
		ring_owner(rings[i], rings[i]);
	}
	ring_reset(rings[i]);
	return rings[i];
}

static void direct_done(struct td_req *req, int err)
{
	struct direct *d = td_entry(req, struct direct, req);
	struct gop *op = &H.r->guest.op[d->gop];
	int was;

	if (err == -EOPNOTSUPP && (op->kind == GOP_DISCARD ||
				   op->kind == GOP_ZERO)) { /* not offered: it has done nothing */
		op->n = 0;
		op->kind = GOP_READ;
		err = 0;
	}
	answered(d->gop, err);
	was = process_lab();
	if (op->kind == GOP_READ && op->n)
		check_read(d->gop, d->mem);
	process_back(was);
	free(d->mem);
	d->mem = NULL;
	d->busy = false;
}

static void fill(unsigned char *buf, size_t gop)
{
	const struct gop *op = &H.r->guest.op[gop];

	for (uint32_t k = 0; k < op->n; k++)
		sector_fill(buf + (size_t)k * SECTOR, H.r->guest.seed, (uint32_t)gop + 1,
			    op->sector + k);
}

static size_t new_gop(enum gop_kind kind, unsigned flags, uint64_t sector, uint32_t n)
{
	size_t i = gtrace_add(&H.r->guest, (struct gop){.kind = kind,
							.flags = flags,
							.sector = sector,
							.n = n,
							.issue = host_tick(),
							.ack = NEVER});

	H.outstanding++;
	return i;
}

static void direct_go(void *arg)
{
	struct direct *d = arg;

	cache_submit(&H.life[H.serving]->v->cache, &d->req);
}

void host_submit_direct(enum gop_kind kind, unsigned flags, uint64_t sector, uint32_t n)
{
	static const enum td_op ops[] = {[GOP_READ] = TD_READ,
					 [GOP_WRITE] = TD_WRITE,
					 [GOP_ZERO] = TD_WRITE_ZEROES,
					 [GOP_DISCARD] = TD_DISCARD,
					 [GOP_FLUSH] = TD_FLUSH};
	struct direct *d = NULL;
	size_t len = (size_t)n * SECTOR, i;

	for (unsigned k = 0; k < DIRECT_MAX && !d; k++)
		d = H.direct[k].busy ? NULL : &H.direct[k];
	if (!d)
		return;
	i = new_gop(kind, flags, sector, n);
	*d = (struct direct){.busy = true, .gop = i, .owner = H.serving};
	d->req = (struct td_req){.op = ops[kind],
				 .flags = (flags & GOP_FUA ? TD_FUA : 0) |
					  (flags & GOP_UNMAP ? TD_UNMAP : 0),
				 .off = sector * SECTOR,
				 .len = len,
				 .done = direct_done};
	if (kind == GOP_WRITE || kind == GOP_READ) {
		d->mem = aligned_alloc(4096, (len + 4095) / 4096 * 4096);
		if (kind == GOP_WRITE)
			fill(d->mem, i);
		else
			memset(d->mem, 0xdd, len);
		d->iov = (struct iovec){d->mem, len};
		d->req.iov = &d->iov;
		d->req.iovcnt = 1;
	}
	host_call(direct_go, d);
}

static void submit_ring(const struct event *e, enum gop_kind kind)
{
	struct ring *ring = H.ring[e->ring % H.h->rings];
	unsigned flags = e->flags | (e->kind == H_BARRIER ? GOP_BARRIER : 0);
	uint32_t n = e->n < 80 ? e->n : 80;
	unsigned char *data;
	uint8_t what;
	size_t i;

	if (!ring_room(ring))
		return;
	if (H.h->rings > 1)
		flags &= ~(unsigned)GOP_RING; /* nothing is in order with what is on another */
	i = new_gop(kind, flags, e->sector, n);
	what = flags & GOP_BARRIER                           ? BLKIF_WRITE_BARRIER
	       : kind == GOP_FLUSH || (flags & GOP_PREFLUSH) ? BLKIF_FLUSH_DISKCACHE
	       : kind == GOP_READ                            ? BLKIF_READ
							     : BLKIF_WRITE;
	data = ring_build(ring, i, n, NULL);
	if (kind == GOP_READ)
		memset(data, 0xdd, (size_t)n * SECTOR);
	else
		fill(data, i);
	ring_put(ring, i, what, e->sector);
	ring_push(ring);
}

void host_guest_event(const struct event *e)
{
	static const enum gop_kind kinds[] = {
		[H_WRITE] = GOP_WRITE,   [H_READ] = GOP_READ, [H_FLUSH] = GOP_FLUSH,
		[H_BARRIER] = GOP_WRITE, [H_ZERO] = GOP_ZERO, [H_DISCARD] = GOP_DISCARD};
	enum gop_kind kind = e->kind == H_BARRIER && !e->n ? GOP_FLUSH : kinds[e->kind];

	if (!H.open || e->sector + e->n > H.r->guest.sectors)
		return;
	if (e->flags & GOP_RING)
		submit_ring(e, kind);
	else if (host_alive() && H.giver == NOBODY && H.life[H.serving]->v && !H.dead)
		host_submit_direct(kind, e->flags, e->sector, e->n);
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Reads all that anybody has written: what was answered is there. */
void host_verify(void)
{
	uint64_t *at;
	size_t n = 0, all = 0, nops = H.r->guest.nops;

	if (!host_alive() || H.paused || H.dead || H.giver != NOBODY || H.r->bad.rule)
		return;
	for (size_t i = 0; i < nops; i++)
		all += H.r->guest.op[i].kind != GOP_READ ? H.r->guest.op[i].n : 0;
	at = malloc((all + 1) * sizeof *at);
	for (size_t i = 0; i < nops; i++)
		for (uint32_t k = 0; H.r->guest.op[i].kind != GOP_READ && k < H.r->guest.op[i].n;
		     k++)
			at[n++] = H.r->guest.op[i].sector + k;
	qsort(at, n, sizeof *at, by_value);
	for (size_t i = 0; i < n && host_alive() && !H.r->bad.rule;) {
		size_t to = i;
		uint32_t len;

		while (to + 1 < n && at[to + 1] <= at[to] + 1 && at[to + 1] - at[i] < VERIFY_MOST)
			to++;
		len = (uint32_t)(at[to] - at[i] + 1);
		host_submit_direct(GOP_READ, 0, at[i], len);
		for (unsigned busy = 0; host_alive() && !H.r->bad.rule;) {
			busy = 0;
			for (unsigned d = 0; d < DIRECT_MAX; d++)
				busy += H.direct[d].busy;
			if (busy < 8)
				break;
			host_step();
		}
		i = to + 1;
	}
	free(at);
	if (host_alive() && !H.r->bad.rule)
		host_wait_for(host_drained, "reading all");
}
