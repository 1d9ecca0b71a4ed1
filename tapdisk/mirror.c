/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tapdisk/mirror.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/io/clock.h"
#include "lib/zeroes.h"

#define CROWDS     1024 /* a power of two */
#define CROWD_BITS 16   /* bytes of a disk, as a power of two, whose changes are counted together */
#define CROWDS_MAX 16   /* of one change; a wider one is compared with all */
#define PIECE      (1u << 20)
#define LOOKS      4 /* at a copy that does not answer, within `patience' */

/* A change or a flush, from here to both and back. */
struct mirror_op {
	struct td_list link; /* a change: mirror.changes */
	struct mirror_op *next;
	struct mirror *m;
	struct td_req *req;
	struct td_req leaf, copy;
	struct iovec *iov; /* of `copy'; `room' of them, which stay with the operation */
	int room;
	unsigned pending; /* of the two, and who is about to send one */
	int err;          /* the leaf's */
	bool by_hand;     /* zeroes that the copy gets as writes */
	uint64_t zeroed;  /* bytes of them */
};

struct mirror {
	struct td_image *image, *leaf, *copy;
	struct td_gate gate;
	struct ev_loop *loop;
	bool failed; /* other threads look at it */
	char why[200];
	void (*on_failed)(void *owner);
	void *owner;
	struct td_list changes; /* mirror_op.link: under way */
	struct td_list waiting; /* td_req.link: behind those that they overlap (MI4) */
	unsigned wide;          /* of the changes, those that `crowd' does not count */
	uint16_t crowd[CROWDS]; /* changes that touch a place, by its hash */
	struct mirror_op *free;
	unsigned at_copy; /* requests that it has */
	double heard;     /* seconds(), when it last answered, or was first asked */
	int patience;
	ev_timer look;
	uint64_t waited;
};

static void submit_change(struct mirror *m, struct td_req *req);

/* Not the wall clock's, which may be set: a guest would wait, or a good mirror fail. */
static double seconds(void)
{
	return (double)td_clock() / 1e9;
}

/* --- MI4: who overlaps whom --- */

static unsigned crowds(const struct td_req *req)
{
	uint64_t n = ((req->off + req->len - 1) >> CROWD_BITS) - (req->off >> CROWD_BITS) + 1;

	return n > CROWDS_MAX ? 0 : (unsigned)n;
}

static uint16_t *crowd(struct mirror *m, const struct td_req *req, unsigned i)
{
	return &m->crowd[((req->off >> CROWD_BITS) + i) % CROWDS];
}

static void crowd_by(struct mirror *m, const struct td_req *req, int by)
{
	unsigned n = crowds(req);

	if (!n)
		m->wide += (unsigned)by;
	for (unsigned i = 0; i < n; i++)
		*crowd(m, req, i) = (uint16_t)(*crowd(m, req, i) + by);
}

/* False: it surely overlaps none that is under way.  The cheap look, and most often the only one.
 */
static bool may_overlap(struct mirror *m, const struct td_req *req)
{
	unsigned n = crowds(req);
	bool any = m->wide || (!n && !td_list_empty(&m->changes));

	for (unsigned i = 0; i < n && !any; i++)
		any = *crowd(m, req, i);
	return any;
}

static bool meet(const struct td_req *a, const struct td_req *b)
{
	return a->off < b->off + b->len && b->off < a->off + a->len;
}

/* `req' stands in the list of those that wait, or is not in it yet (last). */
static bool must_wait(struct mirror *m, struct td_req *req, const struct td_list *last)
{
	if (may_overlap(m, req))
		td_list_each (l, &m->changes)
			if (meet(td_entry(l, struct mirror_op, link)->req, req))
				return true;
	for (struct td_list *l = m->waiting.next; l != last; l = l->next)
		if (meet(td_entry(l, struct td_req, link), req))
			return true;
	return false;
}

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

/* Takes the first off the list that waited for what is over, and overlaps none any more. */
static struct td_req *take_waiting(struct mirror *m, const struct td_req *over)
{
	td_list_each (at, &m->waiting) {
		struct td_req *w = td_entry(at, struct td_req, link);

		if (meet(over, w) && !must_wait(m, w, at)) {
			td_list_del(at);
			return w;
		}
	}
	return NULL;
}

static void begin_waiting(struct mirror *m, const struct td_req *over)
{
	struct td_req *w;

	while (!td_list_empty(&m->waiting) && (w = take_waiting(m, over)))
		submit_change(m, w);
}

static void put_op(struct mirror_op *op)
{
	struct mirror *m = op->m;
	struct td_req *req = op->req, over;
	int err = op->err;

	if (--op->pending)
		return;
	over = (struct td_req){.off = req->off, .len = req->len};
	if (req->op != TD_FLUSH) {
		td_list_del(&op->link);
		crowd_by(m, req, -1);
	}
	op->next = m->free;
	m->free = op;
	td_req_done(req, err);
	if (over.len)
		begin_waiting(m, &over);
}

/* --- the copy's half --- */

static void submit_copy(struct mirror_op *op)
{
	struct mirror *m = op->m;

	op->pending++;
	if (!m->at_copy++)
		m->heard = seconds();
	td_submit(m->copy, &op->copy);
}

/* The next piece of zeroes that it gets as a write (MI5). */
static void write_zeroes(struct mirror_op *op)
{
	uint64_t left = op->req->len - op->zeroed;
	int n = 0;

	op->copy.op = TD_WRITE;
	op->copy.flags = 0;
	op->copy.off = op->req->off + op->zeroed;
	op->copy.len = left < PIECE ? left : PIECE;
	for (uint64_t k = op->copy.len; k; k -= op->iov[n++].iov_len)
		op->iov[n] = td_zeroes_iov(k);
	op->copy.iov = op->iov;
	op->copy.iovcnt = n;
	op->zeroed += op->copy.len;
	submit_copy(op);
}

static void copy_failed(struct mirror *m, const struct td_req *req, int err)
{
	static const char *const what[] = {"a read", "a write", "a flush", "a discard",
					   "a write of zeroes"};
	char why[160];

	snprintf(why, sizeof why, "%s there failed: %s", what[req->op], strerror(-err));
	mirror_fail(m, why);
}

static void on_copy(struct td_req *child, int err)
{
	struct mirror_op *op = td_entry(child, struct mirror_op, copy);
	struct mirror *m = op->m;

	m->at_copy--;
	m->heard = seconds();
	if (err == -EOPNOTSUPP && child->op == TD_WRITE_ZEROES) {
		op->by_hand = true;
		err = 0;
	}
	if (err)
		copy_failed(m, child, err);
	else if (op->by_hand && op->zeroed < op->req->len && !m->failed)
		write_zeroes(op);
	put_op(op);
}

/* --- the leaf's --- */

static void on_leaf(struct td_req *child, int err)
{
	struct mirror_op *op = td_entry(child, struct mirror_op, leaf);
	struct mirror *m = op->m;

	op->err = err;
	if (!err && !m->failed && (child->op == TD_DISCARD || child->op == TD_WRITE_ZEROES))
		submit_copy(op); /* MI5 */
	put_op(op);
}

/* --- requests --- */

static void pass(struct mirror *m, struct td_req *req)
{
	td_forward(req, m->leaf);
}

/* Both halves, with all that may be asked of an image. */
static void fill_op(struct mirror *m, struct mirror_op *op, struct td_req *req)
{
	op->req = req;
	op->err = 0;
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
	op->copy.done = on_copy;
	if (req->op == TD_WRITE) {
		memcpy(op->iov, req->iov, (size_t)req->iovcnt * sizeof *op->iov);
		op->copy.iov = op->iov;
		op->copy.iovcnt = req->iovcnt;
	} else if (req->op == TD_DISCARD && !m->copy->info.discard) {
		op->copy.op = TD_WRITE_ZEROES;
		op->copy.flags = TD_UNMAP;
	}
}

static void send_op(struct mirror *m, struct td_req *req)
{
	bool data = req->op == TD_WRITE;
	struct mirror_op *op = get_op(m, data ? req->iovcnt : (int)(PIECE / TD_ZEROES));

	if (!op) {
		mirror_fail(m, "out of memory");
		pass(m, req);
		return;
	}
	fill_op(m, op, req);
	if (req->op != TD_FLUSH) {
		td_list_add(&m->changes, &op->link);
		crowd_by(m, req, 1);
	}
	if (data || req->op == TD_FLUSH)
		submit_copy(op);
	op->pending++;
	td_submit(m->leaf, &op->leaf);
	put_op(op);
}

static void submit_change(struct mirror *m, struct td_req *req)
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
	} else if (req->op == TD_FLUSH) {
		send_op(m, req);
	} else if (must_wait(m, req, &m->waiting)) {
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

	if (!m || m->failed)
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

/* What the copy's server had taken may be lost with the connection. */
static void on_copy_fault(struct td_image *image)
{
	mirror_fail(image->owner, image->fault);
}

static void listen_to_copy(struct mirror *m, bool on)
{
	for (struct td_image *i = m->copy; i; i = i->backing) {
		i->owner = on ? m : NULL;
		i->failed = on ? on_copy_fault : NULL;
	}
}

static void on_watch(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct mirror *m = w->data;
	char why[100];

	if (!m->at_copy || seconds() - m->heard < m->patience)
		return;
	snprintf(why, sizeof why, "it has not answered for %d s", m->patience);
	mirror_fail(m, why);
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
	struct td_image *leaf = image->backing;

	return leaf->driver->map && leaf->driver->map(leaf, off, len, out);
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
	image->info = leaf->info;
	image->backing = leaf;
	image->gate = &m->gate;
	listen_to_copy(m, true);
	ev_init(&m->look, on_watch);
	m->look.data = m;
	m->look.repeat = (double)patience / LOOKS;
	if (patience)
		ev_timer_again(m->loop, &m->look);
	*out = m;
	return 0;
}

void mirror_close(struct mirror *m)
{
	if (!m)
		return;
	assert(td_list_empty(&m->changes) && td_list_empty(&m->waiting) && !m->at_copy);
	ev_timer_stop(m->loop, &m->look);
	listen_to_copy(m, false);
	while (m->free) {
		struct mirror_op *op = m->free;

		m->free = op->next;
		free(op->iov);
		free(op);
	}
	td_image_close(m->image); /* which m is a part of */
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
