/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The host's clock is set, as libev and everybody else in this program see it: by `jump'.  For one
 * source of a program. */
#ifndef TESTS_WALL_CLOCK_H
#define TESTS_WALL_CLOCK_H

#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static time_t jump; /* s */

int clock_gettime(clockid_t id, struct timespec *t)
{
	long rc = syscall(SYS_clock_gettime, id, t);

	if (id == CLOCK_REALTIME)
		t->tv_sec += jump;
	return (int)rc;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	*t = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
	return 0;
}

#endif
