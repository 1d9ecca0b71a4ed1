/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A ring comes and goes. */
#include "tapdisk/blkif/blkif-ring.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/fiber/fiber.h"

_Static_assert(BLKIF_MAX_INDIRECT * sizeof(struct blkif_seg) <= TD_PAGE,
	       "one page holds all segments");

static int alloc_requests(struct blkif *b)
{
	unsigned large = b->slots < BLKIF_LARGE_MAX ? b->slots : BLKIF_LARGE_MAX;

	b->reqs = calloc(b->slots, sizeof *b->reqs);
	if (b->lane && !(b->lane_ops = calloc(b->slots, sizeof *b->lane_ops)))
		return -ENOMEM;
	b->copies = calloc((size_t)b->slots * BLKIF_MAX_SEGS + (size_t)large * BLKIF_MAX_INDIRECT,
			   sizeof *b->copies);
	td_account_open(&b->memory, &blkif_memory, BLKIF_RESERVE);
	b->small = td_pool_new(BLKIF_MAX_SEGS * TD_PAGE, b->slots, &b->memory);
	b->large = td_pool_new((1 + BLKIF_MAX_INDIRECT) * TD_PAGE, large, &b->memory);
	if (!b->reqs || !b->copies || !b->small || !b->large)
		return -ENOMEM;
	for (unsigned i = b->slots; i-- > 0;) {
		struct blkif_req *r = &b->reqs[i];

		r->ring = b;
		r->index = i;
		r->req.iov = &r->iov;
		r->req.iovcnt = 1;
		r->req.done = blkif_req_done;
		r->next = b->free;
		b->free = r;
	}
	return 0;
}

static void stop_watchers(struct blkif *b)
{
	blkif_poll_stop(b);
	ev_io_stop(b->loop, &b->event);
	ev_clear_pending(b->loop, &b->respond);
	ev_clear_pending(b->loop, &b->show);
	ev_idle_stop(b->loop, &b->more);
	ev_timer_stop(b->loop, &b->storm);
	ev_timer_stop(b->loop, &b->trim);
	ev_timer_stop(b->loop, &b->pace);
	td_fiber_trim();
}

void blkif_stop(struct blkif *b)
{
	assert(b->magic == BLKIF_MAGIC);
	if (b->done)
		blkif_respond(b);
	stop_watchers(b);
}

static void let_go(struct blkif *b, bool keep)
{
	stop_watchers(b); /* of one with a lane they are stopped, and its loop is not touched */
	if (b->x) {
		blkif_persist_close(b);
		b->x->ops->unbind(b->x);
		b->x->ops->unmap_ring(b->x, b->ring, b->p.pages);
		b->x->ops->close(b->x);
	}
	td_pool_free(b->small);
	td_pool_free(b->large);
	td_account_close(&b->memory);
	free(b->copies);
	free(b->lane_ops);
	free(b->reqs);
	/* which wait for files to be removed */
	stats_source_close(&b->stats);
	inflight_close(&b->table, keep);
	b->magic = 0;
	free(b);
}

int blkif_connect(struct ev_loop *loop, struct td_xport *x, const struct blkif_params *p,
		  const struct blkif_keep *keep, struct blkif_disk *disk, struct lane *lane,
		  struct blkif **out, struct td_err *err)
{
	struct blkif *b = calloc(1, sizeof *b);
	int rc = -ENOMEM, fd;
	char name[32];

	if (!b)
		return td_fail(err, ENOMEM, "out of memory for a ring");
	b->magic = BLKIF_MAGIC;
	b->loop = loop;
	b->p = *p;
	b->disk = disk;
	b->lane = lane;
	b->done_tail = &b->done;
	b->slots = blkif_slots(p->abi, p->pages);
	blkif_init_watchers(b);
	b->x = x;
	if (alloc_requests(b) < 0 || blkif_persist_open(b) < 0) {
		td_fail(err, ENOMEM, "out of memory for a ring of %u pages", p->pages);
		goto fail;
	}
	rc = -EIO;
	b->ring = x->ops->map_ring(x, p->refs, p->pages, err);
	if (!b->ring || blkif_open_table(b, keep, err) < 0)
		goto fail;
	fd = x->ops->bind(x, p->port, err);
	if (fd < 0)
		goto fail;
	ev_io_set(&b->event, fd, EV_READ);
	/* of all the device's queues */
	snprintf(name, sizeof name, "vbd-%u-%u", p->domid, p->devid);
	stats_source_open(&b->stats, disk->stats, name);
	if (lane && stats_source_thread(&b->stats) < 0) {
		td_fail(err, ENOMEM, "out of memory for a ring of %u pages", p->pages);
		x->ops->unbind(x);
		goto fail;
	}
	*out = b;
	return 0;
fail:
	if (err && err->code)
		rc = -err->code;
	blkif_persist_close(b);
	b->x = NULL; /* the caller's still */
	if (b->ring)
		x->ops->unmap_ring(x, b->ring, p->pages);
	b->ring = NULL;
	let_go(b, keep && keep->take_over); /* one who tries again needs what is owed */
	return rc;
}

void blkif_disconnect(struct blkif *b)
{
	assert(!b || b->magic == BLKIF_MAGIC);
	if (b)
		let_go(b, false);
}

void blkif_abandon(struct blkif *b)
{
	assert(b->magic == BLKIF_MAGIC);
	let_go(b, b->taken_over);
}

int blkif_share(const struct blkif *b, int fds[TD_XPORT_FDS])
{
	assert(b->magic == BLKIF_MAGIC);
	return b->x->ops->share ? b->x->ops->share(b->x, fds) : 0;
}

void blkif_leave(struct blkif *b)
{
	blkif_stop(b);
	let_go(b, true);
}
