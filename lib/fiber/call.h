/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Calls that may block, for fibers of a thread that serves guests: above all those that name files,
 * which wait for another process (tapdisk/opener/opener.h).  They have threads of their own, behind
 * which no guest's request waits.
 */
#ifndef TD_LIB_CALL_H
#define TD_LIB_CALL_H

#include <sys/types.h>

#include "td/io.h"

/* From here on the calling thread, whose loop that is, blocks in no td_call().  0, or -errno. */
int td_calls_start(struct ev_loop *loop, struct td_err *err);
void td_calls_stop(void); /* none is under way */

/*
 * fn(arg) and its result.  On a fiber of a thread that has called td_calls_start() it runs in
 * another thread, and the fiber waits; anywhere else (another thread, a tool, a callback of the
 * loop) it runs here.
 */
long td_call(long (*fn)(void *arg), void *arg);

/* open() and unlink() so: a descriptor, or -errno; 0 or -errno. */
int td_call_open(const char *path, int flags, mode_t mode);
int td_call_unlink(const char *path);

#endif
