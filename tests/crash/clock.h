/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The lab's clock.  libev, the fibers and the log ask the C library for the time; in this program
 * it answers with a clock that the lab alone moves, so that a timer fires in the same place in
 * every run of a seed.
 */
#ifndef CRASH_CLOCK_H
#define CRASH_CLOCK_H

void clock_advance(double seconds);
void clock_reset(void);  /* where it began */
double clock_real(void); /* seconds of CPU time, for the lab's own report */

#endif
