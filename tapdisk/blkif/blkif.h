/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One ring: takes a guest's requests, checks them, hands them to the disk's cache layer, and
 * answers.
 *
 * tapdisk/blkif/blkif.c alone reads ring memory.  Everything runs in the ring's thread, which is
 * the main one, or the lane's if the ring has a lane (tapdisk/cache/lane.h); except connect,
 * disconnect, abandon, share and leave, and functions that only look, which the main thread calls.
 * States:
 *
 *   connect > HELD <-> RUNNING > BROKEN     (any) > disconnect, when nothing is in flight
 *
 * HELD: no request is taken; the guest waits.  BROKEN: the guest broke the protocol; nothing is
 * taken any more.
 */
#ifndef TAPDISK_BLKIF_H
#define TAPDISK_BLKIF_H

#include "tapdisk/blkif/blkif-abi.h"
#include "tapdisk/cache/cache.h"
#include "tapdisk/limit.h"
#include "td/xport.h"

struct blkif;
struct lane;
struct td_budget;
struct stats;

/* What the ring must know of its disk; the disk keeps it up to date. */
struct blkif_disk {
	struct cache *cache;
	struct stats *stats;
	uint64_t sectors; /* of 512 bytes; atomic: it may grow beside requests */
	bool read_only;
	bool discard;  /* DISCARD is offered */
	bool decrypts; /* as td_image_info has it, of any image of the chain; atomic */
	/* of what its guests can make happen as often as they like; main thread */
	struct td_log_limit limit;
	uint32_t block;     /* bytes: writes must be multiples of it; 0: of 512 */
	struct limit rates; /* of the disk, with all its rings and NBD clients */
	void *owner;
	/* in the main thread: */
	/* once, when the guest has broken the protocol */
	void (*broken)(void *owner, const char *why);
	void (*idle)(void *owner); /* nothing is in flight any more */
};

#define BLKIF_POLLING_MAX    10000 /* us, at most: no disk worth polling for is slower */
#define BLKIF_POLLING_IDLE   50    /* percent, where nobody says */
#define BLKIF_POLLING_UNSAID UINT32_MAX

struct blkif_params {
	uint16_t domid;
	uint32_t devid;
	uint32_t port;
	uint32_t refs[1 << BLKIF_MAX_RING_ORDER];
	unsigned pages; /* 1, 2, 4, 8 or 16 */
	enum blkif_abi abi;
	unsigned queue; /* which of the device's rings: from 0 */
	/* from here on: may be another when the same ring is asked for again */
	uint32_t polling_us; /* how long the ring is watched awake after work, at most; 0: not at
				all; BLKIF_POLLING_UNSAID: as long as suits */
	bool persistent; /* the frontend uses the same grants always, and they may be used without a
			    copy */
	uint32_t polling_idle; /* percent of the host's CPU time that must be idle for that */
};

struct blkif_stats {
	uint64_t taken, answered; /* requests */
	uint64_t indirect;        /* of those taken: INDIRECT */
	uint64_t kicks_in, kicks_out;
	uint64_t mapped;      /* requests whose data were not copied */
	uint64_t polled;      /* requests and completions that were found awake */
	uint64_t errors;      /* requests answered with an error */
	uint64_t malformed;   /* of these, those that broke a rule */
	uint64_t copy_errors; /* grants that could not be copied */
};

/* What the data of all rings of this process may take; its limit may change at any time. */
extern struct td_budget blkif_memory;
#define BLKIF_MEMORY (64 << 20) /* bytes: its limit where nobody says */

extern bool blkif_polling; /* are rings that do not say watched awake? */

unsigned blkif_grants(void); /* guests' pages that are mapped now, in this process */

/* Where the record of what is in flight stands, for a successor (tapdisk/blkif/inflight.h). */
struct blkif_keep {
	const char *path;
	bool take_over; /* from a process that is dead, whose record is there; else the ring must be
			   new */
};

/*
 * Maps the ring (held at first).  loop: its thread's.  lane: its own, or NULL.  Takes x over when
 * it succeeds.  keep may be NULL: no successor is possible.  A take-over that fails leaves the
 * record, so that it can be tried again.
 */
int blkif_connect(struct ev_loop *loop, struct td_xport *x, const struct blkif_params *p,
		  const struct blkif_keep *keep, struct blkif_disk *disk, struct lane *lane,
		  struct blkif **out, struct td_err *err);
void blkif_disconnect(struct blkif *b); /* nothing in flight; NULL is fine */
void blkif_abandon(struct blkif *b); /* as disconnect, of a ring that has never run; the record of
					one taken over stays */
void blkif_stop(struct blkif *b); /* in the ring's thread, held: its loop knows it no more, what is
				     done is answered; comes before those with a lane */
void blkif_watch_idle(struct blkif *b); /* in the ring's thread: one with a lane calls idle() only
					   after this, and in it if it is idle now */

/*
 * For another process that goes on, instead of a disconnect: copies of the transport's descriptors
 * (td/xport.h), their number or -errno; then, of a ring that is held, and whose requests its cache
 * layer has forgotten (cache_forget): what has been done is answered, what has not stands in the
 * record, which stays.
 */
int blkif_share(const struct blkif *b, int fds[TD_XPORT_FDS]);
void blkif_leave(struct blkif *b);

void blkif_hold(struct blkif *b);
void blkif_run(struct blkif *b);
void blkif_look(struct blkif *b); /* takes what is in a running ring, event or not */

unsigned blkif_inflight(const struct blkif *b);                   /* taken and not answered */
bool blkif_owns(const struct blkif *b, const struct td_req *req); /* is it one of this ring's? */
bool blkif_is_broken(const struct blkif *b);
const char *blkif_why(const struct blkif *b); /* the reason, when broken */
const struct blkif_params *blkif_params(const struct blkif *b);
struct blkif_stats blkif_stats(const struct blkif *b); /* now; in any thread */

#endif
