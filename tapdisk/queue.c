/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tapdisk/queue.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "lib/io/clock.h"
#include "lib/fiber/fiber.h"
#include "tapdisk/opener/opener.h"

int queue_engine(struct queue *q, const char *choice, bool direct, struct td_io **io,
		 struct td_err *err)
{
	struct td_io **slot = direct ? &q->direct : &q->buffered;
	const char *name = getenv("TAPDISK_IO");
	int rc = 0;

	if (!q->direct && !q->buffered)
		q->choice = choice;
	if (!*slot)
		rc = td_io_new(q->loop, name && *name ? name : q->choice, direct, slot, err);
	*io = *slot;
	return rc;
}

/* --- messages --- */

void queue_post(struct queue *q, struct queue_msg *m)
{
	struct queue_msg *head = __atomic_load_n(&q->inbox, __ATOMIC_RELAXED);

	do
		m->next = head;
	while (!__atomic_compare_exchange_n(&q->inbox, &head, m, true, __ATOMIC_RELEASE,
					    __ATOMIC_RELAXED));
	if (!head) /* else whoever put the first one there wakes it */
		ev_async_send(q->loop, &q->mail);
}

static void on_mail(struct ev_loop *loop, ev_async *w, int revents)
{
	struct queue *q = w->data;
	struct queue_msg *m = __atomic_exchange_n(&q->inbox, NULL, __ATOMIC_ACQUIRE), *next,
			 *in_order = NULL;

	for (; m; m = next) {
		next = m->next;
		m->next = in_order;
		in_order = m;
	}
	for (m = in_order; m; m = next) {
		next = m->next;
		m->fn(m);
	}
}

static void open_inbox(struct queue *q)
{
	if (q->open)
		return;
	q->open = true;
	ev_async_init(&q->mail, on_mail);
	q->mail.data = q;
	ev_async_start(q->loop, &q->mail);
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

	if (q == home) {
		fn(arg);
		return;
	}
	queue_post(q, &c.msg);
	while (!c.done) /* a wake may be meant for somebody further out */
		td_fiber_wait();
}

/* --- threads --- */

static void *thread_main(void *arg)
{
	struct queue *q = arg;
	char name[16];

	/* for top -H, and taskset */
	snprintf(name, sizeof name, "tapdisk-ring%hhu", q->ring);
	prctl(PR_SET_NAME, name);
	opener_serving();
	ev_run(q->loop, 0);
	td_clock_detach(q->loop);
	return NULL;
}

static void thread_free(struct queue *q)
{
	if (q->loop)
		ev_loop_destroy(q->loop);
	free(q);
}

/* Signals stay with the main thread, whose loop handles them. */
static struct queue *thread_new(unsigned ring)
{
	struct queue *q = calloc(1, sizeof *q);
	sigset_t all, old;
	int rc = -1;

	if (!q)
		return NULL;
	q->ring = (unsigned char)ring;
	q->loop = ev_loop_new(EVFLAG_AUTO);
	if (q->loop) {
		td_clock_attach(q->loop);
		open_inbox(q);
		sigfillset(&all);
		sigdelset(&all, SIGSYS); /* a call that its own sandbox catches */
		pthread_sigmask(SIG_SETMASK, &all, &old);
		rc = pthread_create(&q->thread, NULL, thread_main, q);
		pthread_sigmask(SIG_SETMASK, &old, NULL);
	}
	if (!rc)
		return q;
	td_log(LOG_WARNING, "cannot start a thread for a ring (%s): the main thread serves it",
	       rc > 0 ? strerror(rc) : "no event loop");
	thread_free(q);
	return NULL;
}

unsigned queue_threads(void)
{
	const char *env = getenv("TAPDISK_THREADS");
	cpu_set_t set;
	int n = 1;

	if (env && *env)
		n = atoi(env);
	else if (!sched_getaffinity(0, sizeof set, &set))
		n = CPU_COUNT(&set);
	return n < 1 ? 1 : n > QUEUE_MAX ? QUEUE_MAX : (unsigned)n;
}

struct queue *queue_for_ring(struct queue *home, unsigned ring)
{
	unsigned i = ring ? ring % queue_threads() : 0;

	if (!i)
		return home;
	open_inbox(home);
	if (!home->others[i - 1])
		home->others[i - 1] = thread_new(i);
	return home->others[i - 1] ? home->others[i - 1] : home;
}

static void engines_free(struct queue *q)
{
	td_io_free(q->direct);
	td_io_free(q->buffered);
	q->direct = q->buffered = NULL;
}

struct end {
	struct queue_msg msg;
	struct queue *queue;
};

static void thread_end(struct queue_msg *m)
{
	struct queue *q = td_entry(m, struct end, msg)->queue;

	engines_free(q);
	ev_async_stop(q->loop, &q->mail);
	ev_break(q->loop, EVBREAK_ALL);
}

void queue_fini(struct queue *q)
{
	for (unsigned i = 0; i < QUEUE_MAX - 1; i++) {
		struct end end = {.msg.fn = thread_end, .queue = q->others[i]};

		if (!q->others[i])
			continue;
		queue_post(q->others[i], &end.msg);
		pthread_join(q->others[i]->thread, NULL);
		thread_free(q->others[i]);
		q->others[i] = NULL;
	}
	engines_free(q);
	if (q->open)
		ev_async_stop(q->loop, &q->mail);
	q->open = false;
}
