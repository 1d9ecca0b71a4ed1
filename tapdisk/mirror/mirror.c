/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A mirror: operations, and who gets them first; how one comes, fails and goes.
 *
 * One thing: each half of a change, the leaf's and the copy's, ends what the other may still wait
 * for, and lets go what stood behind it.
 */
#include "tapdisk/mirror/mirror-inside.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/zeroes.h"

/* --- operations --- */

static struct mirror_op *get_op(struct mirror *m, int iovcnt)
{
	struct mirror_op *op = m->free;
	struct iovec *iov;

	if (op)
		m->free = op->next;
	else if ((op = calloc(1, sizeof *op)))
		op->m = m;
	if (!op || iovcnt <= op->room)
		return op;
	iov = realloc(op->iov, (size_t)iovcnt * sizeof *iov);
	if (!iov) {
		op->next = m->free;
		m->free = op;
		return NULL;
	}
	op->iov = iov;
	op->room = iovcnt;
	return op;
}

void mirror_put_op(struct mirror_op *op)
{
	struct mirror *m = op->m;
	struct td_req *req = op->req, over;
	int err = op->err ? op->err : op->copy_err;

	if (--op->pending)
		return;
	over = (struct td_req){.off = req->off, .len = req->len};
	if (req->op != TD_FLUSH) {
		td_list_del(&op->link);
		mirror_count(m, req, -1);
	}
	op->next = m->free;
	m->free = op;
	td_req_done(req, err);
	if (over.len)
		mirror_begin_waiting(m, &over);
}

/* --- the leaf's --- */

/* Does the copy get it after the leaf (MI5, MI9)? */
static bool goes_on(const struct mirror *m, const struct td_req *child)
{
	if (m->part)
		return m->part == MIRROR_READ && child->op == TD_WRITE;
	return !m->failed && (child->op == TD_DISCARD || child->op == TD_WRITE_ZEROES);
}

static void on_leaf(struct td_req *child, int err)
{
	struct mirror_op *op = td_entry(child, struct mirror_op, leaf);
	struct mirror *m = op->m;

	op->err = err;
	if (mirror_overflows(m, child, err)) {
		mirror_leaf_is_full(op);
		return;
	}
	if (!err && goes_on(m, child))
		mirror_submit_copy(op);
	mirror_put_op(op);
}

/* --- requests --- */

static void pass(struct mirror *m, struct td_req *req)
{
	td_forward(req, m->redirected ? m->copy : m->leaf);
}

/* Both halves, with all that may be asked of an image. */
static void fill_op(struct mirror *m, struct mirror_op *op, struct td_req *req)
{
	op->req = req;
	op->err = op->copy_err = 0;
	op->by_hand = false;
	op->zeroed = 0;
	op->pending = 1;
	op->leaf.op = op->copy.op = req->op;
	op->leaf.flags = op->copy.flags = req->flags;
	op->leaf.off = op->copy.off = req->off;
	op->leaf.len = op->copy.len = req->len;
	op->leaf.io = op->copy.io = req->io;
	op->leaf.iov = req->iov;
	op->leaf.iovcnt = req->iovcnt;
	op->leaf.done = on_leaf;
	op->copy.done = mirror_on_copy;
	if (req->op == TD_WRITE) {
		memcpy(op->iov, req->iov, (size_t)req->iovcnt * sizeof *op->iov);
		op->copy.iov = op->iov;
		op->copy.iovcnt = req->iovcnt;
		op->copy.flags |= m->part ? TD_FUA : 0; /* MI9 */
	} else if (req->op == TD_DISCARD && !m->copy->info.discard) {
		op->copy.op = TD_WRITE_ZEROES;
		op->copy.flags = TD_UNMAP;
	}
}

/* A change that the leaf comes before, or a flush: is it sent to the copy at once? */
static bool copy_at_once(const struct mirror *m, const struct td_req *req)
{
	bool data = req->op == TD_WRITE, flush = req->op == TD_FLUSH;

	switch (m->part) {
	case MIRROR_READ:
		return flush || (data && m->redirected);
	case MIRROR_STANDBY:
		return m->redirected;
	case MIRROR_APART:
		break;
	}
	return data || flush;
}

static bool has_leaf(const struct mirror *m, const struct td_req *req)
{
	return !m->redirected || (m->part == MIRROR_STANDBY && req->op == TD_FLUSH);
}

static void send_op(struct mirror *m, struct td_req *req)
{
	bool data = req->op == TD_WRITE, leaf = has_leaf(m, req), copy = copy_at_once(m, req);
	struct mirror_op *op = get_op(m, data ? req->iovcnt : (int)(MIRROR_PIECE / TD_ZEROES));

	if (!op && m->part) {
		td_req_done(req, -ENOMEM);
		return;
	}
	if (!op) {
		mirror_fail(m, "out of memory");
		pass(m, req);
		return;
	}
	fill_op(m, op, req);
	if (req->op != TD_FLUSH) {
		td_list_add(&m->changes, &op->link);
		mirror_count(m, req, 1);
	}
	if (copy)
		mirror_submit_copy(op);
	if (leaf) {
		op->pending++;
		td_submit(m->leaf, &op->leaf);
	}
	mirror_put_op(op);
}

void mirror_submit_change(struct mirror *m, struct td_req *req)
{
	if (m->failed)
		pass(m, req);
	else
		send_op(m, req);
}

static void mirror_submit(struct td_image *image, struct td_req *req)
{
	struct mirror *m = image->priv;

	if (req->op == TD_READ || m->failed) {
		pass(m, req); /* MI6 */
	} else if (m->part && (req->op == TD_DISCARD || req->op == TD_WRITE_ZEROES)) {
		td_req_done(req, req->op == TD_DISCARD ? 0 : -EOPNOTSUPP); /* MI9 */
	} else if (req->op == TD_FLUSH) {
		send_op(m, req);
	} else if (mirror_must_wait(m, req, &m->waiting)) {
		m->waited++;
		td_list_add(&m->waiting, &req->link);
	} else {
		send_op(m, req);
	}
}

/* --- it fails --- */

void mirror_fail(struct mirror *m, const char *why)
{
	struct td_list now, *l;

	if (!m || m->failed || m->part)
		return;
	__atomic_store_n(&m->failed, true, __ATOMIC_RELEASE);
	snprintf(m->why, sizeof m->why, "%s", why);
	ev_timer_stop(m->loop, &m->look);
	td_log(LOG_ERR, "%s: its mirror, %s:%s, has failed, and the disk goes on without it: %s",
	       m->leaf->path, m->copy->driver->name, m->copy->path, why);
	m->on_failed(m->owner); /* MI2 */
	if (m->copy->driver->abandon)
		m->copy->driver->abandon(m->copy, why); /* MI3 */
	td_list_init(&now);
	td_list_splice(&now, &m->waiting);
	while ((l = td_list_pop(&now)))
		pass(m, td_entry(l, struct td_req, link));
}

void mirror_resized(struct mirror *m)
{
	if (!m)
		return;
	m->image->info = m->leaf->info;
	if (m->leaf->info.size != m->copy->info.size)
		mirror_fail(m, "the disk has grown, and the mirror has not");
}

/* --- for other threads (MI7) --- */

static bool keep_none(struct td_gate *g, struct td_req *req)
{
	return false; /* what is to be held is held below */
}

static bool pass_by(const struct td_gate *g, uint64_t off, uint64_t len)
{
	const struct mirror *m = td_entry(g, const struct mirror, gate);
	const struct td_gate *below = m->leaf->gate;

	return __atomic_load_n(&m->failed, __ATOMIC_ACQUIRE) &&
	       (!below || below->lets(below, off, len));
}

static bool mirror_map(struct td_image *image, uint64_t off, uint64_t len, struct td_map *out)
{
	const struct mirror *m = image->priv;
	struct td_image *leaf = image->backing;

	return !m->part && leaf->driver->map && leaf->driver->map(leaf, off, len, out);
}

static int mirror_extents(struct td_image *image, uint64_t off, uint64_t len, struct td_extent *out,
			  int max)
{
	out[0] = (struct td_extent){off, len, TD_EXTENT_PARENT}; /* the leaf's */
	return 1;
}

/* --- comes and goes --- */

static int nothing_to_open(struct td_image *image, struct td_err *err)
{
	return 0;
}

static void nothing_to_close(struct td_image *image)
{
}

static const struct td_driver driver = {
	.name = "mirror",
	.type = 16,
	.priv_size = sizeof(struct mirror),
	.open = nothing_to_open,
	.close = nothing_to_close,
	.submit = mirror_submit,
	.extents = mirror_extents,
	.map = mirror_map,
};

int mirror_open(struct td_image *leaf, struct td_image *copy, int patience,
		void (*failed)(void *owner), void *owner, struct mirror **out, struct td_err *err)
{
	struct td_image *image;
	struct mirror *m;
	int rc = td_image_open_how(&driver, leaf->path, &(struct td_how){.flags = leaf->file_flags},
				   leaf->io, &image, err);

	if (rc < 0)
		return rc;
	assert(copy->info.size == leaf->info.size);
	m = image->priv;
	*m = (struct mirror){.image = image,
			     .leaf = leaf,
			     .copy = copy,
			     .gate = {.holds = keep_none, .lets = pass_by},
			     .loop = leaf->io->loop,
			     .on_failed = failed,
			     .owner = owner,
			     .patience = patience};
	td_list_init(&m->changes);
	td_list_init(&m->waiting);
	td_list_init(&m->full);
	image->info = leaf->info;
	image->backing = leaf;
	image->gate = &m->gate;
	mirror_watch_copy(m);
	*out = m;
	return 0;
}

void mirror_join(struct mirror *m, enum mirror_part part, bool redirected,
		 void (*on_full)(void *owner), void (*on_lost)(void *owner, int err))
{
	mirror_leave_copy(m);
	m->part = part;
	m->redirected = redirected;
	m->on_full = on_full;
	m->on_lost = on_lost;
	if (part == MIRROR_STANDBY)
		m->copy->backing = m->leaf;
	if (redirected)
		m->image->backing = m->copy;
}

void mirror_close(struct mirror *m)
{
	if (!m)
		return;
	assert(td_list_empty(&m->changes) && td_list_empty(&m->waiting) &&
	       td_list_empty(&m->full) && !m->at_copy);
	mirror_leave_copy(m);
	if (m->part == MIRROR_STANDBY)
		m->copy->backing = NULL;
	while (m->free) {
		struct mirror_op *op = m->free;

		m->free = op->next;
		free(op->iov);
		free(op);
	}
	td_image_close(m->image); /* which m is a part of */
}

enum mirror_part mirror_part(const struct mirror *m)
{
	return m ? m->part : MIRROR_APART;
}

bool mirror_is_redirected(const struct mirror *m)
{
	return m && m->redirected;
}

struct td_image *mirror_image(struct mirror *m)
{
	return m->image;
}

const struct td_image *mirror_copy(const struct mirror *m)
{
	return m->copy;
}

const char *mirror_why(const struct mirror *m)
{
	return m->failed ? m->why : NULL;
}

struct mirror_stats mirror_stats(const struct mirror *m)
{
	return (struct mirror_stats){m->at_copy, m->waited};
}
