/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * When an image's files are opened, a part of their contents may be only in the host's page cache,
 * or in the store's: the last process that wrote them was killed, or it dropped flushes
 * (cache=unsafe).  A promise that relies on that part, as a durable write relies on the mapping
 * that was read at the open, would be broken by the next power cut.  So:
 *
 * S1 Before the first promise of a disk that is opened for writing, the contents of all its files
 *    are made durable: the image's own file, those beside it that it names, and those of its
 *    parents.  There is one fdatasync for each file, at each open: also of a successor, and after
 *    a pause.
 * S2 If one of these fails, so does the open.  Where a guest has been promised something already
 *    (by a dead tapdisk, or before a pause), the disk is opened all the same, and counts as one
 *    whose flush has failed (C5 in tapdisk/cache/cache.c): the kernel reports the failure once, and
 *    another try would find nothing.  So that no later open takes the image for sound, the failure
 *    is noted first: for the disk (lib/syncmark.h), and in the redo logs of the image (G9 of
 *    lib/redo.h).  Nothing is written to an image that is opened in this state.
 *
 * A disk that drops flushes promises nothing, so its open makes no fdatasync.
 */
#ifndef TD_LIB_SETTLE_H
#define TD_LIB_SETTLE_H

#include "td/block.h"

/* On a fiber; f has just been opened for image, of whose disk its syncs count from now on
 * (td_image.mark).  0 or -errno with text. */
int td_settle(struct td_image *image, struct td_file *f, struct td_err *err);
/* Has that failed, for an image that was opened all the same?  Then it must not be written. */
bool td_lost(const struct td_image *image);
/* The same as td_settle(), for a caller that has made the file durable: rc is its result. */
int td_settled(struct td_image *image, const char *path, int rc, struct td_err *err);

#endif
