/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The disk of a round of bulk-ring: an image that completes in any order, and fails now and then;
 * the null driver; or a small raw, VHD or qcow2 image through its own driver, on the store in
 * memory.  It is under any cache mode, read-only or not, with discards or without.
 */
#ifndef TESTS_FUZZ_BULK_DISK_H
#define TESTS_FUZZ_BULK_DISK_H

#include "tapdisk/blkif/blkif.h"
#include "tests/fuzz/bulk.h"

extern struct ev_loop *disk_loop;
extern bool disk_fails;   /* so that a good request may, too */
extern bool disk_is_slow; /* it is one in a format */

void disk_start(void);
void disk_begin(struct blkif_disk *d);
void disk_end(void);
void disk_turn(void);              /* of the loop */
void disk_complete(unsigned most); /* that are with the image, in any order */

#endif
