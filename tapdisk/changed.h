/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which blocks of a disk change, noted in a file (lib/changed-log.h) for who makes backups.
 *
 * CB1 A change, be it of a guest, an NBD client, or what a dead process owed, goes to the image
 *     when the bits of its blocks are in the log's file; so no death of this process loses one.
 *     What fails counts as well.
 * CB2 Bits are only set, and nothing of the file is written but the bytes that hold them: its
 *     header and its end are others'.
 * CB3 Where the log cannot be written, the changes that need it fail with its error, and those
 *     that come later try again: nothing is changed without its bit.  For want of space they wait
 *     as writes do (C7).
 * CB4 One round of writes to the log is under way at a time.  It takes in all that wait, 4 KiB of
 *     bits at a time; who has its bits there already waits for nothing.
 * CB5 The log is made durable when the disk is paused or closed, and only then does that succeed:
 *     whoever reads the log afterwards marks it as consistent.  A power cut before may lose bits
 *     of what it left of the disk: who opened the disk has cleared the header's mark for that.
 *     Where it fails, a disk that was to be paused goes on, and one that was to be closed is
 *     closed with the error.
 * CB6 Other threads only look (lane.c): they write past the main thread where the bits are in the
 *     file.
 * CB7 What a sync that failed was to make durable is written again before the next, and so is what
 *     a dead process left, of whose syncs nobody knows: a later sync alone makes up for nothing.
 */
#ifndef TAPDISK_CHANGED_H
#define TAPDISK_CHANGED_H

#include "td/block.h"

struct changed;

/*
 * Opens the log at `path' for an image, whose gate it is from now on; on a fiber.  io: an engine
 * for buffered files; left: by a process that is dead.  -ENOENT; -EINVAL for a file that is too
 * short; both with text.
 */
int changed_open(const char *path, struct td_image *image, struct td_io *io, bool left,
		 struct changed **out, struct td_err *err);
/* Makes the log durable; the image has nothing under way; on a fiber.  0, or -errno with text: it
 * may be tried again.  NULL is fine. */
int changed_sync(struct changed *c, struct td_err *err);
void changed_close(struct changed *c); /* the same; NULL is fine */

uint64_t changed_count(const struct changed *c); /* blocks whose bit is set */

#endif
