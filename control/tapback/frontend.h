/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the guest wrote into its frontend directory.  A guest may write anything at any time: every
 * value is read once, is a bounded decimal number or one of the known words, and no path in it is
 * followed.
 */
#ifndef TD_CONTROL_FRONTEND_H
#define TD_CONTROL_FRONTEND_H

#include "control/store.h"

#define FRONTEND_MAX_ORDER 4 /* a ring of up to 2^4 pages */
#define FRONTEND_MAX_PAGES (1u << FRONTEND_MAX_ORDER)

#define FRONTEND_MAX_QUEUES 8

struct frontend_ring {
	uint32_t refs[FRONTEND_MAX_PAGES]; /* grant references of its pages, in order */
	uint32_t port;                     /* its event channel */
};

struct frontend {
	unsigned pages;  /* of each ring */
	unsigned queues; /* its rings; no two have a reference or a port alike */
	struct frontend_ring ring[FRONTEND_MAX_QUEUES];
	bool persistent; /* it would use the same grants always */
	const char *abi; /* "native", "x86_64" or "x86_32" */
};

/* The frontend's state: enum xenbus; XB_MISSING when there is no such key, XB_UNKNOWN when it is
 * nonsense. */
int frontend_state(struct store *s, const char *path);

/* max_queues: what was offered.  0, or -EINVAL with a text that says which key is wrong. */
int frontend_read(struct store *s, const char *path, unsigned max_queues, struct frontend *f,
		  struct td_err *err);

#endif
