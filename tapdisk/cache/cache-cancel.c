/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* When a frontend disconnects, its requests are cancelled, and no others. */
#include <assert.h>

#include "tapdisk/cache/cache-inside.h"

static void cancel_list(struct cache *c, struct td_list *of, int err)
{
	struct td_list now;
	struct td_list *l;

	td_list_init(&now);
	td_list_each_safe (at, next, of) {
		if (!cache_leaving(c, td_entry(at, struct td_req, link)))
			continue;
		td_list_del(at);
		td_list_add(&now, at);
	}
	while ((l = td_list_pop(&now))) {
		struct td_req *req = td_entry(l, struct td_req, link);

		if (of == &c->held)
			c->active++;
		if (of == &c->stoppers && c->probe == req)
			c->probe = NULL;
		if ((of == &c->waiting || of == &c->stoppers) && req->op != TD_READ)
			cache_tell_torn(
				c); /* it may have been with the image, and found no space */
		cache_finish(c, req, err);
	}
}

void cache_cancel(struct cache *c, int err)
{
	struct td_req *b = c->barrier;

	assert(c->magic == CACHE_MAGIC);
	cancel_list(c, &c->held, err);
	cancel_list(c, &c->waiting, err);
	cancel_list(c, &c->stoppers, err);
	if (c->quiesced || c->flush_waits)
		cancel_list(c, &c->flushes, err);
	if (c->barrier && c->barrier == b && b->state[0] == STEP_DRAIN && cache_leaving(c, b)) {
		c->barrier = NULL;
		cache_answer(c, b, err);
		cache_release_held(c);
	}
	/* what others have let in is still looked after by the timer; with nothing of that kind
	 * left, nobody would look for space */
	if (cache_nobody_waits(c))
		cache_space_end(c);
}

static void forget_list(struct cache *c, struct td_list *of)
{
	td_list_each_safe (at, next, of) {
		if (!cache_leaving(c, td_entry(at, struct td_req, link)))
			continue;
		td_list_del(at);
		if (of != &c->held)
			c->active--;
	}
}

void cache_forget(struct cache *c)
{
	struct td_req *b = c->barrier;

	assert(c->magic == CACHE_MAGIC);
	assert(c->quiesced && cache_image_idle(c));
	forget_list(c, &c->held);
	forget_list(c, &c->waiting);
	forget_list(c, &c->stoppers);
	forget_list(c, &c->flushes);
	if (b && cache_leaving(c, b)) {
		if (b->state[0] == STEP_DRAIN) /* else it was in one of the lists */
			c->active--;
		c->barrier = NULL;
	}
	if (c->out_of_space && !cache_any_write(&c->waiting))
		cache_space_end(c);
}
