/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ring's consumer.  What a guest may do to us is bounded here, by these rules:
 *
 * R1 a request is copied once, then a barrier, and only the copy is looked at (blkif_get_request)
 * R2 req_prod - rsp_prod is at most the ring's size, or the ring is stopped; our own rsp_prod is never read back
 * R3 every byte of a response is written (blkif_put_response)
 * R4 segments, sectors and access are checked before anything is done
 * R5 each grant operation's status is looked at
 * R8 a storm of events without requests is answered ever later
 * R10 R11 data goes by copy: a page is let go before its response, and only bytes that were read go to the guest
 *
 * A turn of the loop: the event > take (copy, check, fetch data of writes in one call, submit) > completions >
 * respond (data of reads in one call, responses, one push, one notify) > look at the ring once more.
 */
#include "tapdisk/blkif.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/pool.h"
#include "tapdisk/inflight.h"
#include "tapdisk/stats.h"

#define ROUNDS_MAX  32    /* looks at the ring within one turn, so that a busy guest leaves the loop to others */
#define STORM       64    /* events in a row without a request, after which they are answered later */
#define STORM_DELAY 0.002 /* s */
#define TRIM_AFTER  5.0   /* s without a request, after which buffers are given back */

/* Beside each entry of the table of requests in flight, what this process needs to work on it. */
struct blkif_req {
	struct td_req req;
	struct blkif *ring;
	unsigned index;
	void *buf;         /* the request's data, contiguous; NULL without */
	struct iovec iov;
	int err;
	uint64_t start;    /* ns; 0: it is no request to the disk, as a malformed one is none */
	struct blkif_req *next; /* on the free list, or on the list of those that are done */
};

#define BLKIF_MAGIC 0x626c6b66u

enum state { HELD, RUNNING, BROKEN };

struct blkif {
	unsigned magic;
	enum state state;
	struct ev_loop *loop;
	struct td_xport *x;
	struct blkif_params p;
	struct blkif_disk *disk;
	struct blkif_sring *ring;
	unsigned slots;
	uint32_t req_cons, rsp_prod; /* ours: the guest's copies are not believed */

	struct inflight table;   /* entry[i] and reqs[i] are one request */
	struct blkif_req *reqs;
	struct blkif_req *free;
	struct blkif_req *done, **done_tail; /* to be answered in this turn */
	unsigned inflight;
	bool taken_over;          /* from a dead process, and not run yet */
	struct blkif_req *replay; /* what a dead process owed, in the guest's order; submitted when the ring runs */
	struct td_pool *pool;
	struct td_copy *copies;  /* slots * BLKIF_MAX_SEGS */
	unsigned ncopies;

	ev_io event;
	ev_prepare respond;      /* never started: fed at TD_PRI_RING */
	ev_prepare show;         /* the same, at the turn's end: the numbers for other programs */
	ev_idle more;            /* the ring is looked at again in the next turn, without sleeping */
	ev_timer storm, trim;
	unsigned turn, rounds;   /* the loop's iteration, and looks at the ring in it */
	unsigned empty_events;
	uint64_t event_seen, trim_seen; /* n.taken at the last event, and at the last look for idleness */
	struct td_log_limit limit;
	struct blkif_stats n;
	struct stats_source stats;
	char why[160];
};

static void ring_take(struct blkif *b, uint64_t now);

static void ring_break(struct blkif *b, const char *why)
{
	if (b->state == BROKEN)
		return;
	b->state = BROKEN;
	ev_io_stop(b->loop, &b->event);
	ev_idle_stop(b->loop, &b->more);
	ev_timer_stop(b->loop, &b->storm);
	snprintf(b->why, sizeof b->why, "%s", why);
	td_log(LOG_ERR, "domain %u, device %u: the guest broke the ring's rules, it is stopped: %s", b->p.domid, b->p.devid, why);
	b->disk->broken(b->disk->owner, b->why);
}

/* A turn may have many rounds, and those who read the numbers look once a second. */
static void on_show(struct ev_loop *loop, ev_prepare *w, int revents)
{
	struct blkif *b = w->data;

	stats_publish(&b->stats);
}

static void show_later(struct blkif *b)
{
	if (!ev_is_pending(&b->show))
		ev_feed_event(b->loop, &b->show, EV_CUSTOM);
}

/* --- answering ------------------------------------------------------------------------------------------------------ */

static void add_done(struct blkif_req *r, int err)
{
	struct blkif *b = r->ring;

	r->err = err;
	r->next = NULL;
	*b->done_tail = r;
	b->done_tail = &r->next;
	if (!ev_is_pending(&b->respond))
		ev_feed_event(b->loop, &b->respond, EV_CUSTOM);
}

static void req_done(struct td_req *req, int err)
{
	add_done(td_entry(req, struct blkif_req, req), err);
}

/* Notes the pieces of a request for the next copy. */
static void add_copies(struct blkif *b, const struct blkif_desc *d, char *p, bool to_guest)
{
	for (unsigned i = 0; i < d->nr_segs; i++) {
		const struct blkif_seg *s = &d->seg[i];
		uint16_t len = (uint16_t)((s->last - s->first + 1) * 512);

		b->copies[b->ncopies++] = (struct td_copy){p, s->ref, (uint16_t)(s->first * 512), len, to_guest, 0};
		p += len;
	}
}

static int copies_result(struct blkif *b, const struct td_copy *c, unsigned n)
{
	for (unsigned i = 0; i < n; i++) /* R5 */
		if (c[i].err) {
			b->n.copy_errors++;
			td_log_limited(&b->limit, LOG_WARNING, "domain %u, device %u: cannot copy its grant %u: %s", b->p.domid,
				       b->p.devid, c[i].ref, strerror(-c[i].err));
			return c[i].err;
		}
	return 0;
}

static bool is_read_back(const struct blkif_req *r)
{
	return r->req.op == TD_READ && !r->err && r->buf;
}

/* Hands the data of all reads that are done to the guest, in one call. */
static void copy_reads(struct blkif *b)
{
	struct td_copy *c = b->copies;

	b->ncopies = 0;
	for (struct blkif_req *r = b->done; r; r = r->next)
		if (is_read_back(r))
			add_copies(b, &b->table.entry[r->index].desc, r->buf, true);
	if (!b->ncopies)
		return;
	b->x->ops->copy(b->x, b->copies, b->ncopies);
	for (struct blkif_req *r = b->done; r; r = r->next)
		if (is_read_back(r)) {
			unsigned n = b->table.entry[r->index].desc.nr_segs;

			r->err = copies_result(b, c, n);
			c += n;
		}
}

static void put_response(struct blkif *b, struct blkif_req *r, uint64_t now)
{
	struct inflight_entry *t = &b->table.entry[r->index];
	int16_t status = r->err == 0 ? BLKIF_OKAY : r->err == -EOPNOTSUPP ? BLKIF_EOPNOTSUPP : BLKIF_ERROR;
	/* Linux wants an INDIRECT answered under the name of what is in it */
	uint8_t op = t->desc.op == BLKIF_INDIRECT ? t->desc.nr_segs : t->desc.op;

	if (status != BLKIF_OKAY)
		b->n.errors++;
	inflight_answer(t, b->rsp_prod);
	blkif_put_response(b->p.abi, b->ring, b->slots, b->rsp_prod++, t->desc.id, op, status);
	if (r->start)
		stats_end(&b->stats, r->req.op, r->req.len, now - r->start, r->err);
}

/* Its response has been pushed. */
static void retire(struct blkif *b, struct blkif_req *r)
{
	inflight_free(&b->table.entry[r->index]);
	if (r->buf)
		td_pool_put(b->pool, r->buf);
	r->buf = NULL;
	r->next = b->free;
	b->free = r;
	b->inflight--;
	b->n.answered++;
}

/* Makes the responses visible; true when the guest wants to hear of it (the rule of xen/io/ring.h). */
static bool push(struct blkif *b, uint32_t old)
{
	uint32_t new = b->rsp_prod;

	__atomic_store_n(&b->ring->rsp_prod, new, __ATOMIC_RELEASE);
	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* the guest sees responses before we read what it waits for */
	return new - __atomic_load_n(&b->ring->rsp_event, __ATOMIC_RELAXED) < new - old;
}

static void on_respond(struct ev_loop *loop, ev_prepare *w, int revents)
{
	struct blkif *b = w->data;
	uint32_t old = b->rsp_prod;
	struct blkif_req *r, *next;
	uint64_t now;

	copy_reads(b);
	now = stats_now();
	for (r = b->done; r; r = r->next)
		put_response(b, r, now);
	show_later(b);
	if (old != b->rsp_prod && push(b, old)) {
		b->n.kicks_out++;
		b->x->ops->notify(b->x);
	}
	for (r = b->done; r; r = next) {
		next = r->next;
		retire(b, r);
	}
	b->table.head->rsp_prod = b->rsp_prod;
	b->done = NULL;
	b->done_tail = &b->done;
	ring_take(b, now);
	if (!b->inflight)
		b->disk->idle(b->disk->owner);
}

/* --- taking --------------------------------------------------------------------------------------------------------- */

static int malformed(struct blkif *b, const struct blkif_desc *d, const char *what)
{
	b->n.malformed++;
	td_log_limited(&b->limit, LOG_WARNING, "domain %u, device %u: a malformed request (operation %u, %u segments, sector %llu): %s",
		       b->p.domid, b->p.devid, d->op, d->nr_segs, (unsigned long long)d->sector, what);
	return -EINVAL;
}

/* R4 for a request that carries data; its length in sectors, or -errno. */
static int check_data(struct blkif *b, const struct blkif_desc *d)
{
	unsigned sectors = 0;

	if (d->nr_segs < 1 || d->nr_segs > BLKIF_MAX_SEGS)
		return malformed(b, d, "the number of segments is not from 1 to 11");
	for (unsigned i = 0; i < d->nr_segs; i++) {
		if (d->seg[i].first > d->seg[i].last || d->seg[i].last >= TD_PAGE / 512)
			return malformed(b, d, "a segment is not within its page");
		sectors += d->seg[i].last - d->seg[i].first + 1u;
	}
	if (d->sector > b->disk->sectors || sectors > b->disk->sectors - d->sector)
		return malformed(b, d, "it reaches beyond the end of the disk");
	return (int)sectors;
}

/* R4 for a DISCARD, which has a length of its own; a secure one is not offered. */
static int check_discard(struct blkif *b, const struct blkif_desc *d, struct td_req *req)
{
	if (d->nr_segs)
		return -EOPNOTSUPP;
	if (!d->nr_sectors || d->sector > b->disk->sectors || d->nr_sectors > b->disk->sectors - d->sector)
		return malformed(b, d, "what it discards is nothing, or reaches beyond the end of the disk");
	req->off = d->sector * 512;
	req->len = d->nr_sectors * 512;
	return 0;
}

/* What the operation is to the layers below; -EOPNOTSUPP for what is not offered. */
static int translate(struct blkif *b, const struct blkif_desc *d, struct td_req *req)
{
	bool data = d->nr_segs != 0;

	switch (d->op) {
	case BLKIF_READ:
		req->op = TD_READ;
		req->flags = 0;
		return 0;
	case BLKIF_WRITE:
		req->op = TD_WRITE;
		req->flags = 0;
		break;
	case BLKIF_WRITE_BARRIER:
		req->op = data ? TD_WRITE : TD_FLUSH;
		req->flags = TD_BARRIER;
		break;
	case BLKIF_FLUSH_DISKCACHE:
		req->op = data ? TD_WRITE : TD_FLUSH;
		req->flags = data ? TD_PREFLUSH : 0;
		if (!data)
			return 0; /* allowed on a read-only disk too */
		break;
	case BLKIF_DISCARD:
		if (!b->disk->discard)
			return -EOPNOTSUPP;
		req->op = TD_DISCARD;
		req->flags = 0;
		break;
	default:
		return -EOPNOTSUPP;
	}
	if (b->disk->read_only)
		return malformed(b, d, "the disk is read-only");
	return 0;
}

/* Checks one copied request and makes it ready; 0, or the error to answer with. */
static int prepare(struct blkif *b, struct blkif_req *r)
{
	const struct blkif_desc *d = &b->table.entry[r->index].desc;
	int n = translate(b, d, &r->req);

	if (n < 0)
		return n;
	r->req.off = r->req.len = 0;
	if (r->req.op == TD_FLUSH) /* its sector number means nothing */
		return 0;
	if (r->req.op == TD_DISCARD)
		return check_discard(b, d, &r->req);
	n = check_data(b, d);
	if (n < 0)
		return n;
	r->buf = td_pool_get(b->pool);
	r->req.off = d->sector * 512;
	r->req.len = (uint64_t)n * 512;
	r->iov = (struct iovec){r->buf, r->req.len};
	if (r->req.op == TD_WRITE)
		add_copies(b, d, r->buf, false);
	return 0;
}

/* Checks a request that stands in the table, and starts its clock. */
static void begin(struct blkif *b, struct blkif_req *r, uint64_t now)
{
	b->n.taken++;
	r->err = prepare(b, r);
	r->start = r->err ? 0 : now;
	if (!r->err)
		stats_begin(&b->stats, r->req.op);
	r->next = NULL;
}

static struct blkif_req *take_one(struct blkif *b, uint64_t now)
{
	struct blkif_req *r = b->free;
	struct inflight_entry *t = &b->table.entry[r->index];

	b->free = r->next;
	blkif_get_request(b->p.abi, b->ring, b->slots, b->req_cons, &t->desc); /* R1 */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	inflight_take(&b->table, t);
	b->req_cons++;
	b->inflight++;
	begin(b, r, now);
	return r;
}

/* Fetches the data of the writes among them in one call, and submits all in the ring's order. */
static void submit_all(struct blkif *b, struct blkif_req *r)
{
	struct td_copy *c = b->copies;
	struct blkif_req *next;

	if (b->ncopies)
		b->x->ops->copy(b->x, b->copies, b->ncopies);
	/* judged before any is submitted: a completion inside a submit may use b->copies again */
	for (struct blkif_req *i = r; i; i = i->next)
		if (!i->err && i->req.op == TD_WRITE) {
			unsigned n = b->table.entry[i->index].desc.nr_segs;

			i->err = copies_result(b, c, n);
			c += n;
		}
	for (; r; r = next) {
		next = r->next;
		if (r->err)
			add_done(r, r->err);
		else
			cache_submit(b->disk->cache, &r->req);
	}
}

/* Takes all that is there; false when the ring is broken.  now: the time, or 0 where it is still to be looked up. */
static bool take_batch(struct blkif *b, uint32_t prod, uint64_t now)
{
	struct blkif_req *first = NULL, **tail = &first;

	if (prod - b->rsp_prod > b->slots || prod - b->req_cons > b->slots) { /* R2 */
		ring_break(b, "it says that it has put more requests into the ring than the ring holds");
		return false;
	}
	if (prod == b->req_cons)
		return true;
	b->ncopies = 0;
	now = now ? now : stats_now();
	while (b->req_cons != prod) {
		*tail = take_one(b, now);
		tail = &(*tail)->next;
	}
	stats_taken(&b->stats);
	show_later(b);
	submit_all(b, first);
	return true;
}

static uint32_t read_prod(const struct blkif *b)
{
	return __atomic_load_n(&b->ring->req_prod, __ATOMIC_ACQUIRE);
}

/* Asks for an event with the next request; true when one has come in the meantime. */
static bool final_check(struct blkif *b)
{
	__atomic_store_n(&b->ring->req_event, b->req_cons + 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return read_prod(b) != b->req_cons;
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
	} while (final_check(b));
	if (b->inflight && !ev_is_active(&b->trim))
		ev_timer_again(b->loop, &b->trim);
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

	if (b->empty_events >= STORM) { /* R8: the event stays pending, and so does the guest's next one */
		ev_io_stop(loop, &b->event);
		ev_timer_again(loop, &b->storm);
		return;
	}
	if (!b->x->ops->ack(b->x))
		return;
	b->n.kicks_in++;
	ring_take(b, 0);
	/* since the last event, not in this one: a request may have been found before its event came */
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

static void on_trim(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct blkif *b = w->data;

	if (b->inflight || b->trim_seen != b->n.taken) {
		b->trim_seen = b->n.taken;
		return;
	}
	ev_timer_stop(loop, w);
	td_pool_trim(b->pool);
}

/* --- coming and going ----------------------------------------------------------------------------------------------- */

static int alloc_requests(struct blkif *b)
{
	b->reqs = calloc(b->slots, sizeof *b->reqs);
	b->copies = calloc((size_t)b->slots * BLKIF_MAX_SEGS, sizeof *b->copies);
	b->pool = td_pool_new(BLKIF_MAX_SEGS * TD_PAGE, b->slots);
	if (!b->reqs || !b->copies || !b->pool)
		return -ENOMEM;
	for (unsigned i = b->slots; i-- > 0;) {
		struct blkif_req *r = &b->reqs[i];

		r->ring = b;
		r->index = i;
		r->req.iov = &r->iov;
		r->req.iovcnt = 1;
		r->req.done = req_done;
		r->next = b->free;
		b->free = r;
	}
	return 0;
}

static void init_watchers(struct blkif *b)
{
	ev_init(&b->event, on_event);
	ev_init(&b->respond, on_respond);
	ev_set_priority(&b->respond, TD_PRI_RING);
	ev_init(&b->show, on_show);
	ev_set_priority(&b->show, TD_PRI_COMMIT);
	ev_init(&b->more, on_more);
	ev_set_priority(&b->more, EV_MAXPRI); /* an idle watcher waits for all of its priority: for another disk's guest, without this */
	ev_timer_init(&b->storm, on_storm, 0, STORM_DELAY);
	ev_timer_init(&b->trim, on_trim, 0, TRIM_AFTER);
	b->event.data = b->respond.data = b->more.data = b->show.data = b->storm.data = b->trim.data = b;
}

/* The indices of a ring that is new to both sides are 0; another's responses may have overwritten its requests. */
static int check_fresh(struct blkif *b, struct td_err *err)
{
	uint32_t rsp_prod = b->ring->rsp_prod;

	if (rsp_prod)
		return td_fail(err, EBUSY, "domain %u, device %u: its ring has been served before (%u responses): only who has the record of "
					   "what is in flight there can go on; else the guest must detach the disk first", b->p.domid,
			       b->p.devid, rsp_prod);
	return 0;
}

static int by_seq(const void *a, const void *b)
{
	const struct inflight_entry *x = *(struct inflight_entry *const *)a, *y = *(struct inflight_entry *const *)b;

	return x->seq < y->seq ? -1 : x->seq > y->seq;
}

/* Splits the requests into those that a dead process owed, in the guest's order, and the free ones. */
static unsigned sort_out(struct blkif *b)
{
	struct inflight_entry *owed[BLKIF_MAX_SLOTS];
	struct blkif_req **tail = &b->replay;
	unsigned n = 0;

	b->free = NULL;
	for (unsigned i = b->slots; i-- > 0;) {
		struct inflight_entry *e = &b->table.entry[i];

		if (inflight_owed(&b->table, e, b->rsp_prod)) {
			owed[n++] = e;
			continue;
		}
		inflight_free(e);
		b->reqs[i].next = b->free;
		b->free = &b->reqs[i];
	}
	qsort(owed, n, sizeof owed[0], by_seq);
	for (unsigned i = 0; i < n; i++) {
		*tail = &b->reqs[owed[i] - b->table.entry];
		tail = &(*tail)->next;
	}
	*tail = NULL;
	return n;
}

/*
 * Goes on where a dead process stopped.  Its rsp_prod is believed only within what it can be: the guest may have changed it, and
 * would then be told that its ring is broken.
 */
static int adopt(struct blkif *b, struct td_err *err)
{
	uint32_t rsp_prod = __atomic_load_n(&b->ring->rsp_prod, __ATOMIC_ACQUIRE);
	uint32_t next = (uint32_t)b->table.head->next;

	b->req_cons = next;
	b->rsp_prod = rsp_prod;
	b->inflight = sort_out(b);
	if (next - rsp_prod > b->slots || b->inflight != next - rsp_prod)
		return td_fail(err, EPROTO, "domain %u, device %u: its ring says %u responses, the record of the last tapdisk %u requests, %u of them "
					    "not answered: it cannot be taken over", b->p.domid, b->p.devid, rsp_prod, next, b->inflight);
	b->table.head->rsp_prod = rsp_prod;
	b->taken_over = true;
	td_log(LOG_NOTICE, "domain %u, device %u: taken over, with %u requests in flight", b->p.domid, b->p.devid, b->inflight);
	return 0;
}

static int open_table(struct blkif *b, const struct blkif_keep *keep, struct td_err *err)
{
	struct inflight_ring id = {.domid = b->p.domid, .devid = b->p.devid, .port = b->p.port, .abi = b->p.abi, .pages = b->p.pages,
				   .slots = b->slots};
	int rc;

	memcpy(id.refs, b->p.refs, sizeof id.refs);
	if (keep && keep->take_over) {
		rc = inflight_adopt(&b->table, keep->path, &id, err);
		return rc < 0 ? rc : adopt(b, err);
	}
	rc = check_fresh(b, err);
	if (rc < 0)
		return rc;
	rc = inflight_new(&b->table, keep ? keep->path : NULL, &id);
	return rc < 0 ? td_fail(err, ENOMEM, "out of memory for a ring of %u pages", b->p.pages) : 0;
}

int blkif_connect(struct ev_loop *loop, struct td_xport *x, const struct blkif_params *p, const struct blkif_keep *keep,
		  struct blkif_disk *disk, struct blkif **out, struct td_err *err)
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
	b->done_tail = &b->done;
	b->slots = blkif_slots(p->abi, p->pages);
	init_watchers(b);
	if (alloc_requests(b) < 0) {
		td_fail(err, ENOMEM, "out of memory for a ring of %u pages", p->pages);
		goto fail;
	}
	rc = -EIO;
	b->x = x;
	b->ring = x->ops->map_ring(x, p->refs, p->pages, err);
	if (!b->ring || open_table(b, keep, err) < 0)
		goto fail;
	fd = x->ops->bind(x, p->port, err);
	if (fd < 0)
		goto fail;
	ev_io_set(&b->event, fd, EV_READ);
	snprintf(name, sizeof name, "vbd-%u-%u", p->domid, p->devid);
	stats_source_open(&b->stats, disk->stats, name);
	*out = b;
	return 0;
fail:
	if (err && err->code)
		rc = -err->code;
	b->x = NULL; /* the caller's still */
	if (b->ring)
		x->ops->unmap_ring(x, b->ring, p->pages);
	b->ring = NULL;
	inflight_close(&b->table, keep && keep->take_over); /* one who tries again needs what is owed */
	blkif_disconnect(b);
	return rc;
}

void blkif_disconnect(struct blkif *b)
{
	if (!b)
		return;
	ev_io_stop(b->loop, &b->event);
	ev_clear_pending(b->loop, &b->respond);
	ev_clear_pending(b->loop, &b->show);
	ev_idle_stop(b->loop, &b->more);
	ev_timer_stop(b->loop, &b->storm);
	ev_timer_stop(b->loop, &b->trim);
	if (b->x) {
		b->x->ops->unbind(b->x);
		b->x->ops->unmap_ring(b->x, b->ring, b->p.pages);
		b->x->ops->close(b->x);
	}
	stats_source_close(&b->stats);
	td_pool_free(b->pool);
	free(b->copies);
	free(b->reqs);
	inflight_close(&b->table, false);
	b->magic = 0;
	free(b);
}

void blkif_hold(struct blkif *b)
{
	if (b->state != RUNNING)
		return;
	b->state = HELD;
	ev_io_stop(b->loop, &b->event);
	ev_idle_stop(b->loop, &b->more);
	ev_timer_stop(b->loop, &b->storm);
}

/* Does what a dead process owed. */
static void replay(struct blkif *b)
{
	struct blkif_req *first = b->replay;
	uint64_t now = stats_now();

	b->replay = NULL;
	b->ncopies = 0;
	for (struct blkif_req *r = first, *next; r; r = next) {
		next = r->next;
		begin(b, r, now);
		r->next = next;
	}
	stats_taken(&b->stats);
	submit_all(b, first);
}

void blkif_run(struct blkif *b)
{
	if (b->state != HELD)
		return;
	b->state = RUNNING;
	ev_io_start(b->loop, &b->event);
	if (b->replay)
		replay(b);
	if (b->taken_over) {
		b->taken_over = false;
		b->x->ops->notify(b->x); /* who died may have pushed responses, and not told of them any more */
	}
	/* what came while the ring was held has no event of its own */
	ring_take(b, 0);
}

void blkif_look(struct blkif *b)
{
	ring_take(b, 0);
}

bool blkif_owns(const struct blkif *b, const struct td_req *req)
{
	return req->done == req_done && td_entry(req, struct blkif_req, req)->ring == b;
}

unsigned blkif_inflight(const struct blkif *b)
{
	return b->inflight;
}

bool blkif_is_broken(const struct blkif *b)
{
	return b->state == BROKEN;
}

const char *blkif_why(const struct blkif *b)
{
	return b->why;
}

const struct blkif_params *blkif_params(const struct blkif *b)
{
	return &b->p;
}

const struct blkif_stats *blkif_stats(const struct blkif *b)
{
	return &b->n;
}
