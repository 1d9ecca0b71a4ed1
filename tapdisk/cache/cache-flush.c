/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Flushes: one of the image for many, and one that fails for good (C2, C3, C5, C6 and C8 of
 * cache.c). */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "lib/io/file.h"
#include "lib/kill.h"
#include "tapdisk/cache/cache-inside.h"
#include "tapdisk/cache/lane.h"
#include "td/log.h"

void cache_fail_sticky(struct cache *c, int err)
{
	assert(c->magic == CACHE_MAGIC);
	if (c->sticky)
		return;
	__atomic_store_n(&c->sticky, err, __ATOMIC_RELEASE); /* lanes look at it */
	td_log(LOG_ERR,
	       "%s: a flush to disk failed (%s): acknowledged data may be lost.  Writes and "
	       "flushes fail from now on; close the "
	       "disk, check its contents, and open it again",
	       c->image->path, strerror(-err));
	c->changed(c);
}

void cache_durable_failed(struct cache *c, int err)
{
	assert(c->magic == CACHE_MAGIC);
	if (cache_is_full(err) || err == -EOPNOTSUPP || !c->image)
		return;
	cache_fail_sticky(c, err);
}

static void flush_answer(struct cache *c, struct td_list *of, int err)
{
	struct td_list now;
	struct td_list *l;

	td_list_init(&now);
	td_list_splice(&now, of);
	while ((l = td_list_pop(&now)))
		cache_finish(c, td_entry(l, struct td_req, link), err);
}

static void flush_done(struct td_req *flush, int err);

static uint64_t written(const struct cache *c)
{
	return c->written + lanes_written(c);
}

static void flush_image(struct cache *c)
{
	c->flush_running = true;
	c->flushing = written(c);
	c->n.syncs++;
	c->flush_req = (struct td_req){.op = TD_FLUSH, .done = flush_done, .io = c->io};
	TD_KILL(FLUSH_BEGIN);
	td_submit(c->image, &c->flush_req);
	TD_KILL(FLUSH_SENT);
}

void cache_flush_next(struct cache *c)
{
	struct td_list nothing_new;

	if (c->flush_running || c->quiesced)
		return;
	td_list_init(&nothing_new);
	td_list_each_safe (l, tmp, &c->flushes) {
		if (td_entry(l, struct td_req, link)->state[1] > c->flushed)
			continue;
		td_list_del(l);
		td_list_add(&nothing_new, l);
	}
	if (!td_list_empty(&c->flushes) && !c->sticky && !c->flush_waits) {
		td_list_splice(&c->covered, &c->flushes); /* C3 */
		flush_image(c);
	}
	if (c->sticky)
		flush_answer(c, &c->flushes, -EIO); /* C5 */
	flush_answer(c, &nothing_new, c->sticky ? -EIO : 0);
}

/* C8: requests that wait for this flush move to the next one, except a departing frontend's. */
static void flush_waits(struct cache *c, int err)
{
	struct td_list now;
	struct td_list *l;

	td_list_init(&now);
	td_list_splice(&now, &c->covered);
	td_list_splice(&now, &c->flushes);
	c->flush_waits = !c->quiesced;
	while ((l = td_list_pop(&now))) {
		if (cache_leaving(c, td_entry(l, struct td_req, link)))
			cache_finish(c, td_entry(l, struct td_req, link), err);
		else
			td_list_add(&c->flushes, l);
	}
	if (td_list_empty(&c->flushes))
		c->flush_waits = false;
	else if (!c->quiesced)
		cache_no_space(c, "metadata", err);
	cache_check_idle(c);
}

static void flush_done(struct td_req *flush, int err)
{
	struct cache *c = td_entry(flush, struct cache, flush_req);

	TD_KILL(FLUSH_BACK);
	c->flush_running = false;
	if (!err && c->sticky)
		err = -EIO; /* C6: a concurrent durable write may have consumed the error that
			       was meant for this flush */
	if (cache_is_full(err) && (!c->report_enospc || c->quiesced) && !c->sticky) {
		flush_waits(c, err);
		return;
	}
	if (err)
		cache_fail_sticky(c, err);
	else
		c->flushed = c->flushing;
	if (!err && cache_nobody_waits(c))
		cache_space_again(c); /* it was this flush that had found none; nothing is to be
					 sent, so `covered' stays as it is */
	TD_KILL(FLUSH_STICKY);
	flush_answer(c, &c->covered, err);
	TD_KILL(FLUSH_ANSWERED);
	cache_flush_next(c);
	cache_check_idle(c);
}

void cache_flush_add(struct cache *c, struct td_req *req)
{
	req->state[1] = written(c); /* C2 */
	td_list_add(&c->flushes, &req->link);
	cache_flush_next(c);
}

void cache_flush(struct cache *c)
{
	assert(c->magic == CACHE_MAGIC);
	assert(c->quiesced && cache_image_idle(c));
	flush_image(c);
}

bool cache_dirty(const struct cache *c)
{
	assert(c->magic == CACHE_MAGIC);
	return written(c) > c->flushed && !c->sticky && c->image &&
	       !(c->image->file_flags & TD_FILE_RDONLY);
}
