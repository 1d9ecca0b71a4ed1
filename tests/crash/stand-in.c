/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/crash/stand-in.h"

#include <stdlib.h>

#include "lib/fiber/fiber.h"
#include "tapdisk/stats/shm.h"

static struct queue *queues[QUEUE_MAX]; /* of the process */
static unsigned nqueues;
static struct sim *disk;

void stand_in_start(struct queue *home, struct ev_loop *loop, struct sim *s, unsigned threads)
{
	home->loop = loop;
	disk = s;
	queues[nqueues++] = home;
	while (nqueues <= threads && nqueues < QUEUE_MAX) {
		queues[nqueues] = calloc(1, sizeof *queues[0]);
		queues[nqueues++]->loop = loop;
	}
}

int queue_engine(struct queue *q, const char *choice, bool direct, struct td_io **io,
		 struct td_err *err)
{
	struct td_io **slot = direct ? &q->direct : &q->buffered;

	if (!*slot)
		*slot = sim_engine(disk, q->loop);
	*io = *slot;
	return 0;
}

struct queue *queue_for_ring(struct queue *home, unsigned ring)
{
	return queues[ring % nqueues];
}

/* The inbox has the latest first. */
void queue_post(struct queue *q, struct queue_msg *m)
{
	m->next = q->inbox;
	__atomic_store_n(&q->inbox, m, __ATOMIC_RELAXED);
}

static void deliver(struct queue *q)
{
	struct queue_msg **at = &q->inbox, *m;

	while ((*at)->next)
		at = &(*at)->next;
	m = *at;
	*at = NULL;
	m->fn(m);
}

bool stand_in_mail(struct rng *rng)
{
	unsigned from = (unsigned)rng_below(rng, nqueues);

	for (unsigned i = 0; i < nqueues; i++) {
		struct queue *q = queues[(from + i) % nqueues];

		if (q->inbox) {
			deliver(q);
			return true;
		}
	}
	return false;
}

struct call {
	struct queue_msg msg;
	struct queue *home;
	struct td_fiber *fiber;
	void (*fn)(void *arg);
	void *arg;
	bool done;
};

static void call_back(struct queue_msg *m)
{
	struct call *c = td_entry(m, struct call, msg);

	c->done = true;
	td_fiber_wake(c->fiber);
}

static void call_run(struct queue_msg *m)
{
	struct call *c = td_entry(m, struct call, msg);

	c->fn(c->arg);
	c->msg.fn = call_back;
	queue_post(c->home, &c->msg);
}

void queue_call(struct queue *home, struct queue *q, void (*fn)(void *arg), void *arg)
{
	struct call c = {
		.msg.fn = call_run, .home = home, .fiber = td_fiber_self(), .fn = fn, .arg = arg};

	queue_post(q, &c.msg);
	while (!c.done)
		td_fiber_wait();
}

void queue_fini(struct queue *q)
{
}

void shm_open_file(struct shm *s, const char *name)
{
	s->at = NULL;
}

void shm_close_file(struct shm *s)
{
}
