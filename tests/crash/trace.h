/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What happened in a run, as the judge gets it: the guest's requests and answers, and the
 * operations on the files.  Both count their events on one clock, so that a cut is a number: what
 * has an event below it has happened.
 *
 * Neither side of the judge's table: it includes nothing of the tapdisk.
 */
#ifndef CRASH_TRACE_H
#define CRASH_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SECTOR 512u
#define NEVER  UINT32_MAX

/* --- the files --- */

enum fop_kind { FOP_WRITE, FOP_ZERO, FOP_DISCARD, FOP_SYNC, FOP_TRUNC };

struct fop {
	enum fop_kind kind;
	unsigned file;
	bool dsync;          /* durable when it is done */
	uint64_t off, len;   /* bytes; TRUNC: off is the new size */
	unsigned char *data; /* WRITE: len bytes, owned; NULL: zeroes */
	uint32_t begin, end; /* events; end is NEVER for what did not end */
	int64_t res;         /* bytes moved (0 where none are), or -errno */
	bool transient;  /* it failed before it began (EINTR, EAGAIN), and is asked for again: no
			    sync is */
	bool write_back; /* a durable write that failed, and may have been told of what an earlier
			    one had left in the page cache */
};

struct flog_event {
	uint32_t at, op;
	bool end;
};

struct flog {
	struct fop *op;
	size_t nops;
	struct flog_event *event; /* ascending */
	size_t nevents;
};

/* Takes data over; the index of the operation. */
size_t flog_begin(struct flog *l, struct fop op);
void flog_end(struct flog *l, size_t op, uint32_t at, int64_t res);
void flog_free(struct flog *l);

/* --- the guest --- */

/* GOP_SETTLE: a close or a pause that said that all is well */
enum gop_kind { GOP_READ, GOP_WRITE, GOP_ZERO, GOP_DISCARD, GOP_FLUSH, GOP_SETTLE };

enum {
	GOP_FUA = 1u << 0,      /* durable when it is acknowledged */
	GOP_PREFLUSH = 1u << 1, /* a FLUSH that carries data */
	GOP_BARRIER = 1u << 2,
	GOP_UNMAP = 1u << 4, /* WRITE_ZEROES that may give the space back */
	GOP_EACH = 1u << 5,  /* answered under a mode that promises each write */
	GOP_VOID = 1u << 6,  /* answered under one that promises nothing */
	GOP_RING = 1u << 3,  /* on the ring: in order with the other requests there, if there is a
				barrier */
};

struct gop {
	enum gop_kind kind;
	unsigned flags;
	uint64_t sector;
	uint32_t n;          /* sectors; 0 for a FLUSH or a BARRIER without data */
	uint32_t issue, ack; /* events; NEVER: not yet */
	int status;          /* 0, or an error, once it is acknowledged */
};

struct gtrace {
	struct gop *op;
	size_t nops;
	uint64_t sectors; /* the disk's size */
	uint64_t seed;    /* of the data */
	uint32_t initial; /* what a sector never written reads: TAG_INITIAL, TAG_ZERO or TAG_FILLED
			   */
	uint64_t initial_every; /* not 0: only sectors s with s / initial_every odd read that, and
				   the others zeroes */
	bool promise_each;      /* writethrough, directsync: an acknowledged write is durable */
	bool hard_fault; /* something was made to fail that cannot be hidden: requests may fail */
};

size_t gtrace_add(struct gtrace *t, struct gop op);
void gtrace_free(struct gtrace *t);

/* What a sector holds: `tag' of the request that wrote it (its index + 1), or one of these. */
enum {
	TAG_INITIAL = 0,
	TAG_ZERO = UINT32_MAX,
	TAG_TORN = UINT32_MAX - 1,
	TAG_FILLED = UINT32_MAX - 2 /* 0xEE: what lay there before */
};

/* A sector that says which request wrote it and where it belongs; every 8 bytes differ, so that a
 * tear shows. */
void sector_fill(void *buf, uint64_t seed, uint32_t tag, uint64_t sector);
uint32_t sector_tag(const void *buf, uint64_t seed, uint64_t sector);

#endif
