/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What each mode promises, kept by these rules, here and in the files beside:
 *
 *   cache-flush.c    C2, C3, C5, C6
 *   cache-barrier.c  C4
 *   cache-space.c    C7, C8
 *   cache-cancel.c   a frontend that goes
 *   cache-mode.c     the table
 *
 * C1 In a mode with fua_every_write each WRITE goes down with TD_FUA: it is durable before it is
 *    acknowledged.  A DISCARD, or zeroes, that are to be durable are followed by a flush of the
 *    image as if a FLUSH had come behind them: it may be shared (C2), and a failed one is C5's.
 * C2 A FLUSH is answered by a flush of the image that was issued after it arrived, or by none
 *    when every change that was completed before it arrived is covered by a flush that has
 *    completed.  `written' counts changes as they complete, before they are acknowledged; a FLUSH
 *    needs the count at its arrival; a flush of the image covers the count at its issue.
 * C3 One flush of the image runs at a time; it answers all that had arrived when it was issued.
 * C4 A BARRIER starts when all that came before it is answered, is flush, write, flush, and
 *    nothing that came after it starts before it is answered.  PREFLUSH is the same three steps,
 *    without order.
 * C5 A failed flush is sticky: what it should have made durable may be lost without another sign,
 *    so every WRITE and FLUSH after it fails, until the disk is closed and opened again.  Linux
 *    answers an error on a FLUSH by never sending one again; the failing writes are what it
 *    cannot ignore.
 * C6 A durable write that fails is as bad as a failed flush: the kernel reports a write-back
 *    error once, and a store that its cache could not be flushed, so it may be an earlier
 *    write's.  That holds past the page cache and for a lane's as well.  For the same reason a
 *    failure takes along what is under way: a flush or a durable write that does well after it
 *    fails too.
 * C7 A WRITE that finds no space is not answered: it waits, and is tried again; unless the disk
 *    was told to report it.
 * C8 So is a FLUSH whose metadata finds no space: the image has kept what it could not write.  It
 *    is no failed flush in the sense of C5, for an fdatasync that fails never says that there is
 *    no space (td/io.h). Reported to the guest, it is one: see C5 for Linux.
 * C9 What a lane does past this layer (tapdisk/cache/lane.h) counts as done by it.  Its writes
 *    are in the count of C2: whoever has seen one answered, on whatever ring, and sends a FLUSH
 *    then, finds it counted, since it was counted before the answer was put into the ring. A
 *    BARRIER starts, a pause is reached, data are taken from their place (a DISCARD, zeroes), and
 *    a part of a block is changed, when all lanes are closed; they open when it is over.  A WRITE
 *    that a lane hands over for want of space does not stand behind what came while it was under
 *    way there.
 * C10 A mode's promise begins with images whose contents are durable (S1 of lib/settle.h), and
 *    with nothing that an earlier mode has promised less about: what flushes have covered in a
 *    mode that drops them is not covered.
 *
 * One thing: barriers, flushes, space and lanes are steps of one request's way, each of which
 * may send it to any other.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/io/file.h"
#include "tapdisk/cache/cache-inside.h"
#include "tapdisk/cache/lane.h"

/* A request's way through the image: our child of it. */
struct cache_op {
	struct td_req child;
	struct td_req *req;
	struct cache *c;
	struct cache_op *next;
	bool stops; /* counted in c->stopping */
};

static bool is_sequence(const struct td_req *req)
{
	return req->flags & (TD_BARRIER | TD_PREFLUSH);
}

void cache_check_idle(struct cache *c)
{
	if (c->idle && ((c->quiesced && cache_image_idle(c)) || !c->active))
		c->idle(c);
}

void cache_answer(struct cache *c, struct td_req *req, int err)
{
	c->active--;
	req->done(req, err);
	if (cache_barrier_may_start(c))
		cache_sequence(c, c->barrier, 0);
	else
		cache_check_idle(c);
}

void cache_finish(struct cache *c, struct td_req *req, int err)
{
	if (is_sequence(req))
		cache_sequence(c, req, err);
	else
		cache_answer(c, req, err);
}

/* --- to the image and back --- */

static void op_done(struct td_req *child, int err);

static struct cache_op *op_get(struct cache *c)
{
	struct cache_op *op = c->ops;

	if (op) {
		c->ops = op->next;
		return op;
	}
	/* kept when done: after the first burst nothing is allocated */
	return calloc(1, sizeof *op);
}

static bool parked(const struct cache *c, const struct td_req *req)
{
	return c->quiesced || (c->out_of_space && req->op == TD_WRITE && req != c->probe &&
			       !cache_leaving(c, req));
}

static void park(struct cache *c, struct td_req *req)
{
	td_list_add(&c->waiting, &req->link);
	if (c->probe == req)
		c->probe = NULL; /* it was to be sent when the lanes are closed */
}

/* Does it take data from where lanes know them, or is it a read-modify-write of a block that they
 * may be writing?  C9 */
static bool stops_lanes(const struct cache *c, const struct td_req *req)
{
	if (req->op == TD_READ)
		return false;
	if (c->block > 512 && (req->off | req->len) % c->block)
		return true;
	return req->op != TD_WRITE && c->mapped && !c->whole;
}

/* Is it to be durable when it is acknowledged? */
static bool lasting(const struct cache *c, const struct td_req *req)
{
	return req->op != TD_READ && (c->mode->fua_every_write || (req->flags & TD_FUA));
}

static void send_now(struct cache *c, struct td_req *req)
{
	struct cache_op *op = op_get(c);

	if (!op) {
		if (c->probe == req)
			c->probe = NULL; /* the timer sends another */
		cache_finish(c, req, -ENOMEM);
		return;
	}
	op->req = req;
	op->c = c;
	op->child.op = req->op;
	op->child.flags = (req->op == TD_WRITE && lasting(c, req) ? TD_FUA : 0) |
			  (req->flags & TD_UNMAP); /* C1 */
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

void cache_send(struct cache *c, struct td_req *req)
{
	if (req->op != TD_READ && c->sticky)
		cache_finish(c, req, -EIO); /* C5 */
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
		cache_send(c, td_entry(l, struct td_req, link));
}

static void op_done(struct td_req *child, int err)
{
	struct cache_op *op = td_entry(child, struct cache_op, child);
	struct cache *c = op->c;
	struct td_req *req = op->req;
	bool write = req->op != TD_READ, probe;

	assert(c->magic == CACHE_MAGIC);
	op->next = c->ops;
	c->ops = op;
	c->at_image--;
	if (op->stops && !--c->stopping)
		lanes_update(c);
	if (write)
		c->written++; /* C2; a failed write may have changed something too */
	if (write && cache_is_full(err) && !c->report_enospc && !cache_leaving(c, req)) {
		cache_write_waits(c, req, err); /* C7 */
		return;
	}
	if ((child->flags & TD_FUA) && err)
		cache_durable_failed(c, err); /* C6 */
	else if ((child->flags & TD_FUA) && c->sticky)
		err = -EIO; /* C6: a concurrent failure may have consumed the error that this write
			       was to hear */
	if (write && err && err != -EOPNOTSUPP)
		cache_tell_torn(c);
	/* only the write that was sent to see tells: others may lie where space is taken already */
	probe = c->probe == req;
	if (!err && req->op != TD_WRITE && lasting(c, req))
		cache_flush_add(c, req); /* C1 */
	else
		cache_finish(c, req, err);
	if (probe && c->out_of_space)
		cache_probed(c, err);
	cache_check_idle(c);
}

/* --- the outside --- */

void cache_dispatch(struct cache *c, struct td_req *req)
{
	if (is_sequence(req))
		cache_sequence_begin(c, req);
	else if (req->op == TD_FLUSH)
		cache_flush_add(c, req);
	else
		cache_send(c, req);
}

void cache_submit(struct cache *c, struct td_req *req)
{
	assert(c->magic == CACHE_MAGIC);
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
	cache_dispatch(c, req);
}

void cache_submit_again(struct cache *c, struct td_req *req)
{
	assert(c->magic == CACHE_MAGIC);
	assert(!c->barrier || c->barrier->state[0] == STEP_DRAIN); /* C4: which waits for it */
	c->n.writes++;
	c->active++;
	cache_send(c, req);
}

void cache_init(struct cache *c, struct ev_loop *loop, void *owner)
{
	memset(c, 0, sizeof *c);
	c->magic = CACHE_MAGIC;
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
	cache_space_init(c);
}

void cache_fini(struct cache *c)
{
	assert(c->magic == CACHE_MAGIC);
	assert(!c->active && td_list_empty(&c->held) && td_list_empty(&c->lanes));
	ev_timer_stop(c->loop, &c->retry);
	while (c->ops) {
		struct cache_op *op = c->ops;

		c->ops = op->next;
		free(op);
	}
	c->magic = 0;
}

void cache_attach(struct cache *c, const struct td_cache_mode *mode, struct td_image *image,
		  struct td_io *io, bool fresh)
{
	bool dropped = c->mode->drop_flush;

	assert(c->magic == CACHE_MAGIC);
	assert(c->quiesced && !c->image);
	c->mode = mode;
	c->image = image;
	c->io = io;
	c->mapped = image->driver->map;
	c->whole = c->mapped && image->driver->map(image, 0, image->info.size, &c->map) &&
		   c->map.whole;
	c->block = c->whole && c->map.file ? c->map.file->st.off_align : 0;
	if (dropped && !mode->drop_flush)
		c->flushed = 0; /* C10 */
	if (fresh) {
		c->sticky = 0;
		c->written = 1;
		c->flushed = 0;
	}
}

void cache_detach(struct cache *c)
{
	assert(c->magic == CACHE_MAGIC);
	assert(c->quiesced && cache_image_idle(c));
	c->image = NULL;
	c->io = NULL;
	c->mapped = c->whole = false;
}

bool cache_image_idle(const struct cache *c)
{
	assert(c->magic == CACHE_MAGIC);
	return !c->at_image && !c->flush_running && lanes_closed(c);
}

bool cache_at_work(const struct cache *c)
{
	assert(c->magic == CACHE_MAGIC);
	return c->at_image || c->flush_running || lanes_busy(c);
}

bool cache_lets_lanes(const struct cache *c)
{
	assert(c->magic == CACHE_MAGIC);
	return c->image && !c->quiesced && !c->barrier && td_list_empty(&c->held) &&
	       td_list_empty(&c->stoppers) && !c->stopping && !c->alone && c->image->driver->map &&
	       !c->image->fault;
}

void cache_lanes_closed(struct cache *c)
{
	assert(c->magic == CACHE_MAGIC);
	if (!lanes_closed(c))
		return;
	send_stopping(c);
	if (cache_barrier_may_start(c))
		cache_sequence(c, c->barrier, 0);
	lanes_update(c); /* what they were closed for may have failed, or wait for space */
	cache_check_idle(c);
}

bool cache_hold(struct cache *c)
{
	assert(c->magic == CACHE_MAGIC);
	if (c->quiesced)
		return false;
	c->at_image++;
	return true;
}

void cache_unhold(struct cache *c)
{
	assert(c->magic == CACHE_MAGIC);
	c->at_image--;
	cache_check_idle(c);
}

void cache_quiesce(struct cache *c)
{
	assert(c->magic == CACHE_MAGIC);
	c->quiesced = true;
	lanes_update(c);
	cache_check_idle(c);
}

void cache_resume(struct cache *c)
{
	assert(c->magic == CACHE_MAGIC);
	c->quiesced = false;
	cache_send_waiting(c);
	send_stopping(c);
	cache_flush_next(c);
	cache_release_held(c);
}
