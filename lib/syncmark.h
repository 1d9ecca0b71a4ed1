/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Flushes whose outcome a dead process has taken along.
 *
 * A flush that fails is sticky (C5 in cache.c), and a successor must not take the disk for sound:
 * the error was told once, to the dead process's descriptor, and a flush of its own may find
 * nothing any more (errseq: an error that has been seen is not shown to a file opened later).  The
 * record says so (record.h), but a death may come before it is written, or within the fdatasync.
 * So:
 *
 * F1 before an fdatasync goes to the kernel, it is counted as begun in a page that outlives the
 *    process (struct td_sync_mark)
 * F2 its failure stands there before it is counted as ended, and before anybody hears of it
 * F3 it stays there until the disk is closed, and whoever takes the disk over has it in a page of
 *    his own before that one goes, and before he opens the image: his own open may be the one
 *    that hears of it, and fail, and the next must know
 * F4 a page that is there and cannot be read (another version's, damaged) may tell of a failure,
 *    and counts as one that does; where there is none, its disk's last process could make none,
 *    which it logged
 *
 * A successor finds a failure: the disk has failed.  It finds one begun and not ended: nobody
 * knows.  Most deaths that meet a flush meet one that was well, and an error in each such case
 * would make every death under load one that the guest sees.  A flush that fails takes long, as the
 * store gives up first (a disk's command has 30 s and retries), and it is then that it is killed;
 * one that fails at once is known after some instructions.  So one that was under way for UNKNOWN_S
 * or longer counts as failed, and a younger one as not made: it is made again.  What this leaves is
 * a flush that fails within those seconds and a death within those instructions. A successor that
 * comes late (nobody was there to start it) takes the time until then for the flush's, which is the
 * safe side.
 *
 * Each disk has a page of its own, flush<minor> in the control directory, and all files of its
 * images count there: one disk's failure is no other's.
 */
#ifndef TD_LIB_SYNCMARK_H
#define TD_LIB_SYNCMARK_H

#include <stdbool.h>

#define SYNCMARK_UNKNOWN_S 20

struct td_sync_mark;

/* A new page, instead of a predecessor's.  failed: a flush has failed already.  NULL: there is
 * none, which is logged. */
struct td_sync_mark *syncmark_open(int minor, bool failed);
void syncmark_close(struct td_sync_mark *m); /* the file stays; NULL is fine */
void syncmark_unlink(int minor);
int syncmark_past(int minor); /* -EIO: by that page, the disk has failed, which is logged; or 0 */
bool syncmark_failed(int minor); /* the same question, for tools that only look: not logged */

#endif
