/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What redo.c, redo-apply.c and redo-find.c know of each other: a log's bytes. */
#ifndef TD_LIB_REDO_INSIDE_H
#define TD_LIB_REDO_INSIDE_H

#include <stddef.h>

#include "lib/redo.h"

#define REDO_MAGIC   0x72643272u
#define REDO_MAGIC_1 0x7264316fu /* of an older version: the same up to `held' */
#define REDO_SUM     0x200u      /* a record's wave: its 8 bytes are the sum from here on */
#define REDO_HEAD    4096u
#define REDO_WHOLE   (REDO_HEAD + 2 * (size_t)TD_REDO_BYTES)

/* An image's file (G2). */
struct redo_id {
	uint64_t dev, ino;
	uint64_t rdev; /* of a block device; else 0 */
};

struct redo_head {
	uint32_t magic, half; /* bytes of one */
	uint32_t now;         /* which half is written to */
	struct {
		uint32_t from, used; /* bytes: those before `from' are in the file */
	} h[2];
	uint32_t held;   /* only so many bytes, less one, of the half that is written to count (E4);
			    0: all */
	uint32_t mark;   /* G1 */
	uint32_t summed; /* sum is to be believed */
	uint64_t sum;    /* G3: before the first record that has one */
	struct redo_id id;
	char boot[40];
	char path[2048];  /* of the image, for people; "" when it is longer */
	uint64_t mark_at; /* where in the image the mark stands, as a big-endian number; 0: not
			     known (an older version's) */
	uint32_t failed;  /* G9 */
};

struct redo_record {
	uint64_t off;
	uint32_t len;
	uint32_t wave;
	uint8_t data[]; /* padded to 8 bytes */
};

struct td_redo {
	struct redo_head *head; /* NULL: it takes no record */
	char *path;
	struct redo_id id; /* of the image that was looked at last */
	bool missed;       /* a record, since the last freeze */
	bool missing;      /* one that the commit under way has taken in */
	bool frozen;       /* a commit is under way */
	uint32_t covered;  /* and it has taken in so much of the half that is written to, where it
			      could not freeze */
	uint64_t sum, sum_frozen;
	bool summed; /* sum is kept at all */
};

static inline uint8_t *redo_half(const struct td_redo *r, unsigned i)
{
	return (uint8_t *)r->head + REDO_HEAD + (size_t)i * TD_REDO_BYTES;
}

static inline uint32_t redo_size(uint32_t len)
{
	return (uint32_t)(sizeof(struct redo_record) + (len + 7) / 8 * 8);
}

/* The next record of a half at *at, which moves behind it: 1, 0 at the end, or -EBADMSG. */
int redo_next(const struct td_redo *r, unsigned i, uint32_t *at, struct redo_record *rec,
	      const uint8_t **data);
/* A half without records.  `used' goes first: what stands before `from' is in the file, with what
 * came after it, and never counts again. */
void redo_empty(struct redo_head *h, unsigned i);
/* Of the half that is written to, only what counts stays (E4). */
void redo_drop_held(struct redo_head *h);
/* Maps what is there, if it is a log of this version and boot that makes sense: 0; -ENODATA: of
 * another boot; or -errno. */
int redo_map(const char *path, struct td_redo **out);
/* The same of a dead process's, which is ours from now on: nothing else is written to.  A living
 * one's may be looked at, no more. */
int redo_take(const char *path, struct td_redo **out);
bool redo_same(const struct redo_head *h, const struct redo_id *id, const char *path); /* G2 */

/*
 * redo-find.c: blocking.  The path of a log that holds something and is of this mark and image,
 * PATH_MAX bytes, and its minor; -ENOENT when there is none; or -errno with the path of one that
 * may be it, and cannot be read.
 */
int redo_find(uint32_t mark, const struct redo_id *id, const char *image, bool dead, char *path);
/* the text of that; rc */
int redo_unread(const char *image, const char *log, int rc, struct td_err *err);
void redo_fail_of(const struct redo_id *id, const char *image); /* blocking */
struct stat;
void redo_identify(const struct stat *st, struct redo_id *id);

#endif
