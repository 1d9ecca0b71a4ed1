/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Finds a tapdisk that lives and does not serve its guest: because it is stopped or hangs, or
 * because its store does not answer.
 *
 * It looks at the tapdisk from outside, every LOOK seconds: at its state in /proc, at its published
 * counters, and, where these show nothing under way, at the two indices of the ring itself, whose
 * first page is mapped for that moment.  It asks the tapdisk something only if the guest waits, and
 * has waited since the last look: a tapdisk at rest is never woken.  The result goes into xenstore
 * (tapdisk-state and reason) and the log.  The tapdisk is not killed, since the requests that it
 * has begun may still be carried out.
 */
#ifndef TD_CONTROL_WATCHDOG_H
#define TD_CONTROL_WATCHDOG_H

#include <stdbool.h>
#include <stdint.h>

#include "control/tapback/frontend.h"

struct device;
struct tapdisk_call;

#define WATCHDOG_LOOK 2.0 /* s */
#define WATCHDOG_PING 3.0 /* s that it has to answer */
/* s without any request done, after which its store is said not to answer */
#define WATCHDOG_STALL 4.0

/* Of one disk.  A zeroed one has seen nothing. */
struct watchdog {
	uint64_t seen; /* its counters' sum, or the ring's rsp_prod, at the last look */
	bool stopped;  /* at the last look */
	bool told;     /* that it hangs, or its store does */
	struct tapdisk_call *ping;
	double answered_at;                /* td_clock_s() of the first answer with ... */
	long long answered;                /* ... so many requests done */
	unsigned rings;                    /* 0: not looked up yet */
	uint32_t ref[FRONTEND_MAX_QUEUES]; /* of each one's first page */
};

void watchdog_look(struct device *d);
void watchdog_drop(struct device *d); /* forgets all; its call too */

#endif
