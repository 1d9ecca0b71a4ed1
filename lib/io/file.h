/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An open image file or block device: what drivers read and write through.
 *
 * td_file_io() hides the alignment that direct I/O asks for: what is aligned goes straight to the
 * engine; a misaligned buffer is bounced; a write that covers part of a block of the store is a
 * read-modify-write, serialised against every change that touches the same block.
 */
#ifndef TD_LIB_FILE_H
#define TD_LIB_FILE_H

#include "td/io.h"

/* What is read instead of some of a file's bytes (G9 of lib/redo.h); the file's own,
 * from when it is put there. */
struct td_file_over {
	/* on what has been read; any thread */
	void (*show)(const struct td_file_over *o, struct td_iop *read);
	void (*free)(struct td_file_over *o);
};

struct td_file {
	int fd;
	unsigned flags;    /* TD_FILE_* as opened */
	struct td_stat st; /* st.size is what it was at open or at the last td_file_size() */
	struct td_io *io;  /* the engine that opened it */
	char *path;
	struct td_list changes; /* lib/io/align.c: td_iop.at_file of those that are not with the
				   store yet, in order of arrival; direct only */
	int sync_err; /* -errno of a sync of it that failed: what comes after it fails too; atomic
			 (lib/io/io.c) */
	struct td_sync_mark *mark; /* of the disk that it belongs to; NULL: of none */
	struct td_file_over *over; /* NULL: it is read as it is */
	unsigned rmws, held;       /* of these, the read-modify-writes, and those that wait */
};

/* Opens and locks; on a fiber.  -EBUSY (with the holder's pid where it can be found) when another
 * has it. */
int td_file_open(struct td_io *io, const char *path, unsigned flags, struct td_file **out,
		 struct td_err *err);
/* One that an image names: opened as far as its word goes (lib/io/reach.h; NULL: anywhere). */
int td_file_open_in(struct td_io *io, const char *path, unsigned flags,
		    const struct td_reach *reach, struct td_file **out, struct td_err *err);
void td_file_close(struct td_file *f); /* on a fiber; nothing in flight; NULL is fine */
/*
 * For a file that is only read, and may be read through the page cache, by the engine `cached': is
 * it?  Then *flags and *io are changed to that.  Regular files alone are: the kernel keeps their
 * pages in agreement with what others write, and a block device's it does not.  One that cannot be
 * told is left as it is, and so is each where cached is NULL.  On a fiber.
 */
void td_file_cached(const char *path, struct td_io *cached, unsigned *flags, struct td_io **io);

/* All that a sync which failed may have lost has been written once more, and is complete: the next
 * sync says how that one went.  For whoever has those bytes in memory. */
void td_file_renewed(struct td_file *f);

/* The size now; on a fiber.  0 or -errno. */
int td_file_size(struct td_file *f, uint64_t *size);
/* Makes it `size' bytes long; on a fiber.  0 or -errno. */
int td_file_truncate(struct td_file *f, uint64_t size);

/* Data and holes; on a fiber.  As td_io_ops.extents: -EOPNOTSUPP where the store cannot tell. */
int td_file_extents(struct td_file *f, uint64_t off, uint64_t len, struct td_extent *out, int max);

/* One operation on f (op->file), through the engine io of the caller's queue.  As td_iop_queue().
 */
void td_file_io(struct td_io *io, struct td_iop *op);

/* The same on a fiber, waiting for the end: 0 or -errno.  buf needs no alignment. */
int td_file_rw(struct td_file *f, enum td_io_op op, void *buf, uint64_t off, uint64_t len,
	       unsigned flags);

/*
 * Does it go to the engine as it is, with nothing kept in op->file?  Then another thread may
 * td_iop_queue() it on its own engine; a write only where no read-modify-write can be beside it:
 * all that is written is whole blocks.
 */
bool td_align_none(const struct td_iop *op);

/* --- lib/io/align.c, for lib/io/file.c and lib/io/io.c --- */
void td_align_io(struct td_io *io, struct td_iop *op);
/* the engine is done with it; what it stood in the way of starts */
void td_align_end(struct td_iop *op);

/*
 * --- lib/io/file-lock.c, for lib/io/file-open.c ---
 * Takes the lock that goes with flags; one that only a dead process has is waited for, from start
 * on.  -EAGAIN: who has it is in who, or "".  td_file_open_wait: open(2), which waits likewise for
 * a device that such a one has claimed.
 */
struct timespec;
int td_file_lock(int fd, const char *path, unsigned flags, const struct timespec *start, char *who,
		 size_t len);
int td_file_open_wait(const char *path, int how, const struct timespec *start);
int td_file_busy(const char *who, const char *path, unsigned flags, struct td_err *err);
/* Beside fd, whose own locks do not count: does somebody read the file, or has it as a parent?  Of
 * another host too, where the file system carries fcntl locks (NFS, GFS2; not OCFS2 on o2cb). */
bool td_file_read_by_others(int fd);

/*
 * --- lib/io/file-op.c ---
 * fallocate(2), ftruncate(2) and lseek(2) of a file that is open here, by a process with root's
 * user id (tapdisk/opener); NULL: there is none beside this one.  In a worker.  As the calls, or
 * -errno.  Asked where the file system refuses this user: NFS and FUSE look at who calls, and ext4
 * keeps room for root.
 */
extern int (*td_root_allocate)(int fd, int mode, uint64_t off, uint64_t len);
extern int (*td_root_truncate)(int fd, uint64_t size);
extern int64_t (*td_root_seek)(int fd, uint64_t off, int whence);
bool td_file_refused(int err); /* -errno: of this user? */

/* --- lib/io/file-open.c: the blocking half of the table for engines that use real files --- */
int td_kernel_open(struct td_io *io, const char *path, unsigned flags, int *fd, struct td_stat *st,
		   struct td_err *err);
int td_kernel_open_in(struct td_io *io, const char *path, unsigned flags,
		      const struct td_reach *reach, int *fd, struct td_stat *st,
		      struct td_err *err);
void td_kernel_close(struct td_io *io, int fd);
int td_kernel_size(struct td_io *io, int fd, uint64_t *size);
int td_kernel_truncate(struct td_io *io, int fd, uint64_t size);
int td_kernel_extents(struct td_io *io, int fd, uint64_t off, uint64_t len, struct td_extent *out,
		      int max);

#endif
