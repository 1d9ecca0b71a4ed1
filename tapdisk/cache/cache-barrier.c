/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* BARRIER and PREFLUSH: flush, write, flush; and what stands behind a BARRIER (C4 of cache.c). */
#include "lib/kill.h"
#include "tapdisk/cache/cache-inside.h"
#include "tapdisk/cache/lane.h"

bool cache_barrier_may_start(const struct cache *c)
{
	return c->barrier && c->active == 1 && c->barrier->state[0] == STEP_DRAIN &&
	       lanes_closed(c);
}

void cache_release_held(struct cache *c)
{
	struct td_list *l;

	if (c->releasing) /* a barrier that ended within the loop below: no recursion as deep as the
			     guest likes */
		return;
	c->releasing = true;
	while (!c->barrier && !c->quiesced && (l = td_list_pop(&c->held))) {
		c->active++;
		cache_dispatch(c, td_entry(l, struct td_req, link));
	}
	c->releasing = false;
	lanes_update(c);
}

static void sequence_end(struct cache *c, struct td_req *req, int err)
{
	bool barrier = c->barrier == req;

	if (barrier)
		c->barrier = NULL;
	cache_answer(c, req, err);
	if (barrier)
		cache_release_held(c);
}

void cache_sequence(struct cache *c, struct td_req *req, int err)
{
	bool data = req->op == TD_WRITE;

	if (err) {
		sequence_end(c, req, err);
		return;
	}
	TD_KILL(BARRIER_STEP);
	switch (++req->state[0]) {
	case STEP_FLUSH:
	case STEP_FLUSH_AGAIN:
		cache_flush_add(c, req);
		break;
	case STEP_WRITE:
		if (!data)
			sequence_end(c, req, 0);
		else
			cache_send(c, req);
		break;
	default:
		sequence_end(c, req, 0);
	}
}

void cache_sequence_begin(struct cache *c, struct td_req *req)
{
	req->state[0] = STEP_DRAIN;
	if (!(req->flags & TD_BARRIER)) {
		cache_sequence(c, req, 0);
		return;
	}
	c->barrier = req;
	lanes_update(c);
	if (cache_barrier_may_start(c))
		cache_sequence(c, req, 0);
}
