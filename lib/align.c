/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What direct I/O does not take as it comes.  Two cases:
 *
 * - A misaligned buffer, or a read that is not whole blocks: through an aligned bounce buffer.
 * - A write to a store whose block is larger than 512 bytes.  A part of a block is read, changed and written back (RMW).
 *   Nothing else may write to that block in between, or its data would be undone.  So on such a store every write is tracked, in
 *   order of arrival, and
 *     A1 a write starts only when no earlier write that touches one of its blocks is still there, if either is an RMW;
 *     A2 a write leaves the list only when its data is with the store;
 *     A3 two whole-block writes never wait for each other: the guest that sends them at once gets what it asked for.
 *
 * All in the file's home thread.  Memory comes from the heap: this is not the hot path of a store with 512-byte blocks.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/file.h"

struct align_op {
	struct td_iop inner;  /* what goes to the engine */
	struct td_iop *outer; /* the caller's */
	struct td_io *io;
	struct td_list link;  /* td_file.writes */
	uint64_t from, to;    /* bytes: outer's range, widened to blocks */
	bool rmw, started, reading;
	char *bounce;         /* to - from bytes, or NULL where the caller's memory will do */
	struct iovec iov;
};

static bool memory_ok(const struct td_iop *op)
{
	const struct td_stat *st = &op->file->st;

	for (int i = 0; i < op->iovcnt; i++)
		if ((uintptr_t)op->iov[i].iov_base % st->mem_align || op->iov[i].iov_len % st->off_align)
			return false;
	return true;
}

bool td_align_ok(const struct td_iop *op)
{
	const struct td_stat *st = &op->file->st;

	if (op->op != TD_IO_READ && op->op != TD_IO_WRITE)
		return true;
	if (op->op == TD_IO_WRITE && st->off_align > 512)
		return false;
	return (op->off | op->len) % st->off_align == 0 && memory_ok(op);
}

static long no_memory(struct td_iop *op)
{
	return -ENOMEM;
}

/* An operation may not complete while it is queued: the error takes the way through a worker. */
static void fail_later(struct td_io *io, struct td_iop *op)
{
	op->op = TD_IO_CALL;
	op->call = no_memory;
	td_iop_queue(io, op);
}

/* Between the caller's pieces and the bounce buffer. */
static void copy(struct align_op *a, bool to_bounce)
{
	char *p = a->bounce + (a->outer->off - a->from);

	for (int i = 0; i < a->outer->iovcnt; i++) {
		struct iovec *v = &a->outer->iov[i];

		if (to_bounce)
			memcpy(p, v->iov_base, v->iov_len);
		else
			memcpy(v->iov_base, p, v->iov_len);
		p += v->iov_len;
	}
}

static bool conflict(const struct align_op *a, const struct align_op *b)
{
	return (a->rmw || b->rmw) && a->from < b->to && b->from < a->to; /* A1, A3 */
}

static void start(struct align_op *a)
{
	a->started = true;
	a->reading = a->rmw || a->outer->op == TD_IO_READ;
	if (!a->reading && a->bounce)
		copy(a, true);
	a->inner.op = a->reading ? TD_IO_READ : TD_IO_WRITE;
	a->inner.flags = a->reading ? TD_IO_EOF_ZERO : a->outer->flags;
	td_iop_queue(a->io, &a->inner);
}

/* Starts those tracked writes that nothing earlier stands in the way of any more. */
static void start_ready(struct td_file *f)
{
	td_list_each(l, &f->writes) {
		struct align_op *a = td_entry(l, struct align_op, link);
		bool free_to_go = !a->started;

		for (struct td_list *e = f->writes.next; free_to_go && e != l; e = e->next)
			free_to_go = !conflict(a, td_entry(e, struct align_op, link));
		if (free_to_go)
			start(a);
	}
}

static void finish(struct align_op *a, int err)
{
	struct td_iop *outer = a->outer;
	bool tracked = !td_list_empty(&a->link);

	td_list_del(&a->link); /* A2 */
	free(a->bounce);
	free(a);
	if (tracked)
		start_ready(outer->file);
	outer->done(outer, err);
}

static void inner_done(struct td_iop *inner, int err)
{
	struct align_op *a = td_entry(inner, struct align_op, inner);
	uint64_t before = a->outer->off - a->from, want = before + a->outer->len, moved = inner->moved;

	if (err) {
		finish(a, err);
	} else if (a->reading && a->rmw) {
		copy(a, true);
		a->reading = false;
		a->inner.op = TD_IO_WRITE;
		a->inner.flags = a->outer->flags;
		td_iop_queue(a->io, &a->inner);
	} else if (a->reading) {
		copy(a, false);
		a->outer->moved = moved >= want ? a->outer->len : moved > before ? moved - before : 0;
		finish(a, moved < want && !(a->outer->flags & TD_IO_EOF_ZERO) ? -EIO : 0);
	} else {
		finish(a, 0);
	}
}

void td_align_io(struct td_io *io, struct td_iop *op)
{
	struct td_file *f = op->file;
	uint64_t block = f->st.off_align;
	struct align_op *a = calloc(1, sizeof *a);

	if (!a) {
		fail_later(io, op);
		return;
	}
	td_list_init(&a->link);
	a->outer = op;
	a->io = io;
	a->from = op->off / block * block;
	a->to = (op->off + op->len + block - 1) / block * block;
	a->rmw = op->op == TD_IO_WRITE && (op->off | op->len) % block;
	if (a->rmw || op->op == TD_IO_READ || !memory_ok(op)) {
		if (posix_memalign((void **)&a->bounce, f->st.mem_align < 4096 ? 4096 : f->st.mem_align, a->to - a->from)) {
			free(a);
			fail_later(io, op);
			return;
		}
		a->iov = (struct iovec){a->bounce, a->to - a->from};
	}
	a->inner = (struct td_iop){.file = f,
				   .off = a->from,
				   .len = a->to - a->from,
				   .iov = a->bounce ? &a->iov : op->iov,
				   .iovcnt = a->bounce ? 1 : op->iovcnt,
				   .done = inner_done};
	if (op->op == TD_IO_READ || block <= 512) {
		start(a);
		return;
	}
	td_list_add(&f->writes, &a->link);
	start_ready(f);
}
