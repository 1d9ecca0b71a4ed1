/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A disk without space: writes that wait for some, and the looks for it (C7 and C8 of cache.c). */
#include <string.h>

#include "tapdisk/cache/cache-inside.h"
#include "td/log.h"

#define RETRY 1.0 /* s between looks for space */

void cache_space_end(struct cache *c)
{
	c->out_of_space = c->flush_waits = false;
	c->probe = NULL;
	ev_timer_stop(c->loop, &c->retry);
	c->changed(c);
}

/* Takes the first write off the list; NULL when there is none. */
static struct td_req *first_write(struct td_list *of)
{
	td_list_each (l, of) {
		struct td_req *req = td_entry(l, struct td_req, link);

		if (req->op != TD_READ) {
			td_list_del(l);
			return req;
		}
	}
	return NULL;
}

void cache_send_waiting(struct cache *c)
{
	struct td_list now;
	struct td_list *l;

	if (c->out_of_space && c->sticky)
		cache_space_end(c); /* what waits is to fail */
	td_list_init(&now);
	td_list_splice(&now, &c->waiting);
	if (c->out_of_space && !c->probe && (c->probe = first_write(&now)))
		cache_send(c, c->probe);
	while ((l = td_list_pop(&now))) {
		struct td_req *req = td_entry(l, struct td_req, link);

		if (c->sticky && req->op != TD_READ)
			cache_tell_torn(c); /* it fails, and may have been with the image */
		cache_send(c, req);
	}
}

void cache_no_space(struct cache *c, const char *what, int err)
{
	ev_timer_again(c->loop, &c->retry);
	if (c->out_of_space)
		return;
	c->out_of_space = true;
	td_log(LOG_ERR,
	       "%s: no space for %s (%s): the disk's writes are held, and go on by themselves when "
	       "there is space",
	       c->image->path, what, strerror(-err));
	c->changed(c);
}

void cache_write_waits(struct cache *c, struct td_req *req, int err)
{
	td_list_add_front(&c->waiting, &req->link);
	if (c->probe == req)
		c->probe = NULL;
	cache_no_space(c, "a write", err);
	cache_check_idle(c);
}

void cache_space_again(struct cache *c)
{
	td_log(LOG_NOTICE, "%s: there is space again, the disk continues", c->image->path);
	cache_space_end(c);
	if (c->quiesced)
		return;
	cache_send_waiting(c);
	cache_flush_next(c);
}

bool cache_any_write(const struct td_list *of)
{
	td_list_each (l, of)
		if (td_entry(l, struct td_req, link)->op != TD_READ)
			return true;
	return false;
}

bool cache_nobody_waits(const struct cache *c)
{
	return c->out_of_space && !c->probe && !cache_any_write(&c->waiting) &&
	       td_list_empty(&c->flushes) && !c->flush_running;
}

void cache_probed(struct cache *c, int err)
{
	c->probe = NULL;
	if (!cache_is_full(err))
		cache_space_again(c);
	else if (cache_nobody_waits(c))
		/* it was a leaving frontend's, and so were all that waited */
		cache_space_end(c);
}

static void on_retry(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct cache *c = w->data;

	if (c->quiesced)
		return;
	c->flush_waits = false;
	cache_send_waiting(c);
	cache_flush_next(c);
	if (cache_nobody_waits(c))
		cache_space_end(c);
}

void cache_space_init(struct cache *c)
{
	ev_init(&c->retry, on_retry);
	c->retry.repeat = RETRY;
	c->retry.data = c;
}
