/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files of the VHD driver share.
 *
 * An image is a table (BAT) with an entry for each block of the disk; a block that is in the file
 * is a bitmap, a bit a sector, and the data.  A sector whose bit is clear is not in the image: the
 * parent's shows, or zeroes.
 *
 *   vhd.c         opens and closes; where the parent is: vhd-parent.c
 *   vhd-io.c      splits a request along blocks and bits; each piece goes to the file, the parent,
 *                 or nowhere
 *   vhd-map.c     bitmaps in memory, as many as a bound allows
 *   vhd-piece.c   a part of a request: its memory, and its way to the file and back
 *   vhd-clear.c   discards and zeroes
 *   vhd-alloc.c   new blocks and bits, and the order in which anything new becomes part of the
 *                 image: the crash invariants (V)
 *   vhd-commit.c  writes those to the file, at a flush and at close
 *   vhd-redo.c    its redo log, and the mark and the sum that tell whether a log is of this image
 *   vhd-crypt.c   is this the key of the image?
 *   vhd-end.c     finds blocks that the file is too short for, at open
 *
 * All of an image runs in its home thread.  On the wire and in the file all numbers are big-endian;
 * bat[] is the host's.
 */
#ifndef DRIVERS_VHD_H
#define DRIVERS_VHD_H

#include "drivers/vhd/vhd-format.h"
#include "lib/io/file.h"
#include "lib/redo.h"
#include "td/block.h"

/* of bitmaps in memory, an image; with a BAT of a million entries it stays far under 16 MiB */
#define VHD_CACHE_BYTES (3u << 20)
#define VHD_CACHE_MIN   16  /* bitmaps, however large one is */
#define VHD_PLACES      512 /* blocks' places given back after a failure, remembered for the next */

struct vhd;
struct td_cipher;

enum vhd_bitmap_state { VHD_BM_FREE, VHD_BM_LOADING, VHD_BM_ALLOCATING, VHD_BM_READY };

/* The bitmap of one block.  On v->cold, or, while it is hot, on v->hot; see vhd-alloc.c. */
struct vhd_bitmap {
	struct td_list link;
	struct vhd_bitmap *next; /* in its bucket */
	uint32_t block;
	enum vhd_bitmap_state state;
	bool used;        /* since the hand of the clock came by */
	bool dirty;       /* bits set, or its BAT entry, that no commit has taken up */
	bool committing;  /* frozen, and being written */
	unsigned writers; /* writes under way that will set bits */
	/* sectors of the bitmap with bits that no commit has taken up */
	uint32_t dirty_from, dirty_to;
	uint32_t frozen_from, frozen_to;
	uint8_t *frozen; /* what the commit under way writes: sectors frozen_from to frozen_to */
	struct td_list waiters; /* fibers: until it is ready, or gone */
	uint8_t *bits; /* l.bitmap_bytes bytes as in the file: the first sector is the highest bit
			  of the first byte */
};

/* A part of a request that goes to one place. */
struct vhd_piece {
	struct td_req child; /* to the parent image */
	struct td_iop iop;   /* to the file */
	struct vhd *v;
	struct td_req *req;
	/* whose bits from `first', n of them, a write sets when it is done; or NULL */
	struct vhd_bitmap *bm;
	uint32_t first, n;
	uint64_t at; /* byte of the disk */
	struct iovec few[2], *iov;
	void *bounce;           /* what is written of an encrypted image */
	struct vhd_piece *next; /* free */
};

struct vhd {
	struct td_image *image;
	struct td_file *file;
	bool fixed, diff, writable;
	int broken; /* -errno of a sync that failed: what has been acknowledged may be lost; for
		       good */

	struct vhd_footer footer;
	struct vhd_header header; /* not of a fixed disk, nor what follows */
	struct vhd_layout l;
	uint8_t tail[VHD_SECTOR]; /* the footer as it stands at 0, for the end of the file */
	bool tail_lost;           /* the end of the file has no footer, or not this one */
	uint64_t limit;      /* bytes: at open, where the footer at the end was, or the file's end
				(vhd_limit) */
	uint32_t lost_block; /* read-only: the block that was cut off; or VHD_UNUSED */
	uint32_t lost_from;  /* the first of its sectors that is lost (V9) */

	uint32_t *bat;        /* sector of each block, or VHD_UNUSED; whole sectors of the table */
	uint32_t bat_sectors; /* of the table, as far as the disk has blocks */
	uint8_t *bat_dirty;   /* a bit for each sector of the table */
	uint8_t *full; /* a bit for each block, as in the file's batmap: all its sectors are in the
			  image, and durably so */
	bool full_dirty; /* and the batmap in the file, where there is one, knows less */
	struct vhd_batmap batmap;
	bool has_batmap;

	/* bitmaps */
	struct vhd_bitmap *bm, **bucket;
	uint8_t *bits;
	uint32_t nbm, bucket_mask;
	uint32_t nhot, hot_max;
	struct td_list cold, hot, free;
	struct td_list room; /* fibers that wait for a bitmap's place, or for fewer hot ones */

	/* allocation */
	uint64_t next;  /* byte where the next block goes */
	uint64_t eof;   /* bytes the file has, as far as we have made it */
	uint64_t stale; /* the file had so many bytes when it was opened: below, old bytes may lie
			   where a new block comes */
	uint64_t place[VHD_PLACES];
	unsigned nplaces;
	bool growing;
	struct td_list growers; /* fibers */

	uint64_t sum; /* of bat (vhd_entry_sum) */

	/* commits */
	uint8_t *frozen; /* what a commit writes: room for hot_max bitmaps and as many sectors of
			    the table */
	uint32_t *frozen_bat; /* which sectors of the table; nfrozen_bat of them */
	uint32_t nfrozen_bat;
	uint8_t *frozen_table;  /* and these sectors */
	struct td_list commits; /* td_req.link: for the next commit */
	bool committing, kicked, dirty;
	int failed;             /* -errno of the last commit */
	struct td_list settled; /* fibers: until no commit runs */
	ev_timer later;

	struct td_cipher *crypt;  /* NULL: in the clear */
	struct vhd_piece *pieces; /* free */
};

static inline uint32_t vhd_block_of(const struct vhd *v, uint64_t off)
{
	return (uint32_t)(off >> v->l.block_shift);
}

static inline bool vhd_is_full(const struct vhd *v, uint32_t block)
{
	return vhd_bit(v->full, block);
}

/* Where the disk's byte `off' stands in the file; its block is in the image. */
static inline uint64_t vhd_place_of(const struct vhd *v, uint64_t off)
{
	if (v->fixed)
		return off;
	return (uint64_t)v->bat[vhd_block_of(v, off)] * VHD_SECTOR + v->l.bitmap_bytes +
	       (off & (v->l.block_size - 1));
}

/* Are some of these bytes, which lie in one block and are in the image, lost?  (V9) */
static inline bool vhd_is_lost(const struct vhd *v, uint64_t off, uint64_t len)
{
	return vhd_block_of(v, off) == v->lost_block &&
	       (off & (v->l.block_size - 1)) + len > (uint64_t)v->lost_from * VHD_SECTOR;
}

/* --- vhd-redo.c: on a fiber --- */

uint64_t vhd_entry_sum(uint32_t block, uint32_t entry); /* the table's sum is all of these xored */
/* a log that waits for this image; its header is known, its table not looked at */
int vhd_redo_apply(struct vhd *v, struct td_err *err);
int vhd_redo_begin(struct vhd *v, struct td_err *err); /* its table is known, and nothing written */
int vhd_redo_end(struct vhd *v, bool *any); /* all is in the file; *any: something was written for
					       it, and is to be synced */

/* A fiber waits until whoever owns the list wakes all that are on it. */
void vhd_wait(struct td_list *list);
void vhd_wake(struct td_list *list);

/* --- vhd-map.c: bitmaps in memory --- */
int vhd_map_init(struct vhd *v);
void vhd_map_fini(struct vhd *v);
struct vhd_bitmap *vhd_map_find(struct vhd *v, uint32_t block); /* in whatever state, or NULL */
/* cold, without meaning yet; NULL: no place is free */
struct vhd_bitmap *vhd_map_new(struct vhd *v, uint32_t block);
void vhd_map_drop(struct vhd *v, struct vhd_bitmap *bm); /* not hot; wakes who waits for it */
/* On a fiber: has the bitmap of a block of the image looked at.  0: look again, nothing runs in
 * between; or -errno. */
int vhd_map_load(struct vhd *v, uint32_t block);
/* td_driver.extents */
int vhd_extents(struct td_image *image, uint64_t off, uint64_t len, struct td_extent *out, int max);
/* td_driver.map */
bool vhd_map(struct td_image *image, uint64_t off, uint64_t len, struct td_map *out);
/* if all bits of a cold one are set: it is needed no more */
void vhd_map_full(struct vhd *v, struct vhd_bitmap *bm);

/* --- vhd-alloc.c: blocks and bits --- */
int vhd_alloc_init(struct vhd *v);
void vhd_alloc_fini(struct vhd *v);
/* A write that goes to a block while it is made.  op: all but its place is set; of its sectors of
 * the block, n from `first'. */
struct vhd_first {
	struct td_iop *op;
	uint32_t first, n;
};
/*
 * On a fiber: a block that is not in the image.  with: what to write there, or NULL.  1: it is
 * made, and that is written; 0: look again, since it is made, or somebody makes it; or -errno.
 */
int vhd_alloc(struct vhd *v, uint32_t block, const struct vhd_first *with);
/* a write that will set bits; false: no room, wait for it */
bool vhd_write_begin(struct vhd *v, struct vhd_bitmap *bm);
void vhd_write_end(struct vhd *v, struct vhd_bitmap *bm, uint32_t first, uint32_t n, int err);
/* If it is hot and need not be any more. */
void vhd_cool(struct vhd *v, struct vhd_bitmap *bm);

/* --- vhd-commit.c --- */
void vhd_break(struct vhd *v, int err); /* a sync failed with err (V6) */
/* Several writes at once, which a fiber waits for. */
#define VHD_BATCH 32
struct vhd_batch {
	struct td_iop op[VHD_BATCH];
	struct iovec iov[VHD_BATCH];
	unsigned n, pending;
	int err;
	struct td_fiber *fiber;
};
void vhd_batch_write(struct vhd *v, struct vhd_batch *b, void *buf, uint64_t off, uint64_t len);
/* one more, not of the batch's memory */
void vhd_batch_queue(struct vhd *v, struct vhd_batch *b, struct td_iop *op);
void vhd_batch_wait(struct vhd_batch *b);
/* On a fiber: until there are fewer hot bitmaps, or a place for another.  0: look again; or -errno:
 * commits fail. */
int vhd_wait_room(struct vhd *v);
/* Completes req when all that was done before this call, and the metadata that it needs, is
 * durable.  NULL: begins without one. */
void vhd_commit(struct vhd *v, struct td_req *req);
/* On a fiber, nothing else going on: everything into the file, the batmap and the end footer too.
 */
int vhd_settle(struct vhd *v);
int vhd_put_batmap(struct vhd *v);                                     /* on a fiber */
void vhd_commit_later(struct ev_loop *loop, ev_timer *w, int revents); /* of v->later */

/* --- vhd-piece.c --- */
/* td_req.state[0]: a FUA request's bits or blocks are not in the file */
enum { VHD_NEEDS_COMMIT = 1 };
/* Drops one hold on a request; the last completes it, after a commit where it needs one. */
void vhd_put(struct td_req *req, int err);
/* A piece for the request's bytes at..at+len-1, which holds it; NULL: no memory. */
struct vhd_piece *vhd_piece_new(struct td_req *req, uint64_t at, uint64_t len);
void vhd_piece_end(struct vhd_piece *p, int err);
int vhd_piece_encrypt(struct vhd_piece *p);
void vhd_to_file(struct vhd_piece *p, enum td_io_op what, unsigned flags, uint64_t place);
void vhd_io_fini(struct vhd *v);

/* --- vhd-clear.c --- */
void vhd_clear(struct vhd *v, struct td_req *req); /* DISCARD and WRITE_ZEROES; req is split */
/* On a fiber: zeroes into the file, how: TD_IO_ZERO or TD_IO_PUNCH, as far as the store can. */
int vhd_zero(struct vhd *v, enum td_io_op how, uint64_t place, uint64_t len);

/* --- vhd-io.c --- */
void vhd_submit(struct td_image *image, struct td_req *req);
/* of a request, from its byte `at' on: in one block */
uint64_t vhd_part_len(const struct vhd *v, const struct td_req *req, uint64_t at);

/* --- vhd-parent.c --- */
int vhd_parent_find(struct vhd *v, char *spec, struct td_err *err);

/* --- vhd-end.c; fiber, at open --- */
int vhd_mind_end(struct vhd *v, struct td_err *err);

/* --- vhd-crypt.c --- */
int vhd_crypt_new(struct vhd *v, const uint8_t *key, size_t len, struct td_cipher **out,
		  struct td_err *err);

#endif
