/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest that keeps to the ring's protocol, and what it may expect, worked out apart from the
 * consumer's own checks.  Its requests may ask for anything; what it checks:
 *
 * - each request is answered once, with its own id and operation; none that was not made is
 * - a request that breaks a rule (R4) is answered with an error; one that breaks none, on a disk
 *   that did not fail, is not
 * - a write that is acknowledged has reached the image, each sector once, at its place, as the
 *   guest had it
 * - a read brings sectors of the disk into its own sectors of memory; one that failed, and any
 *   other request, changes nothing of the guest's memory
 * - the guest hears of responses that it asked to hear of, and need not kick more than it is asked
 */
#ifndef TESTS_FUZZ_RING_MODEL_H
#define TESTS_FUZZ_RING_MODEL_H

#include "tests/fuzz/fuzz.h"
#include "tests/support/test-ring.h"

/* Of the guest: data, and behind them the pages of INDIRECTs. */
enum { DATA_PAGES = 32, INDIRECT_PAGES = 32 };

void model_begin(void); /* the guest's memory as new; a ring that is new */
void model_end(void);   /* all has been answered; the disk as new again */
bool model_room(void);  /* in its ring */
/* seg: of an INDIRECT, all that a page holds; where no page is left for them it is not made */
void model_put(const struct blkif_desc *d, const struct blkif_seg *seg);
void model_kick(void);   /* if the consumer wants it */
void model_take(void);   /* the responses that are there */
void model_failed(void); /* the image has failed a request: others may */

/* The image's data: each sector of a write, and of a read.  s: the sector's number. */
void model_disk_new(void);
void model_wrote(uint64_t s, const char *from);
void model_read(uint64_t s, char *to);

#endif
