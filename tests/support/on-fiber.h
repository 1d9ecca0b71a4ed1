/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Runs what must be on a fiber, and the loop, until it is done.  The loop's own operations must be
 * enough for it to end. */
#ifndef TESTS_ON_FIBER_H
#define TESTS_ON_FIBER_H

#include <check.h>
#include <unistd.h>

#include "lib/fiber/fiber.h"

struct on_fiber {
	void (*fn)(void *arg);
	void *arg;
	bool done;
};

static void on_fiber_main(void *p)
{
	struct on_fiber *o = p;

	o->fn(o->arg);
	o->done = true;
}

static inline void on_fiber(struct ev_loop *loop, void (*fn)(void *arg), void *arg)
{
	struct on_fiber o = {fn, arg, false};

	ck_assert_int_eq(td_fiber_start(loop, on_fiber_main, &o), 0);
	for (int i = 0; !o.done; i++) {
		ev_run(loop, EVRUN_NOWAIT); /* a waiting one would sleep on after what was fed
					       before it has been done */
		if (i >= 100)               /* what needs no other thread is done by then */
			usleep(50);
	}
}

#endif
