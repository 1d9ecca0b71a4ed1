/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a disk has done, and how long it took.
 *
 * A source brings requests to a disk (its ring, its NBD server).  It says of each request when
 * it was taken and when it was answered, with one look at the clock for all of a batch, and
 * publishes at the batch's end.  The disk's own numbers are the sum of its sources', from its
 * opening to its close, pauses included.  Nothing here waits.
 *
 * A source counts in its own thread, and others may read: each number has one writer.  The main
 * thread does all else, and publishes also for rings of other threads (tapdisk/cache/lane.h).
 */
#ifndef TAPDISK_STATS_H
#define TAPDISK_STATS_H

#include "tapdisk/stats/histogram.h"
#include "tapdisk/stats/shm.h"
#include "td/block.h"

/* zeroes written without data are WRITE */
enum { STATS_READ, STATS_WRITE, STATS_FLUSH, STATS_DISCARD, STATS_KINDS };

#define STATS_DEPTHS 16 /* powers of two; what is deeper counts into the last */

/* of one kind */
struct stats_count {
	uint64_t done, errors; /* requests answered; errors: those of them that failed */
	uint64_t sectors;      /* of 512 bytes, of those that succeeded */
	uint64_t ns;           /* that all took together, from being taken to being answered */
	unsigned under_way;    /* requests taken and not answered */
};

struct stats_tally {
	struct histogram took[STATS_KINDS];
	uint64_t depth[STATS_DEPTHS]; /* requests that came when 1, 2-3, 4-7, ... were under way,
					 with them */
	uint64_t most;                /* requests that were under way at most */
};

struct stats_source {
	struct td_list link;       /* the disk's */
	struct stats_tally *tally; /* the disk's; of a source in another thread its own, which knows
				      of its own requests alone */
	struct stats *disk;
	struct stats_count kind[STATS_KINDS];
	unsigned begun;              /* requests taken since stats_taken */
	struct stats_source *device; /* the one whose file shows this one's numbers too: another
					queue of the same device; or itself */
	struct shm shm;
};

/* of a disk */
struct stats {
	struct td_list sources;
	struct stats_count gone[STATS_KINDS]; /* of the sources that have left */
	struct stats_tally tally;
	struct shm shm;
};

/* A number that others may read meanwhile. */
#define STATS_ADD(x, d) __atomic_store_n(&(x), (x) + (d), __ATOMIC_RELAXED)
#define STATS_GET(x)    __atomic_load_n(&(x), __ATOMIC_RELAXED)

static inline unsigned stats_kind(enum td_op op)
{
	return op == TD_READ      ? STATS_READ
	       : op == TD_FLUSH   ? STATS_FLUSH
	       : op == TD_DISCARD ? STATS_DISCARD
				  : STATS_WRITE;
}

/* A disk is opened anew: all to 0, and its file is made.  Both ends: it has no sources. */
void stats_open(struct stats *s, int minor);
void stats_close(struct stats *s);

/* name: of the source's file; NULL: it has none.  With a name that a source of the disk has
 * already, both show in that file. A zeroed source is closed. */
void stats_source_open(struct stats_source *src, struct stats *disk, const char *name);
void stats_source_close(struct stats_source *src); /* nothing is under way */
int stats_source_thread(struct stats_source *src); /* one just opened: its requests are another
						      thread's.  0 or -ENOMEM */

/* A request was taken; it is to be ended exactly once, with the same op. */
static inline void stats_begin(struct stats_source *src, enum td_op op)
{
	STATS_ADD(src->kind[stats_kind(op)].under_way, 1);
	src->begun++;
}

/* It was answered.  bytes: its length; ns: since it was taken; err: 0 or -errno. */
static inline void stats_end(struct stats_source *src, enum td_op op, uint64_t bytes, uint64_t ns,
			     int err)
{
	unsigned kind = stats_kind(op);
	struct stats_count *n = &src->kind[kind];

	STATS_ADD(n->under_way, -1u);
	STATS_ADD(n->done, 1);
	STATS_ADD(n->ns, ns);
	if (err)
		STATS_ADD(n->errors, 1);
	else
		STATS_ADD(n->sectors, bytes / 512);
	histogram_add(&src->tally->took[kind], ns);
}

/* A batch has been taken: how deep the queue is now. */
void stats_taken(struct stats_source *src);
/* A batch has been taken or answered: shows the source's numbers, and the disk's, to other
 * programs. */
void stats_publish(const struct stats_source *src);

/* The disk's numbers of one kind. */
struct stats_count stats_sum(const struct stats *s, unsigned kind);

/* requests taken and not answered, of all its sources */
unsigned stats_under_way(const struct stats *s);
/* The disk's tally, joined with those of its sources in other threads; the caller frees it.  NULL:
 * no memory. */
struct stats_tally *stats_tally_all(const struct stats *s);

#endif
