/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What an image's files hold when they are opened may stand in the host's page cache or in the
 * store's alone: its last user was killed, or dropped flushes (cache=unsafe).  A promise that is
 * built upon it, as a durable write on a mapping that was found there, would be broken by the next
 * power cut.  So:
 *
 * S1 Before the first promise of a disk that is written, what all its files hold is made durable:
 *    the image's own, those beside it that it names, and those of its parents.  One fdatasync a
 *    file, at each open: also of a successor, and after a pause.
 * S2 One that fails fails the open.  Where a guest has promises already (a successor, a disk that
 *    was paused) the disk is opened, and a flush has failed (C5 in tapdisk/cache/cache.c): the
 *    kernel reports it once, and another try would find nothing.  So that no later try takes the
 *    image for sound, the failure is noted before: for the disk (lib/syncmark.h), and in the logs
 *    of the image (G9 of lib/redo.h).  Nothing is written to an image that is opened so.
 *
 * A disk that drops flushes promises nothing, and pays for no fdatasync.
 */
#ifndef TD_LIB_SETTLE_H
#define TD_LIB_SETTLE_H

#include "td/block.h"

/* On a fiber; f has just been opened for image, of whose disk its syncs count from now on
 * (td_image.mark).  0 or -errno with text. */
int td_settle(struct td_image *image, struct td_file *f, struct td_err *err);
/* Has that failed, for an image that is opened all the same?  Then it is not to be written. */
bool td_lost(const struct td_image *image);
/* The same as td_settle(), where rc says what became of making it durable: 0 or -errno. */
int td_settled(struct td_image *image, const char *path, int rc, struct td_err *err);

#endif
