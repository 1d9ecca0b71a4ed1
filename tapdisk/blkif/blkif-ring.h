/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of a ring, for the files of blkif; nobody else includes this.
 *
 * blkif.c          takes and answers: the order of a turn
 * blkif-check.c    what a request asks for, and whether it may (R4)
 * blkif-copy.c     segments of an INDIRECT, and data between the guest's pages and our buffers
 *                  (R5, R10, R11)
 * blkif-persist.c  data in the guest's own pages, where they stay mapped (R6)
 * blkif-poll.c     polls for a while instead of sleeping
 * blkif-window.c   how long that pays
 * blkif-idle.c     whether the host has the time
 * blkif-connect.c  maps a ring, and unmaps it
 * blkif-takeover.c continues a ring where another process stopped
 */
#ifndef TAPDISK_BLKIF_RING_H
#define TAPDISK_BLKIF_RING_H

#include "lib/io/pool.h"
#include "tapdisk/blkif/blkif-poll.h"
#include "tapdisk/blkif/blkif.h"
#include "tapdisk/blkif/inflight.h"
#include "tapdisk/cache/lane.h"
#include "tapdisk/stats/stats.h"

/* Beside each entry of the table of requests in flight, what this process needs to work on it. */
struct blkif_req {
	struct td_req req;
	struct blkif *ring;
	unsigned index;
	struct td_pool *pool;
	void *room; /* out of pool: its data, and before them its segments, if it is INDIRECT; NULL:
		       none */
	const struct blkif_seg *seg; /* private: in the table, or in room */
	unsigned nr_segs;
	void *buf;   /* in room: the data, contiguous; NULL without */
	bool mapped; /* the data are in the guest's pages; what buf points to has their iovec */
	struct iovec iov;
	int err;
	uint64_t paid;  /* bytes that it has been counted with in the disk's limit */
	uint64_t start; /* ns; 0: it is no request to the disk, as a malformed one is none */
	struct blkif_req *next; /* on the free list, or on the list of those that are done */
};

/* See blkif-poll.c. */
struct blkif_poll {
	bool on;          /* the loop does not sleep, and the guest need not wake it */
	struct td_io *io; /* whose completions are looked for, while on; or NULL */
	struct blkif_window window;
	struct blkif_idle idle;
	uint64_t kept; /* ns awake since the processor was offered to others */
	ev_idle spin;
};

#define BLKIF_MAGIC 0x626c6b66u

#define BLKIF_LARGE_MAX 32 /* INDIRECT requests under way at once, of up to 2 MiB */

/* What each ring has of blkif_memory in any case: the largest request and the largest that is not
 * INDIRECT. */
#define BLKIF_RESERVE ((1 + BLKIF_MAX_INDIRECT + BLKIF_MAX_SEGS) * (size_t)TD_PAGE)

enum blkif_state { HELD, RUNNING, BROKEN };

struct blkif {
	unsigned magic;
	enum blkif_state state;
	struct ev_loop *loop;
	struct td_xport *x;
	struct blkif_params p;
	struct blkif_disk *disk;
	struct lane *lane;        /* NULL: its thread is the main one */
	struct lane_op *lane_ops; /* one for each of reqs */
	bool watch_idle;
	struct blkif_sring *ring;
	unsigned slots;
	uint32_t req_cons, rsp_prod; /* ours: the guest's copies are not believed */

	struct inflight table; /* entry[i] and reqs[i] are one request */
	struct blkif_req *reqs;
	struct blkif_req *free;
	struct blkif_req *done, **done_tail; /* to be answered in this turn */
	unsigned inflight;                   /* atomic: others look */
	bool starved;                        /* the next request waits in the ring for room */
	bool limited;                        /* or because of the disk's limit */
	struct limit_place place;
	bool taken_over;          /* from a dead process, and not run yet */
	struct blkif_req *replay; /* what a dead process owed, in the guest's order; submitted when
				     the ring runs */
	struct td_account memory; /* of blkif_memory: what the pools have touched */
	struct td_pool *small;    /* room for a request's eleven segments: one for each slot */
	struct td_pool *large;    /* for an INDIRECT; without one free, or memory for it, it stays
				     in the ring, and so does what is behind it */
	struct blkif_persist *persist; /* NULL: all is copied */
	struct td_copy *copies;        /* as many as there are pages in both */
	unsigned ncopies;

	ev_io event;
	ev_prepare respond; /* never started: fed at TD_PRI_RING */
	ev_prepare show;    /* the same, at the turn's end: the numbers for other programs */
	ev_idle more;       /* the ring is looked at again in the next turn, without sleeping */
	ev_timer storm, trim;
	ev_timer pace; /* until the disk's limit lets the next request go */
	struct blkif_poll poll;
	unsigned turn, rounds; /* the loop's iteration, and looks at the ring in it */
	unsigned empty_events;
	uint64_t event_seen; /* n.taken at the last event */
	unsigned trims;      /* ticks of trim */
	struct td_log_limit limit;
	struct blkif_stats n;
	struct stats_source stats;
	char why[160];
};

/* A counter that other threads look at. */
#define BLKIF_COUNT(x, d) __atomic_store_n(&(x), (x) + (d), __ATOMIC_RELEASE)

static inline struct td_io *blkif_io(const struct blkif *b)
{
	return b->lane ? lane_io(b->lane) : b->disk->cache->io;
}

static inline const struct blkif_desc *blkif_desc_of(const struct blkif_req *r)
{
	return &r->ring->table.entry[r->index].desc;
}

/* --- blkif.c --- */

void blkif_init_watchers(struct blkif *b);
void blkif_respond(struct blkif *b);            /* to all that is done, now */
bool blkif_has_requests(const struct blkif *b); /* in its ring, not taken */
void blkif_ask_no_events(struct blkif *b);      /* as it is looked at without */
void blkif_req_done(struct td_req *req, int err);

/* --- blkif-check.c --- */

/* Bytes of memory that it takes: for its data, and for the segments of an INDIRECT. */
size_t blkif_room(const struct blkif_req *r);

/* What it counts with in the disk's limit, before its segments are known: those of an INDIRECT as
 * whole pages.  False: with nothing. */
bool blkif_cost(const struct blkif_req *r, bool *write, uint64_t *bytes);

/* Checks the request that stands in r's entry of the table (of an INDIRECT its segments are in
 * r->room), and makes r ready; 0, or the error to answer with. */
int blkif_check(struct blkif_req *r);
bool blkif_is_indirect(const struct blkif_req *r); /* with a number of segments that we take */

/* --- blkif-copy.c: `first' begins a list by next --- */

/* Fetches the segments of all INDIRECTs among them, in one call; one that could not be had gets its
 * r->err. */
void blkif_fetch_segments(struct blkif *b, struct blkif_req *first);
/* Fetches the data of all writes among them, in one call; likewise. */
void blkif_fetch_writes(struct blkif *b, struct blkif_req *first);
/* Hands the data of all reads among them that went well to the guest, in one call; likewise. */
void blkif_hand_out_reads(struct blkif *b, struct blkif_req *first);

/* --- blkif-persist.c --- */

int blkif_persist_open(struct blkif *b); /* no memory: -1 */
void blkif_persist_close(struct blkif *b);
/* Lets r->req have the guest's pages of r->seg in iov (r->nr_segs of room), until put; false: they
 * are to be copied. */
bool blkif_persist_get(struct blkif_req *r, struct iovec *iov);
void blkif_persist_put(struct blkif_req *r);
/* Once a second: unmaps what has not been used for long; true: more is mapped. */
bool blkif_persist_age(struct blkif *b);

/* --- blkif-poll.c --- */

void blkif_poll_init(struct blkif *b);
void blkif_poll_work(struct blkif *b, uint64_t now); /* there is work: a request, or an answer */
void blkif_poll_stop(struct blkif *b); /* the ring is to be looked at after it: no event has been
					  asked for meanwhile */

/* --- blkif-takeover.c --- */

/* Opens the record of what is in flight: the ring's own, or that of a dead process, whose requests
 * are in b->replay then. */
int blkif_open_table(struct blkif *b, const struct blkif_keep *keep, struct td_err *err);

#endif
