/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The guest of the kill lab, and its judge.  It keeps the ring full of reads, writes, flushes and
 * barriers and knows what each read must bring.  A block is in one request at a time, or again
 * behind a barrier, so that an order that was not kept shows.
 *
 * KG1 each request is answered once, with success, and nothing else is
 * KG2 a read brings the bytes of the write that was issued last before it, in the ring's order
 * KG3 the indices of the ring stay what they can be
 * KG4 something is answered within the lab's patience once there is a tapdisk
 * KG5 where a log of changed blocks is kept, a write that was answered has its bits there
 */
#ifndef CRASH_KILL_GUEST_H
#define CRASH_KILL_GUEST_H

#include "tests/crash/rng.h"
#include "tests/support/guest.h"

#define KILL_BLOCKS 1024 /* of 4 KiB */
#define KILL_MOST   20   /* in one request: beyond 11 it is an indirect one */

struct kill_flight {
	bool there;
	uint8_t op;
	unsigned block, n;
	uint64_t want[KILL_MOST]; /* of a read: the version of each block; 0: never written */
};

struct kill_guest {
	struct guest g;
	struct rng rng;
	uint64_t version[KILL_BLOCKS], next;
	unsigned inflight[KILL_BLOCKS];
	uint64_t epoch_of[KILL_BLOCKS], epoch; /* a barrier begins and ends one */
	struct kill_flight flight[BLKIF_MAX_SLOTS];
	const unsigned char *changed; /* the log of changed blocks, mapped; or NULL */
	uint64_t answers;
	char bad[256]; /* what is wrong, or "" */
};

int kill_guest_new(struct kill_guest *k, uint64_t seed, struct td_err *err);
void kill_guest_free(struct kill_guest *k);
void kill_guest_issue(struct kill_guest *k, unsigned n); /* up to n requests, and a push */
void kill_guest_wait(struct kill_guest *k, int ms);      /* for an event, and takes all answers */
bool kill_guest_waits(const struct kill_guest *k);
void kill_guest_check_all(struct kill_guest *k); /* reads every block */

#endif
