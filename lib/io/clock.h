/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Cached monotonic time, in ns, for hosts where clock_gettime() is a system call; and the cost of a
 * system call.
 *
 * Most kernels answer clock_gettime() without a system call.  In a Xen dom0 whose TSC Xen does not
 * vouch for (each one that does not boot with clocksource=tsc) they cannot, and a turn of the loop
 * asks four times: libev twice, the statistics twice.  There we ask once a turn, when the loop
 * wakes, and td_clock() returns that time until the loop waits again.  libev's two questions are
 * saved as well in a tapdisk that was configured with --enable-turn-clock, as the packages' is: it
 * defines clock_gettime() itself (lib/io/clock-libc.c), and answers libev from the turn's time and
 * all others from libc.  Elsewhere nothing changes.
 *
 * Any thread may call these; in a thread without an attached loop the time is never cached.
 */
#ifndef TD_LIB_CLOCK_H
#define TD_LIB_CLOCK_H

#include <ev.h>
#include <stdint.h>

enum td_clock_kind { TD_CLOCK_CHEAP, TD_CLOCK_DEAR };

/* Finds out what a look and a system call cost here; without it, none is dear.  Once, before there
 * are threads. */
enum td_clock_kind td_clock_probe(void);
/* For tests: that is what it found. */
void td_clock_is(enum td_clock_kind kind, uint64_t call);

/* ns that a system call takes which does nothing: 40 to 400 on most machines, thousands under some
 * hypervisors, a hundred thousand in emulation. */
uint64_t td_call_cost(void);

/* The turns of this loop are its thread's, until it has ended for good.  Takes the loop's release
 * and acquire hooks. */
void td_clock_attach(struct ev_loop *loop);
void td_clock_detach(struct ev_loop *loop);

uint64_t td_clock(void);     /* the turn's time where a look is dear, else the time */
uint64_t td_clock_now(void); /* the time; it is the turn's from now on */
/* The time in s, for durations and deadlines: unlike ev_time() and ev_now(), it is not set with the
 * host's clock. */
static inline double td_clock_s(void)
{
	return (double)td_clock_now() / 1e9;
}
/* ev_now_update(), and the time as it is: for a timer that is set late in a long turn. */
void td_clock_update(struct ev_loop *loop);

extern __thread uint64_t td_clock_turn; /* lib/io/clock-libc.c's; ns, 0: to be looked up */

#endif
