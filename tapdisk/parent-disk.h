/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Another disk of this host as an image: what a leaf stands on in the place of its own parents
 * (tap-ctl open -e).  It is read by NBD, from whichever tapdisk serves it.
 *
 * PD1 It is only read, so that nothing is promised of it, and a connection that has ended may be
 *     made again (unlike K3 of drivers/nbd/nbd.h).  Its own tapdisk sees to that: the socket is one
 *     that takes no writes.
 * PD2 A read that fails is sent again, once, through a new connection: to the tapdisk that serves
 *     the disk then, after an upgrade or a death of the one before.  It waits PARENT_DISK_WAIT for
 *     that one, and fails then.
 * PD3 A number is another disk's when its disk has been closed: what is reached again, also after a
 *     pause or by a successor, is the same opening of the disk, or the same image under the same
 *     name, as its record says before and after the connection is made.  Another one is not read.
 * PD4 A connection of which one read has failed, and that answers the others not within
 *     PARENT_DISK_WAIT, is given up: those are sent again as well.
 */
#ifndef TAPDISK_PARENT_DISK_H
#define TAPDISK_PARENT_DISK_H

#include "td/block.h"

#define PARENT_DISK_WAIT 30     /* s */
extern double parent_disk_wait; /* s; tests have less */

/* Which disk it is, as its record says; all empty: not known. */
struct parent_disk_id {
	char born[33];          /* of its opening, by whatever process: struct vbd.born */
	char file[48];          /* struct vbd.file */
	char args[TD_SPEC_MAX]; /* type:path */
};

/* On a fiber; td_image_close() ends it.  id: what it was so far, and then what it is; it outlives
 * the image.  -ENOENT: no tapdisk serves that disk; -ESTALE: it is another one. */
int parent_disk_open(int minor, struct parent_disk_id *id, struct td_io *io, struct td_image **out,
		     struct td_err *err);

#endif
