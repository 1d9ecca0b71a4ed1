/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A lane: how a ring that has a thread of its own reaches the disk.
 *
 * Reads and writes of data that lie at a known place of a file go straight there, by the thread's
 * own engine (fast); all other requests, and those that fail for want of space, go to the cache
 * layer in the disk's home thread, and their answers come back (slow).  Rules:
 *
 * L1 a lane goes fast only while it is open.  The home thread opens and closes it by message; the
 *    lane reports that it is closed when none of its requests is under way any more.  A pause, a
 *    BARRIER, and a change that moves or removes data wait for that (lanes_closed).
 * L2 a lane that has a BARRIER under way goes slow, so that later requests wait behind the BARRIER.
 * L3 a lane learns from the home thread where data are, and forgets it when it is closed; for a raw
 *    disk the opening tells all.
 * L4 a lane counts a write as it completes, before it is answered, so that a FLUSH that comes
 *    after the answer, from whatever ring, finds it counted (C2: cache_written).
 * L5 once a flush has failed no write goes fast (C5).  One that has to be durable goes fast only
 *    where the write's own flag makes it so: not through the page cache, whose errors the home
 *    thread judges (C6), and not into a format that has metadata to write.  If it fails, the home
 *    thread answers it, after counting it as a failed flush (C6).
 * L6 no write goes fast beside a read-modify-write of the same block (lib/io/align.c), where
 *    blocks are larger than a sector.  On a raw disk the home thread closes the lanes before it
 *    writes a part of a block; into a format, which keeps tables of its own, no write goes fast
 *    where blocks are so large.
 * L7 no write goes fast that the image's gate would keep (td_gate, CB6 of tapdisk/changed.h).
 *
 * The fast way shares nothing with other threads except the lane's counters, which they only read.
 */
#ifndef TAPDISK_LANE_H
#define TAPDISK_LANE_H

#include "tapdisk/cache/cache.h"
#include "tapdisk/queue.h"

struct lane;

/* Beside each request of a lane's ring. */
struct lane_op {
	struct queue_msg msg;
	struct lane *lane;
	struct td_req *req;  /* the ring's */
	struct td_req child; /* in the cache layer */
	int err;
	bool again;   /* it was fast, and found no space */
	bool durable; /* fast: it is to be durable */
	int failed;   /* and has failed: -errno */
	bool mapped;  /* on its way back: map tells where its data are */
	struct td_map map;
};

struct lane_stats {
	uint64_t fast[2], slow; /* requests that went each way: fast reads and writes */
};

/* --- the home thread --- */

/* For a ring that thread `q' is to serve; NULL: no memory. */
struct lane *lane_new(struct cache *c, struct queue *home, struct queue *q);
/* On a fiber.  The ring must be idle (or abandoned) and submit nothing more.  NULL is fine. */
void lane_free(struct lane *l);
/* on a fiber: queue_call() into its thread */
void lane_call(struct lane *l, void (*fn)(void *arg), void *arg);
struct lane_stats lane_stats(const struct lane *l);

/* For the cache layer: opens or closes all of its lanes, as its state wants it. */
void lanes_update(struct cache *c);
bool lanes_closed(const struct cache *c);
bool lanes_busy(const struct cache *c);        /* have any something under way, fast? */
uint64_t lanes_written(const struct cache *c); /* writes that they have completed */
struct lane_count lanes_count(const struct cache *c);

/* --- the ring's thread --- */

/* As cache_submit().  op: the ring's, for this request until done(). */
void lane_submit(struct lane *l, struct lane_op *op, struct td_req *req);
struct td_io *lane_io(const struct lane *l); /* the engine of what goes fast, or NULL */
/* Has fn(owner) run in the home thread, soon; once for several calls. */
enum lane_news { LANE_IDLE, LANE_BROKEN, LANE_SHOW, LANE_NEWS };
void lane_tell(struct lane *l, enum lane_news what, void (*fn)(void *owner), void *owner);

/* --- any --- */

/* The ring's request of which this is the child; or req itself. */
const struct td_req *lane_origin(const struct td_req *req);

#endif
