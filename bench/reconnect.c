/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How soon a disk serves a guest that comes back: connects, reads one sector and lets go, over and
 * over.
 *
 *   reconnect [--order 0..4] COUNT PID MINOR
 *
 * Prints reconnect_p50_us, reconnect_p99_us and reconnect_max_us: from asking the tapdisk to map
 * the ring (two calls on its control socket in that) to the answer of the first read.  The guest's
 * own part, making its memory, is in it too.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/support/guest.h"

static double now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static int by_size(const void *a, const void *b)
{
	double d = *(const double *)a - *(const double *)b;

	return (d > 0) - (d < 0);
}

static int once(pid_t pid, int minor, unsigned order, double *us)
{
	static char sector[512];
	static struct guest g;
	static struct td_err err;
	double t = now_us();
	int status;

	if (guest_connect(&g, pid, minor, 51712, BLKIF_NATIVE, order, &err)) {
		fprintf(stderr, "reconnect: %s\n", err.text);
		return 1;
	}
	status = guest_do(&g, BLKIF_READ, 0, sector, sizeof(sector));
	*us = now_us() - t;
	guest_disconnect(&g);
	if (status)
		fprintf(stderr, "reconnect: a read ended with %d\n", status);
	return status != 0;
}

int main(int argc, char **argv)
{
	unsigned order = 0;
	int count, rc = 0;
	double *us;

	if (argc == 6 && !strcmp(argv[1], "--order")) {
		order = (unsigned)atoi(argv[2]);
		argv += 2;
		argc -= 2;
	}
	count = argc == 4 ? atoi(argv[1]) : 0;
	us = count > 0 && order <= BLKIF_MAX_RING_ORDER ? calloc((size_t)count, sizeof(*us)) : NULL;
	if (!us) {
		fprintf(stderr, "usage: reconnect [--order 0..4] COUNT PID MINOR\n");
		return 2;
	}
	for (int i = 0; i < count && !rc; i++)
		rc = once(atoi(argv[2]), atoi(argv[3]), order, &us[i]);
	if (!rc) {
		qsort(us, (size_t)count, sizeof(*us), by_size);
		printf("reconnect_p50_us=%.0f reconnect_p99_us=%.0f reconnect_max_us=%.0f\n",
		       us[count / 2], us[count * 99 / 100], us[count - 1]);
	}
	free(us);
	return rc;
}
