/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Flushes whose outcome was lost when their process died.
 *
 * A flush that fails is sticky (C5 in cache.c), and a successor must not take the disk for sound:
 * the kernel reports the error once, to the dead process's descriptor, and the successor's own
 * flush may not see it any more (errseq: an error that has been seen is not shown to a file opened
 * later).  The record says that a flush has failed (record.h), but the process may die before the
 * record is written, or within the fdatasync.  So:
 *
 * F1 before an fdatasync goes to the kernel, it is counted as begun in a page that outlives the
 *    process (struct td_sync_mark)
 * F2 its failure is in that page before it is counted as ended, and before it is reported; and so
 *    is any other failure after which the disk has failed (syncmark_fail())
 * F3 the failure stays there until the disk is closed.  A process that takes the disk over copies
 *    it to a page of its own before the old page is removed, and before it opens the image: its own
 *    open may be the one to which the kernel reports the error, and may fail, and the next process
 *    must know
 * F4 a page that cannot be read (another version's, damaged) counts as one that has a failure;
 *    where there is no page, the disk's last process could not make one, which it logged
 *
 * If a successor finds a failure, the disk has failed.  If it finds a flush that was begun and not
 * ended, nobody knows its outcome.  Most flushes that a death interrupts would have succeeded, and
 * an error for each of them would let the guest notice every death under load.  A flush that fails
 * takes long, as the store retries first (a disk's command has 30 s and retries), and a process is
 * most likely killed in that time; a flush that fails at once is counted some instructions later.
 * So a flush that was under way for UNKNOWN_S or longer counts as failed, and a younger one as not
 * made: it is made again.  What this does not catch is a flush that fails within those seconds, and
 * a death within those instructions.  A successor that starts late counts the time until its start
 * as the flush's, which is the safe side.
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
void syncmark_fail(struct td_sync_mark *m);  /* NULL is fine */
void syncmark_unlink(int minor);
int syncmark_past(int minor); /* -EIO: by that page, the disk has failed, which is logged; or 0 */
bool syncmark_failed(int minor); /* the same question, for tools that only look: not logged */

#endif
