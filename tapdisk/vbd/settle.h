/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A dead tapdisk's log of changes is put into its image (lib/redo.h), and nothing else is done with
 * that. */
#ifndef TAPDISK_SETTLE_H
#define TAPDISK_SETTLE_H

#include "tapdisk/options.h"
#include "tapdisk/queue.h"

/* On a fiber; q: the home queue.  The log of that minor, of an image that is open nowhere; no key
 * is needed.  must: there has to be one. */
int settle(struct queue *q, int minor, const char *spec, const struct vbd_options *o, bool must,
	   struct td_err *err);

#endif
