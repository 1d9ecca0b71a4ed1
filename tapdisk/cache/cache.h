/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The cache-mode layer of one disk: between those who bring requests (ring, NBD) and the image.  It
 * alone knows what a mode means.
 *
 * Runs in the image's home thread.  All requests of a disk pass through one struct cache, except
 * the fast ones of a lane (lane.h); the rules are at the top of cache.c.
 */
#ifndef TAPDISK_CACHE_H
#define TAPDISK_CACHE_H

#include "td/block.h"
#include "td/cache.h"

struct cache_op;

/* what lanes have done past this layer: as td_image.n, and requests read and written */
struct lane_count {
	uint64_t hits[2], fail[2], requests[2];
};

#define CACHE_MAGIC 0x74646361u

struct cache {
	unsigned magic; /* CACHE_MAGIC from cache_init to cache_fini; the entries assert it */
	const struct td_cache_mode *mode;
	struct td_image *image; /* NULL while there is none: not open, or paused */
	struct ev_loop *loop;
	struct td_io *io;   /* the engine that goes with the mode, on the home queue */
	bool report_enospc; /* hand ENOSPC to the guest instead of waiting for space */
	/* optional: is this the request of a frontend that leaves?  Such a one is not kept waiting
	 * for space. */
	bool (*leaves)(const struct cache *c, const struct td_req *req);

	/* a request that is taken and not answered is with the image, or the barrier, or on exactly
	 * one of these */
	struct td_list held; /* behind a barrier or a pause, in order of arrival; not counted in
				`active' */
	/* to be sent to the image: after a pause, or when there is space again */
	struct td_list waiting;
	struct td_list flushes;  /* for the next fdatasync */
	struct td_list covered;  /* by the fdatasync that is running */
	struct td_list stoppers; /* changes for which the lanes are to be closed: they move data, or
				    rewrite a block */
	unsigned stopping;       /* such that the image has */
	struct td_list lanes;    /* tapdisk/cache/lane.h: rings that threads of their own serve */
	struct lane_count lanes_gone; /* of those that have left */
	bool mapped, whole; /* the image tells where its data are; and they are all in one place,
			       for good, which is */
	struct td_map map;  /* here */
	uint32_t block;     /* bytes: and it takes whole blocks of that size only; 0: that does not
			       matter */
	unsigned active;
	unsigned at_image; /* requests but FLUSHes that the image has, and those who are within
			      cache_hold() */

	struct td_req *barrier; /* the one under way, or NULL */
	bool releasing;         /* held requests are being let go */
	bool quiesced;          /* nothing new goes to the image */
	bool alone;             /* all goes this way: no lane opens (then lanes_update()) */

	uint64_t written; /* changes completed here so far, at least (cache_written() has the lanes'
			     too); 1 at the start: what a predecessor left behind */
	uint64_t flushed; /* of these, how many a flush has made durable */
	uint64_t flushing; /* and how many the running one will */
	bool flush_running;
	struct td_req flush_req;

	int sticky;        /* -errno of the flush that failed, until the disk is closed */
	bool out_of_space; /* writes wait, or flush_waits */
	bool flush_waits;  /* the last flush of the image found no space for its metadata: the timer
			      sends the next */
	struct td_req *probe; /* the write that the image has been sent to see if there is space, or
				 NULL */
	ev_timer retry;

	void (*changed)(struct cache *c); /* sticky or out_of_space has changed */
	/* optional: a change that the image may have had in part was answered with an error */
	void (*torn)(struct cache *c);
	void (*idle)(struct cache *c); /* the image has nothing left, after cache_quiesce, or
					  `active' has come to 0 */
	void *owner;

	struct cache_op *ops; /* free list */
	struct {
		uint64_t reads, writes, flushes, barriers; /* requests that came in */
		uint64_t syncs;                            /* flushes that went to the image */
	} n;
};

void cache_init(struct cache *c, struct ev_loop *loop, void *owner);
void cache_fini(struct cache *c); /* nothing is in it */

/*
 * The image is open under `mode'; io: the engine that its requests run on.  The layer is quiesced:
 * resume comes next. fresh: the disk is opened anew, so that a flush that failed earlier is
 * forgotten.
 */
void cache_attach(struct cache *c, const struct td_cache_mode *mode, struct td_image *image,
		  struct td_io *io, bool fresh);
/* What was written before is lost, as after a failed flush (C5): on an image that is attached. */
void cache_fail_sticky(struct cache *c, int err);
void cache_detach(struct cache *c); /* quiesced, nothing with the image: it goes away; what is held
				       stays held */

/* Takes any request, with TD_FUA or TD_UNMAP; a WRITE or FLUSH with TD_PREFLUSH or TD_BARRIER.
 * Completes it through done(), maybe at once. */
void cache_submit(struct cache *c, struct td_req *req);

/* For a look at c->image beside requests: false when there is none just now; else it stays until
 * cache_unhold(). */
bool cache_hold(struct cache *c);
void cache_unhold(struct cache *c);

/* Stops sending; idle() is called each time that the image has nothing left.  Resume sends what was
 * held. */
void cache_quiesce(struct cache *c);
void cache_resume(struct cache *c);
bool cache_image_idle(const struct cache *c); /* quiesced: and the lanes closed */
/*
 * Quiesced and the image idle: makes all durable before the image is closed; idle() is called.
 * Afterwards sticky tells of a failure; and cache_dirty() of no space for metadata, which may be
 * there later.
 */
void cache_flush(struct cache *c);

/* Of the requests that c->leaves names, answers with err those that are neither with the image nor
 * on their way there. */
void cache_cancel(struct cache *c, int err);

/* Quiesced and the image idle: of the requests that c->leaves names, none is known any more; whose
 * they are never hears of them. */
void cache_forget(struct cache *c);

/*
 * For tapdisk/cache/lane.c.  A WRITE that was under way past this layer, and found no space there:
 * it does not stand behind what has come meanwhile.  One that was to be durable and failed.  May
 * lanes be open?  And: they are closed, all or one of them.
 */
void cache_submit_again(struct cache *c, struct td_req *req);
/* a durable write has, here or on a lane (C6) */
void cache_durable_failed(struct cache *c, int err);
bool cache_lets_lanes(const struct cache *c);
void cache_lanes_closed(struct cache *c);

/* Has the image anything to do, here or for a lane? */
bool cache_at_work(const struct cache *c);

/* Is there a change that no flush has covered yet, in a mode where that means something? */
bool cache_dirty(const struct cache *c);

#endif
