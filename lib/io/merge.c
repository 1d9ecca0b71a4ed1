/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is held is a run: operations of one file that continue each other, in the order in which
 * they were queued.  It goes to the engine with the turn's commit at the latest, or when an
 * operation comes that does not continue it: a part of the turn that is sent ahead leaves it to
 * grow.  Random I/O pays a compare.
 *
 * M1 no member completes before the kernel is done with the whole
 * M2 a member succeeds only with all of its bytes moved; one that was not reached, or reached in
 *    part, is sent again, alone
 * M3 an error is nobody's until it is known whose: the members are sent again, one by one.  Not
 *    so of a durable write: the failure of a write-back, or of a flush of the store, is reported
 *    once, so all whose data it may have been about get it
 * M4 only what may be done in any order is merged, as all that is queued between two completions
 *    is
 */
#include "lib/io/merge.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "lib/io/file.h"

/* of a run: beyond it the bytes cost, not the calls, and a guest does better with the first of it
 * early */
#define BYTES_MAX (128 * 1024)
#define IOV_MANY  64 /* of a run */
#define RUNS_MAX  32 /* in flight; more go unmerged */

_Static_assert(IOV_MANY <= IOV_MAX, "the kernel takes so many");

struct run {
	struct td_iop iop;      /* what the engine sees */
	struct td_list members; /* td_iop.link, by offset */
	struct run *next;       /* free */
	struct iovec iov[IOV_MANY];
};

struct td_merge {
	struct td_list held; /* td_iop.link, by offset */
	struct td_iop *last; /* of these; NULL: none */
	unsigned n;
	uint64_t end, len; /* bytes: where it ends, what it has */
	int iovcnt;
	struct run *free;
	unsigned used; /* of run[]: memory that was never needed is never touched */
	struct run run[RUNS_MAX];
};

int td_merge_new(struct td_merge **out)
{
	struct td_merge *m = calloc(1, sizeof *m);

	if (!m)
		return -ENOMEM;
	td_list_init(&m->held);
	*out = m;
	return 0;
}

void td_merge_free(struct td_merge *m)
{
	free(m);
}

static struct run *new_run(struct td_merge *m)
{
	struct run *r = m->free;

	if (r)
		m->free = r->next;
	else if (m->used < RUNS_MAX)
		r = &m->run[m->used++];
	return r;
}

static bool continues(const struct td_merge *m, const struct td_iop *op)
{
	const struct td_iop *last = m->last;

	return last && op->off == m->end && op->file == last->file && op->op == last->op &&
	       op->flags == last->flags && m->len + op->len <= BYTES_MAX &&
	       m->iovcnt + op->iovcnt <= IOV_MANY;
}

bool td_merge_take(struct td_io *io, struct td_iop *op)
{
	struct td_merge *m = io->merge;

	if (!continues(m, op)) {
		td_merge_send(io);
		if ((op->op != TD_IO_READ && op->op != TD_IO_WRITE) || op->len >= BYTES_MAX ||
		    op->iovcnt >= IOV_MANY)
			return false;
		m->len = 0;
		m->iovcnt = 0;
	}
	td_list_add(&m->held, &op->link);
	m->n++;
	m->last = op;
	m->end = op->off + op->len;
	m->len += op->len;
	m->iovcnt += op->iovcnt;
	return true;
}

static void send_merged(struct td_io *io, struct run *r)
{
	struct td_merge *m = io->merge;
	const struct td_iop *first = td_entry(m->held.next, struct td_iop, link);
	struct iovec *to = r->iov;

	r->iop = (struct td_iop){.op = first->op,
				 .flags = first->flags,
				 .file = first->file,
				 .off = first->off,
				 .len = m->len,
				 .iov = r->iov,
				 .iovcnt = m->iovcnt,
				 .io = io,
				 .merged = true};
	td_list_each (l, &m->held) {
		const struct td_iop *op = td_entry(l, struct td_iop, link);

		memcpy(to, op->iov, (size_t)op->iovcnt * sizeof *to);
		to += op->iovcnt;
	}
	td_list_init(&r->members);
	td_list_splice(&r->members, &m->held);
	io->n.merged += m->n - 1;
	io->ops->queue(io, &r->iop);
}

void td_merge_send(struct td_io *io)
{
	struct td_merge *m = io->merge;
	struct run *r = m->n > 1 ? new_run(m) : NULL;
	struct td_list *l;

	if (r)
		send_merged(io, r);
	else
		while ((l = td_list_pop(&m->held)))
			io->ops->queue(io, td_entry(l, struct td_iop, link));
	m->last = NULL;
	m->n = 0;
}

/* M3: does its error belong to all of them? */
static bool is_everybodys(const struct td_iop *op, long res)
{
	return res < 0 && op->op == TD_IO_WRITE && (op->flags & TD_IO_DSYNC) &&
	       !(op->file->flags & TD_FILE_NOSYNC);
}

void td_merge_result(struct td_iop *op, long res)
{
	struct run *r = td_entry(op, struct run, iop);
	struct td_merge *m = op->io->merge;
	uint64_t left = res > 0 ? (uint64_t)res : 0;
	bool all_fail = is_everybodys(op, res);
	struct td_list members;
	struct td_list *l;

	td_list_init(&members);
	td_list_splice(&members, &r->members);
	r->next = m->free; /* whoever completes may need it */
	m->free = r;
	while ((l = td_list_pop(&members))) {
		struct td_iop *member = td_entry(l, struct td_iop, link);

		if (all_fail) {
			td_iop_finish(member, (int)res);
		} else if (left >= member->len) { /* M2 */
			left -= member->len;
			member->moved = member->len;
			td_iop_finish(member, 0);
		} else {
			left = 0;
			td_iop_send(member);
		}
	}
}
