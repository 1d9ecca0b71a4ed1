/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the guest does in a run: made from a seed, or the n-th of all short sequences. */
#ifndef CRASH_WORK_H
#define CRASH_WORK_H

#include "tests/crash/rng.h"
#include "tests/crash/trace.h"

#define WORK_MAX 160

enum {
	PLAN_DRAIN = 1u << 8,
	/* wait for all answers first */ PLAN_PAUSE =
		1u << 9 /* the disk is paused and goes on; kind is SETTLE */
};

struct plan {
	enum gop_kind kind;
	unsigned flags; /* GOP_*, PLAN_* */
	uint64_t sector;
	uint32_t n;
};

struct work {
	struct plan op[WORK_MAX];
	unsigned n;
	unsigned depth; /* requests at once */
	unsigned eager; /* percent: how soon the disk completes what it has */
	bool ragged;    /* segments that do not fill their pages */
};

struct work_disk {
	uint64_t sectors;
	uint32_t edge; /* sectors: block or cluster of the format; work gathers around its multiples
			*/
	bool extras;   /* requests beside the ring: FUA, zeroes, discard */
};

void work_random(struct work *w, const struct work_disk *d, uint64_t seed);

/* All sequences of one, two or three of 12 kinds of request on a few sectors, one after the other
 * or all at once. */
#define WORK_KINDS     12u
#define WORK_SEQUENCES (WORK_KINDS + WORK_KINDS * WORK_KINDS + WORK_KINDS * WORK_KINDS * WORK_KINDS)
void work_sequence(struct work *w, const struct work_disk *d, unsigned n, bool at_once);

#endif
