/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Block status: what a client asks of holes and zeroes, answered on a fiber, one question of a
 * client at a time, and one in a turn of the loop: it may look at a thousand places of an image. */
#include <errno.h>

#include "lib/fiber/fiber.h"
#include "tapdisk/nbd/nbd-conn.h"

#define EXTENTS_MAX 1024 /* in one reply; on the fiber's stack */

/* The context's number 4, and for each extent its length 4 and state 4. */
static void put_extents(struct nbd_req *r, const struct td_extent *e, int n)
{
	uint8_t *p = nbd_put32(r->iov[0].iov_base, NBD_CONTEXT_ALLOCATION);

	for (int i = 0; i < n; i++) {
		p = nbd_put32(p, (uint32_t)e[i].len);
		p = nbd_put32(p, (e[i].flags & TD_EXTENT_HOLE ? NBD_STATE_HOLE : 0) |
					 (e[i].flags & TD_EXTENT_ZERO ? NBD_STATE_ZERO : 0));
	}
	r->data = 4 + 8 * (uint32_t)n;
	nbd_chunk(r, NBD_CHUNK_STATUS, NBD_CHUNK_DONE, r->data);
	r->head_len = NBD_CHUNK_SIZE;
}

static struct nbd_req *pop(struct nbd_conn *c)
{
	struct nbd_req *r = c->status;

	c->status = r->next;
	if (!c->status)
		c->status_tail = &c->status;
	return r;
}

static void answer(struct nbd_req *r, int err)
{
	struct nbd *n = r->conn->n;

	r->conn->inflight--;
	n->inflight--;
	nbd_reply(r, err);
	if (!n->inflight)
		n->disk->idle(n->disk->owner);
}

static void status_fiber(void *arg)
{
	struct nbd_conn *c = arg;
	struct cache *cache = c->n->disk->cache;
	struct td_extent e[EXTENTS_MAX];

	if (cache_hold(cache)) {
		struct nbd_req *r = pop(c);
		int n = -EINVAL;

		if (!nbd_beyond(c->n, r->off, r->len)) /* N5 of nbd-cmd.c */
			n = td_extents(cache->image, r->off, r->len, e,
				       r->flags & NBD_CMD_REQ_ONE ? 1 : EXTENTS_MAX);
		cache_unhold(cache);
		if (n >= 0)
			put_extents(r, e, n);
		answer(r, n < 0 ? n : 0);
	}
	c->status_turn = ev_iteration(c->n->loop);
	c->status_running = false;
	nbd_conn_kick(c);
}

void nbd_status_cancel(struct nbd_conn *c, int err)
{
	while (c->status)
		answer(pop(c), err);
}

void nbd_status_run(struct nbd_conn *c)
{
	/* nbd_run comes when there is an image again */
	if (c->status_running || !c->status || c->n->disk->cache->quiesced)
		return;
	if (c->status_turn == ev_iteration(c->n->loop)) {
		nbd_turn_next(c);
		return;
	}
	c->status_running = true;
	if (td_fiber_start(c->n->loop, status_fiber, c) < 0) {
		c->status_running = false;
		nbd_status_cancel(c, -ENOMEM);
	}
}

void nbd_status_add(struct nbd_req *r)
{
	struct nbd_conn *c = r->conn;

	r->next = NULL;
	*c->status_tail = r;
	c->status_tail = &r->next;
	c->inflight++;
	c->n->inflight++;
	nbd_status_run(c);
}
