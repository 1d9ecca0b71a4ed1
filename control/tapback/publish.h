/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the guest is told about its disk, in the backend directory.
 */
#ifndef TD_CONTROL_PUBLISH_H
#define TD_CONTROL_PUBLISH_H

#include <jansson.h>

#include "control/tapback/backend.h"

/* What a frontend reads while the backend is in InitWait, and that state in place of `from'; one
 * transaction.  0 or -errno; -ESTALE when the toolstack has changed the state meanwhile. */
int publish_offer(struct store *s, const char *dir, int from, unsigned max_queues);

/*
 * The disk as the tapdisk's `info' has it (td/ctl.h), then Connected, in one transaction.  0,
 * -ESTALE as above, or -errno. no_barrier: feature-barrier=0 whatever info says.
 */
int publish_disk(struct store *s, const char *dir, const struct backend *b, json_t *info,
		 bool no_barrier);

/* Whether persistent grants are offered: their pages go to the disk without a copy, so only where
 * the toolstack says that this is safe. */
bool publish_persistent(const struct backend *b, json_t *info);

/* The disk has grown: tells the guest, in the way that blkfront listens for (the state, written
 * again). */
int publish_size(struct store *s, const char *dir, uint64_t sectors);

#endif
