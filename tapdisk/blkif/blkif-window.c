/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How long it pays to stay awake after work: rules P3 to P5 of blkif-poll.c.
 *
 * What comes next is the guest's next request, if none is under way, or the disk's answer.  The two
 * have windows of their own, as one tells nothing of the other.
 */
#include "tapdisk/blkif/blkif-poll.h"

#define START  UINT64_C(8000)  /* the guest's smallest window but none */
#define WAKE   UINT64_C(50000) /* a gap that we slept through lasts so much longer, at most */
#define MISSES 8               /* windows in vain in a row, after which there are none ... */
#define REST   64              /* ... for so many gaps, and twice as many each time ... */
#define RESTED 4096            /* ... up to these */
#define LEAST  UINT64_C(16000) /* the disk's smallest window: a quick disk has slow moments */
#define WEIGHT 8               /* of the past in the disk's average */

/* The window was too short; true: once too often. */
static bool in_vain(struct blkif_tries *t)
{
	if (++t->missed < MISSES)
		return false;
	t->rest = !t->rest ? REST : t->rest < RESTED ? t->rest * 2 : RESTED;
	t->resting = t->rest;
	t->missed = 0;
	return true;
}

static void paid(struct blkif_tries *t)
{
	t->missed = 0;
	t->rest /= 2;
}

/* P3 */
static void guest_took(struct blkif_window *w, uint64_t gap, uint64_t most)
{
	struct blkif_tries *t = &w->tries[0];

	if (gap <= w->guest)
		paid(t);
	else if (w->guest && in_vain(t))
		w->guest = 0;
	else if (gap > most + WAKE)
		w->guest = w->guest / 2 < START ? 0 : w->guest / 2;
	else if (t->resting)
		t->resting--;
	else
		w->guest = w->guest ? w->guest * 2 : START;
}

/* P5.  A very slow answer counts as a slow one, so that a few quick ones outweigh it. */
static void disk_took(struct blkif_window *w, uint64_t gap)
{
	struct blkif_tries *t = &w->tries[1];

	if (w->until && gap <= w->until - w->last)
		paid(t);
	else if (w->until)
		in_vain(t);
	else if (t->resting)
		t->resting--;
	if (gap > 2 * BLKIF_POLL_DISK)
		gap = 2 * BLKIF_POLL_DISK;
	w->disk = w->disk ? (w->disk * (WEIGHT - 1) + gap) / WEIGHT : gap;
	w->disk = w->disk ? w->disk : 1;
}

static uint64_t disk_window(const struct blkif_window *w, uint64_t most)
{
	uint64_t window = w->disk + w->disk / 2;

	if (!w->disk || window > most || w->tries[1].resting)
		return 0;
	return window < LEAST ? LEAST : window;
}

void blkif_window_work(struct blkif_window *w, uint64_t guest_most, uint64_t disk_most, bool out,
		       uint64_t requests, uint64_t now)
{
	uint64_t fresh = requests - w->requests, window;

	if (disk_most > BLKIF_POLL_DISK)
		disk_most = BLKIF_POLL_DISK;
	if (w->last && w->out)
		disk_took(w, now - w->last);
	else if (w->last)
		guest_took(w, now - w->last, guest_most);
	if (w->guest > guest_most)
		w->guest = guest_most;
	w->last = now;
	w->out = out;
	w->requests = requests;
	/* P4 */
	w->credit += (fresh < UINT32_MAX ? fresh : UINT32_MAX) * BLKIF_POLL_EARN;
	if (w->credit > BLKIF_POLL_STORE)
		w->credit = BLKIF_POLL_STORE;
	window = out ? disk_window(w, disk_most) : w->guest;
	w->until = window && window <= w->credit ? now + window : 0;
}

void blkif_window_spun(struct blkif_window *w, uint64_t ns)
{
	w->credit -= ns < w->credit ? ns : w->credit;
}
