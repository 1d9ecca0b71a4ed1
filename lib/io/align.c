/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What direct I/O does not take as it comes.  Two cases:
 *
 * - A misaligned buffer, or a read that is not whole blocks: through an aligned bounce buffer.
 * - A write of a part of a block: the block is read, changed and written back (RMW).  Nothing else
 *   may change that block in between, or its change would be undone.  So every change of a direct
 *   file is on a list, in order of arrival, by these rules:
 *
 * A1 a change starts only when no earlier one that touches one of its blocks is still there, if
 *    either is an RMW
 * A2 a change leaves the list only when it is with the store
 * A3 changes that are no RMW never wait for each other: the guest that sends them at once gets
 *    what it asked for
 * A4 a file that other hosts write too has no RMW: nobody could serialise it against theirs.  It
 *    fails with -EOPNOTSUPP; whoever brings requests has refused it before
 *
 * A change is a WRITE, and no less a PUNCH, ZERO or DISCARD: what an RMW had read before it would
 * come back.
 *
 * All in the file's home thread.  Whole, aligned blocks take no memory and, while there is no RMW,
 * cost a list entry; the others' memory comes from the heap.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/io/file.h"

struct align_op {
	struct td_iop inner;  /* what goes to the engine */
	struct td_iop *outer; /* the caller's */
	uint64_t from;        /* bytes: where inner begins */
	bool rmw, reading;
	char *bounce;
	struct iovec iov;
};

static bool memory_ok(const struct td_iop *op)
{
	const struct td_stat *st = &op->file->st;

	for (int i = 0; i < op->iovcnt; i++)
		if ((uintptr_t)op->iov[i].iov_base % st->mem_align ||
		    op->iov[i].iov_len % st->off_align)
			return false;
	return true;
}

static bool whole_blocks(const struct td_iop *op)
{
	return (op->off | op->len) % op->file->st.off_align == 0;
}

bool td_align_none(const struct td_iop *op)
{
	return op->file->st.off_align <= 1 || (whole_blocks(op) && memory_ok(op));
}

static bool is_rmw(const struct td_iop *op)
{
	return op->op == TD_IO_WRITE && !whole_blocks(op);
}

static long no_memory(struct td_iop *op)
{
	return -ENOMEM;
}

static long not_shared(struct td_iop *op)
{
	return -EOPNOTSUPP;
}

/* An operation may not complete while it is queued: the error takes the way through a worker. */
static void fail_later(struct td_io *io, struct td_iop *op, long (*why)(struct td_iop *op))
{
	op->op = TD_IO_CALL;
	op->call = why;
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

static void finish_op(struct align_op *a, int err)
{
	struct td_iop *outer = a->outer;

	free(a->bounce);
	free(a);
	td_align_end(outer);
	outer->done(outer, err);
}

static void inner_done(struct td_iop *inner, int err)
{
	struct align_op *a = td_entry(inner, struct align_op, inner);
	uint64_t before = a->outer->off - a->from, want = before + a->outer->len,
		 moved = inner->moved;

	if (err) {
		finish_op(a, err);
	} else if (a->reading && a->rmw) {
		copy(a, true);
		a->reading = false;
		a->inner.op = TD_IO_WRITE;
		a->inner.flags = a->outer->flags;
		td_iop_queue(a->inner.io, &a->inner);
	} else if (a->reading) {
		copy(a, false);
		a->outer->moved = moved >= want    ? a->outer->len
				  : moved > before ? moved - before
						   : 0;
		finish_op(a, moved < want && !(a->outer->flags & TD_IO_EOF_ZERO) ? -EIO : 0);
	} else {
		finish_op(a, 0);
	}
}

/* Through a bounce buffer. */
static void bounce(struct td_io *io, struct td_iop *op)
{
	const struct td_stat *st = &op->file->st;
	uint64_t block = st->off_align, to = (op->off + op->len + block - 1) / block * block;
	struct align_op *a = calloc(1, sizeof *a);

	if (!a) {
		fail_later(io, op, no_memory);
		return;
	}
	a->outer = op;
	a->from = op->off / block * block;
	a->rmw = is_rmw(op);
	a->reading = a->rmw || op->op == TD_IO_READ;
	if (posix_memalign((void **)&a->bounce, st->mem_align < 4096 ? 4096 : st->mem_align,
			   to - a->from)) {
		free(a);
		fail_later(io, op, no_memory);
		return;
	}
	a->iov = (struct iovec){a->bounce, to - a->from};
	a->inner = (struct td_iop){.op = a->reading ? TD_IO_READ : TD_IO_WRITE,
				   .flags = a->reading ? TD_IO_EOF_ZERO : op->flags,
				   .file = op->file,
				   .off = a->from,
				   .len = to - a->from,
				   .iov = &a->iov,
				   .iovcnt = 1,
				   .done = inner_done};
	if (!a->reading)
		copy(a, true);
	td_iop_queue(io, &a->inner);
}

/* --- the order of changes --- */

/* Do they touch a common block, and is one of them an RMW?  A1, A3. */
static bool conflict(const struct td_iop *a, const struct td_iop *b)
{
	uint64_t block = a->file->st.off_align;

	return (a->rmw || b->rmw) && a->off / block <= (b->off + b->len - 1) / block &&
	       b->off / block <= (a->off + a->len - 1) / block;
}

static bool must_wait(const struct td_file *f, const struct td_iop *op)
{
	if (!f->rmws)
		return false;
	for (const struct td_list *l = f->changes.next; l != &op->at_file; l = l->next)
		if (conflict(op, td_entry(l, struct td_iop, at_file)))
			return true;
	return false;
}

static void start_op(struct td_io *io, struct td_iop *op)
{
	if (op->op == TD_IO_WRITE && !(whole_blocks(op) && memory_ok(op)))
		bounce(io, op);
	else
		td_iop_queue(io, op);
	op->change = TD_CHANGE_STARTED; /* nothing completes while it is queued */
}

void td_align_end(struct td_iop *op)
{
	struct td_file *f = op->file;

	if (op->change == TD_CHANGE_NONE)
		return;
	op->change = TD_CHANGE_NONE;
	td_list_del(&op->at_file); /* A2 */
	f->rmws -= op->rmw;
	if (!f->held)
		return;
	td_list_each (l, &f->changes) {
		struct td_iop *next = td_entry(l, struct td_iop, at_file);

		if (next->change == TD_CHANGE_HELD && !must_wait(f, next)) {
			f->held--;
			start_op(next->io, next);
		}
	}
}

static void modify(struct td_io *io, struct td_iop *op)
{
	struct td_file *f = op->file;

	op->rmw = is_rmw(op);
	if (op->rmw && (f->flags & TD_FILE_SHARED)) { /* A4 */
		fail_later(io, op, not_shared);
		return;
	}
	f->rmws += op->rmw;
	td_list_add(&f->changes, &op->at_file);
	if (!must_wait(f, op)) {
		start_op(io, op);
		return;
	}
	op->change = TD_CHANGE_HELD;
	op->io = io;
	f->held++;
}

void td_align_io(struct td_io *io, struct td_iop *op)
{
	op->change = TD_CHANGE_NONE;
	if (op->op == TD_IO_SYNC || op->op == TD_IO_CALL)
		td_iop_queue(io, op);
	else if (op->op != TD_IO_READ)
		modify(io, op);
	else if (whole_blocks(op) && memory_ok(op))
		td_iop_queue(io, op);
	else
		bounce(io, op);
}

void td_file_io(struct td_io *io, struct td_iop *op)
{
	if (op->file->st.off_align <= 1)
		td_iop_queue(io, op);
	else
		td_align_io(io, op);
}
