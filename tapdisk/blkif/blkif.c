/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ring's consumer.  What a guest may do to us is bounded here, by these rules:
 *
 * R1 a request is copied once, then a barrier, and only the copy is looked at (blkif_get_request)
 * R2 req_prod - rsp_prod is at most the ring's size, or the ring is stopped; our own rsp_prod is
 *    never read back
 * R3 every byte of a response is written (blkif_put_response)
 * R4 segments, sectors and access are checked before anything is done (blkif-check.c)
 * R5 each grant operation's status is looked at (blkif-copy.c)
 * R6 persistent grants are capped, and all unmapped at disconnect (blkif-persist.c)
 * R8 a storm of events without requests is answered ever later
 * R10 data goes by copy, and a page is let go before its response (blkif-copy.c)
 * R11 of a read, only bytes that the disk gave go to the guest (blkif-copy.c)
 *
 * A turn of the loop: the event > take (copy, check, fetch data of writes in one call, submit) >
 * completions > respond (data of reads in one call, responses, one push, one notify) > look at the
 * ring once more.
 *
 * One thing: a turn of work starts polling (blkif-poll.c), and polling is a turn of work.
 */
#include "tapdisk/blkif/blkif-ring.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>

#include "lib/fiber/fiber.h"
#include "lib/io/clock.h"

/* looks at the ring within one turn, so that a busy guest leaves the loop to others */
#define ROUNDS_MAX  32
#define STORM       64 /* events in a row without a request, after which they are answered later */
#define STORM_DELAY 0.002 /* s */
#define TRIM_TICK   1.0   /* s between looks at what memory is not needed any more */
#define TRIM_AGE    5     /* ticks: what nobody needed in twice that time is given back */

struct td_budget blkif_memory = {.limit = BLKIF_MEMORY};

static void ring_take(struct blkif *b, uint64_t now);

static void tell_broken(void *arg)
{
	struct blkif *b = arg;

	td_log_limited(&b->disk->limit, LOG_ERR,
		       "domain %u, device %u: the guest broke the ring's rules, it is stopped: %s",
		       b->p.domid, b->p.devid, b->why);
	b->disk->broken(b->disk->owner, b->why);
}

static void tell_idle(void *arg)
{
	struct blkif *b = arg;

	b->disk->idle(b->disk->owner);
}

static void tell_shown(void *arg)
{
	stats_publish(&((struct blkif *)arg)->stats);
}

static void ring_break(struct blkif *b, const char *why)
{
	if (b->state == BROKEN)
		return;
	snprintf(b->why, sizeof b->why, "%s", why);
	__atomic_store_n(&b->state, BROKEN, __ATOMIC_RELEASE);
	blkif_poll_stop(b);
	ev_io_stop(b->loop, &b->event);
	ev_idle_stop(b->loop, &b->more);
	ev_timer_stop(b->loop, &b->storm);
	ev_timer_stop(b->loop, &b->pace);
	if (b->lane)
		lane_tell(b->lane, LANE_BROKEN, tell_broken, b);
	else
		tell_broken(b);
}

/* A turn may have many rounds, and those who read the numbers look once a second. */
static void on_show(struct ev_loop *loop, ev_prepare *w, int revents)
{
	struct blkif *b = w->data;

	if (b->lane)
		lane_tell(b->lane, LANE_SHOW, tell_shown, b);
	else
		stats_publish(&b->stats);
}

static void show_later(struct blkif *b)
{
	if (!ev_is_pending(&b->show))
		ev_feed_event(b->loop, &b->show, EV_CUSTOM);
}

/* --- answering --- */

static void add_done(struct blkif_req *r, int err)
{
	struct blkif *b = r->ring;

	r->err = err;
	r->next = NULL;
	*b->done_tail = r;
	b->done_tail = &r->next;
	TD_KILL(DONE_LISTED);
	if (!ev_is_pending(&b->respond))
		ev_feed_event(b->loop, &b->respond, EV_CUSTOM);
}

void blkif_req_done(struct td_req *req, int err)
{
	add_done(td_entry(req, struct blkif_req, req), err);
}

static void put_response(struct blkif *b, struct blkif_req *r, uint64_t now)
{
	struct inflight_entry *t = &b->table.entry[r->index];
	int16_t status = r->err == 0             ? BLKIF_OKAY
			 : r->err == -EOPNOTSUPP ? BLKIF_EOPNOTSUPP
						 : BLKIF_ERROR;
	/* Linux wants an INDIRECT answered under the name of what is in it */
	uint8_t op = t->desc.op == BLKIF_INDIRECT ? t->desc.nr_segs : t->desc.op;

	if (status != BLKIF_OKAY)
		BLKIF_COUNT(b->n.errors, 1);
	inflight_answer(t, b->rsp_prod);
	TD_KILL(ANSWER_MARKED);
	blkif_put_response(b->p.abi, b->ring, b->slots, b->rsp_prod++, t->desc.id, op, status);
	TD_KILL(ANSWER_PUT);
	if (r->start)
		stats_end(&b->stats, r->req.op, r->req.len, now - r->start, r->err);
}

/* Its response has been pushed. */
static void retire(struct blkif *b, struct blkif_req *r)
{
	inflight_free(&b->table.entry[r->index]);
	if (r->mapped)
		blkif_persist_put(r);
	if (r->room)
		td_pool_put(r->pool, r->room);
	r->mapped = false;
	r->buf = r->room = NULL;
	r->next = b->free;
	b->free = r;
	BLKIF_COUNT(b->inflight, -1u);
	BLKIF_COUNT(b->n.answered, 1);
}

/* Makes the responses visible; true when the guest wants to hear of it (the rule of xen/io/ring.h).
 */
static bool push(struct blkif *b, uint32_t old)
{
	uint32_t new = b->rsp_prod;

	TD_KILL(PUSH_BEGIN);
	__atomic_store_n(&b->ring->rsp_prod, new, __ATOMIC_RELEASE);
	TD_KILL(PUSH_DONE);
	/* the guest sees responses before we read what it waits for */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return new - __atomic_load_n(&b->ring->rsp_event, __ATOMIC_RELAXED) < new - old;
}

void blkif_respond(struct blkif *b)
{
	uint32_t old = b->rsp_prod;
	struct blkif_req *r, *next;
	uint64_t now;

	TD_KILL(ANSWER_BEGIN);
	blkif_hand_out_reads(b, b->done);
	TD_KILL(ANSWER_COPIED);
	now = td_clock();
	for (r = b->done; r; r = r->next)
		put_response(b, r, now);
	TD_KILL(ANSWER_ALL);
	show_later(b);
	if (old != b->rsp_prod && push(b, old)) {
		BLKIF_COUNT(b->n.kicks_out, 1);
		TD_KILL(NOTIFY_BEGIN);
		b->x->ops->notify(b->x);
		TD_KILL(NOTIFY_DONE);
	}
	for (r = b->done; r; r = next) {
		next = r->next;
		TD_KILL(FREE_BEGIN);
		retire(b, r);
		TD_KILL(FREE_DONE);
	}
	b->table.head->rsp_prod = b->rsp_prod;
	TD_KILL(ANSWER_END);
	b->done = NULL;
	b->done_tail = &b->done;
	blkif_poll_work(b, now);
	ring_take(b, now);
	if (b->inflight)
		return;
	if (!b->lane)
		tell_idle(b);
	else if (b->watch_idle)
		lane_tell(b->lane, LANE_IDLE, tell_idle, b);
}

void blkif_watch_idle(struct blkif *b)
{
	assert(b->magic == BLKIF_MAGIC);
	b->watch_idle = true;
	if (b->lane && !b->inflight)
		lane_tell(b->lane, LANE_IDLE, tell_idle, b);
}

static void on_respond(struct ev_loop *loop, ev_prepare *w, int revents)
{
	blkif_respond(w->data);
}

/* --- taking --- */

/*
 * Room for a request from the start: an INDIRECT's segments are fetched into it.  False: there is
 * none, or no memory; then something of this ring is under way, whose answer brings it back here.
 */
static bool has_room(struct blkif *b, struct blkif_req *r, bool must)
{
	size_t bytes = blkif_room(r);

	if (!bytes)
		return true;
	r->pool = blkif_desc_of(r)->op == BLKIF_INDIRECT ? b->large : b->small;
	r->room = td_pool_get_part(r->pool, bytes, must);
	/* what lies about in other buffers may be what is missing */
	if (!r->room && td_pool_left(r->pool) && td_pool_trim(b->small) + td_pool_trim(b->large))
		r->room = td_pool_get_part(r->pool, bytes, must);
	return r->room;
}

/* RT1 of tapdisk/limit.h */
static bool limit_lets(struct blkif *b, struct blkif_req *r, uint64_t now)
{
	uint64_t bytes, due;
	bool write;

	if (!limit_on(&b->disk->rates) || !blkif_cost(r, &write, &bytes))
		return true;
	due = limit_take(&b->disk->rates, &b->place, write, bytes, now);
	if (due) {
		b->limited = true;
		ev_timer_stop(b->loop, &b->pace);
		ev_timer_set(&b->pace, limit_delay(due, now), 0);
		ev_timer_start(b->loop, &b->pace);
		return false;
	}
	r->paid = bytes;
	return true;
}

/* NULL: the next request must stay in the ring until others are answered, or its time has come.
 * What was copied then is forgotten. */
static struct blkif_req *take_one(struct blkif *b, uint64_t now)
{
	struct blkif_req *r = b->free;
	struct inflight_entry *t = &b->table.entry[r->index];
	uint64_t bytes;
	bool write;

	TD_KILL(TAKE_LOOKED);
	blkif_get_request(b->p.abi, b->ring, b->slots, b->req_cons, &t->desc); /* R1 */
	TD_KILL(TAKE_COPIED);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	r->paid = 0;
	if (!limit_lets(b, r, now))
		return NULL;
	if (!has_room(b, r, false)) {
		if (r->paid && blkif_cost(r, &write, &bytes))
			limit_keep(&b->disk->rates, &b->place, write, bytes);
		return NULL;
	}
	b->free = r->next;
	inflight_take(&b->table, t);
	b->req_cons++;
	TD_KILL(TAKE_CONS);
	BLKIF_COUNT(b->inflight, 1);
	r->next = NULL;
	r->err = 0;
	return r;
}

/* Checks requests that stand in the table, and starts their clocks. */
static void begin(struct blkif *b, struct blkif_req *first, uint64_t now)
{
	blkif_fetch_segments(b, first);
	for (struct blkif_req *r = first; r; r = r->next) {
		BLKIF_COUNT(b->n.taken, 1);
		BLKIF_COUNT(b->n.indirect, blkif_desc_of(r)->op == BLKIF_INDIRECT);
		if (!r->err)
			r->err = blkif_check(r);
		r->start = r->err ? 0 : now;
		if (!r->err)
			stats_begin(&b->stats, r->req.op);
		if (r->paid > r->req.len && !r->err)
			limit_give_back(&b->disk->rates, r->req.op != TD_READ,
					r->paid - r->req.len);
	}
	stats_taken(&b->stats);
}

/* Fetches the data of the writes among them in one call, and submits all in the ring's order. */
static void submit_all(struct blkif *b, struct blkif_req *r)
{
	struct blkif_req *next;
	unsigned n = 0;

	blkif_fetch_writes(b, r); /* of all before any is submitted: a completion inside a submit
				     may use b->copies again */
	TD_KILL(TAKE_FETCHED);
	for (; r; r = next) {
		next = r->next;
		TD_KILL(TAKE_SUBMIT);
		if (r->err)
			add_done(r, r->err);
		else if (b->lane)
			lane_submit(b->lane, &b->lane_ops[r->index], &r->req);
		else
			cache_submit(b->disk->cache, &r->req);
		td_io_ahead(blkif_io(b), ++n);
		TD_KILL(TAKE_SUBMITTED);
	}
}

static void start_trim(struct blkif *b)
{
	if (!ev_is_active(&b->trim))
		ev_timer_again(b->loop, &b->trim);
}

/* Takes all that is there; false when it is over for now: the ring is broken, or waits for room.
 * now: the time, or 0 where it is still to be looked up. */
static bool take_batch(struct blkif *b, uint32_t prod, uint64_t now)
{
	struct blkif_req *first = NULL, **tail = &first;

	if (prod - b->rsp_prod > b->slots || prod - b->req_cons > b->slots) { /* R2 */
		ring_break(
			b,
			"it says that it has put more requests into the ring than the ring holds");
		return false;
	}
	b->limited = false;
	if (prod == b->req_cons)
		return true;
	now = now ? now : td_clock();
	start_trim(b);
	while (b->req_cons != prod && (*tail = take_one(b, now)))
		tail = &(*tail)->next;
	if (first || !b->limited) /* a limit is nothing to stay awake for */
		blkif_poll_work(b, now);
	TD_KILL(TAKE_BATCH);
	begin(b, first, now);
	TD_KILL(TAKE_CHECKED);
	show_later(b);
	submit_all(b, first);
	b->starved = b->req_cons != prod && !b->limited;
	return !b->starved && !b->limited;
}

static uint32_t read_prod(const struct blkif *b)
{
	return __atomic_load_n(&b->ring->req_prod, __ATOMIC_ACQUIRE);
}

bool blkif_has_requests(const struct blkif *b)
{
	return read_prod(b) != b->req_cons;
}

/* Asks for an event with the next request; true when one has come in the meantime. */
static bool final_check(struct blkif *b)
{
	__atomic_store_n(&b->ring->req_event, b->req_cons + 1, __ATOMIC_RELAXED);
	TD_KILL(TAKE_EVENT);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return blkif_has_requests(b);
}

/* Until the next final_check(). */
void blkif_ask_no_events(struct blkif *b)
{
	__atomic_store_n(&b->ring->req_event, b->req_cons, __ATOMIC_RELAXED);
}

static void ring_take(struct blkif *b, uint64_t now)
{
	if (b->state != RUNNING)
		return;
	if (b->turn != ev_iteration(b->loop)) {
		b->turn = ev_iteration(b->loop);
		b->rounds = 0;
	}
	do {
		if (b->rounds++ >= ROUNDS_MAX) {
			ev_idle_start(b->loop, &b->more);
			return;
		}
		if (!take_batch(b, read_prod(b), now))
			return;
		now = 0;
	} while (b->poll.on ? blkif_has_requests(b) : final_check(b));
}

static void on_more(struct ev_loop *loop, ev_idle *w, int revents)
{
	struct blkif *b = w->data;

	ev_idle_stop(loop, w);
	ring_take(b, 0);
}

static void on_event(struct ev_loop *loop, ev_io *w, int revents)
{
	struct blkif *b = w->data;

	/* R8: the event stays pending, and so does the guest's next one */
	if (b->empty_events >= STORM) {
		ev_io_stop(loop, &b->event);
		ev_timer_again(loop, &b->storm);
		return;
	}
	if (!b->x->ops->ack(b->x))
		return;
	BLKIF_COUNT(b->n.kicks_in, 1);
	ring_take(b, 0);
	/* since the last event, not in this one: a request may have been found before its event
	 * came */
	b->empty_events = b->n.taken == b->event_seen ? b->empty_events + 1 : 0;
	b->event_seen = b->n.taken;
}

static void on_storm(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct blkif *b = w->data;

	ev_timer_stop(loop, w);
	if (b->state != RUNNING)
		return;
	b->empty_events = STORM - 1; /* one event a delay, until there is a request again */
	ev_io_start(loop, &b->event);
}

static void on_pace(struct ev_loop *loop, ev_timer *w, int revents)
{
	ring_take(w->data, 0);
}

static void on_trim(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct blkif *b = w->data;
	bool mapped = b->persist && blkif_persist_age(b);

	if (td_account_pressed(&b->memory)) {
		td_pool_trim(b->small);
		td_pool_trim(b->large);
	} else if (++b->trims % TRIM_AGE == 0) {
		td_pool_age(b->small);
		td_pool_age(b->large);
	}
	if (!b->starved || b->state != RUNNING)
		td_account_rest(&b->memory);
	else
		ring_take(b, 0); /* others may have let go what it waits for */
	if (!mapped && !b->memory.used) {
		ev_timer_stop(loop, w);
		td_fiber_trim();
	}
}

/* --- the outside --- */

void blkif_init_watchers(struct blkif *b)
{
	ev_init(&b->event, on_event);
	ev_init(&b->respond, on_respond);
	ev_set_priority(&b->respond, TD_PRI_RING);
	ev_init(&b->show, on_show);
	ev_set_priority(&b->show, TD_PRI_COMMIT);
	ev_init(&b->more, on_more);
	ev_set_priority(&b->more, EV_MAXPRI); /* without this, another ring's activity would
						 starve this idle watcher */
	ev_timer_init(&b->storm, on_storm, 0, STORM_DELAY);
	ev_timer_init(&b->trim, on_trim, 0, TRIM_TICK);
	ev_timer_init(&b->pace, on_pace, 0, 0);
	blkif_poll_init(b);
	b->event.data = b->respond.data = b->more.data = b->show.data = b->storm.data =
		b->trim.data = b->pace.data = b;
}

void blkif_hold(struct blkif *b)
{
	assert(b->magic == BLKIF_MAGIC);
	if (b->state != RUNNING)
		return;
	__atomic_store_n(&b->state, HELD, __ATOMIC_RELAXED);
	blkif_poll_stop(b);
	ev_io_stop(b->loop, &b->event);
	ev_idle_stop(b->loop, &b->more);
	ev_timer_stop(b->loop, &b->storm);
	ev_timer_stop(b->loop, &b->pace);
}

/* Does what a dead process owed. */
static void replay(struct blkif *b)
{
	struct blkif_req *first = b->replay;
	uint64_t now = td_clock();

	b->replay = NULL;
	TD_KILL(REPLAY_BEGIN);
	start_trim(b);
	for (struct blkif_req *r = first; r; r = r->next)
		r->err = has_room(b, r, true) ? 0 : -ENOMEM; /* it had, when they were taken */
	begin(b, first, now);
	TD_KILL(REPLAY_CHECKED);
	submit_all(b, first);
	TD_KILL(REPLAY_DONE);
}

void blkif_run(struct blkif *b)
{
	assert(b->magic == BLKIF_MAGIC);
	if (b->state != HELD)
		return;
	__atomic_store_n(&b->state, RUNNING, __ATOMIC_RELAXED);
	ev_io_start(b->loop, &b->event);
	if (b->replay)
		replay(b);
	if (b->taken_over) {
		b->taken_over = false;
		b->x->ops->notify(b->x); /* the dead process may have pushed responses without a
					    notification */
		TD_KILL(REPLAY_NOTIFIED);
	}
	/* what came while the ring was held has no event of its own */
	ring_take(b, 0);
}

void blkif_look(struct blkif *b)
{
	assert(b->magic == BLKIF_MAGIC);
	ring_take(b, 0);
}

bool blkif_owns(const struct blkif *b, const struct td_req *req)
{
	req = lane_origin(req);
	return req->done == blkif_req_done && td_entry(req, struct blkif_req, req)->ring == b;
}

unsigned blkif_inflight(const struct blkif *b)
{
	return __atomic_load_n(&b->inflight, __ATOMIC_ACQUIRE);
}

bool blkif_is_broken(const struct blkif *b)
{
	return __atomic_load_n(&b->state, __ATOMIC_ACQUIRE) == BROKEN;
}

const char *blkif_why(const struct blkif *b)
{
	return b->why;
}

const struct blkif_params *blkif_params(const struct blkif *b)
{
	return &b->p;
}

struct blkif_stats blkif_stats(const struct blkif *b)
{
	struct blkif_stats n;

	for (size_t i = 0; i < sizeof n / sizeof(uint64_t); i++)
		((uint64_t *)&n)[i] =
			__atomic_load_n((const uint64_t *)&b->n + i, __ATOMIC_ACQUIRE);
	return n;
}
