/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of the cache layer know of each other; its rules stand at the top of cache.c. */
#ifndef TAPDISK_CACHE_INSIDE_H
#define TAPDISK_CACHE_INSIDE_H

#include <errno.h>

#include "tapdisk/cache/cache.h"

/* Steps of a BARRIER or PREFLUSH, in td_req.state[0]; state[1] of whatever waits for a flush is the
 * generation it needs. */
enum { STEP_DRAIN, STEP_FLUSH, STEP_WRITE, STEP_FLUSH_AGAIN, STEP_DONE };

static inline bool cache_is_full(int err)
{
	return err == -ENOSPC || err == -EDQUOT;
}

static inline bool cache_leaving(const struct cache *c, const struct td_req *req)
{
	return c->leaves && c->leaves(c, req);
}

static inline void cache_tell_torn(struct cache *c)
{
	if (c->torn)
		c->torn(c);
}

/* --- cache.c --- */

void cache_dispatch(struct cache *c, struct td_req *req); /* begins one that is counted as active */
/* a request but a FLUSH: to the image, or to those that wait */
void cache_send(struct cache *c, struct td_req *req);
/* its way has come to an end, or a step of it has */
void cache_finish(struct cache *c, struct td_req *req, int err);
void cache_answer(struct cache *c, struct td_req *req, int err);
void cache_check_idle(struct cache *c);

/* --- cache-barrier.c --- */

void cache_sequence_begin(struct cache *c, struct td_req *req); /* a BARRIER or PREFLUSH */
/* One step of flush, write, flush is over with err: on to the next (C4). */
void cache_sequence(struct cache *c, struct td_req *req, int err);
/* C4: there is one, and all is answered that came before it */
bool cache_barrier_may_start(const struct cache *c);
void cache_release_held(struct cache *c);

/* --- cache-flush.c --- */

/* a FLUSH, a step of a sequence, or what is to be durable (C1) */
void cache_flush_add(struct cache *c, struct td_req *req);
void cache_flush_next(struct cache *c);

/* --- cache-space.c --- */

void cache_space_init(struct cache *c);
/* what: for people, a write or metadata */
void cache_no_space(struct cache *c, const char *what, int err);
void cache_write_waits(struct cache *c, struct td_req *req, int err); /* it found no space (C7) */
void cache_send_waiting(struct cache *c);    /* while there is no space, one write alone, to see */
void cache_probed(struct cache *c, int err); /* the write that was sent to see has been answered */
bool cache_nobody_waits(const struct cache *c); /* there is no space, and nobody is left who would
						   tell when there is */
bool cache_any_write(const struct td_list *of);
void cache_space_again(struct cache *c);
void cache_space_end(struct cache *c);

#endif
