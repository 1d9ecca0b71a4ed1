/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Staying awake for a while after work.  A request costs two wake-ups more than a program's own I/O
 * does, its own and its answer's, and on a fast disk these are a good part of its time: a loop that
 * looks at the ring and at the engine's completions instead of sleeping spares them, at the price
 * of the CPU.  So
 *
 * P1 it happens only when the ring's owner asked for it, and for at most polling_us after the
 *    last work;
 * P2 only as long as the host has idle CPU time: polling_idle percent of it in the last second,
 *    what we burnt ourselves counted as idle;
 * P3 and only where it pays: the window doubles when work wakes us that polling_us would have
 *    seen, and halves when it comes later.
 *
 * While it is on, the guest is not asked for events; at its end the guest is asked again, and then
 * the ring is looked at once more.  The loop's other descriptors get their turn every SLICE.
 */
#include "tapdisk/blkif/blkif-ring.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/io/clock.h"

#define SLICE UINT64_C(20000)      /* ns */
#define START UINT64_C(8000)       /* ns: the smallest window but none */
#define LOOK  UINT64_C(1000000000) /* ns between looks at the host */

/* Ticks of all CPUs since the start: those idle (waiting for a disk is idle too), and all. */
static bool read_ticks(uint64_t *idle, uint64_t *total)
{
	unsigned long long v[8] = {0};
	char line[512];
	ssize_t n;
	int fd = open("/proc/stat", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return false;
	n = read(fd, line, sizeof line - 1);
	close(fd);
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

/* P2 */
static bool host_idle(struct blkif *b, uint64_t now)
{
	struct blkif_poll *p = &b->poll;
	uint64_t idle, total, tick = 1000000000 / (uint64_t)sysconf(_SC_CLK_TCK);

	if (!b->p.polling_idle)
		return true;
	if (p->looked && now - p->looked < LOOK)
		return p->host_idle;
	if (!read_ticks(&idle, &total))
		return false;
	/* the first look has nothing to compare with */
	p->host_idle = p->looked && total > p->total_ticks &&
		       (idle - p->idle_ticks + p->spun / tick) * 100 >=
			       b->p.polling_idle * (total - p->total_ticks);
	p->looked = now;
	p->spun = 0;
	p->idle_ticks = idle;
	p->total_ticks = total;
	return p->host_idle;
}

void blkif_poll_stop(struct blkif *b)
{
	struct blkif_poll *p = &b->poll;

	if (!p->on)
		return;
	p->on = false;
	ev_idle_stop(b->loop, &p->spin);
	if (p->io)
		td_io_peek_end(p->io);
	p->io = NULL;
}

static void start_polling(struct blkif *b)
{
	struct blkif_poll *p = &b->poll;

	p->on = true;
	p->io = blkif_io(b);
	if (p->io)
		td_io_peek_begin(p->io);
	ev_idle_start(b->loop, &p->spin);
}

void blkif_poll_work(struct blkif *b, uint64_t now)
{
	struct blkif_poll *p = &b->poll;
	uint64_t most = b->p.polling_us * UINT64_C(1000), gap = now - p->last;

	if (!most) /* P1 */
		return;
	p->last = now;
	if (p->on)
		return;
	if (gap >= most) /* P3 */
		p->window = p->window / 2 < START ? 0 : p->window / 2;
	else if (gap > p->window)
		p->window = p->window ? p->window * 2 : START;
	if (p->window > most)
		p->window = most;
	if (p->window && b->state == RUNNING && host_idle(b, now))
		start_polling(b);
}

static bool found_work(struct blkif *b)
{
	if ((b->starved || b->limited || !blkif_has_requests(b)) &&
	    !(b->poll.io && td_io_peek(b->poll.io)))
		return false;
	BLKIF_COUNT(b->n.polled, 1);
	return true;
}

/* One slice of it.  What has been found causes the rest of the turn: answers, and the commit. */
static void on_spin(struct ev_loop *loop, ev_idle *w, int revents)
{
	struct blkif *b = w->data;
	struct blkif_poll *p = &b->poll;
	uint64_t begun = td_clock_now(), now = begun;

	while (!found_work(b)) {
		now = td_clock_now();
		if (now > p->last + p->window) {
			blkif_poll_stop(b);
			break;
		}
		if (now - begun > SLICE)
			break;
	}
	p->spun += now - begun;
	blkif_look(b);
}

void blkif_poll_init(struct blkif *b)
{
	ev_init(&b->poll.spin, on_spin);
	ev_set_priority(&b->poll.spin, EV_MAXPRI); /* as `more' */
	b->poll.spin.data = b;
}
