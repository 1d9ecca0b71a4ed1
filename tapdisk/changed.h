/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Notes in a file which blocks of a disk have changed (lib/changed-log.h), for backup programs.
 *
 * CB1 A change, whether of a guest, of an NBD client, or repeated for a dead process, goes to the
 *     image only when the bits of its blocks are in the log's file; so no death of this process
 *     loses a bit.  A change that fails has its bits set too.
 * CB2 Bits are only set, and only the bytes that hold them are written: other programs own the
 *     file's header and its length.
 * CB3 Where the log cannot be written, the changes that need it fail with its error, and those
 *     that come later try again: nothing is changed without its bit.  For want of space they wait
 *     as writes do (C7).
 * CB4 One round of writes to the log is under way at a time.  It begins at the end of a turn of the
 *     loop, and covers all changes that wait by then, 4 KiB of bits at a time; a change whose bits
 *     are in the file already does not wait.  A round of one write, as all are that a guest with
 *     one request at a time makes, is a matter of the page cache: it is made near (TD_IO_NEAR).  A
 *     store into a mapped page would cost less, but after each write-back of the page it blocks the
 *     loop for as long as the file system likes, be the page locked in memory or not; and ext4,
 *     btrfs and block devices have no write that must not block (RWF_NOWAIT).
 * CB5 The log is made durable when the disk is paused or closed, and the pause or close succeeds
 *     only then: the program that reads the log afterwards marks it as consistent.  A power cut
 *     before that may lose bits of changes that the disk has kept: therefore the program that has
 *     the disk opened clears the header's mark first.  Where it fails, a disk that was to be paused
 *     goes on, and one that was to be closed is closed with the error.
 * CB6 Other threads only read the bits (lane.c): they write past the main thread where the bits
 *     are in the file.
 * CB7 After a failed sync, what it was to make durable is written again before the next sync; so
 *     is what a dead process left, since nobody knows how its syncs ended: a later sync alone
 *     makes up for nothing.
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
