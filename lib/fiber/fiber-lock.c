/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/fiber/fiber-lock.h"

#include <assert.h>

#include "lib/fiber/fiber.h"

struct waiter {
	struct td_list link;
	struct td_fiber *fiber;
};

void td_cond_init(struct td_cond *c)
{
	td_list_init(&c->waiters);
}

/* Not inlined: the compiler would see a pointer to a dead stack frame, and not that the waker takes
 * it away. */
static __attribute__((noinline)) void queue_up(struct td_cond *c, struct waiter *w)
{
	td_list_add(&c->waiters, &w->link);
}

void td_cond_wait(struct td_cond *c)
{
	struct waiter me = {.fiber = td_fiber_self()};

	assert(me.fiber);
	queue_up(c, &me);
	while (!td_list_empty(&me.link)) /* a wake may be meant for somebody further out */
		td_fiber_wait();
}

bool td_cond_wake_one(struct td_cond *c)
{
	struct td_list *l = td_list_pop(&c->waiters);

	if (l)
		td_fiber_wake(td_entry(l, struct waiter, link)->fiber);
	return l;
}

void td_cond_wake(struct td_cond *c)
{
	while (td_cond_wake_one(c))
		;
}

void td_lock_init(struct td_lock *l)
{
	td_cond_init(&l->queue);
	l->held = false;
}

void td_lock(struct td_lock *l)
{
	if (l->held)
		td_cond_wait(&l->queue); /* it is handed over, so that nobody slips in between */
	l->held = true;
}

void td_unlock(struct td_lock *l)
{
	assert(l->held);
	if (!td_cond_wake_one(&l->queue))
		l->held = false;
}
