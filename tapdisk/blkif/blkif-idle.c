/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Has the host idle CPU time?  Rule P2 of blkif-poll.c.
 *
 * Two witnesses.  /proc/stat says what all processors did in the last second; reading it costs 30
 * us to a millisecond, by the number of processors, so it is asked once a second, and only while
 * there is something to gain.  It is slow, but it sees who waits for a processor without taking
 * ours.  The other costs nothing, and is quick: while we do nothing but look, the time between two
 * looks is well below a microsecond, unless another process or, below a hypervisor, another guest
 * was on our processor meanwhile.  Where that adds up, the processor is wanted, whatever the
 * average says.
 */
#include "tapdisk/blkif/blkif-poll.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "lib/io/clock.h"

#define LOOK UINT64_C(1000000000) /* ns between looks at the host ... */
#define SOON                                                                                       \
	UINT64_C(100000000)     /* ... and between the first, which tells nothing, and the next    \
				 */
#define STALE (10 * LOOK)       /* after which the last look tells nothing any more */
#define STEP  UINT64_C(50000)   /* ns: the longest time between two looks that is our own */
#define LOST  UINT64_C(5000000) /* ns that others may have had of our processor since a look */

static int stat_fd = -1; /* of /proc/stat */

void blkif_idle_open(void)
{
	stat_fd = open("/proc/stat", O_RDONLY | O_CLOEXEC);
}

/* Ticks of all CPUs since the start: those idle (waiting for a disk is idle too), and all. */
static bool read_ticks(uint64_t *idle, uint64_t *total)
{
	unsigned long long v[8] = {0};
	char line[512];
	ssize_t n = pread(stat_fd, line, sizeof line - 1, 0);

	line[n > 0 ? n : 0] = 0;
	if (sscanf(line, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &v[0], &v[1], &v[2], &v[3],
		   &v[4], &v[5], &v[6], &v[7]) < 4)
		return false;
	*idle = v[3] + v[4];
	*total = 0;
	for (int i = 0; i < 8; i++)
		*total += v[i];
	return true;
}

static bool (*source)(uint64_t *idle, uint64_t *total) = read_ticks;

void blkif_idle_source(bool (*read)(uint64_t *idle, uint64_t *total))
{
	source = read ? read : read_ticks;
}

bool blkif_idle_judge(struct blkif_idle *h, unsigned percent, uint64_t now)
{
	uint64_t idle, total, tick, since;

	if (!percent)
		return true;
	since = now - h->looked;
	if (h->looks && since < (h->looks == 1 ? SOON : LOOK))
		return h->says;
	if (!source(&idle, &total)) {
		h->looks = 1;
		h->looked = now;
		return h->says = false;
	}
	tick = 1000000000 / (uint64_t)sysconf(_SC_CLK_TCK);
	h->looks = h->looks && since < STALE ? 2 : 1;
	h->says = h->looks > 1 && total > h->total &&
		  (idle - h->idle + h->spun / tick) * 100 >= percent * (total - h->total);
	h->looked = now;
	h->idle = idle;
	h->total = total;
	h->spun = h->lost = 0;
	return h->says;
}

void blkif_idle_step(struct blkif_idle *h, uint64_t ns)
{
	if (ns < STEP || ns < 4 * td_call_cost()) {
		h->spun += ns;
		return;
	}
	h->lost += ns;
	if (h->lost > LOST)
		h->says = false;
}
