/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tapdisk/cache/lane.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/io/file.h"

#define SHOW       0.5 /* s: those who read numbers look once a second */
#define PLACES     4096
#define PLACE_BITS 16 /* one for each 64 KiB, by its first byte */

enum gate { CLOSED, OPENING, OPEN, CLOSING };

struct news {
	struct queue_msg msg;
	bool told; /* atomic: it is under way, or, what is to be shown, waits for the timer */
	struct lane *lane;
	void (*fn)(void *owner);
	void *owner;
};

#define LANE_MAGIC 0x74646c61u

struct lane {
	unsigned magic;
	struct td_list link; /* cache.lanes */
	struct cache *cache;
	struct queue *home, *queue;
	struct news news[LANE_NEWS];
	ev_timer show; /* the home loop's */

	/* the home thread's */
	enum gate gate;
	bool retired;

	/* the message of the gate: whose it is, follows from `gate' */
	struct {
		struct queue_msg msg;
		bool open, direct, fua;
		const char *choice;          /* of that engine */
		const struct td_io_ops *ops; /* of the engine that the file was opened with */
		const struct td_gate *check; /* the image's */
		struct td_map map;           /* whole, or nothing */
	} order;

	/* the lane's thread's */
	bool open, closing;
	bool direct, fua;
	unsigned fast;     /* under way; the home thread looks at it, as at those of `n' */
	unsigned barriers; /* under way, slow */
	struct td_io *io;
	struct td_log_limit limit;
	const struct td_gate *check; /* NULL: none */
	struct td_map whole;
	struct td_map *places; /* PLACES; NULL before the first, or without memory */
	struct {
		uint64_t written;
		struct lane_count c;
		uint64_t slow;
	} n;
};

/* Counters have one writer, and readers in other threads. */
#define ADD(x, d) __atomic_store_n(&(x), (x) + (d), __ATOMIC_RELEASE)
#define GET(x)    __atomic_load_n(&(x), __ATOMIC_ACQUIRE)

static bool is_full(int err)
{
	return err == -ENOSPC || err == -EDQUOT;
}

/* --- slow: there and back --- */

/* In the lane's thread. */
static void slow_back(struct queue_msg *m)
{
	struct lane_op *op = td_entry(m, struct lane_op, msg);
	struct lane *l = op->lane;

	if (op->child.flags & TD_BARRIER)
		l->barriers--;
	if (op->mapped && l->open && l->places)
		l->places[op->req->off >> PLACE_BITS & (PLACES - 1)] = op->map; /* L3 */
	op->req->done(op->req, op->err);
}

/* At home. */
static void slow_done(struct td_req *child, int err)
{
	struct lane_op *op = td_entry(child, struct lane_op, child);
	struct lane *l = op->lane;
	struct td_image *image = l->cache->image;

	op->err = err;
	op->mapped = !err && l->gate == OPEN && child->len && !child->flags && image &&
		     image->driver->map && !image->fault &&
		     image->driver->map(image, child->off, child->len, &op->map);
	op->msg.fn = slow_back;
	queue_post(l->queue, &op->msg);
}

static void slow_arrives(struct queue_msg *m)
{
	struct lane_op *op = td_entry(m, struct lane_op, msg);
	struct cache *c = op->lane->cache;
	bool leaves = c->leaves && c->leaves(c, &op->child);

	if (op->failed) {
		cache_durable_failed(c, op->failed); /* C6 */
		slow_done(&op->child, op->failed);
		return;
	}
	if (op->again)
		cache_submit_again(c, &op->child);
	else
		cache_submit(c, &op->child);
	/* whoever lets it go has cancelled the others already */
	if (leaves && (c->quiesced || c->out_of_space))
		cache_cancel(c, -EIO);
}

static void go_slow(struct lane_op *op)
{
	struct lane *l = op->lane;
	struct td_req *req = op->req;

	op->child = (struct td_req){.op = req->op,
				    .flags = req->flags,
				    .off = req->off,
				    .len = req->len,
				    .iov = req->iov,
				    .iovcnt = req->iovcnt,
				    .done = slow_done};
	if (req->flags & TD_BARRIER)
		l->barriers++; /* L2 */
	ADD(l->n.slow, 1);
	op->msg.fn = slow_arrives;
	queue_post(l->home, &op->msg);
}

const struct td_req *lane_origin(const struct td_req *req)
{
	return req->done == slow_done ? td_entry(req, struct lane_op, child)->req : req;
}

/* --- fast --- */

static void gate_answer(struct lane *l);

static void fast_end(struct lane *l, struct lane_op *op, int err)
{
	struct td_req *req = op->req;
	unsigned w = req->op == TD_WRITE;

	if (w)
		ADD(l->n.written, 1); /* L4; one that failed may have changed something too */
	if (err)
		ADD(l->n.c.fail[w], 1);
	else
		ADD(l->n.c.hits[w], req->len / 512);
	ADD(l->fast, -1u);
	if (w && is_full(err)) {
		op->again = true;
		go_slow(op); /* C7 */
		return;
	}
	ADD(l->n.c.requests[w], 1);
	if (w && err && op->durable) {
		op->failed = err;
		go_slow(op); /* L5 */
		return;
	}
	req->done(req, err);
}

static void fast_done(struct td_iop *iop, int err)
{
	struct lane_op *op = iop->data;
	struct lane *l = op->lane;

	fast_end(l, op, err);
	if (l->closing && !l->fast)
		gate_answer(l);
}

/* A disk without a file: nothing is kept, and all reads as zeroes. */
static void no_file(struct lane *l, struct lane_op *op)
{
	struct td_req *req = op->req;

	for (int i = 0; req->op == TD_READ && i < req->iovcnt; i++)
		memset(req->iov[i].iov_base, 0, req->iov[i].iov_len);
	fast_end(l, op, 0);
}

static const struct td_map *find_map(const struct lane *l, const struct td_req *req)
{
	const struct td_map *m = l->whole.len ? &l->whole
				 : l->places  ? &l->places[req->off >> PLACE_BITS & (PLACES - 1)]
					      : NULL;

	return m && req->off >= m->off && req->off - m->off <= m->len &&
			       req->len <= m->len - (req->off - m->off)
		       ? m
		       : NULL;
}

/* May it be written past the home thread?  L5 to L7 */
static bool may_write(const struct lane *l, const struct td_req *req, const struct td_map *m)
{
	bool fua = l->fua || (req->flags & TD_FUA);

	if (__atomic_load_n(&l->cache->sticky, __ATOMIC_ACQUIRE) ||
	    (m->file && m->file->st.off_align > 512 && !l->whole.len))
		return false;
	if (l->check && !l->check->lets(l->check, req->off, req->len))
		return false; /* L7 */
	return !fua || !m->file || (l->direct && l->whole.len);
}

static bool prepare_op(struct lane *l, struct lane_op *op, const struct td_map *m)
{
	struct td_req *req = op->req;
	struct td_iop *iop = &req->iop;

	iop->op = req->op == TD_READ ? TD_IO_READ : TD_IO_WRITE;
	op->durable = req->op == TD_WRITE && (l->fua || (req->flags & TD_FUA));
	iop->flags = m->flags[req->op == TD_WRITE] | (op->durable ? TD_IO_DSYNC : 0);
	iop->file = m->file;
	iop->off = m->at + (req->off - m->off);
	iop->len = req->len;
	iop->iov = req->iov;
	iop->iovcnt = req->iovcnt;
	iop->done = fast_done;
	iop->data = op;
	return td_align_none(iop);
}

static bool go_fast(struct lane *l, struct lane_op *op)
{
	struct td_req *req = op->req;
	const struct td_map *m;

	if (!l->open || l->barriers || (req->op != TD_READ && req->op != TD_WRITE) ||
	    (req->flags & (TD_PREFLUSH | TD_BARRIER)))
		return false;
	m = find_map(l, req);
	if (!m || (req->op == TD_WRITE && !may_write(l, req, m)) ||
	    (m->file && !prepare_op(l, op, m)))
		return false;
	ADD(l->fast, 1);
	if (m->file)
		td_iop_queue(l->io, &req->iop);
	else
		no_file(l, op);
	return true;
}

void lane_submit(struct lane *l, struct lane_op *op, struct td_req *req)
{
	assert(l->magic == LANE_MAGIC);
	op->lane = l;
	op->req = req;
	op->again = false;
	op->durable = false;
	op->failed = 0;
	if (!go_fast(l, op))
		go_slow(op);
}

struct td_io *lane_io(const struct lane *l)
{
	assert(l->magic == LANE_MAGIC);
	return l->io;
}

/* --- the gate --- */

static void gate_answered(struct queue_msg *m)
{
	struct lane *l = td_entry(m, struct lane, order.msg);

	l->gate = l->gate == OPENING ? OPEN : CLOSED;
	lanes_update(l->cache);
	if (l->gate == CLOSED)
		cache_lanes_closed(l->cache);
}

/* In the lane's thread. */
static void gate_answer(struct lane *l)
{
	l->closing = false;
	l->order.msg.fn = gate_answered;
	queue_post(l->home, &l->order.msg);
}

/* The engine must be of the kind that the file was opened with: a simulated disk has but one, at
 * home, and then all goes slow. */
static bool gate_open(struct lane *l)
{
	struct td_err err = {0};

	l->direct = l->order.direct;
	l->fua = l->order.fua;
	l->whole = l->order.map;
	l->check = l->order.check;
	if (!l->whole.len && !l->places)
		l->places = malloc(PLACES * sizeof *l->places);
	if (!l->whole.len && l->places)
		memset(l->places, 0, PLACES * sizeof *l->places); /* L3 */
	if (queue_engine(l->queue, l->order.choice, l->direct, &l->io, &err) < 0) {
		td_log_limited(&l->limit, LOG_WARNING,
			       "a ring's requests all take the way through the main thread: %s",
			       err.text);
		return false;
	}
	return l->io->ops == l->order.ops;
}

static void gate_arrives(struct queue_msg *m)
{
	struct lane *l = td_entry(m, struct lane, order.msg);

	l->open = l->order.open && gate_open(l);
	l->closing = !l->order.open && l->fast;
	if (!l->closing)
		gate_answer(l);
}

/* At home. */
static void gate_send(struct lane *l, bool open)
{
	struct cache *c = l->cache;

	l->gate = open ? OPENING : CLOSING;
	l->order.open = open;
	if (open) {
		l->order.direct = c->mode->file_flags & c->image->file_flags & TD_FILE_DIRECT;
		l->order.fua = c->mode->fua_every_write;
		l->order.choice = l->home->choice;
		l->order.ops = c->io->ops;
		l->order.check = c->image->gate;
		l->order.map = (struct td_map){0};
		if (c->whole)
			l->order.map = c->map;
	}
	l->order.msg.fn = gate_arrives;
	queue_post(l->queue, &l->order.msg);
}

void lanes_update(struct cache *c)
{
	bool open = cache_lets_lanes(c);

	td_list_each (at, &c->lanes) {
		struct lane *l = td_entry(at, struct lane, link);

		if (l->gate == CLOSED && open && !l->retired)
			gate_send(l, true);
		else if (l->gate == OPEN && (!open || l->retired))
			gate_send(l, false);
	}
}

bool lanes_closed(const struct cache *c)
{
	td_list_each (at, &c->lanes)
		if (td_entry(at, struct lane, link)->gate != CLOSED)
			return false;
	return true;
}

bool lanes_busy(const struct cache *c)
{
	td_list_each (at, &c->lanes)
		if (GET(td_entry(at, struct lane, link)->fast))
			return true;
	return false;
}

uint64_t lanes_written(const struct cache *c)
{
	uint64_t n = 0;

	td_list_each (at, &c->lanes)
		n += GET(td_entry(at, struct lane, link)->n.written);
	return n;
}

static void add_count(struct lane_count *sum, const struct lane_count *n)
{
	for (int w = 0; w < 2; w++) {
		sum->hits[w] += GET(n->hits[w]);
		sum->fail[w] += GET(n->fail[w]);
		sum->requests[w] += GET(n->requests[w]);
	}
}

struct lane_count lanes_count(const struct cache *c)
{
	struct lane_count sum = c->lanes_gone;

	td_list_each (at, &c->lanes)
		add_count(&sum, &td_entry(at, struct lane, link)->n.c);
	return sum;
}

struct lane_stats lane_stats(const struct lane *l)
{
	assert(l->magic == LANE_MAGIC);
	return (struct lane_stats){.fast = {GET(l->n.c.requests[0]), GET(l->n.c.requests[1])},
				   .slow = GET(l->n.slow)};
}

/* --- news --- */

static void deliver(struct news *n)
{
	void (*fn)(void *owner) = n->fn;
	void *owner = n->owner;

	/* before it is looked at what they are: whatever comes after is told anew; from here on the
	 * message is its sender's */
	(void)__atomic_exchange_n(&n->told, false, __ATOMIC_ACQ_REL);
	fn(owner);
}

static void on_show(struct ev_loop *loop, ev_timer *w, int revents)
{
	deliver(w->data);
}

static void news_arrives(struct queue_msg *m)
{
	struct news *n = td_entry(m, struct news, msg);

	if (n == &n->lane->news[LANE_SHOW]) {
		ev_now_update(n->lane->home->loop);
		ev_timer_set(&n->lane->show, SHOW, 0);
		ev_timer_start(n->lane->home->loop, &n->lane->show);
	} else {
		deliver(n);
	}
}

void lane_tell(struct lane *l, enum lane_news what, void (*fn)(void *owner), void *owner)
{
	struct news *n = &l->news[what];

	assert(l->magic == LANE_MAGIC);
	if (__atomic_exchange_n(&n->told, true, __ATOMIC_ACQ_REL))
		return;
	n->lane = l;
	n->msg.fn = news_arrives;
	n->fn = fn;
	n->owner = owner;
	queue_post(l->home, &n->msg);
}

/* --- comes and goes --- */

struct lane *lane_new(struct cache *c, struct queue *home, struct queue *q)
{
	struct lane *l = calloc(1, sizeof *l);

	if (!l)
		return NULL;
	l->magic = LANE_MAGIC;
	l->cache = c;
	l->home = home;
	l->queue = q;
	ev_timer_init(&l->show, on_show, SHOW, 0);
	l->show.data = &l->news[LANE_SHOW];
	td_list_add(&c->lanes, &l->link);
	lanes_update(c);
	return l;
}

void lane_call(struct lane *l, void (*fn)(void *arg), void *arg)
{
	assert(l->magic == LANE_MAGIC);
	queue_call(l->home, l->queue, fn, arg);
}

static void nothing(void *arg)
{
}

void lane_free(struct lane *l)
{
	struct cache *c;

	if (!l)
		return;
	assert(l->magic == LANE_MAGIC);
	c = l->cache;
	l->retired = true;
	lanes_update(c);
	while (l->gate != CLOSED)
		lane_call(l, nothing, NULL);
	lane_call(l, nothing, NULL); /* what it had told has arrived */
	assert(!l->fast);
	ev_timer_stop(l->home->loop, &l->show);
	td_list_del(&l->link);
	c->written += l->n.written;
	add_count(&c->lanes_gone, &l->n.c);
	free(l->places);
	l->magic = 0;
	free(l);
}
