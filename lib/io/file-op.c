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

int (*td_root_allocate)(int fd, int mode, uint64_t off, uint64_t len);
int (*td_root_truncate)(int fd, uint64_t size);
int64_t (*td_root_seek)(int fd, uint64_t off, int whence);

bool td_file_refused(int err)
{
	return err == -EACCES || err == -EPERM;
}

static int allocate(int fd, int mode, uint64_t off, uint64_t len)
{
	int rc = fallocate(fd, mode, (off_t)off, (off_t)len) < 0 ? -errno : 0;

	return td_root_allocate && (td_file_refused(rc) || rc == -ENOSPC)
		       ? td_root_allocate(fd, mode, off, len)
		       : rc;
}

/* Room that is root's, for a write that has found no other; where there is none, the write says so
 * once more. */
static void get_room(const struct td_iop *op)
{
	if (op->flags & TD_IO_ROOM)
		td_root_allocate(op->file->fd, FALLOC_FL_KEEP_SIZE, op->off + op->moved,
				 op->len - op->moved);
}

static long run_fallocate(struct td_iop *op)
{
	int fd = op->file->fd, mode;

	if (op->op == TD_IO_DISCARD && op->file->st.blockdev) {
		uint64_t range[2] = {op->off, op->len};

		return ioctl(fd, BLKDISCARD, range) < 0 ? -errno : 0;
	}
	mode = op->op == TD_IO_ZERO ? FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE
				    : FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	return allocate(fd, mode, op->off, op->len);
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
		get_room(op);
		TD_KILL(WRITE_BEGIN);
		res = TD_KILL_WRITE(op->file->fd, (uint64_t)off, op->off + op->len,
				    pwritev2(op->file->fd, iov, n, off, durable ? RWF_DSYNC : 0));
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
