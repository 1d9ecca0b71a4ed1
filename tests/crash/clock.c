/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/crash/clock.h"

#include <stdint.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>

#include "tests/crash/process.h"

#define EPOCH INT64_C(1000000000) /* s, where the clock starts */

static LAB int64_t now_ns = EPOCH * 1000000000;

void clock_advance(double seconds)
{
	now_ns += (int64_t)(seconds * 1e9);
}

void clock_reset(void)
{
	now_ns = EPOCH * 1000000000;
}

double clock_real(void)
{
	struct rusage r;

	getrusage(RUSAGE_SELF, &r);
	return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) +
	       (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) * 1e-6;
}

/* These take the place of the C library's, for this program and the shared libraries that it uses.
 */
int clock_gettime(clockid_t id, struct timespec *ts)
{
	ts->tv_sec = (time_t)(now_ns / 1000000000);
	ts->tv_nsec = (long)(now_ns % 1000000000);
	return 0;
}

int gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
	tv->tv_sec = (time_t)(now_ns / 1000000000);
	tv->tv_usec = (suseconds_t)(now_ns % 1000000000 / 1000);
	return 0;
}

time_t time(time_t *t)
{
	time_t s = (time_t)(now_ns / 1000000000);

	if (t)
		*t = s;
	return s;
}
