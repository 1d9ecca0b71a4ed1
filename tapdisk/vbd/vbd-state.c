/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Callbacks from the lower layers, and the state that is reported to users. */
#include <assert.h>
#include <errno.h>

#include "lib/fiber/fiber.h"
#include "lib/redo.h"
#include "lib/syncmark.h"
#include "tapdisk/cache/lane.h"
#include "tapdisk/vbd/record.h"
#include "tapdisk/vbd/vbd-inside.h"

bool vbd_lost_data(int sticky)
{
	return sticky && sticky != -ENOSPC && sticky != -EDQUOT;
}

static void wake(struct vbd *v)
{
	if (v->waiter)
		td_fiber_wake(v->waiter);
}

static void on_stall(struct stall *s)
{
	struct vbd *v = td_entry(s, struct vbd, stall);

	v->changed(v);
}

static void on_peers(struct peers *p)
{
	struct vbd *v = td_entry(p, struct vbd, peers);

	v->changed(v);
}

static void on_cache_changed(struct cache *c)
{
	struct vbd *v = c->owner;

	if (c->sticky && !v->sticky_recorded) {
		if (vbd_lost_data(c->sticky)) {
			syncmark_fail(v->syncs); /* before anybody hears of it */
			td_redo_fail(v->redo);   /* G9 of lib/redo.h */
		}
		record_soon(v);
	}
	v->sticky_recorded = c->sticky;
	wake(v); /* who waits for a flush may have to do without */
	v->changed(v);
}

static void on_cache_torn(struct cache *c)
{
	vbd_mirror_torn(c->owner);
}

static bool on_cache_leaves(const struct cache *c, const struct td_req *req)
{
	const struct vbd *v = c->owner;

	return v->all_leave || (v->leaving && blkif_owns(v->leaving, req)) ||
	       (v->nbd_leaving && nbd_owns(v->nbd, req)) || (v->ahead_left && req == &v->ahead);
}

static void on_cache_idle(struct cache *c)
{
	wake(c->owner);
}

void vbd_on_idle(void *owner)
{
	wake(owner);
}

static void on_ring_broken(void *owner, const char *why)
{
	struct vbd *v = owner;

	v->changed(v);
}

/* An image of the chain was found to be corrupt. */
static void on_fault(struct td_image *image)
{
	struct vbd *v = image->owner;

	if (v->mirror && image == v->leaf)
		td_image_fault(mirror_image(v->mirror), image->fault); /* which the lanes look at */
	lanes_update(&v->cache);
	v->changed(v);
}

/* An image's server has gone away, or is there again. */
static void on_away(struct td_image *image)
{
	struct vbd *v = image->owner;

	wake(v);
	v->changed(v);
}

static void follow_size(void *arg)
{
	struct vbd *v = arg;

	v->users++;
	while (v->heard) {
		struct td_err err = {0};

		v->heard = false;
		if (vbd_resize(v, &err) < 0 && err.code != ENODEV)
			td_log(LOG_ERR, "minor %d: the disk keeps its size: %s", v->minor,
			       err.text);
	}
	v->follows = false;
	v->users--;
}

/* A guest's disk grows with its image, without anybody's asking. */
static void on_resized(struct td_image *image)
{
	struct vbd *v = image->owner;

	v->heard = true;
	if (v->follows)
		return;
	v->follows = true;
	if (td_fiber_start(v->queue->loop, follow_size, v) < 0) {
		v->follows = false;
		td_log(LOG_ERR, "minor %d: no memory to look at its image's size", v->minor);
	}
}

void vbd_listen(struct vbd *v)
{
	stall_init(&v->stall, v->queue->loop, &v->cache, on_stall);
	peers_init(&v->peers, v->queue->loop, on_peers);
	v->cache.changed = on_cache_changed;
	v->cache.torn = on_cache_torn;
	v->cache.idle = on_cache_idle;
	v->cache.leaves = on_cache_leaves;
	v->disk = (struct blkif_disk){.cache = &v->cache,
				      .stats = &v->stats,
				      .owner = v,
				      .broken = on_ring_broken,
				      .idle = vbd_on_idle};
	v->nbd_disk = (struct nbd_disk){.cache = &v->cache,
					.stats = &v->stats,
					.limit = &v->disk.rates,
					.owner = v,
					.idle = vbd_on_idle};
}

void vbd_listen_to(struct vbd *v, struct td_image *leaf)
{
	for (struct td_image *i = leaf; i; i = i->backing) {
		i->owner = v;
		i->failed = v ? on_fault : NULL;
		i->changed = v ? on_away : NULL;
		i->resized = v && i == leaf ? on_resized : NULL;
	}
}

/* --- what shows --- */

static const char *fault_of(const struct vbd *v)
{
	for (const struct td_image *i = v->leaf; i; i = i->backing)
		if (i->fault)
			return i->fault;
	return NULL;
}

unsigned vbd_state(const struct vbd *v)
{
	assert(v->magic == VBD_MAGIC);
	return v->state | (v->cache.out_of_space ? TD_STATE_NO_SPACE : 0) |
	       (v->cache.sticky || fault_of(v) ? TD_STATE_FAILED : 0);
}

const char *vbd_reason(const struct vbd *v)
{
	assert(v->magic == VBD_MAGIC);
	if (fault_of(v)) /* which is why flushes fail */
		return fault_of(v);
	if (v->leaf && v->leaf->away)
		return v->leaf->away;
	if (v->cache.sticky)
		return "a flush to disk failed: writes and flushes fail until the disk is closed "
		       "and opened again";
	if (v->cache.out_of_space)
		return "no space: writes are held until there is space again";
	if (v->peers.reason[0])
		return v->peers.reason;
	if (v->stall.stalled)
		return "the store does not answer: its requests wait";
	return vbd_broken_ring(v);
}
