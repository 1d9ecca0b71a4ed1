/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * In the place of tapdisk/queue.c and tapdisk/stats/shm.c: threads whose turns the lab chooses, and
 * no counters for others.  A queue's messages arrive in order, one at a time, when the lab says so;
 * what a lane's thread does is done in between, by this thread.
 */
#ifndef CRASH_STAND_IN_H
#define CRASH_STAND_IN_H

#include "tapdisk/queue.h"
#include "tests/crash/sim.h"

/* In a process that is new: its home queue, and so many threads beside it. */
void stand_in_start(struct queue *home, struct ev_loop *loop, struct sim *s, unsigned threads);
/* Delivers a message to one of its queues; false: there is none. */
bool stand_in_mail(struct rng *rng);

#endif
