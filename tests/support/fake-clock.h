/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* In the place of lib/io/clock.c, for the one source of a program that includes this: time stands
 * still unless a test moves it.  td_clock_now() moves it by fake_step, since code that looks again
 * and again waits for time to pass. */
#ifndef TESTS_FAKE_CLOCK_H
#define TESTS_FAKE_CLOCK_H

#include "lib/io/clock.h"

static uint64_t fake_now = 1000000000, fake_step = 1000; /* ns */

__thread uint64_t td_clock_turn;

enum td_clock_kind td_clock_probe(void)
{
	return TD_CLOCK_CHEAP;
}

void td_clock_is(enum td_clock_kind kind, uint64_t call)
{
}

uint64_t td_call_cost(void)
{
	return 0;
}

void td_clock_attach(struct ev_loop *loop)
{
}

void td_clock_detach(struct ev_loop *loop)
{
}

uint64_t td_clock(void)
{
	return fake_now;
}

uint64_t td_clock_now(void)
{
	fake_now += fake_step;
	return fake_now;
}

void td_clock_update(struct ev_loop *loop)
{
	ev_now_update(loop);
}

#endif
