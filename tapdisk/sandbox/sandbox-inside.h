/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The pieces of the sandbox (tapdisk/sandbox/sandbox.h).  False: this host does not have it. */
#ifndef TAPDISK_SANDBOX_INSIDE_H
#define TAPDISK_SANDBOX_INSIDE_H

#include <stdbool.h>
#include <stdint.h>

/* --- sandbox-rights.c; capabilities are bits --- */

void sandbox_bound(uint32_t keep); /* those that may be had again */
bool sandbox_drop(uint32_t keep);  /* and that there are */
bool sandbox_user(uint32_t id);    /* of no groups; root's capabilities go with root's id */
/* Where mounts of its own are refused: a directory that is removed before it is the root, so that
 * nobody can put anything there.  tap-ctl removes one whose process was killed between. */
bool sandbox_empty_root(void);

/* --- sandbox-filter.c --- */

/* B3.  traps: the calls that name files go to the opener; dials: this is the opener. */
bool sandbox_filter(bool traps, bool dials);
bool sandbox_filter_network(void); /* B5: upon all threads */

#endif
