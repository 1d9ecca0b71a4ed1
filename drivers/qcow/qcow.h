/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An open qcow2 image, shared by the files of the driver:
 *
 *   qcow.c           submit: what goes at once and what goes to a fiber; the image below
 *   qcow-open.c      open, close
 *   qcow-end.c       finds clusters that the file is too short for, at open
 *   qcow-format.c    the bytes
 *   qcow-page.c      metadata in memory: pages of L2 tables and refcount blocks, bounded
 *   qcow-flush.c     writes metadata to the file, in order; the crash invariants (Q) are at its top
 *   qcow-refcount.c  allocates host clusters
 *   qcow-reap.c      frees host clusters, once nothing refers to them on disk or in flight
 *   qcow-refblock.c  room for more refcounts
 *   qcow-map.c       guest offset > host offset, and changes of the mapping
 *   qcow-bitmap.c    persistent dirty bitmaps
 *   qcow-crypt.c     encryption: what the key opens
 *   qcow-luks.c      encryption: the header that hides the key
 *   qcow-grow.c      makes the disk larger
 *   qcow-beneath.c   who else stands on a backing file
 *   qcow-relink.c    names another backing file, while the image is open
 *   qcow-part.c      the I/O of a part of a request that is mapped
 *   qcow-read.c  qcow-write.c  qcow-discard.c  qcow-zip.c
 *
 * All of it runs in the home queue's thread.  Code that waits is marked "fiber"; between two waits
 * nothing else runs, so that what is not held over a wait needs no lock.
 */
#ifndef DRIVERS_QCOW_H
#define DRIVERS_QCOW_H

#include "drivers/qcow/qcow-format.h"
#include "lib/fiber/fiber-lock.h"
#include "lib/io/file.h"
#include "lib/redo.h"
#include "td/block.h"

#define QCOW_PAGE 4096 /* bytes of a page of metadata; a cluster where that is smaller */
#define QCOW_CACHE                                                                                 \
	(8u                                                                                        \
	 << 20) /* bytes of pages in memory at most: the tables of 64 GiB in clusters of 64 KiB */
#define QCOW_FIBERS 64 /* slow requests under way at once */

enum qcow_kind {
	QCOW_RUN_NONE, /* not in this image: the backing file shows, or zeroes */
	QCOW_RUN_ZERO,
	QCOW_RUN_DATA,
	QCOW_RUN_ZIP,
	QCOW_RUN_MISS, /* the page that tells is not in memory */
	QCOW_RUN_BAD,  /* an entry that cannot be right */
};

/* What a piece of the disk is. */
struct qcow_run {
	enum qcow_kind kind;
	uint64_t len;   /* bytes of the same kind, contiguous in the file */
	uint64_t host;  /* DATA: offset in the data file */
	uint64_t entry; /* DATA, ZIP, BAD: the first cluster's L2 entry */
	bool own;       /* DATA: may be written in place */
};

enum qcow_page_kind { QCOW_PAGE_L2, QCOW_PAGE_REF };

struct qcow_page {
	uint64_t off; /* in the file; valid while `used' */
	uint8_t *data;
	struct qcow_page *next; /* in its hash chain */
	uint8_t kind;           /* enum qcow_page_kind */
	bool used, loading, writing, dirty;
	bool recent;  /* looked at since the clock's hand last passed */
	bool suspect; /* L2: an entry points into metadata */
};

/* A table of 64-bit offsets that stands in memory as a whole (L1, refcount table), and which of its
 * sectors are not on disk. */
struct qcow_table {
	uint64_t *entry; /* host byte order */
	uint32_t n;
	uint64_t off;    /* in the file */
	uint8_t *dirty;  /* one byte a sector of 64 entries */
	uint32_t ndirty; /* sectors */
};

/* Host clusters that are referenced no more by one reference. */
struct qcow_freed {
	uint64_t cluster, n;
};

struct qcow_freed_list {
	struct qcow_freed *at;
	size_t n, room;
};

/* A part of a request under way to a file or to the backing image. */
struct qcow_op {
	struct td_iop iop;
	struct td_req child;
	struct qcow *q;
	struct td_req *req;
	struct iovec *iov; /* room for iovmax */
	int iovmax;
	unsigned epoch;
	uint64_t crypt_at;    /* qcow_crypt_at() */
	void *bounce;         /* what is written of an encrypted image, or NULL */
	struct qcow_op *next; /* free ones */
};

struct qcow {
	struct td_image *image;
	struct td_io *io;
	struct td_file *file, *data; /* data == file unless there is an external data file */
	struct qcow_header h;
	uint8_t *first;        /* the header's sector, as on disk */
	unsigned cbits, ubits; /* a cluster's and a subcluster's (else a cluster's) bits */
	unsigned l2_bits;      /* bits of the disk that an L2 table covers */
	unsigned esize;        /* bytes of an L2 entry: 8 or 16 */
	bool ext, external, writable;
	bool v1; /* version 1: no refcounts, what is mapped is ours, nothing is given back */
	uint32_t l2_entries, page_entries; /* of an L2 table, and of a page of one */
	bool lazy;   /* refcounts are written at close, or when there is no memory for them (Q8) */
	bool forget; /* a discard leaves nothing, so that what is below shows again: for a commit */
	int broken;  /* -errno that every write meets from now on: the image was found corrupt */

	struct td_cipher *crypt; /* of the guest's bytes; NULL: in the clear.  Compressed clusters
				    always are */
	bool crypt_host; /* a sector's number is that of its place in the data file, not in the disk
			  */

	struct qcow_table l1, ref;
	struct {
		struct qcow_page *page, **hash;
		uint8_t *mem;
		uint32_t size, n, nhash, hand; /* size: bytes of a page */
		uint32_t ndirty, ndirty_refs;  /* refs: those of ndirty that hold refcounts */
		struct td_cond changed;        /* a page was loaded or written */
	} pages;
	struct {
		uint64_t *at; /* offsets of L2 tables and refcount blocks; 0: free */
		uint32_t n, used;
	} meta;

	/* clusters */
	struct td_lock alloc_lock, l1_lock;
	uint64_t end;    /* no cluster at or above it has ever been taken */
	uint64_t old;    /* bytes: the file's length at open; what lies beyond may never have been
			    written (TD_IO_NEW) */
	uint64_t space;  /* clusters below it have their space in the file system, or were there at
			    open */
	uint64_t length; /* bytes: the file is at least so long; what is taken below it and was
			    never written reads as zeroes */
	bool no_space;   /* the file system cannot reserve */
	uint64_t hint;   /* no free cluster below it, as far as known */
	struct qcow_freed_list freed; /* since the last write-back began */
	struct qcow_freed_list ready; /* given up on disk too: for the reaper */
	bool reaping;

	/* write-back */
	struct td_lock wb_lock;
	uint64_t wb_begun, wb_done; /* how many */
	int wb_err;
	bool wb_refs; /* the next one writes the refcounts, lazy or not */
	struct td_lock header_lock;

	/* requests */
	struct td_list slow;   /* td_req.link: for a fiber */
	struct td_list ranges; /* guest clusters that a fiber is changing */
	struct td_cond range_free;
	struct td_cond work, idle;
	unsigned nfibers;
	bool closing;
	struct qcow_op *ops;
	/* operations on mapped clusters, by the epoch that they began in */
	unsigned epoch, flying[2];
	bool draining;
	struct td_cond drained;

	/* dirty bitmaps that are kept up to date */
	struct qcow_bitmap *bitmaps;
	uint32_t nbitmaps;
	uint8_t *bitmap_dir; /* their directory, as on disk */

	/* the last compressed cluster read */
	struct td_lock zip_lock;
	uint64_t zip_entry;
	uint8_t *zip;
};

static inline uint64_t qcow_csize(const struct qcow *q)
{
	return UINT64_C(1) << q->cbits;
}

/* Is this L2 entry a compressed cluster's? */
static inline bool qcow_zipped(const struct qcow *q, uint64_t entry)
{
	return q->v1 ? entry & QCOW1_ZIPPED : entry & QCOW_ZIPPED;
}

/* What stands in an L1 or L2 entry beside the offset of something that is ours alone. */
static inline uint64_t qcow_own(const struct qcow *q)
{
	return q->v1 ? 0 : QCOW_COPIED;
}

/* How a write to the file at off is to be made. */
static inline unsigned qcow_new(const struct qcow *q, uint64_t off)
{
	return off >= q->old && !q->external ? TD_IO_NEW : 0;
}

/* --- qcow-open.c; fiber --- */
int qcow_open(struct td_image *image, struct td_err *err);   /* td_driver's, as the next */
int qcow_settle(struct td_image *image, struct td_err *err); /* td_driver.settle */
void qcow_close(struct td_image *image);

/* --- qcow-end.c; fiber, at open for writing --- */
int qcow_mind_end(struct qcow *q, struct td_err *err);

/* --- qcow-page.c --- */
int qcow_pages_init(struct qcow *q);
void qcow_pages_fini(struct qcow *q);
/* The page of the file's offset off (any within it) if it is in memory, or NULL; valid until the
 * next wait. */
struct qcow_page *qcow_page_find(struct qcow *q, uint64_t off);
/* The same, read if it must be; fiber. */
int qcow_page_get(struct qcow *q, uint64_t off, enum qcow_page_kind kind, struct qcow_page **out);
/* len bytes of it, at `at', have changed. */
void qcow_page_dirty(struct qcow *q, struct qcow_page *page, const void *at, uint32_t len);
/* it was dirty before: nothing is new in it */
void qcow_page_soil(struct qcow *q, struct qcow_page *page);
/* A cluster of metadata is about to be new: what is in memory of it is not it. */
void qcow_pages_forget(struct qcow *q, uint64_t off, uint64_t len);
static inline void *qcow_page_at(struct qcow *q, struct qcow_page *page, uint64_t off)
{
	return page->data + (off & (q->pages.size - 1));
}
int qcow_table_init(struct qcow_table *t, uint32_t n, uint64_t off);
void qcow_table_fini(struct qcow_table *t);
void qcow_table_set(struct qcow *q, struct qcow_table *t, uint32_t i, uint64_t value);
/* Offsets of clusters that hold metadata: fixed tables, L2 tables, refcount blocks. */
int qcow_meta_add(struct qcow *q, uint64_t off); /* -EEXIST, -ENOMEM */
void qcow_meta_del(struct qcow *q, uint64_t off);
bool qcow_is_meta(const struct qcow *q, uint64_t off);

/* --- qcow-flush.c; all fiber --- */
/* A write-back that begins after the call, and fdatasync: all that was done before is durable. */
int qcow_flush(struct qcow *q);
int qcow_flush_refs(struct qcow *q); /* that, and lazy refcounts too: for memory */
/* A cluster's reference is gone from the mapping in memory; it is given back when that is so on
 * disk. */
void qcow_release(struct qcow *q, uint64_t cluster, uint64_t n);
bool qcow_clean(const struct qcow *q); /* no metadata waits to be written; not a fiber's */
int qcow_header_write(struct qcow *q); /* q->first; durable */
void qcow_unmark(struct qcow *q); /* at close, when all is written: the counts on disk are to be
				     believed again, and no log is of this image */
/* The image is corrupt: says so in the log and in the header, and fails every write from now on.
 * -EIO. */
int qcow_corrupt(struct qcow *q, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int qcow_sync(struct td_file *f);
/* The same of all its files, and what fails stays failed: nothing tells a second time of what is
 * lost. */
int qcow_sync_all(struct qcow *q);
void qcow_sync_failed(struct qcow *q, int err);
/* a device is as long as it is: 0, or -ENOSPC */
int qcow_set_length(struct td_file *f, uint64_t size);

/* --- qcow-refcount.c; all fiber --- */
/* Takes up to n clusters in a row; how many is *got.  fresh: they read as zeroes. */
int qcow_alloc(struct qcow *q, uint64_t n, uint64_t *cluster, uint64_t *got, bool *fresh);
/* Exactly n clusters in a row, for a table: slow, and for an image at rest. */
int qcow_alloc_row(struct qcow *q, uint64_t n, uint64_t *cluster);
void qcow_trim_end(struct qcow *q); /* at close: what was reserved and not used */

/* --- qcow-refblock.c, qcow-reap.c --- */
int qcow_find_end(struct qcow *q); /* at open; fiber */
/* the cluster behind the last that is counted; fiber */
int qcow_last_counted(struct qcow *q, uint64_t *end);
void qcow_reap(struct qcow *q); /* starts the reaper where there is something for it */

/* --- qcow-map.c --- */
/* What stands at guest offset off, and how far (at most len); never waits. */
void qcow_map(struct qcow *q, uint64_t off, uint64_t len, struct qcow_run *run);
/* td_driver.map */
bool qcow_tell_map(struct td_image *image, uint64_t off, uint64_t len, struct td_map *out);
/* The same, on a fiber: loads what it needs; 0, or -EIO and so on. */
int qcow_map_wait(struct qcow *q, uint64_t off, uint64_t len, struct qcow_run *run);
/* Makes the L2 table of guest offset off exist and be ours alone; fiber. */
int qcow_l2_own(struct qcow *q, uint64_t off);
/* Page and offset of the L2 entry of off; its L2 table exists; fiber. */
int qcow_l2_entry(struct qcow *q, uint64_t off, struct qcow_page **page, uint8_t **at);
/* Gives back what an L2 entry referred to. */
void qcow_release_entry(struct qcow *q, uint64_t entry);

/* --- qcow-part.c --- */
int qcow_op_get(struct qcow *q, struct td_req *req, uint64_t skip, uint64_t len,
		struct qcow_op **out);
void qcow_op_put(struct qcow_op *op);
/* An operation that found its place by the mapping begins and ends (Q4). */
void qcow_fly(struct qcow *q, unsigned *epoch);
void qcow_land(struct qcow *q, unsigned epoch);
/* Reads or writes all of req at host, or a part of one that is split; completes it, or puts one
 * reference. */
void qcow_whole(struct qcow *q, struct td_req *req, enum td_io_op what, uint64_t host);
void qcow_part(struct qcow *q, struct td_req *req, uint64_t skip, uint64_t len, enum td_io_op what,
	       uint64_t host);
/* A write to q->data of what stands at guest offset `guest', waited for; op->iov and iovcnt are
 * lost.  Fiber. */
int qcow_await_write(struct qcow *q, struct td_io *io, struct td_iop *op, uint64_t guest);

/* --- qcow-grow.c; fiber, with nothing else under way --- */
int qcow_write_size(struct qcow *q, uint64_t size); /* the header's fields, in one write */
int qcow_image_grow(struct td_image *image, uint64_t size);
int qcow_grow(struct td_image *image, uint64_t size, struct td_err *err); /* td_driver's */

/* --- qcow-relink.c; fiber --- */
int qcow_relink(struct td_image *image, const struct td_relink *to, struct td_err *err);

/* --- qcow-beneath.c; blocks: td_driver.beneath --- */
int qcow_beneath(const char *child, const char *parent, struct td_err *err);

/* --- qcow-crypt.c --- */
int qcow_crypt_open(struct qcow *q, struct td_err *err); /* fiber */
static inline uint64_t qcow_crypt_at(const struct qcow *q, uint64_t host, uint64_t guest)
{
	return q->crypt_host ? host : guest;
}

/* --- qcow-read.c --- */
/* false: it needs a fiber; nothing has been done */
bool qcow_read_fast(struct qcow *q, struct td_req *req);
int qcow_read(struct qcow *q, struct td_req *req); /* fiber; all of it */
/* fiber; beyond the end: zeroes */
int qcow_read_buf(struct qcow *q, struct td_io *io, void *buf, uint64_t off, uint64_t len);
int qcow_read_zip(struct qcow *q, const struct qcow_run *run, uint64_t guest, struct iovec *iov,
		  int n); /* fiber */
void qcow_zip_place(const struct qcow *q, uint64_t entry, uint64_t *off, uint64_t *len);
/* "raw", "vpc", ...: a driver's name; NULL: not known */
const char *qcow_backing_type(const char *format);
/* nothing below shows at or beyond off */
bool qcow_backing_zero(const struct qcow *q, uint64_t off);

/* --- qcow-write.c --- */
bool qcow_write_fast(struct qcow *q, struct td_req *req);
int qcow_write(struct qcow *q, struct td_req *req); /* fiber */
struct qcow_range {
	struct td_list link;
	uint64_t from, to; /* guest clusters */
	uint64_t open_to;  /* those before it have a place that reads as zeroes, and that others may
			      write to at once; 0: none */
	uint64_t host;     /* the place of the first */
};
void qcow_range_lock(struct qcow *q, struct qcow_range *r, uint64_t from, uint64_t to);
void qcow_range_unlock(struct qcow *q, struct qcow_range *r);

/* --- qcow-discard.c; fiber --- */
int qcow_discard(struct qcow *q, struct td_req *req); /* DISCARD and WRITE_ZEROES */

/* --- qcow-bitmap.c; open and close: fiber --- */
int qcow_bitmaps_open(struct qcow *q);
void qcow_bitmaps_close(struct qcow *q); /* stores them */
void qcow_bitmaps_free(struct qcow *q);
void qcow_bitmaps_mark(struct qcow *q, uint64_t off, uint64_t len); /* changed, or about to be */

/* --- qcow-zip.c: one cluster, in any thread; 0 or -EIO --- */
int qcow_unzip(unsigned compression, const void *from, size_t len, void *to, size_t size);

#endif
