/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fibers: straight-line code for slow paths that waits for I/O without holding up the loop.
 *
 * A fiber belongs to the thread and loop that started it.  It runs until it waits; the loop goes on
 * meanwhile; a wake resumes it from the loop, never inside the waker.
 */
#ifndef TD_LIB_FIBER_H
#define TD_LIB_FIBER_H

#include "td/io.h"

#define TD_FIBER_STACK (256 * 1024) /* bytes; only the touched part takes memory */
#define TD_FIBER_GUARD (64 * 1024)  /* bytes: more than any frame, so that none steps over it */

struct td_fiber;

/* Starts fn(arg) at once, in the caller's stead, until it waits or ends.  0 or -ENOMEM. */
int td_fiber_start(struct ev_loop *loop, void (*fn)(void *arg), void *arg);

/* Gives the stacks of ended fibers back, which this thread keeps for the next ones. */
void td_fiber_trim(void);

struct td_fiber *td_fiber_self(void); /* NULL outside a fiber */

/* Suspends the running fiber until td_fiber_wake(); a wake that came before is not lost. */
void td_fiber_wait(void);
void td_fiber_wake(struct td_fiber *f);

/* Suspends for at most `seconds'; true when woken, false when the time is over. */
bool td_fiber_wait_for(double seconds);

/* Queues op and waits for its end: its err.  op->done is taken. */
int td_await(struct td_io *io, struct td_iop *op);
int td_await_file(struct td_io *io, struct td_iop *op); /* the same through td_file_io() */
/* Runs fn(arg) in a worker thread and waits: its result. */
long td_await_call(struct td_io *io, long (*fn)(void *arg), void *arg);

#endif
