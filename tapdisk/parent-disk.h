/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Another disk of this host as an image: what a leaf stands on in the place of its own parents
 * (tap-ctl open -e).  It is read by NBD, from whichever tapdisk serves it.
 *
 * PD1 It is only read, so that nothing is promised of it, and a connection that has ended may be
 *     made again (unlike K3 of drivers/nbd/nbd.h).
 * PD2 A read that fails is sent again, once, through a new connection: to the tapdisk that serves
 *     the disk then, after an upgrade or a death of the one before.  It waits PARENT_DISK_WAIT for
 *     that one, and fails then.
 */
#ifndef TAPDISK_PARENT_DISK_H
#define TAPDISK_PARENT_DISK_H

#include "td/block.h"

#define PARENT_DISK_WAIT 30 /* s */

/* On a fiber; td_image_close() ends it.  -ENOENT: no tapdisk serves that disk. */
int parent_disk_open(int minor, struct td_io *io, struct td_image **out, struct td_err *err);

#endif
