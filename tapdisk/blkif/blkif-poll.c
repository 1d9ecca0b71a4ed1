/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Staying awake for a while after work.  A request costs two wake-ups more than a program's own I/O
 * does, its own and its answer's, and on a fast disk these are a good part of its time: a loop that
 * looks at the ring and at the engine's completions instead of sleeping spares them, at the price
 * of the CPU.  So
 *
 * P1 it happens unless the ring's owner or the host's configuration says no, and only after work;
 *    the owner may say for how long at most, otherwise it is 32 us for a guest.  At rest there is
 *    no wake-up;
 * P2 only as long as the host has idle CPU time: polling_idle percent of it in the last second,
 *    what we burnt ourselves counted as idle, and while nobody takes the processor from us in the
 *    middle of it (blkif-idle.c);
 * P3 only where it pays: the window for the guest's next request doubles when work wakes us that
 *    the longest window would have seen, and halves when it comes later; after eight windows in
 *    vain, for the guest or for the disk, there are none for a while, each time for longer;
 * P4 however the guest behaves, a ring burns at most 240 us for each good request that it has made,
 *    and 10 ms of this at once.  What is malformed, and an index or an event without a request, are
 *    worth nothing;
 * P5 while requests are under way, it lasts half as long again as the disk has taken on average,
 *    and 200 us at most: a slow disk is not waited for at all;
 * P6 the processor is offered to others every 100 us, and while anything but reads is under way
 *    every 10 us: a file system may finish a write in a kernel thread of this very processor.  How
 *    long that takes is evidence for P2.
 *
 * While it is on, the guest is not asked for events; at its end the guest is asked again, and then
 * the ring is looked at once more.  The loop's other descriptors get their turn every SLICE, and
 * every FULL_SLICE when all that this ring waits for shows in memory.
 */
#include "tapdisk/blkif/blkif-ring.h"

#include <sched.h>

#include "lib/io/clock.h"

#define SLICE      UINT64_C(20000) /* ns */
#define FULL_SLICE UINT64_C(50000)
#define LOOKS      16               /* between looks at the clock */
#define YIELD      UINT64_C(100000) /* P6; ns */
#define YIELD_KERN UINT64_C(10000)

bool blkif_polling = true;

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
	blkif_ask_no_events(b);
	p->io = blkif_io(b);
	if (p->io)
		td_io_peek_begin(p->io);
	ev_idle_start(b->loop, &p->spin);
}

/* P4 */
static uint64_t good_requests(const struct blkif *b)
{
	uint64_t n = 0;

	for (int i = 0; i < STATS_KINDS; i++)
		n += b->stats.kind[i].done + b->stats.kind[i].under_way;
	return n;
}

void blkif_poll_work(struct blkif *b, uint64_t now)
{
	struct blkif_poll *p = &b->poll;
	bool unsaid = b->p.polling_us == BLKIF_POLLING_UNSAID;
	uint64_t most = b->p.polling_us * UINT64_C(1000);

	if (!most) /* P1 */
		return;
	blkif_window_work(&p->window, unsaid ? BLKIF_POLL_GUEST : most,
			  unsaid ? BLKIF_POLL_DISK : most, b->inflight, good_requests(b), now);
	if (!p->on && p->window.until && b->state == RUNNING &&
	    blkif_idle_judge(&p->idle, b->p.polling_idle, now))
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

static bool look_often(struct blkif *b)
{
	for (int i = 0; i < LOOKS; i++) {
		if (found_work(b))
			return true;
#if defined(__x86_64__) || defined(__i386__)
		__builtin_ia32_pause();
#endif
	}
	return false;
}

/* What is under way elsewhere than in the engine's ring (in threads, in the main thread, at a
 * server) ends with an event of the loop. */
static uint64_t slice(const struct blkif *b)
{
	unsigned seen = b->poll.io ? td_io_peek_sees(b->poll.io) : 0;

	return seen >= b->inflight ? FULL_SLICE : SLICE;
}

/* P6.  The time that it takes shows in the next look at the clock. */
static void yield(struct blkif *b, uint64_t spun)
{
	bool reads_alone = b->inflight == b->stats.kind[stats_kind(TD_READ)].under_way;

	b->poll.kept += spun;
	if (b->poll.kept < (reads_alone ? YIELD : YIELD_KERN))
		return;
	b->poll.kept = 0;
	sched_yield();
}

/* One slice of it.  What has been found causes the rest of the turn: answers, and the commit. */
static void on_spin(struct ev_loop *loop, ev_idle *w, int revents)
{
	struct blkif *b = w->data;
	struct blkif_poll *p = &b->poll;
	uint64_t begun = td_clock_now(), now = begun, before, end = begun + slice(b);

	while (!look_often(b)) {
		before = now;
		now = td_clock_now();
		blkif_idle_step(&p->idle, now - before);
		if (now >= p->window.until || !blkif_idle_judge(&p->idle, b->p.polling_idle, now)) {
			blkif_poll_stop(b);
			break;
		}
		if (now >= end)
			break;
		yield(b, now - before);
	}
	blkif_window_spun(&p->window, now - begun);
	blkif_look(b);
}

void blkif_poll_init(struct blkif *b)
{
	ev_init(&b->poll.spin, on_spin);
	ev_set_priority(&b->poll.spin, EV_MAXPRI); /* as `more' */
	b->poll.spin.data = b;
}
