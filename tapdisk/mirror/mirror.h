/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A mirror: every change of a disk goes to a second image as well, as long as that takes it.
 *
 * It is an image itself, above the disk's leaf, so that the cache layer sends its requests here.
 * The secondary is the copy.
 *
 * MI1 A change, or a flush, is answered when both have done it, with the leaf's result; or, when
 *     the mirror has failed, when the leaf has.  FUA is asked of both, and a flush is sent to both.
 * MI2 A mirror fails once and for good: at the first error of the copy, be it a full one's; when
 *     the copy is found bad or its connection ends, though it has nothing to do; when a sync of
 *     it fails, also as it is closed; when it has
 *     answered nothing for `patience' although it was asked; when it cannot be opened while the
 *     disk is used again, unless it was named just then; when the disk grows; and
 *     when a change has failed on the leaf and was answered so (mirror_fail() by the cache layer's
 *     word).  The owner is told before anything is answered that the copy lacks.  Its record soon
 *     says so; who dies before that leaves one that has failed too (MI8).
 * MI3 A failed mirror costs the guest nothing: what waits for the copy is answered at once.  Only a
 *     copy in the kernel (a file) that has the memory of a request keeps it until it gives it back.
 * MI4 Changes that overlap go one after the other, in the order of their arrival, and the next
 *     begins when both have done the last: so both hold the same in the end, although each may
 *     carry out what is under way in any order.
 * MI5 Zeroes and discards go to the leaf first, and to the copy when the leaf could do them: what
 *     the leaf refuses with EOPNOTSUPP has changed nothing on either.  A copy that cannot discard
 *     gets zeroes, and one that cannot zero gets them written.
 * MI6 Reads are the leaf's alone, and pass.
 * MI7 Another thread (tapdisk/cache/lane.h) reads past this, and writes past it only when the
 *     mirror has failed.
 * MI8 Who dies leaves a mirror of which nobody knows what the copy had got: it has failed.  A clean
 *     pause leaves both the same (cache_flush() has flushed both), so that an unpause, in this
 *     process or in one that it is handed to, goes on with the same copy; but on a server that
 *     cannot flush only if it is the same process (K17 of drivers/nbd/nbd.h).
 *
 * A copy that is a part of the disk (enum mirror_part), which holds what the leaf lacks:
 *
 * MI9 It does not fail alone: an error of it is the change's, and mirror_fail() is to no effect.  A
 *     change goes to the leaf first, and to the copy when the leaf has done it; there it is durable
 *     when it is done, since the copy has no redo log and a dead tapdisk's successor relies on it.
 *     Discards, which need not do anything, do nothing; zeroes are refused, so that they are
 *     written.  Nothing goes past the main thread.
 * MI10 The leaf is without space: from the change on that has found none, all changes go to the
 *     copy alone, and so do reads: MIRROR_READ, the copy has all that the leaf has, which is left
 *     out; MIRROR_STANDBY, the copy stands upon the leaf, which is flushed with it.  A successor
 *     has to know that, or it would show what the leaf has, which is older.  So what finds no space
 *     waits, and the copy gets nothing for the leaf, before the owner's record says so.  When that
 *     cannot be written, there is no space, as without a copy: a change is tried again later.
 *
 * Nothing is copied but the places of the data (iov), which an engine may change while it works;
 * and after the first burst nothing is allocated.
 */
#ifndef TAPDISK_MIRROR_H
#define TAPDISK_MIRROR_H

#include "td/block.h"

struct mirror;

enum mirror_part {
	MIRROR_APART,   /* the copy is never read */
	MIRROR_READ,    /* it is beneath the leaf, and gets what the leaf gets */
	MIRROR_STANDBY, /* it holds nothing, and gets nothing before MI10 */
};

/*
 * A mirror of leaf, on copy, which is as large; both stay the caller's.  On a fiber.  patience: s;
 * 0: without end.  failed: MI2; within the requests that it is about.
 */
int mirror_open(struct td_image *leaf, struct td_image *copy, int patience,
		void (*failed)(void *owner), void *owner, struct mirror **out, struct td_err *err);
void mirror_close(struct mirror *m); /* nothing is under way; NULL is fine */

/* Before the first request: the copy is a part of the disk.  redirected: MI10 has come already, in
 * an earlier life of the disk; else on_full tells of it, within a request that waits for
 * mirror_redirect().  So there is one under way in between. */
void mirror_join(struct mirror *m, enum mirror_part part, bool redirected,
		 void (*on_full)(void *owner), void (*on_lost)(void *owner, int err));
/* rc: 0, the record says so; or -errno, and the copy does not take the leaf's place yet. */
void mirror_redirect(struct mirror *m, int rc);
enum mirror_part mirror_part(const struct mirror *m); /* of NULL: MIRROR_APART */
bool mirror_is_redirected(const struct mirror *m);

struct td_image *mirror_image(struct mirror *m); /* what the disk's requests are sent to */
const struct td_image *mirror_copy(const struct mirror *m);
void mirror_fail(struct mirror *m, const char *why); /* NULL is fine, and one that has failed */
const char *mirror_why(const struct mirror *m);      /* why it has failed; NULL: it has not */
void mirror_resized(struct mirror *m);               /* the leaf's size has changed; NULL is fine */

struct mirror_stats {
	unsigned under_way; /* requests that the copy has */
	uint64_t waited;    /* changes that waited for one that they overlap */
};
struct mirror_stats mirror_stats(const struct mirror *m);

#endif
