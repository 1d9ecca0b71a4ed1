/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tapdisk/vbd/stall.h"

#include "tapdisk/cache/lane.h"
#include "td/log.h"

/* Changes with each request that the image completes. */
static uint64_t progress_made(const struct cache *c)
{
	struct lane_count n = lanes_count(c);
	uint64_t sum = c->written + c->flushed + n.hits[0] + n.hits[1] + n.fail[0] + n.fail[1];

	/* a read that passes the first image counts with the next */
	for (const struct td_image *i = c->image; i; i = i->backing)
		sum += i->n.hits[0] + i->n.hits[1] + i->n.fail[0] + i->n.fail[1];
	return sum;
}

static void on_look(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct stall *s = w->data;
	bool waiting = s->cache->image && cache_at_work(s->cache), stalled;
	uint64_t now = progress_made(s->cache);

	stalled = waiting && s->waiting && now == s->seen;
	s->waiting = waiting;
	s->seen = now;
	if (stalled == s->stalled)
		return;
	s->stalled = stalled;
	if (stalled)
		td_log(LOG_ERR, "%s: the store has not answered for %g s; its requests wait",
		       s->cache->image->path, w->repeat);
	else
		td_log(LOG_NOTICE, "the store answers again");
	s->changed(s);
}

void stall_init(struct stall *s, struct ev_loop *loop, const struct cache *cache,
		void (*changed)(struct stall *s))
{
	*s = (struct stall){.loop = loop, .cache = cache, .changed = changed};
	ev_init(&s->timer, on_look);
	s->timer.data = s;
}

void stall_watch(struct stall *s, int seconds)
{
	s->waiting = s->stalled = false;
	ev_timer_stop(s->loop, &s->timer);
	s->timer.repeat = seconds;
	if (seconds)
		ev_timer_again(s->loop, &s->timer);
}
