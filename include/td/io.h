/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The I/O engine: everything that touches a file goes through one table, so that a simulated or
 * faulty disk can replace the kernel.
 *
 * A struct td_io belongs to one queue (a thread and its event loop).  td_iop_queue() makes no
 * system call and never completes an operation; all that was queued in a turn of the loop goes out
 * in one commit at the turn's end, unless td_io_ahead() sends a part of a long batch ahead.
 * Completions run from the loop, in the same thread.
 *
 * The order of work within a turn is set by libev's priorities: the events that woke the loop are
 * handled first, the work that they caused follows.
 */
#ifndef TD_IO_H
#define TD_IO_H

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "td/list.h"
#include "td/log.h"

struct td_io;
struct td_iop;
struct td_file;
struct td_merge;
struct td_reach;

#define TD_PRI_EVENT  0  /* descriptors, timers, completions, fibers */
#define TD_PRI_RING   -1 /* responses pushed, guest notified, ring looked at once more */
#define TD_PRI_COMMIT -2 /* operations handed to the kernel */

enum td_io_op {
	TD_IO_READ,
	TD_IO_WRITE,
	/*
	 * fdatasync.  One that fails for want of space, or is interrupted (EINTR, EAGAIN), fails
	 * with -EIO and is not made again: what it should have made durable may be lost, and the
	 * kernel says so once.  So does a WRITE with TD_IO_DSYNC that is interrupted.
	 */
	TD_IO_SYNC,
	TD_IO_PUNCH, /* deallocate; the range reads as zeroes after it (-EOPNOTSUPP where the store
			cannot) */
	TD_IO_ZERO,  /* zeroes, allocated or not as the store likes best (-EOPNOTSUPP where it
			cannot) */
	TD_IO_DISCARD, /* a hint to give the space back; what the range reads afterwards is
			  undefined */
	TD_IO_CALL,    /* run call(op) in a thread that may block: open, stat, truncate */
};

enum {
	TD_IO_DSYNC = 1u << 0, /* of a WRITE: it and what it needs to be read back are durable
				  before done() */
	TD_IO_NEW = 1u << 2, /* a write where nothing has been written yet: the kernel may block to
				find room for it, so a thread submits it */
	/* a read beyond the end of the file gives zeroes; without it, -EIO */
	TD_IO_EOF_ZERO = 1u << 1,
	/* a SYNC that is one in a file with TD_FILE_NOSYNC as well */
	TD_IO_SURE = 1u << 3,
	TD_IO_ROOM = 1u << 4, /* io.c's own: no room was found; a thread asks for root's */
	/* a write of a buffered file that the page cache takes at once, most often, and that others
	 * wait for: a thread of this processor makes it, to which the loop gives way.  One that has
	 * to wait holds up no other thing than such writes. */
	TD_IO_NEAR = 1u << 5,
};

/*
 * One operation.  The caller owns the memory and fills the first part; it stays untouched by the
 * caller until done(). iov may be changed while the operation runs (a short transfer goes on from
 * where it stopped) and is as it was in done().
 */
struct td_iop {
	enum td_io_op op;
	unsigned flags;       /* TD_IO_* */
	struct td_file *file; /* not for TD_IO_CALL */
	uint64_t off, len;    /* bytes; len is the sum of iov for READ and WRITE */
	struct iovec *iov;
	int iovcnt; /* at most IOV_MAX */
	/* TD_IO_CALL: in a worker thread; its result, 0 or -errno */
	long (*call)(struct td_iop *op);
	/* 0 or -errno, never short; in the loop, never inside td_iop_queue */
	void (*done)(struct td_iop *op, int err);
	void *data; /* the caller's own */

	/* the engine's own, from here on */
	struct td_list link;
	struct td_list at_file; /* lib/io/align.c: among the changes of a direct file, when `change'
				   says so */
	enum { TD_CHANGE_NONE, TD_CHANGE_HELD, TD_CHANGE_STARTED } change;
	bool rmw;    /* the change is a read-modify-write */
	bool merged; /* lib/io/merge.c: stands for several */
	struct td_io *io;
	uint64_t moved; /* bytes transferred so far; in done(), without what TD_IO_EOF_ZERO made up
			 */
	int first;      /* index of the iovec where the rest starts */
	size_t skipped; /* bytes by which iov[first] is advanced */
	long res;       /* a worker's result */
	int tries;      /* rounds that made no progress (EINTR, EAGAIN) */
	union {
		uint64_t align;
		char raw[64]; /* the kernel's control block */
	} cb;
};

/* What a file is; filled by ops->open. */
struct td_stat {
	uint64_t size; /* bytes; of a block device, its capacity */
	bool blockdev;
	uint32_t mem_align; /* bytes: alignment of memory for direct I/O; 1 when buffered */
	uint32_t off_align; /* bytes: alignment of offsets and lengths for direct I/O; 1 when
			       buffered */
	uint32_t logical;   /* bytes: the smallest unit of a discard; of a block device its sector,
			       else 1 */
	uint32_t physical;  /* bytes: the size that the store writes without a read-modify-write of
			       its own */
	uint32_t discard_gran; /* bytes; 0: no discard */
};

/* A range of a file or an image, and what can be said of it without reading it; no flag: data. */
struct td_extent {
	uint64_t off, len; /* bytes */
	unsigned flags;    /* TD_EXTENT_* */
};

enum {
	TD_EXTENT_HOLE = 1u << 0,   /* takes no space */
	TD_EXTENT_ZERO = 1u << 1,   /* reads as zeroes */
	TD_EXTENT_PARENT = 1u << 2, /* a driver's word, alone: not in this image; the one below it
				       shows, or zeroes where there is none */
};

/* How to open; enum values may be or'ed. */
enum {
	TD_FILE_RDONLY = 1u << 0,
	TD_FILE_DIRECT = 1u << 1,  /* O_DIRECT, or refuse */
	TD_FILE_NOSYNC = 1u << 2,  /* TD_IO_SYNC and TD_IO_DSYNC cost no system call and promise
				      nothing (cache=unsafe) */
	TD_FILE_SHARED = 1u << 3,  /* no lock: other hosts write too (w!) */
	TD_FILE_PARENT = 1u << 4,  /* a shared read lock: others may read it, nobody may write it */
	TD_FILE_BENEATH = 1u << 5, /* writes that no child can see: locks out writers, but not those
				      who have it as a parent */
	/* read-only, without a lock: for a look at an image that may be in use */
	TD_FILE_LOOK = 1u << 6,
	TD_FILE_MAY_SHARE = 1u << 7, /* for an error's text: TD_FILE_SHARED would do */
	TD_FILE_CLAIM = 1u << 9,     /* with BENEATH: writes what children do read: nobody new comes
					to have it as a parent; with PARENT: except its owner */
	TD_FILE_COPY = 1u << 8,      /* of an image: all that it is given is elsewhere as well, and
					no promise is its own */
};

/*
 * An engine.  The calls of the first group are the data path, made by lib/io/io.c in the loop's
 * thread; those of the second may block and are made in a worker thread (or, by a simulated disk,
 * at once).
 */
struct td_io_ops {
	const char *name;
	/* makes io->priv; 0 or -errno (then nothing is left behind) */
	int (*start)(struct td_io *io);
	void (*stop)(struct td_io *io);                     /* nothing is in flight */
	void (*queue)(struct td_io *io, struct td_iop *op); /* no system call; never completes */
	/* sends what was queued; at most one system call a batch */
	void (*commit)(struct td_io *io);
	/* Optional: the same, at once, for what needs no thread; the rest, most often one writer
	 * after the other to one file, is better off with threads that are woken once. */
	void (*ahead)(struct td_io *io);
	/* Optional: completes what is done without a system call; true if there was anything. */
	bool (*peek)(struct td_io *io);
	unsigned (*sees)(
		const struct td_io *io); /* with peek: of how many under way it will know */
	void (*watch)(struct td_io *io, bool on); /* optional: whether completions wake the loop */
	bool merges; /* READs, and WRITEs, that continue each other come to it as one */

	int (*open)(struct td_io *io, const char *path, unsigned flags, int *fd, struct td_stat *st,
		    struct td_err *err);
	/*
	 * Optional: the same for a file that an image names, as far as that reaches
	 * (lib/io/reach.h); reach as in open: NULL.  An engine without it has files of its own that
	 * nobody else has.
	 */
	int (*open_in)(struct td_io *io, const char *path, unsigned flags,
		       const struct td_reach *reach, int *fd, struct td_stat *st,
		       struct td_err *err);
	void (*close)(struct td_io *io, int fd);
	/* the size now: files and devices grow */
	int (*size)(struct td_io *io, int fd, uint64_t *size);
	int (*truncate)(struct td_io *io, int fd, uint64_t size);
	/* Optional: HOLE|ZERO and data in [off, off + len), in order from off without gaps; at most
	 * max; their number, -EOPNOTSUPP, -errno. */
	int (*extents)(struct td_io *io, int fd, uint64_t off, uint64_t len, struct td_extent *out,
		       int max);
};

/* since td_io_new, as handed to the kernel */
struct td_io_counters {
	uint64_t commits;        /* batches: io_submit calls, or hand-overs to the threads */
	uint64_t reads, writes;  /* operations, without the rounds of short ones */
	uint64_t durable_writes; /* those of the writes that were TD_IO_DSYNC */
	uint64_t syncs;          /* fdatasync operations */
	uint64_t punches;        /* PUNCH, ZERO and DISCARD */
	uint64_t merged; /* operations that went to the kernel within another one's call: so many
			    fewer are there */
};

/*
 * Counts of fdatasyncs and durable writes, which survive the process: the kernel reports a failed
 * write-back once, and the process may die before it has recorded the report.  The engines keep the
 * counts for each file that has a mark (td_file.mark); all files of a disk share one.  Any thread.
 */
struct td_sync_mark {
	uint64_t begun, ended; /* so many; stored before the first goes to the kernel, and when the
				  outcome of the second is known ... */
	uint64_t failed;       /* ... but after this, if it was an error */
	/* ns of CLOCK_MONOTONIC: the last time at which one began alone, or ended */
	uint64_t since;
};

struct td_io {
	const struct td_io_ops *ops;
	struct ev_loop *loop;
	ev_prepare commit; /* never started: fed to the loop, at TD_PRI_COMMIT, by the first
			      operation of a turn */
	ev_prepare ready;  /* the same for operations that need no system call */
	struct td_list nosync;
	struct td_merge *merge; /* NULL: the engine does not merge */
	bool dirty;             /* something is queued and not committed */
	unsigned inflight;      /* operations queued and not done */
	unsigned watched;       /* by td_io_peek, so often begun */
	struct td_io_counters n;
	void *priv; /* the engine's */
};

/*
 * Makes an engine on the loop.  name: "libaio", "io_uring", "threads", or NULL or "auto" for the
 * one that suits `direct': libaio for O_DIRECT; io_uring for buffered files, where io_submit would
 * block.  io_uring that cannot be had falls back on libaio or threads, and says so in the log.
 * -EINVAL for an unknown name.  td_io_new_ops takes any table.
 */
int td_io_new(struct ev_loop *loop, const char *name, bool direct, struct td_io **out,
	      struct td_err *err);
int td_io_new_ops(struct ev_loop *loop, const struct td_io_ops *ops, void *priv,
		  struct td_io **out);
void td_io_free(struct td_io *io); /* nothing may be in flight; NULL is fine */

/* Queues an operation; it goes out with the next commit.  Cannot fail: errors come through done().
 */
void td_iop_queue(struct td_io *io, struct td_iop *op);

/*
 * For a caller that submits the requests of a batch one by one, after the n-th (from 1 on).  After
 * the first, the second, and each fourth, what is queued goes to the kernel before the turn's end,
 * since the store would be idle until then.  Three things stay: a run that may grow
 * (lib/io/merge.c), what is for threads, and all of it where a system call costs more than an early
 * start gains (td_call_cost).  io: NULL is fine.
 */
void td_io_ahead(struct td_io *io, unsigned n);

/*
 * For a caller that polls for a while: between begin and end completions come through td_io_peek(),
 * which is called again and again, and do not wake the loop.  An engine that cannot do that wakes
 * the loop as usual.  May nest.
 */
void td_io_peek_begin(struct td_io *io);
bool td_io_peek(struct td_io *io);
unsigned td_io_peek_sees(const struct td_io *io); /* how many operations under way it will show */
void td_io_peek_end(struct td_io *io);

/* For engines: one round of an operation is over with res bytes, or -errno.  Goes on with the rest
 * or calls done(). */
void td_iop_result(struct td_iop *op, long res);

#endif
