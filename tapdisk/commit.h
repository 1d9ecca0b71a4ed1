/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A live commit: what one image of a chain holds goes into its parent while guests go on; then the
 * image is taken out of the chain.  Here the copy; tapdisk/vbd/vbd-commit-chain.c opens the images,
 * and changes the chain.  N: the image; P: its parent; A: the image upon N, or none (N is the
 * leaf).
 *
 * LC1 P is written only where N holds something, and with what N holds there: N hides it.  So the
 *     chain reads the same at each moment, and after each cut or death, however far the copy is;
 *     and a copy that was begun may be begun again.  Beyond the end of a smaller N, where the
 *     chain shows zeroes, P gets zeroes.
 * LC2 What reads P while it is written reads the copy of it that is open for writing: the chain has
 *     that one as N's parent from before the first write until P is opened anew.
 * LC3 N is named by A, or by the disk's record, until all of the copy is durable in P.  That is so
 *     in every cache mode: a sync is one even with cache=unsafe, as N held what an earlier mode
 *     had promised.
 * LC4 A names P in one step that a power cut cannot tear (RL1, QR1), and the chain in memory
 *     changes after it.  N itself is not written, and not deleted: whoever asked for the commit
 *     does that, when it has heard that it is concluded.
 * LC5 Of a leaf, blocks that change while they are copied are copied again: a change marks its
 *     blocks when it is over, before it is answered; no ring is served past the main thread
 *     meanwhile.  The last of them are copied while the disk is at rest, and only then P is the
 *     leaf; a guest's write goes to one of the two, never to both.
 * LC6 A job that has failed, was cancelled, or whose tapdisk died and that could not go on, leaves
 *     the chain as it was, and is never reported as concluded: who asks hears the error, until
 *     another job begins or the disk is closed.
 *     Where it fails while A is written, A may name N or P, which read the same: both are to be
 *     kept, and that is what is told.
 *     When a sync of P, or of A's name, has failed, the kernel, which tells of it once, may hold
 *     for written what is in no store: no other job begins until the disk is closed.
 * LC7 Nobody else may stand on P, as its disk would change.  Who has P open as a parent without N,
 *     or has it as a parent in a file beside, stops the job before it begins.  From then until P is
 *     a parent as before nobody else can open it: P is claimed (TD_FILE_CLAIM), and who reads it
 *     is looked for once more under the claim, before the first write.  Another host's readers are
 *     seen, and it sees the claim, where the file system carries fcntl locks (NFS, GFS2); on OCFS2
 *     with o2cb, and on a block device that hosts share (LVM), neither does, and who asks for the
 *     commit answers for it.
 * LC8 The copy gives way.  Where guests have asked for something meanwhile, it goes in small pieces
 *     with pauses, in which they have the stores alone: 19 times as long as the piece took, but not
 *     so long that it is slower than 8 MiB a second, or than the job's rate; and at least as long
 *     as the piece took.  Where small pieces cannot be that quick, they are larger, up to 512 KiB.
 *     It is never faster than the job's rate.
 * LC9 A copy of the leaf comes to its end under a guest that never rests: while half of what is
 *     copied changes again, the pauses become shorter; and when there are none, more may be left
 *     for the time in which the disk is at rest, up to 256 MiB.
 */
#ifndef TAPDISK_COMMIT_H
#define TAPDISK_COMMIT_H

#include "td/block.h"

struct commit {
	/* the owner's */
	struct td_image *from, *to; /* N, and P open for writing */
	uint64_t rate;              /* bytes a second; 0: none is said */
	uint64_t at;                /* bytes of N: those before are durable in P, or begun with */
	uint64_t (*asked)(void *owner); /* optional: how much guests have asked for so far */
	void (*saved)(void *owner);     /* optional: `at' has moved, and P is durable up to there */
	void *owner;

	/* its own */
	uint8_t *buf;
	struct td_watch watch;
	uint8_t *dirty; /* a bit a block of N that has changed; NULL: N does not change */
	unsigned shift; /* of a block */
	uint64_t blocks, ndirty;
	uint64_t unsaved; /* bytes written since the last sync */
	double saved_at;  /* td_clock_s() of that */
	uint64_t seen;    /* of asked() */
	double due;       /* td_clock_s() before which the rate allows no more */
	unsigned steps;   /* without a wait */
	uint32_t piece;   /* bytes */
	unsigned share;   /* of the time that guests get who ask: so many times the copy's */
	uint64_t near;    /* bytes that may be left at the end */
	double looked; /* td_clock_s() when it was last judged whether it gets on; since then ... */
	uint64_t copied, left; /* bytes copied, and those that were left */
	bool stop;
	struct td_fiber *sleeper;
};

/* live: from is written meanwhile; its watch is ours until commit_fini().  0 or -ENOMEM. */
int commit_init(struct commit *c, bool live);
void commit_fini(struct commit *c);

/* On a fiber, as the two that follow: all of N from `at' on, and P durable.  0; -ECANCELED after
 * commit_stop(); or -errno with text. */
int commit_copy(struct commit *c, struct td_err *err);
/* What has changed until now; rest: the disk is at rest, so that nothing is waited for, and P is
 * durable afterwards. */
int commit_again(struct commit *c, bool rest, struct td_err *err);
/* Is so little left that the disk may rest while it is copied? */
bool commit_is_near(const struct commit *c);
/* Sleeps; false: it was stopped. */
bool commit_sleep(struct commit *c, double seconds);

void commit_stop(struct commit *c);           /* any fiber, any number of times */
void commit_wake(struct commit *c);           /* ends commit_sleep() */
uint64_t commit_left(const struct commit *c); /* bytes that are to be copied yet, at most */

#endif
