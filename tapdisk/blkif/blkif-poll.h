/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What decides whether a ring's thread stays awake: how long it pays (blkif-window.c), and whether
 * the host has the time (blkif-idle.c).  Neither looks at a clock: now is ns of CLOCK_MONOTONIC.
 */
#ifndef TAPDISK_BLKIF_POLL_H
#define TAPDISK_BLKIF_POLL_H

#include <stdbool.h>
#include <stdint.h>

/* --- blkif-window.c; times in ns --- */

#define BLKIF_POLL_GUEST UINT64_C(32000)    /* the longest wait for a guest, where nobody says */
#define BLKIF_POLL_DISK  UINT64_C(200000)   /* the longest wait for a disk, whoever says what */
#define BLKIF_POLL_EARN  UINT64_C(240000)   /* P4: what a request allows ... */
#define BLKIF_POLL_STORE UINT64_C(10000000) /* ... and the most that is kept of it */

/* P3 */
struct blkif_tries {
	unsigned missed;  /* windows in vain in a row */
	unsigned resting; /* gaps to go without one */
	unsigned rest;    /* how many they were the last time */
};

struct blkif_window {
	uint64_t last;  /* when there was work; 0: never */
	bool out;       /* requests were under way then: what comes next is the disk's */
	uint64_t until; /* how long it pays to stay awake; 0: it does not */
	uint64_t guest; /* the window for the guest's next request, as P3 has made it */
	uint64_t disk;  /* P5: how long the disk takes, on average; 0: not known */
	struct blkif_tries tries[2]; /* for the guest, for the disk */
	uint64_t requests, credit;   /* P4: those that have been counted; what is left to burn */
};

/* There is work.  most: the longest window for the guest's next request and for the disk; out: is a
 * request under way now; requests: good ones that the guest has made so far. */
void blkif_window_work(struct blkif_window *w, uint64_t guest_most, uint64_t disk_most, bool out,
		       uint64_t requests, uint64_t now);
void blkif_window_spun(struct blkif_window *w, uint64_t ns);

/* --- blkif-idle.c --- */

struct blkif_idle {
	unsigned looks;      /* at the host, since it was last asked without a long pause */
	uint64_t looked;     /* the latest */
	uint64_t spun, lost; /* ns, since: burnt by us for nothing, and taken by others meanwhile */
	uint64_t idle, total; /* ticks, then */
	bool says;
};

/* Once, before the sandbox: a thread that serves would have to ask its opener for the file. */
void blkif_idle_open(void);
/* Was so much of the host's CPU time idle lately?  0 percent: in any case. */
bool blkif_idle_judge(struct blkif_idle *h, unsigned percent, uint64_t now);
/* So much time passed between two looks at the clock with nothing to do: we burnt it, or, if it is
 * long, somebody else had the processor. */
void blkif_idle_step(struct blkif_idle *h, uint64_t ns);
/* For tests: ticks of all CPUs come from there; NULL: from /proc/stat, as always. */
void blkif_idle_source(bool (*read)(uint64_t *idle, uint64_t *total));

#endif
