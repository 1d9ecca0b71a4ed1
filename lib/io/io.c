/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One thing: an operation goes down through align and merge to an engine, and its result comes
 * back up the same way; the engines' names stand here.
 */
#include "config.h"
#include "td/io.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/io/clock.h"
#include "lib/io/file.h"
#include "lib/io/io-engines.h"
#include "lib/kill.h"
#include "lib/io/merge.h"

#define TRIES_MAX 10000 /* rounds without progress after which an EAGAIN is an error after all */
/* ns that a system call may take for parts of a batch to go ahead: what the store gains by an early
 * start is less */
#define CALL_MAX 5000
/* A long batch is sent to the disk while the next requests are looked at: the first one at once, as
 * a disk that is idle gains most, and then more at a time, up to so many. */
#define AHEAD 4

/* Puts the iovec that a short round had advanced back as its owner knows it. */
static void iov_restore(struct td_iop *op)
{
	if (!op->skipped)
		return;
	op->iov[op->first].iov_base = (char *)op->iov[op->first].iov_base - op->skipped;
	op->iov[op->first].iov_len += op->skipped;
	op->skipped = 0;
}

static void iov_advance(struct td_iop *op, size_t n)
{
	size_t skip = op->skipped + n;

	iov_restore(op);
	while (op->first < op->iovcnt && skip >= op->iov[op->first].iov_len)
		skip -= op->iov[op->first++].iov_len;
	if (skip) {
		op->iov[op->first].iov_base = (char *)op->iov[op->first].iov_base + skip;
		op->iov[op->first].iov_len -= skip;
		op->skipped = skip;
	}
}

static struct td_sync_mark nobodys; /* of files that are of no disk */

static struct td_sync_mark *mark_of(const struct td_iop *op)
{
	return op->file->mark ? op->file->mark : &nobodys;
}

/* Can this operation return an earlier write-back's error, or an earlier flush's of the store? */
static bool syncs(const struct td_iop *op)
{
	return (op->op == TD_IO_SYNC || (op->op == TD_IO_WRITE && (op->flags & TD_IO_DSYNC))) &&
	       (!(op->file->flags & TD_FILE_NOSYNC) || (op->flags & TD_IO_SURE));
}

static void note_time(struct td_sync_mark *mark)
{
	__atomic_store_n(&mark->since, td_clock(), __ATOMIC_RELAXED);
}

/* Several threads count here: each ring's makes durable writes of its own (L5 in
 * tapdisk/cache/lane.h). */
static void note_begin(const struct td_iop *op)
{
	struct td_sync_mark *mark;

	if (!syncs(op))
		return;
	mark = mark_of(op);
	if (__atomic_load_n(&mark->begun, __ATOMIC_RELAXED) ==
	    __atomic_load_n(&mark->ended, __ATOMIC_RELAXED))
		note_time(mark);
	__atomic_fetch_add(&mark->begun, 1, __ATOMIC_RELEASE);
	TD_KILL(SYNC_COUNTED);
}

/* A write that finds no space has changed nothing, and one that cannot be done was not begun:
 * its disk has not failed. */
static bool says_nothing_of_write_back(const struct td_iop *op, int err)
{
	return op->op == TD_IO_WRITE && (err == -ENOSPC || err == -EDQUOT || err == -EOPNOTSUPP);
}

static void note_end(const struct td_iop *op, int err)
{
	struct td_sync_mark *mark;

	if (!syncs(op))
		return;
	mark = mark_of(op);
	if (err && !says_nothing_of_write_back(op, err)) {
		__atomic_fetch_add(&mark->failed, 1, __ATOMIC_RELEASE);
		TD_KILL(SYNC_FAILED);
	}
	if (__atomic_add_fetch(&mark->ended, 1, __ATOMIC_RELEASE) !=
	    __atomic_load_n(&mark->begun, __ATOMIC_RELAXED))
		note_time(mark);
	TD_KILL(SYNC_ENDED);
}

/*
 * The kernel tells one sync of two at once, or the first of two, that something was lost, and the
 * other, which covers the same, does well; and whoever waits for the second may be heard before
 * whoever waits for the first.  A durable write may be the one that hears of it.  So after one that
 * failed no sync and no durable write of the file does well, until td_file_renewed().
 */
static int sync_outcome(const struct td_iop *op, int err)
{
	if (!syncs(op))
		return err;
	if (err && !says_nothing_of_write_back(op, err))
		__atomic_store_n(&op->file->sync_err, err, __ATOMIC_RELEASE);
	return err ? err : __atomic_load_n(&op->file->sync_err, __ATOMIC_ACQUIRE);
}

void td_iop_finish(struct td_iop *op, int err)
{
	err = sync_outcome(op, err);
	note_end(op, err);
	op->flags &= ~(unsigned)TD_IO_ROOM;
	iov_restore(op);
	if (op->op == TD_IO_READ && !err && op->file->over)
		op->file->over->show(op->file->over, op);
	op->io->inflight--;
	if (op->change)
		td_align_end(op);
	op->done(op, err);
}

static void zero_rest(struct td_iop *op)
{
	for (int i = op->first; i < op->iovcnt; i++)
		memset(op->iov[i].iov_base, 0, op->iov[i].iov_len);
}

static void schedule(struct td_io *io)
{
	if (!io->dirty) {
		io->dirty = true;
		ev_feed_event(io->loop, &io->commit, EV_CUSTOM);
	}
}

void td_iop_send(struct td_iop *op)
{
	op->io->ops->queue(op->io, op);
	schedule(op->io);
}

static void again(struct td_iop *op)
{
	if (++op->tries > TRIES_MAX)
		td_iop_finish(op, -EIO);
	else
		td_iop_send(op);
}

/* A write without space, in a file system that may keep some for root: is there anybody to ask? */
static bool may_get_room(const struct td_iop *op, long res)
{
	return res == -ENOSPC && td_root_allocate && op->op == TD_IO_WRITE &&
	       !(op->flags & TD_IO_ROOM) && !op->file->st.blockdev;
}

/*
 * The kernel reports a failed write-back once, whatever the error is: made again, the sync would
 * succeed over lost data.  So no sync is tried again, nor a durable write.  Pages that found no
 * space on their way to the disk are lost as well; but a write that finds none has changed nothing,
 * and may wait for some.
 */
static long sync_failed(const struct td_iop *op, long res)
{
	if (!syncs(op))
		return res;
	if (op->op == TD_IO_SYNC && (res == -ENOSPC || res == -EDQUOT))
		return -EIO;
	return res == -EINTR || res == -EAGAIN ? -EIO : res;
}

void td_iop_result(struct td_iop *op, long res)
{
	if (res < 0 && op->op != TD_IO_CALL)
		res = sync_failed(op, res);
	if (may_get_room(op, res)) {
		op->flags |= TD_IO_ROOM;
		td_iop_send(op);
		return;
	}
	if (op->merged) {
		td_merge_result(op, res);
		return;
	}
	if (res == -EINTR || res == -EAGAIN) {
		again(op);
	} else if (res < 0 || (op->op != TD_IO_READ && op->op != TD_IO_WRITE)) {
		td_iop_finish(op, res < 0 ? (int)res : 0);
	} else if (op->moved + (uint64_t)res >= op->len) {
		op->moved += (uint64_t)res;
		td_iop_finish(op, 0);
	} else if (res == 0 && op->op == TD_IO_READ) { /* the end of the file */
		if (op->flags & TD_IO_EOF_ZERO) {
			zero_rest(op);
			td_iop_finish(op, 0);
		} else {
			td_iop_finish(op, -EIO);
		}
	} else if (res == 0) {
		again(op);
	} else {
		op->moved += (uint64_t)res;
		iov_advance(op, (size_t)res);
		td_iop_send(op);
	}
}

static void count_op(struct td_io *io, const struct td_iop *op)
{
	switch (op->op) {
	case TD_IO_READ:
		io->n.reads++;
		break;
	case TD_IO_WRITE:
		io->n.writes++;
		if ((op->flags & TD_IO_DSYNC) && !(op->file->flags & TD_FILE_NOSYNC))
			io->n.durable_writes++;
		break;
	case TD_IO_SYNC:
		io->n.syncs++;
		break;
	case TD_IO_CALL:
		break;
	default:
		io->n.punches++;
	}
}

void td_iop_queue(struct td_io *io, struct td_iop *op)
{
	op->io = io;
	op->moved = 0;
	op->first = 0;
	op->skipped = 0;
	op->tries = 0;
	op->change = TD_CHANGE_NONE;
	op->merged = false;
	io->inflight++;
	if (op->op == TD_IO_SYNC && !syncs(op)) {
		td_list_add(&io->nosync, &op->link);
		if (!ev_is_pending(&io->ready))
			ev_feed_event(io->loop, &io->ready, EV_CUSTOM);
		return;
	}
	count_op(io, op);
	note_begin(op);
	if (io->merge && td_merge_take(io, op))
		schedule(io);
	else
		td_iop_send(op);
}

static void on_commit(struct ev_loop *loop, ev_prepare *w, int revents)
{
	struct td_io *io = w->data;

	io->dirty = false;
	if (io->merge)
		td_merge_send(io);
	io->ops->commit(io);
}

void td_io_ahead(struct td_io *io, unsigned n)
{
	bool now = n < AHEAD ? !(n & (n - 1)) : n % AHEAD == 0;

	if (now && io && io->dirty && io->ops->ahead && td_call_cost() <= CALL_MAX)
		io->ops->ahead(io);
}

static void on_prepare(struct ev_loop *loop, ev_prepare *w, int revents)
{
	struct td_io *io = w->data;
	struct td_list now;
	struct td_list *l;

	td_list_init(&now);
	td_list_splice(&now, &io->nosync);
	while ((l = td_list_pop(&now)))
		td_iop_finish(td_entry(l, struct td_iop, link), 0); /* which no mark was made of */
}

void td_io_peek_begin(struct td_io *io)
{
	if (io->ops && io->ops->peek && !io->watched++)
		io->ops->watch(io, false);
}

bool td_io_peek(struct td_io *io)
{
	return io->watched && io->ops->peek(io);
}

unsigned td_io_peek_sees(const struct td_io *io)
{
	return io->watched ? io->ops->sees(io) : 0;
}

void td_io_peek_end(struct td_io *io)
{
	if (io->ops && io->ops->peek && !--io->watched)
		io->ops->watch(io, true);
}

int td_io_new_ops(struct ev_loop *loop, const struct td_io_ops *ops, void *priv, struct td_io **out)
{
	struct td_io *io = calloc(1, sizeof *io);
	int rc;

	if (!io)
		return -ENOMEM;
	io->ops = ops;
	io->loop = loop;
	io->priv = priv;
	td_list_init(&io->nosync);
	ev_init(&io->commit, on_commit);
	ev_set_priority(&io->commit, TD_PRI_COMMIT);
	io->commit.data = io;
	ev_init(&io->ready, on_prepare);
	io->ready.data = io;
	rc = ops->merges ? td_merge_new(&io->merge) : 0;
	if (!rc && ops->start)
		rc = ops->start(io);
	if (rc < 0) {
		td_merge_free(io->merge);
		free(io);
		return rc;
	}
	*out = io;
	return 0;
}

static const struct td_io_ops *const engines[] = {
	&td_io_aio,
#ifdef HAVE_URING
	&td_io_uring,
#endif
	&td_io_threads,
};

static const struct td_io_ops *engine_called(const char *name, struct td_err *err)
{
	char list[64] = "";

	for (size_t i = 0; i < sizeof engines / sizeof *engines; i++) {
		if (!strcmp(engines[i]->name, name))
			return engines[i];
		snprintf(list + strlen(list), sizeof list - strlen(list), ", %s", engines[i]->name);
	}
	td_fail(err, EINVAL,
		"no I/O engine is called '%.100s': the engines are auto%s (TAPDISK_IO, or io in "
		"tapdisk.conf)",
		name, list);
	return NULL;
}

/*
 * For O_DIRECT libaio and io_uring do the same work in the same time.  Reads of buffered files do
 * without the two hand-overs that a thread costs: bench/engines shows up to a third more of them
 * for down to half of the CPU.
 */
static const struct td_io_ops *suits(bool direct)
{
#ifdef HAVE_URING
	return direct ? &td_io_aio : &td_io_uring;
#else
	return direct ? &td_io_aio : &td_io_threads;
#endif
}

/* What to try where an engine cannot be had; NULL: nothing.  Only of kernel AIO is there a limit
 * for the whole host. */
static const struct td_io_ops *stand_in(const struct td_io_ops *ops, bool direct, int rc)
{
	if (ops == &td_io_threads)
		return NULL;
	if (ops == &td_io_aio)
		return rc == -EAGAIN ? &td_io_threads : NULL;
	return direct ? &td_io_aio : &td_io_threads;
}

int td_io_new(struct ev_loop *loop, const char *name, bool direct, struct td_io **out,
	      struct td_err *err)
{
	bool asked = name && strcmp(name, "auto");
	const struct td_io_ops *ops = asked ? engine_called(name, err) : suits(direct), *other;
	int rc;

	if (!ops)
		return -EINVAL;
	for (;;) {
		rc = td_io_new_ops(loop, ops, NULL, out);
		if (rc >= 0)
			return rc;
		other = stand_in(ops, direct, rc);
		if (!other)
			return td_fail(err, -rc, "cannot start the I/O engine %s: %s", ops->name,
				       strerror(-rc));
		td_log(asked || ops == &td_io_aio ? LOG_WARNING : LOG_INFO,
		       "the I/O engine %s cannot be had here (%s)%s: using %s", ops->name,
		       strerror(-rc),
		       ops == &td_io_aio ? " for want of contexts (raise fs.aio-max-nr)" : "",
		       other->name);
		ops = other;
	}
}

void td_io_free(struct td_io *io)
{
	if (!io)
		return;
	if (io->ops->stop)
		io->ops->stop(io);
	ev_clear_pending(io->loop, &io->commit);
	ev_clear_pending(io->loop, &io->ready);
	td_merge_free(io->merge);
	free(io);
}
