/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What each mode promises, kept by these rules:
 *
 * C1 In a mode with fua_every_write each WRITE goes down with TD_FUA: it is durable before it is acknowledged.
 * C2 A FLUSH is answered by a flush of the image that was issued after it arrived, or by none when every change that was
 *    completed before it arrived is covered by a flush that has completed.  `written' counts changes as they complete, before
 *    they are acknowledged; a FLUSH needs the count at its arrival; a flush of the image covers the count at its issue.
 * C3 One flush of the image runs at a time; it answers all that had arrived when it was issued.
 * C4 A BARRIER starts when all that came before it is answered, is flush, write, flush, and nothing that came after it starts
 *    before it is answered.  PREFLUSH is the same three steps, without order.
 * C5 A failed flush is sticky: what it should have made durable may be lost without another sign, so every WRITE and FLUSH after
 *    it fails, until the disk is closed and opened again.  Linux answers an error on a FLUSH by never sending one
 *    again; the failing writes are what it cannot ignore.
 * C6 A buffered durable write that fails is as bad as a failed flush: the kernel reports a write-back error once, so it may be
 *    an earlier write's.
 * C7 A WRITE that finds no space is not answered: it waits, and is tried again; unless the disk was told to report it.
 * C8 So is a FLUSH whose metadata finds no space: the image has kept what it could not write.  It is no failed flush in the sense of C5,
 *    for an fdatasync that fails never says that there is no space (td/io.h).  Reported to the guest, it is one: see C5 for Linux.
 * C9 What a lane does past this layer (tapdisk/lane.h) counts as done by it.  Its writes are in the count of C2: whoever has seen one
 *    answered, on whatever ring, and sends a FLUSH then, finds it counted, since it was counted before the answer was put into the ring.
 *    A BARRIER starts, a pause is reached, data are taken from their place (a DISCARD, zeroes), and a part of a block is written, when all
 *    lanes are closed; they open when it is over.
 */
#include "tapdisk/cache.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/file.h"
#include "lib/kill.h"
#include "tapdisk/lane.h"
#include "td/log.h"

#define RETRY 1.0 /* s between looks for space */

/* A request's way through the image: our child of it. */
struct cache_op {
	struct td_req child;
	struct td_req *req;
	struct cache *c;
	struct cache_op *next;
	bool stops; /* counted in c->stopping */
};

/* Steps of a BARRIER or PREFLUSH, in td_req.state[0]; state[1] of whatever waits for a flush is the generation it needs. */
enum { STEP_DRAIN, STEP_FLUSH, STEP_WRITE, STEP_FLUSH_AGAIN, STEP_DONE };

const struct td_cache_mode td_cache_modes[] = {
	{.name = "none",
	 .file_flags = TD_FILE_DIRECT,
	 .advertise_flush = true,
	 .shareable = true,
	 .promise = "durable when a flush completes; no host cache"},
	{.name = "writethrough",
	 .fua_every_write = true,
	 .promise = "durable when a write completes; host cache for reads"},
	{.name = "writeback", .advertise_flush = true, .promise = "durable when a flush completes; host cache"},
	{.name = "directsync",
	 .file_flags = TD_FILE_DIRECT,
	 .fua_every_write = true,
	 .shareable = true,
	 .promise = "durable when a write completes; no host cache"},
	{.name = "unsafe",
	 .file_flags = TD_FILE_NOSYNC,
	 .advertise_flush = true,
	 .drop_flush = true,
	 .promise = "nothing: a power cut loses data"},
	{.name = NULL},
};

const struct td_cache_mode *td_cache_mode_find(const char *name)
{
	for (const struct td_cache_mode *m = td_cache_modes; m->name; m++)
		if (!strcmp(m->name, name))
			return m;
	return NULL;
}

static void sequence(struct cache *c, struct td_req *req, int err);
static void dispatch(struct cache *c, struct td_req *req);

static bool is_sequence(const struct td_req *req)
{
	return req->flags & (TD_BARRIER | TD_PREFLUSH);
}

static void check_idle(struct cache *c)
{
	if (c->idle && ((c->quiesced && cache_image_idle(c)) || !c->active))
		c->idle(c);
}

/* C4: is all answered that came before it? */
static bool barrier_may_start(const struct cache *c)
{
	return c->barrier && c->active == 1 && c->barrier->state[0] == STEP_DRAIN && lanes_closed(c);
}

static void answer(struct cache *c, struct td_req *req, int err)
{
	c->active--;
	req->done(req, err);
	if (barrier_may_start(c))
		sequence(c, c->barrier, 0);
	else
		check_idle(c);
}

/* A request's way has come to an end, or a step of it has. */
static void finish(struct cache *c, struct td_req *req, int err)
{
	if (is_sequence(req))
		sequence(c, req, err);
	else
		answer(c, req, err);
}

static void fail_sticky(struct cache *c, int err)
{
	if (c->sticky)
		return;
	__atomic_store_n(&c->sticky, err, __ATOMIC_RELEASE); /* lanes look at it */
	td_log(LOG_ERR, "%s: a flush to disk failed (%s): acknowledged data may be lost.  Writes and flushes fail from now on; close the "
			"disk, check its contents, and open it again", c->image->path, strerror(-err));
	c->changed(c);
}

/* --- to the image and back ------------------------------------------------------------------------------------------ */

static void op_done(struct td_req *child, int err);

static struct cache_op *op_get(struct cache *c)
{
	struct cache_op *op = c->ops;

	if (op) {
		c->ops = op->next;
		return op;
	}
	return calloc(1, sizeof *op); /* kept when done: after the first burst nothing is allocated */
}

static bool leaving(const struct cache *c, const struct td_req *req)
{
	return c->leaves && c->leaves(c, req);
}

static bool parked(const struct cache *c, const struct td_req *req)
{
	return c->quiesced || (c->out_of_space && req->op == TD_WRITE && req != c->probe && !leaving(c, req));
}

static void park(struct cache *c, struct td_req *req)
{
	td_list_add(&c->waiting, &req->link);
	if (c->probe == req)
		c->probe = NULL; /* it was to be sent when the lanes are closed */
}

/* Does it take data from where lanes know them, or is it a read-modify-write of a block that they may be writing?  C9 */
static bool stops_lanes(const struct cache *c, const struct td_req *req)
{
	if (req->op == TD_READ)
		return false;
	if (c->block > 512 && (req->off | req->len) % c->block)
		return true;
	return req->op != TD_WRITE && c->mapped && !c->whole;
}

static void send_now(struct cache *c, struct td_req *req)
{
	struct cache_op *op = op_get(c);
	bool fua = c->mode->fua_every_write || (req->flags & TD_FUA);

	if (!op) {
		if (c->probe == req)
			c->probe = NULL; /* the timer sends another */
		finish(c, req, -ENOMEM);
		return;
	}
	op->req = req;
	op->c = c;
	op->child.op = req->op;
	op->child.flags = (fua && req->op != TD_READ ? TD_FUA : 0) | (req->flags & TD_UNMAP); /* C1 */
	op->child.off = req->off;
	op->child.len = req->len;
	op->child.iov = req->iov;
	op->child.iovcnt = req->iovcnt;
	op->child.done = op_done;
	op->child.io = c->io;
	op->stops = stops_lanes(c, req);
	c->stopping += op->stops;
	c->at_image++;
	td_submit(c->image, &op->child);
}

/* C9 */
static void send_when_closed(struct cache *c, struct td_req *req)
{
	td_list_add(&c->stoppers, &req->link);
	lanes_update(c);
	if (!lanes_closed(c))
		return;
	td_list_del(&req->link);
	send_now(c, req);
}

static void send(struct cache *c, struct td_req *req)
{
	if (req->op != TD_READ && c->sticky)
		finish(c, req, -EIO); /* C5 */
	else if (parked(c, req))
		park(c, req);
	else if (stops_lanes(c, req))
		send_when_closed(c, req);
	else
		send_now(c, req);
}

static void send_stopping(struct cache *c)
{
	struct td_list now;
	struct td_list *l;

	td_list_init(&now);
	td_list_splice(&now, &c->stoppers);
	while ((l = td_list_pop(&now)))
		send(c, td_entry(l, struct td_req, link));
}

static bool is_full(int err)
{
	return err == -ENOSPC || err == -EDQUOT;
}

static void space_end(struct cache *c)
{
	c->out_of_space = c->flush_waits = false;
	c->probe = NULL;
	ev_timer_stop(c->loop, &c->retry);
	c->changed(c);
}

/* Takes the first write off the list; NULL when there is none. */
static struct td_req *first_write(struct td_list *of)
{
	td_list_each(l, of) {
		struct td_req *req = td_entry(l, struct td_req, link);

		if (req->op != TD_READ) {
			td_list_del(l);
			return req;
		}
	}
	return NULL;
}

/* Sends what waits; while there is no space, one write alone, to see. */
static void send_waiting(struct cache *c)
{
	struct td_list now;
	struct td_list *l;

	if (c->out_of_space && c->sticky)
		space_end(c); /* what waits is to fail */
	td_list_init(&now);
	td_list_splice(&now, &c->waiting);
	if (c->out_of_space && !c->probe && (c->probe = first_write(&now))) {
		if (stops_lanes(c, c->probe))
			send_when_closed(c, c->probe);
		else
			send_now(c, c->probe);
	}
	while ((l = td_list_pop(&now)))
		send(c, td_entry(l, struct td_req, link));
}

static void no_space(struct cache *c, const char *what, int err)
{
	ev_timer_again(c->loop, &c->retry);
	if (c->out_of_space)
		return;
	c->out_of_space = true;
	td_log(LOG_ERR, "%s: no space for %s (%s): the disk's writes are held, and go on by themselves when there is space", c->image->path,
	       what, strerror(-err));
	c->changed(c);
}

static void write_waits(struct cache *c, struct td_req *req, int err)
{
	td_list_add_front(&c->waiting, &req->link);
	if (c->probe == req)
		c->probe = NULL;
	no_space(c, "a write", err);
	check_idle(c);
}

static void flush_next(struct cache *c);

static void space_again(struct cache *c)
{
	td_log(LOG_NOTICE, "%s: there is space again, the disk goes on", c->image->path);
	space_end(c);
	if (c->quiesced)
		return;
	send_waiting(c);
	flush_next(c);
}

static bool any_write(const struct td_list *of)
{
	td_list_each(l, of)
		if (td_entry(l, struct td_req, link)->op != TD_READ)
			return true;
	return false;
}

/* Is there no space, and nobody left who would tell when there is? */
static bool nobody_waits(const struct cache *c)
{
	return c->out_of_space && !c->probe && !any_write(&c->waiting) && td_list_empty(&c->flushes) && !c->flush_running;
}

/* The write that was sent to see has been answered. */
static void probed(struct cache *c, int err)
{
	c->probe = NULL;
	if (!is_full(err))
		space_again(c);
	else if (nobody_waits(c)) /* it was a leaving frontend's, and so were all that waited */
		space_end(c);
}

static void op_done(struct td_req *child, int err)
{
	struct cache_op *op = td_entry(child, struct cache_op, child);
	struct cache *c = op->c;
	struct td_req *req = op->req;
	bool write = req->op != TD_READ, fua = child->flags & TD_FUA, probe;

	op->next = c->ops;
	c->ops = op;
	c->at_image--;
	if (op->stops && !--c->stopping)
		lanes_update(c);
	if (write)
		c->written++; /* C2; a failed write may have changed something too */
	if (write && is_full(err) && !c->report_enospc && !leaving(c, req)) {
		write_waits(c, req, err); /* C7 */
		return;
	}
	if (write && fua && err && !is_full(err) && err != -EOPNOTSUPP && !(c->mode->file_flags & TD_FILE_DIRECT))
		fail_sticky(c, err); /* C6 */
	/* only the write that was sent to see tells: others may lie where space is taken already */
	probe = c->probe == req;
	finish(c, req, err);
	if (probe && c->out_of_space)
		probed(c, err);
	check_idle(c);
}

/* --- flushes -------------------------------------------------------------------------------------------------------- */

static void flush_answer(struct cache *c, struct td_list *of, int err)
{
	struct td_list now;
	struct td_list *l;

	td_list_init(&now);
	td_list_splice(&now, of);
	while ((l = td_list_pop(&now)))
		finish(c, td_entry(l, struct td_req, link), err);
}

static void flush_done(struct td_req *flush, int err);

static uint64_t cache_written(const struct cache *c)
{
	return c->written + lanes_written(c);
}

static void flush_image(struct cache *c)
{
	c->flush_running = true;
	c->flushing = cache_written(c);
	c->n.syncs++;
	c->flush_req = (struct td_req){.op = TD_FLUSH, .done = flush_done, .io = c->io};
	TD_KILL(FLUSH_BEGIN);
	td_submit(c->image, &c->flush_req);
	TD_KILL(FLUSH_SENT);
}

static void flush_next(struct cache *c)
{
	struct td_list nothing_new;

	if (c->flush_running || c->quiesced)
		return;
	td_list_init(&nothing_new);
	td_list_each_safe(l, tmp, &c->flushes) {
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

/* C8: those whom it was to answer are the next one's, but for a frontend that leaves. */
static void flush_waits(struct cache *c, int err)
{
	struct td_list now;
	struct td_list *l;

	td_list_init(&now);
	td_list_splice(&now, &c->covered);
	td_list_splice(&now, &c->flushes);
	c->flush_waits = !c->quiesced;
	while ((l = td_list_pop(&now))) {
		if (leaving(c, td_entry(l, struct td_req, link)))
			finish(c, td_entry(l, struct td_req, link), err);
		else
			td_list_add(&c->flushes, l);
	}
	if (td_list_empty(&c->flushes))
		c->flush_waits = false;
	else if (!c->quiesced)
		no_space(c, "metadata", err);
	check_idle(c);
}

static void on_retry(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct cache *c = w->data;

	if (c->quiesced)
		return;
	c->flush_waits = false;
	send_waiting(c);
	flush_next(c);
	if (nobody_waits(c))
		space_end(c);
}

static void flush_done(struct td_req *flush, int err)
{
	struct cache *c = td_entry(flush, struct cache, flush_req);

	TD_KILL(FLUSH_BACK);
	c->flush_running = false;
	if (!err && c->sticky)
		err = -EIO; /* C6: a durable write that failed meanwhile may have been told of what this flush was to hear */
	if (is_full(err) && !c->report_enospc && !c->sticky) {
		flush_waits(c, err);
		return;
	}
	if (err)
		fail_sticky(c, err);
	else
		c->flushed = c->flushing;
	if (!err && nobody_waits(c))
		space_again(c); /* it was this flush that had found none; nothing is to be sent, so `covered' stays as it is */
	TD_KILL(FLUSH_STICKY);
	flush_answer(c, &c->covered, err);
	TD_KILL(FLUSH_ANSWERED);
	flush_next(c);
	check_idle(c);
}

static void flush_add(struct cache *c, struct td_req *req)
{
	req->state[1] = cache_written(c); /* C2 */
	td_list_add(&c->flushes, &req->link);
	flush_next(c);
}

/* --- barriers ------------------------------------------------------------------------------------------------------- */

static void release_held(struct cache *c)
{
	struct td_list *l;

	if (c->releasing) /* a barrier that ended within the loop below: no recursion as deep as the guest likes */
		return;
	c->releasing = true;
	while (!c->barrier && !c->quiesced && (l = td_list_pop(&c->held))) {
		c->active++;
		dispatch(c, td_entry(l, struct td_req, link));
	}
	c->releasing = false;
	lanes_update(c);
}

static void sequence_end(struct cache *c, struct td_req *req, int err)
{
	bool barrier = c->barrier == req;

	if (barrier)
		c->barrier = NULL;
	answer(c, req, err);
	if (barrier)
		release_held(c);
}

/* One step of flush, write, flush is over with err: on to the next (C4). */
static void sequence(struct cache *c, struct td_req *req, int err)
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
		flush_add(c, req);
		break;
	case STEP_WRITE:
		if (!data)
			sequence_end(c, req, 0);
		else
			send(c, req);
		break;
	default:
		sequence_end(c, req, 0);
	}
}

static void dispatch(struct cache *c, struct td_req *req)
{
	if (req->flags & TD_BARRIER) {
		c->barrier = req;
		req->state[0] = STEP_DRAIN;
		lanes_update(c);
		if (barrier_may_start(c))
			sequence(c, req, 0);
	} else if (req->flags & TD_PREFLUSH) {
		req->state[0] = STEP_DRAIN;
		sequence(c, req, 0);
	} else if (req->op == TD_FLUSH) {
		flush_add(c, req);
	} else {
		send(c, req);
	}
}

/* --- the outside ---------------------------------------------------------------------------------------------------- */

void cache_submit(struct cache *c, struct td_req *req)
{
	if (req->flags & TD_BARRIER)
		c->n.barriers++;
	else if (req->op == TD_FLUSH || (req->flags & TD_PREFLUSH))
		c->n.flushes++;
	else if (req->op == TD_READ)
		c->n.reads++;
	else
		c->n.writes++;
	if (c->barrier || c->quiesced || !td_list_empty(&c->held)) {
		td_list_add(&c->held, &req->link);
		return;
	}
	c->active++;
	dispatch(c, req);
}

void cache_submit_again(struct cache *c, struct td_req *req)
{
	assert(!c->barrier || c->barrier->state[0] == STEP_DRAIN); /* C4: which waits for it */
	c->n.writes++;
	c->active++;
	send(c, req);
}

void cache_init(struct cache *c, struct ev_loop *loop, void *owner)
{
	memset(c, 0, sizeof *c);
	c->mode = td_cache_modes;
	c->loop = loop;
	c->owner = owner;
	c->quiesced = true;
	c->written = 1;
	td_list_init(&c->held);
	td_list_init(&c->waiting);
	td_list_init(&c->flushes);
	td_list_init(&c->covered);
	td_list_init(&c->stoppers);
	td_list_init(&c->lanes);
	ev_init(&c->retry, on_retry);
	c->retry.repeat = RETRY;
	c->retry.data = c;
}

void cache_fini(struct cache *c)
{
	assert(!c->active && td_list_empty(&c->held) && td_list_empty(&c->lanes));
	ev_timer_stop(c->loop, &c->retry);
	while (c->ops) {
		struct cache_op *op = c->ops;

		c->ops = op->next;
		free(op);
	}
}

void cache_attach(struct cache *c, const struct td_cache_mode *mode, struct td_image *image, struct td_io *io, bool fresh)
{
	assert(c->quiesced && !c->image);
	c->mode = mode;
	c->image = image;
	c->io = io;
	c->mapped = image->driver->map;
	c->whole = c->mapped && image->driver->map(image, 0, image->info.size, &c->map) && c->map.whole;
	c->block = c->whole && c->map.file ? c->map.file->st.off_align : 0;
	if (fresh) {
		c->sticky = 0;
		c->written = 1;
		c->flushed = 0;
	}
}

void cache_detach(struct cache *c)
{
	assert(c->quiesced && cache_image_idle(c));
	c->image = NULL;
	c->io = NULL;
	c->mapped = c->whole = false;
}

bool cache_image_idle(const struct cache *c)
{
	return !c->at_image && !c->flush_running && lanes_closed(c);
}

bool cache_at_work(const struct cache *c)
{
	return c->at_image || c->flush_running || lanes_busy(c);
}

bool cache_lets_lanes(const struct cache *c)
{
	return c->image && !c->quiesced && !c->barrier && td_list_empty(&c->held) && td_list_empty(&c->stoppers) && !c->stopping &&
	       c->image->driver->map && !c->image->fault;
}

void cache_lanes_closed(struct cache *c)
{
	if (!lanes_closed(c))
		return;
	send_stopping(c);
	if (barrier_may_start(c))
		sequence(c, c->barrier, 0);
	lanes_update(c); /* what they were closed for may have failed, or wait for space */
	check_idle(c);
}

bool cache_enter(struct cache *c)
{
	if (c->quiesced)
		return false;
	c->at_image++;
	return true;
}

void cache_leave(struct cache *c)
{
	c->at_image--;
	check_idle(c);
}

void cache_quiesce(struct cache *c)
{
	c->quiesced = true;
	lanes_update(c);
	check_idle(c);
}

void cache_flush(struct cache *c)
{
	assert(c->quiesced && cache_image_idle(c));
	flush_image(c);
}

void cache_resume(struct cache *c)
{
	c->quiesced = false;
	send_waiting(c);
	send_stopping(c);
	flush_next(c);
	release_held(c);
}

static void cancel_list(struct cache *c, struct td_list *of, int err)
{
	struct td_list now;
	struct td_list *l;

	td_list_init(&now);
	td_list_each_safe(at, next, of) {
		if (!leaving(c, td_entry(at, struct td_req, link)))
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
		finish(c, req, err);
	}
}

void cache_cancel(struct cache *c, int err)
{
	struct td_req *b = c->barrier;

	cancel_list(c, &c->held, err);
	cancel_list(c, &c->waiting, err);
	cancel_list(c, &c->stoppers, err);
	if (c->quiesced || c->flush_waits)
		cancel_list(c, &c->flushes, err);
	if (c->barrier && c->barrier == b && b->state[0] == STEP_DRAIN && leaving(c, b)) {
		c->barrier = NULL;
		answer(c, b, err);
		release_held(c);
	}
	/* what others have let in is still looked after by the timer; with nothing of that kind left, nobody would look for space */
	if (nobody_waits(c))
		space_end(c);
}

static void forget_list(struct cache *c, struct td_list *of)
{
	td_list_each_safe(at, next, of) {
		if (!leaving(c, td_entry(at, struct td_req, link)))
			continue;
		td_list_del(at);
		if (of != &c->held)
			c->active--;
	}
}

void cache_forget(struct cache *c)
{
	struct td_req *b = c->barrier;

	assert(c->quiesced && cache_image_idle(c));
	forget_list(c, &c->held);
	forget_list(c, &c->waiting);
	forget_list(c, &c->stoppers);
	forget_list(c, &c->flushes);
	if (b && leaving(c, b)) {
		if (b->state[0] == STEP_DRAIN) /* else it was in one of the lists */
			c->active--;
		c->barrier = NULL;
	}
	if (c->out_of_space && !any_write(&c->waiting))
		space_end(c);
}

bool cache_dirty(const struct cache *c)
{
	return cache_written(c) > c->flushed && !c->mode->drop_flush && !c->sticky && c->image && !(c->image->file_flags & TD_FILE_RDONLY);
}
