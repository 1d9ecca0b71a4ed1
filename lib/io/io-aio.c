/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The engine for O_DIRECT files: kernel AIO.  One io_submit a turn; a flush is an IOCB_CMD_FDSYNC,
 * so that a slow one never holds up other I/O; what AIO cannot do (fallocate, open) goes to
 * threads.  So does a submission in which the kernel may block, that of writes that need new
 * blocks (TD_IO_NEW): a thread makes the io_submit of a whole batch, and they complete as all else.
 */
#include <errno.h>
#include <libaio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "lib/io/file.h"
#include "lib/io/io-engines.h"
#include "lib/kill.h"
#include "lib/io/workers.h"

/* operations in the kernel at once; small, since fs.aio-max-nr (65,536) is for the whole host */
#define AIO_DEPTH 128
#define BATCH_MAX 8 /* of writes that one thread submits */
/* Of the operations in the kernel, writes of new blocks: so many find a place however much else
 * waits for one, and so many at most, as a store on which they hang must leave some to others. */
#define FRESH_MIN 16
#define FRESH_MAX (AIO_DEPTH / 2)

_Static_assert(sizeof(struct iocb) <= sizeof(((struct td_iop *)0)->cb),
	       "an iocb fits into td_iop.cb");

/*
 * The head of the completion ring that the kernel maps at the context's address (fs/aio.c, struct
 * aio_ring): reading it saves the io_getevents call.  With another magic, the call is made.
 */
struct aio_ring {
	unsigned id, nr;
	unsigned head, tail;
	unsigned magic, compat_features, incompat_features, header_length;
	struct io_event events[];
};
#define AIO_RING_MAGIC 0xa10a10a1u

/*
 * Writes to one file that a thread submits.  Once the kernel has one it may be done, and be its
 * owner's again, at any time: the thread looks at each no more than before that.
 */
struct batch {
	struct td_iop call;
	struct aio *a;
	unsigned n; /* 0: the batch is free */
	struct td_iop *ops[BATCH_MAX];
	struct iocb *cbs[BATCH_MAX];
	struct td_list refused; /* by the kernel: made by the thread itself */
};

struct aio {
	io_context_t ctx;
	int efd;
	ev_io ready;
	struct td_list queued;   /* not yet in the kernel, in order */
	unsigned inkernel;       /* or in a batch, which a thread has yet to submit */
	unsigned nfresh;         /* of these, TD_IO_NEW */
	struct td_list blocking; /* for the threads */
	struct td_list fresh;    /* TD_IO_NEW, not yet in a batch */
	struct batch batches[TD_WORKERS_MAX];
	struct td_workers *workers;
};

static bool is_fresh(const struct td_iop *op)
{
	return op->op == TD_IO_WRITE && (op->flags & TD_IO_NEW);
}

static void over(struct aio *a, struct td_iop *op, long res)
{
	a->inkernel--;
	a->nfresh -= is_fresh(op);
	td_iop_result(op, res);
}

static void complete(struct aio *a, const struct io_event *e)
{
	over(a, td_entry(e->obj, struct td_iop, cb), (long)e->res);
}

static bool reap_ring(struct aio *a, struct aio_ring *r)
{
	unsigned tail = __atomic_load_n(&r->tail, __ATOMIC_ACQUIRE), head = r->head;

	if (head == tail)
		return false;
	while (head != tail) {
		struct io_event e = r->events[head];

		head = head + 1 == r->nr ? 0 : head + 1;
		__atomic_store_n(&r->head, head, __ATOMIC_RELEASE);
		complete(a, &e);
	}
	return true;
}

static void reap_call(struct aio *a)
{
	struct io_event e[32];
	struct timespec none = {0, 0};
	int n;

	do {
		n = io_getevents(a->ctx, 0, 32, e, &none);
		for (int i = 0; i < n; i++)
			complete(a, &e[i]);
	} while (n == 32);
}

/* The ring, if it is of the kind that we know. */
static struct aio_ring *ring_of(const struct aio *a)
{
	struct aio_ring *r = (struct aio_ring *)a->ctx;

	return r->magic == AIO_RING_MAGIC && !r->incompat_features ? r : NULL;
}

/* What found no room in the kernel goes now. */
static void send_rest(struct td_io *io, struct aio *a)
{
	if ((!td_list_empty(&a->queued) || !td_list_empty(&a->fresh)) && !io->dirty) {
		io->dirty = true;
		ev_feed_event(io->loop, &io->commit, EV_CUSTOM);
	}
}

static void on_ready(struct ev_loop *loop, ev_io *w, int revents)
{
	struct td_io *io = w->data;
	struct aio *a = io->priv;
	eventfd_t n;

	eventfd_read(a->efd, &n);
	if (ring_of(a))
		reap_ring(a, ring_of(a));
	else
		reap_call(a);
	send_rest(io, a);
}

static bool aio_peek(struct td_io *io)
{
	struct aio *a = io->priv;

	if (!ring_of(a) || !reap_ring(a, ring_of(a)))
		return false;
	send_rest(io, a);
	return true;
}

static unsigned aio_sees(const struct td_io *io)
{
	const struct aio *a = io->priv;

	return ring_of(a) ? a->inkernel : 0;
}

/* The eventfd stays as readable as it is, so that nothing is missed when it is watched again. */
static void aio_watch(struct td_io *io, bool on)
{
	struct aio *a = io->priv;

	if (!ring_of(a))
		return;
	if (on)
		ev_io_start(io->loop, &a->ready);
	else
		ev_io_stop(io->loop, &a->ready);
}

static int aio_start(struct td_io *io)
{
	struct aio *a = calloc(1, sizeof *a);
	int rc = -ENOMEM;

	if (!a)
		return rc;
	a->efd = -1;
	td_list_init(&a->queued);
	td_list_init(&a->blocking);
	td_list_init(&a->fresh);
	rc = io_setup(AIO_DEPTH, &a->ctx);
	if (rc < 0)
		goto fail;
	a->efd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	rc = a->efd < 0 ? -errno : td_workers_new(io, &a->workers);
	if (rc < 0)
		goto fail;
	ev_io_init(&a->ready, on_ready, a->efd, EV_READ);
	a->ready.data = io;
	ev_io_start(io->loop, &a->ready);
	io->priv = a;
	return 0;
fail:
	if (a->ctx)
		io_destroy(a->ctx);
	if (a->efd >= 0)
		close(a->efd);
	free(a);
	return rc;
}

static void aio_stop(struct td_io *io)
{
	struct aio *a = io->priv;

	td_workers_free(a->workers);
	ev_io_stop(io->loop, &a->ready);
	io_destroy(a->ctx);
	close(a->efd);
	free(a);
}

static struct td_list *way_of(struct aio *a, const struct td_iop *op)
{
	if (op->op == TD_IO_READ || op->op == TD_IO_SYNC)
		return &a->queued;
	if (op->op != TD_IO_WRITE || (op->flags & (TD_IO_ROOM | TD_IO_NEAR)))
		return &a->blocking;
	return is_fresh(op) ? &a->fresh : &a->queued;
}

static void aio_queue(struct td_io *io, struct td_iop *op)
{
	td_list_add(way_of(io->priv, op), &op->link);
}

static struct iocb *prepare_iocb(struct aio *a, struct td_iop *op)
{
	struct iocb *cb = (struct iocb *)(void *)op->cb.raw;
	struct iovec *iov = op->iov + op->first;
	int n = op->iovcnt - op->first;
	long long off = (long long)(op->off + op->moved);

	if (op->op == TD_IO_READ) {
		io_prep_preadv(cb, op->file->fd, iov, n, off);
	} else if (op->op == TD_IO_WRITE) {
		io_prep_pwritev(cb, op->file->fd, iov, n, off);
		if ((op->flags & TD_IO_DSYNC) && !(op->file->flags & TD_FILE_NOSYNC))
			cb->aio_rw_flags = RWF_DSYNC;
	} else {
		io_prep_fdsync(cb, op->file->fd);
	}
	io_set_eventfd(cb, a->efd);
	return cb;
}

/*
 * io_submit stops at the first operation that it refuses (a kernel or file system that cannot do it
 * asynchronously): a thread tries that one, and reports the error if there is one.
 */
static void divert(struct aio *a)
{
	td_list_add(&a->blocking, td_list_pop(&a->queued));
}

/* How much may be in the kernel without taking the places of what waits in `fresh'. */
static unsigned room_for_queued(struct aio *a)
{
	return td_list_empty(&a->fresh) || a->nfresh >= FRESH_MIN
		       ? AIO_DEPTH
		       : AIO_DEPTH - FRESH_MIN + a->nfresh;
}

static unsigned gather_iocbs(struct aio *a, struct iocb **batch)
{
	unsigned n = 0, room = room_for_queued(a);

	td_list_each (l, &a->queued) {
		if (a->inkernel + n >= room)
			break;
		batch[n++] = prepare_iocb(a, td_entry(l, struct td_iop, link));
	}
	return n;
}

static void aio_ahead(struct td_io *io)
{
	struct aio *a = io->priv;
	struct iocb *batch[AIO_DEPTH];
	unsigned n = gather_iocbs(a, batch), sent = 0;

	while (sent < n) {
		int rc;

		TD_KILL(AIO_BEGIN);
		rc = io_submit(a->ctx, n - sent, batch + sent);
		TD_KILL(AIO_END);
		io->n.commits++;
		if (rc > 0) {
			for (int i = 0; i < rc; i++)
				td_list_pop(&a->queued);
			sent += (unsigned)rc;
			a->inkernel += (unsigned)rc;
		} else if (rc == -EAGAIN && a->inkernel) {
			break; /* the kernel is full: goes on when something has completed */
		} else if (rc != -EINTR) {
			divert(a);
			sent++;
		}
	}
}

/* --- in a thread --- */

/* How many of the batch, from `from' on, the store has room for, as far as a lab's store is full
 * (lib/kill.h). */
static unsigned count_good(const struct batch *b, unsigned from)
{
	unsigned i = from;

	while (i < b->n && !TD_KILL_WRITE(b->ops[i]->file->fd, b->ops[i]->off + b->ops[i]->moved,
					  b->ops[i]->off + b->ops[i]->len, 0))
		i++;
	return i - from;
}

static long submit_batch(struct td_iop *call)
{
	struct batch *b = td_entry(call, struct batch, call);
	unsigned sent = 0;

	while (sent < b->n) {
		unsigned good = count_good(b, sent);
		int rc;

		TD_KILL(AIO_BEGIN);
		rc = good ? io_submit(b->a->ctx, good, b->cbs + sent) : -ENOSPC;
		TD_KILL(AIO_END);
		if (rc > 0) {
			sent += (unsigned)rc;
		} else if (rc != -EINTR) {
			struct td_iop *op = b->ops[sent++];

			op->res = td_file_op(op);
			td_list_add(&b->refused, &op->link);
		}
	}
	return 0;
}

static void batch_sent(struct td_iop *call, int err)
{
	struct batch *b = td_entry(call, struct batch, call);
	struct td_list *l;

	b->n = 0;
	while ((l = td_list_pop(&b->refused))) {
		struct td_iop *op = td_entry(l, struct td_iop, link);

		over(b->a, op, op->res);
	}
	send_rest(call->io, b->a);
}

static struct batch *free_batch(struct aio *a)
{
	for (unsigned i = 0; i < TD_WORKERS_MAX; i++)
		if (!a->batches[i].n)
			return &a->batches[i];
	return NULL;
}

static bool room_for_fresh(const struct aio *a)
{
	return a->inkernel < AIO_DEPTH && a->nfresh < FRESH_MAX;
}

/* As many of the first one's file as there is room for. */
static void fill_batch(struct aio *a, struct batch *b)
{
	const struct td_file *file = td_entry(a->fresh.next, struct td_iop, link)->file;

	td_list_each_safe (l, tmp, &a->fresh) {
		struct td_iop *op = td_entry(l, struct td_iop, link);

		if (b->n == BATCH_MAX || !room_for_fresh(a))
			break;
		if (op->file != file)
			continue;
		td_list_del(l);
		b->ops[b->n] = op;
		b->cbs[b->n++] = prepare_iocb(a, op);
		a->inkernel++;
		a->nfresh++;
	}
}

static void commit_fresh(struct td_io *io)
{
	struct aio *a = io->priv;
	struct batch *b;

	while (!td_list_empty(&a->fresh) && room_for_fresh(a) && (b = free_batch(a))) {
		b->call = (struct td_iop){
			.op = TD_IO_CALL, .call = submit_batch, .done = batch_sent, .io = io};
		b->a = a;
		td_list_init(&b->refused);
		fill_batch(a, b);
		io->inflight++;
		io->n.commits++;
		td_list_add(&a->blocking, &b->call.link);
	}
}

static void aio_commit(struct td_io *io)
{
	struct aio *a = io->priv;

	aio_ahead(io);
	commit_fresh(io);
	if (!td_list_empty(&a->blocking))
		td_workers_run(a->workers, &a->blocking);
}

const struct td_io_ops td_io_aio = {
	.name = "libaio",
	.start = aio_start,
	.stop = aio_stop,
	.queue = aio_queue,
	.commit = aio_commit,
	.ahead = aio_ahead,
	.peek = aio_peek,
	.sees = aio_sees,
	.watch = aio_watch,
	.merges = true,
	.open = td_kernel_open,
	.open_in = td_kernel_open_in,
	.close = td_kernel_close,
	.size = td_kernel_size,
	.truncate = td_kernel_truncate,
	.extents = td_kernel_extents,
};
