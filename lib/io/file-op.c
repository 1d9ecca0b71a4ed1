/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One operation as a system call that may block: what a worker thread does. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "lib/io/file.h"
#include "lib/io/workers.h"
#include "lib/kill.h"

static long run_fallocate(struct td_iop *op)
{
	int fd = op->file->fd, mode;

	if (op->op == TD_IO_DISCARD && op->file->st.blockdev) {
		uint64_t range[2] = {op->off, op->len};

		return ioctl(fd, BLKDISCARD, range) < 0 ? -errno : 0;
	}
	mode = op->op == TD_IO_ZERO ? FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE
				    : FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	return fallocate(fd, mode, (off_t)op->off, (off_t)op->len) < 0 ? -errno : 0;
}

long td_file_op(struct td_iop *op)
{
	bool durable = (op->flags & TD_IO_DSYNC) && !(op->file->flags & TD_FILE_NOSYNC);
	off_t off = (off_t)(op->off + op->moved);
	struct iovec *iov = op->iov + op->first;
	int n = op->iovcnt - op->first;
	long res;

	switch (op->op) {
	case TD_IO_READ:
		TD_KILL(READ_BEGIN);
		res = preadv(op->file->fd, iov, n, off);
		TD_KILL(READ_END);
		break;
	case TD_IO_WRITE:
		TD_KILL(WRITE_BEGIN);
		res = pwritev2(op->file->fd, iov, n, off, durable ? RWF_DSYNC : 0);
		TD_KILL(WRITE_END);
		break;
	case TD_IO_SYNC:
		TD_KILL(SYNC_BEGIN);
		res = TD_KILL_SYNC(fdatasync(op->file->fd));
		TD_KILL(SYNC_END);
		break;
	case TD_IO_CALL:
		return op->call(op);
	default:
		return run_fallocate(op);
	}
	return res < 0 ? -errno : res;
}
