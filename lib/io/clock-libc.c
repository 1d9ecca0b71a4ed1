/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * clock_gettime() instead of libc's, for a program that attaches its loop to lib/io/clock.h: libev
 * asks for the time twice a turn, and has no option against it.  It is not in the library, because
 * it replaces the function for the whole process, and in tapdisk only with --enable-turn-clock.
 */
#include <dlfcn.h>
#include <time.h>

#include "lib/io/clock.h"

typedef int look_fn(clockid_t id, struct timespec *t);

static look_fn *libc;

static int libc_time(clockid_t id, struct timespec *t)
{
	look_fn *fn = __atomic_load_n(&libc, __ATOMIC_RELAXED);

	if (!fn) { /* as soon as some library looks, which may be before main() */
		fn = (look_fn *)dlsym(RTLD_NEXT, "clock_gettime");
		__atomic_store_n(&libc, fn, __ATOMIC_RELAXED);
	}
	return fn(id, t);
}

int clock_gettime(clockid_t id, struct timespec *t)
{
	if (id != CLOCK_MONOTONIC || !td_clock_turn)
		return libc_time(id, t);
	t->tv_sec = (time_t)(td_clock_turn / 1000000000);
	t->tv_nsec = (long)(td_clock_turn % 1000000000);
	return 0;
}
