/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the guest wrote into its frontend directory.  A guest may write anything at any time: every value is read once, is a
 * bounded decimal number or one of the known words, and no path in it is followed.
 */
#ifndef TD_CONTROL_FRONTEND_H
#define TD_CONTROL_FRONTEND_H

#include "control/store.h"

#define FRONTEND_MAX_ORDER 4 /* a ring of up to 2^4 pages */
#define FRONTEND_MAX_PAGES (1u << FRONTEND_MAX_ORDER)

struct frontend {
	unsigned pages;
	uint32_t refs[FRONTEND_MAX_PAGES]; /* grant references of the ring, in order, no two alike */
	uint32_t port;                     /* its event channel */
	const char *abi;                   /* "native", "x86_64" or "x86_32" */
};

/* The frontend's state: enum xenbus; XB_MISSING when there is no such key, XB_UNKNOWN when it is nonsense. */
int frontend_state(struct store *s, const char *path);

/* 0, or -EINVAL with a text that says which key is wrong. */
int frontend_read(struct store *s, const char *path, struct frontend *f, struct td_err *err);

#endif
