/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The engine over io_uring: one io_uring_enter a turn, for direct files and for reads of buffered
 * ones.  What would block is the kernel's to hand to threads of its own, so that a write with
 * TD_IO_NEW goes the same way as all else; fallocate and calls go to ours.  So do writes and syncs
 * of a buffered file: most file systems make them in a thread in any case, but the kernel's last
 * one stays, and wakes every five seconds for ever; and what makes a file durable is an fdatasync
 * or a pwritev2 that who watches the process sees (strace, perf trace, audit), as with the other
 * engines.
 *
 * Neither buffers nor files are registered with it: in turns with fio, 4 KiB at depth 32, that took
 * a tenth of the CPU off reads and nothing off writes, and half of it off reads of 1 MiB at the
 * same rate; but registered memory is pinned, and a tapdisk at rest gives its buffers back.
 *
 * U1 A process that dies leaves requests in the kernel, and its exit does not wait for them as it
 *    does for kernel AIO's.  Each of them holds its file open, and by that the lock on it: whoever
 *    takes the lock next (lib/io/file-lock.c waits for one that no process has) comes after the
 *    last of them.  So only a file whose lock keeps all others off goes this way; the exit does
 *    wait for threads.
 *
 * U2 A ring takes the operations that prepare_sqe() makes and no others, where the kernel can
 *    restrict it (5.10): opening files and making sockets by a ring meet no system call filter.
 *    A process that forbids itself to make rings (tapdisk/sandbox/sandbox.c) makes before that
 * those that it may need, restricted, and then uses no others.
 */
#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/io/file.h"
#include "lib/io/io-engines.h"
#include "lib/io/io-uring.h"
#include "lib/kill.h"
#include "lib/io/workers.h"

/* operations in the kernel at once; it has room for twice as many completions */
#define URING_DEPTH 128

struct uring {
	struct io_uring ring;
	ev_io ready;           /* the ring's own descriptor: readable while there are completions */
	struct td_list queued; /* not yet in the ring, in order */
	unsigned inkernel;     /* in the ring, sent or not */
	struct td_list blocking; /* for our threads */
	struct td_workers *workers;
};

static void complete(struct uring *u, struct td_iop *op, int res)
{
	u->inkernel--;
	td_iop_result(op, res == -ECANCELED ? -EAGAIN : res);
}

static bool reap(struct uring *u)
{
	struct io_uring_cqe *cqe;
	bool any = false;

	/* a system call only where the kernel says that it is owed one */
	while (!io_uring_peek_cqe(&u->ring, &cqe)) {
		struct td_iop *op = io_uring_cqe_get_data(cqe);
		int res = cqe->res;

		io_uring_cqe_seen(&u->ring, cqe);
		complete(u, op, res);
		any = true;
	}
	return any;
}

/* What found no room in the kernel goes now. */
static void send_rest(struct td_io *io, struct uring *u)
{
	if ((!td_list_empty(&u->queued) || io_uring_sq_ready(&u->ring)) && !io->dirty) {
		io->dirty = true;
		ev_feed_event(io->loop, &io->commit, EV_CUSTOM);
	}
}

static void on_ready(struct ev_loop *loop, ev_io *w, int revents)
{
	struct td_io *io = w->data;

	reap(io->priv);
	send_rest(io, io->priv);
}

static bool uring_peek(struct td_io *io)
{
	if (!reap(io->priv))
		return false;
	send_rest(io, io->priv);
	return true;
}

static unsigned uring_sees(const struct td_io *io)
{
	return ((const struct uring *)io->priv)->inkernel;
}

static void uring_watch(struct td_io *io, bool on)
{
	struct uring *u = io->priv;

	if (on)
		ev_io_start(io->loop, &u->ready);
	else
		ev_io_stop(io->loop, &u->ready);
}

/* liburing 2.3, as distributions build it, does not export its functions for these. */
static int ring_register(struct io_uring *ring, unsigned what, void *arg, unsigned n)
{
	return (int)syscall(SYS_io_uring_register, ring->ring_fd, what, arg, n);
}

/* U2 */
static int restrict_ring(struct io_uring *ring)
{
	struct io_uring_restriction r[] = {
		{.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READV},
		{.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITEV},
		{.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_FSYNC},
	};

	return ring_register(ring, IORING_REGISTER_RESTRICTIONS, r, sizeof r / sizeof *r) ||
			       ring_register(ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0)
		       ? -errno
		       : 0;
}

/* Completions wait for our next way into the kernel rather than interrupt us; an older kernel does
 * without. */
static int make_ring(struct io_uring *ring, bool restricted)
{
	static const unsigned flags[] = {IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG, 0};
	int rc = -EINVAL;

	for (unsigned i = 0; rc == -EINVAL && i < 2; i++) {
		struct io_uring_params p = {.flags = flags[i] |
						     (restricted ? IORING_SETUP_R_DISABLED : 0)};

		rc = io_uring_queue_init_params(URING_DEPTH, ring, &p);
		if (rc)
			continue;
		if (!(p.features & IORING_FEAT_NODROP))
			rc = -ENOSYS;
		else if (restricted)
			rc = restrict_ring(ring);
		if (rc < 0)
			io_uring_queue_exit(ring);
	}
	return rc;
}

/* Those made before they were forbidden; a ring that is let go comes back here. */
static struct {
	pthread_mutex_t lock;
	bool only; /* no others may be made */
	unsigned n;
	struct io_uring rings[TD_URING_RESERVE_MAX];
} reserve = {.lock = PTHREAD_MUTEX_INITIALIZER};

int td_uring_reserve(unsigned n)
{
	int rc = 0;

	reserve.only = true;
	while (!rc && reserve.n < n && reserve.n < TD_URING_RESERVE_MAX) {
		rc = make_ring(&reserve.rings[reserve.n], true);
		reserve.n += !rc;
	}
	return rc;
}

static int start_ring(struct io_uring *ring)
{
	int rc;

	if (!reserve.only) {
		rc = make_ring(ring, true);
		return rc == -EINVAL ? make_ring(ring, false) : rc;
	}
	pthread_mutex_lock(&reserve.lock);
	rc = reserve.n ? 0 : -ENOSYS;
	if (!rc)
		*ring = reserve.rings[--reserve.n];
	pthread_mutex_unlock(&reserve.lock);
	return rc;
}

/* It has nothing under way. */
static void end_ring(struct io_uring *ring)
{
	if (!reserve.only) {
		io_uring_queue_exit(ring);
		return;
	}
	pthread_mutex_lock(&reserve.lock);
	if (reserve.n < TD_URING_RESERVE_MAX)
		reserve.rings[reserve.n++] = *ring;
	pthread_mutex_unlock(&reserve.lock);
}

static int uring_start(struct td_io *io)
{
	struct uring *u = calloc(1, sizeof *u);
	int rc;

	if (!u)
		return -ENOMEM;
	td_list_init(&u->queued);
	td_list_init(&u->blocking);
	rc = start_ring(&u->ring);
	if (rc < 0) {
		free(u);
		return rc;
	}
	rc = td_workers_new(io, &u->workers);
	if (rc < 0) {
		end_ring(&u->ring);
		free(u);
		return rc;
	}
	ev_io_init(&u->ready, on_ready, u->ring.ring_fd, EV_READ);
	u->ready.data = io;
	ev_io_start(io->loop, &u->ready);
	io->priv = u;
	return 0;
}

static void uring_stop(struct td_io *io)
{
	struct uring *u = io->priv;

	td_workers_free(u->workers);
	ev_io_stop(io->loop, &u->ready);
	end_ring(&u->ring);
	free(u);
}

/* U1 */
static bool has_lock(const struct td_file *f)
{
	return !(f->flags & (TD_FILE_RDONLY | TD_FILE_SHARED | TD_FILE_PARENT | TD_FILE_BENEATH |
			     TD_FILE_LOOK));
}

static bool for_kernel(const struct td_iop *op)
{
	bool direct = op->file && (op->file->flags & TD_FILE_DIRECT);

	return (op->op == TD_IO_READ ||
		(direct && (op->op == TD_IO_WRITE || op->op == TD_IO_SYNC))) &&
	       !(op->flags & (TD_IO_ROOM | TD_IO_NEAR)) && has_lock(op->file);
}

static void uring_queue(struct td_io *io, struct td_iop *op)
{
	struct uring *u = io->priv;

	td_list_add(for_kernel(op) ? &u->queued : &u->blocking, &op->link);
}

static void prepare_sqe(struct io_uring_sqe *sqe, struct td_iop *op)
{
	const struct iovec *iov = op->iov + op->first;
	unsigned n = (unsigned)(op->iovcnt - op->first);
	uint64_t off = op->off + op->moved;
	int fd = op->file->fd;

	if (op->op == TD_IO_READ)
		io_uring_prep_readv(sqe, fd, iov, n, off);
	else if (op->op == TD_IO_WRITE)
		io_uring_prep_writev2(
			sqe, fd, iov, n, off,
			(op->flags & TD_IO_DSYNC) && !(op->file->flags & TD_FILE_NOSYNC) ? RWF_DSYNC
											 : 0);
	else
		io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
	io_uring_sqe_set_data(sqe, op);
}

static void fill_ring(struct uring *u)
{
	struct io_uring_sqe *sqe;
	struct td_list *l;

	while (!td_list_empty(&u->queued) && u->inkernel < URING_DEPTH &&
	       (sqe = io_uring_get_sqe(&u->ring))) {
		l = td_list_pop(&u->queued);
		prepare_sqe(sqe, td_entry(l, struct td_iop, link));
		u->inkernel++;
	}
}

static void uring_ahead(struct td_io *io)
{
	struct uring *u = io->priv;
	unsigned left;

	fill_ring(u);
	while ((left = io_uring_sq_ready(&u->ring))) {
		int rc;

		TD_KILL(AIO_BEGIN);
		rc = io_uring_submit(&u->ring);
		TD_KILL(AIO_END);
		io->n.commits++;
		if (rc > 0 || rc == -EINTR)
			continue; /* it stops behind one that it refuses, whose completion says so
				   */
		if (left == u->inkernel)
			send_rest(io, u); /* short of memory, with nothing under way that would give
					     some back: the next turn tries again */
		break;
	}
}

static void uring_commit(struct td_io *io)
{
	struct uring *u = io->priv;

	uring_ahead(io);
	if (!td_list_empty(&u->blocking))
		td_workers_run(u->workers, &u->blocking);
}

const struct td_io_ops td_io_uring = {
	.name = "io_uring",
	.start = uring_start,
	.stop = uring_stop,
	.queue = uring_queue,
	.commit = uring_commit,
	.ahead = uring_ahead,
	.peek = uring_peek,
	.sees = uring_sees,
	.watch = uring_watch,
	.merges = true,
	.open = td_kernel_open,
	.open_in = td_kernel_open_in,
	.close = td_kernel_close,
	.size = td_kernel_size,
	.truncate = td_kernel_truncate,
	.extents = td_kernel_extents,
};
