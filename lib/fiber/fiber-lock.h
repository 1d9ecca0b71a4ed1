/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fibers that wait for each other: a lock that may be held over a wait, and a condition.  First
 * come, first served. All users of one live in one thread; between two waits a fiber needs no lock.
 */
#ifndef TD_LIB_FIBER_LOCK_H
#define TD_LIB_FIBER_LOCK_H

#include <stdbool.h>

#include "td/list.h"

struct td_cond {
	struct td_list waiters;
};

struct td_lock {
	struct td_cond queue;
	bool held;
};

void td_cond_init(struct td_cond *c);
void td_cond_wait(struct td_cond *c);     /* on a fiber; until a wake that comes after it began */
void td_cond_wake(struct td_cond *c);     /* from anywhere: all that wait */
bool td_cond_wake_one(struct td_cond *c); /* the one that has waited longest; false: nobody waits */

void td_lock_init(struct td_lock *l);
void td_lock(struct td_lock *l); /* on a fiber */
void td_unlock(struct td_lock *l);

#endif
