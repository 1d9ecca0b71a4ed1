/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A call that may wait for the cluster, on a thread of its own (RB1).  The pool of worker threads
 * (lib/io/workers.h) would not do: it has eight, whose ends the process waits for, and a call of
 * librbd that waits for a cluster cannot be taken back.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "drivers/rbd/rbd.h"
#include "lib/fiber/fiber.h"
#include "lib/io/clock.h"

struct call {
	int (*fn)(void *arg);
	void (*undo)(void *arg);
	void *arg;
	struct ev_loop *loop;
	struct td_fiber *fiber;
	ev_async done; /* the loop's */
	pthread_mutex_t lock;
	int rc; /* under the lock, as are: */
	bool is_done, is_left;
};

static void free_call(struct call *c)
{
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static void *run(void *arg)
{
	struct call *c = arg;
	int rc = c->fn(c->arg);
	bool left;

	pthread_mutex_lock(&c->lock);
	c->rc = rc;
	c->is_done = true;
	left = c->is_left;
	if (!left) /* which the fiber cannot stop before it has the lock */
		ev_async_send(c->loop, &c->done);
	pthread_mutex_unlock(&c->lock);
	if (left) {
		c->undo(c->arg);
		free_call(c);
	}
	return NULL;
}

static void on_done(struct ev_loop *loop, ev_async *w, int revents)
{
	struct call *c = w->data;

	td_fiber_wake(c->fiber);
}

/* Signals stay with the main thread; the library's threads inherit that. */
static int start_thread(struct call *c)
{
	pthread_attr_t attr;
	sigset_t all, old;
	pthread_t t;
	int rc;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	sigfillset(&all);
	sigdelset(&all, SIGSYS); /* a call that its own sandbox catches */
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(&t, &attr, run, c);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	return -rc;
}

/* Is it over?  If not, and it is given up, the thread is the one that frees it. */
static bool call_over(struct call *c, bool give_up)
{
	bool over;

	pthread_mutex_lock(&c->lock);
	over = c->is_done;
	if (over || give_up)
		ev_async_stop(c->loop, &c->done);
	c->is_left = give_up && !over;
	pthread_mutex_unlock(&c->lock);
	return over;
}

int rbdc_call(struct ev_loop *loop, int (*fn)(void *arg), void (*undo)(void *arg), void *arg,
	      double limit)
{
	struct call *c = calloc(1, sizeof *c);
	double until = td_clock_s() + limit, now;
	int rc;

	if (!c)
		return -EAGAIN;
	*c = (struct call){.fn = fn,
			   .undo = undo,
			   .arg = arg,
			   .loop = loop,
			   .fiber = td_fiber_self(),
			   .lock = PTHREAD_MUTEX_INITIALIZER};
	ev_async_init(&c->done, on_done);
	c->done.data = c;
	ev_async_start(loop, &c->done);
	rc = start_thread(c);
	if (rc < 0) {
		ev_async_stop(loop, &c->done);
		free_call(c);
		return -EAGAIN;
	}
	while (!call_over(c, false) && (now = td_clock_s()) < until)
		td_fiber_wait_for(until - now);
	if (!call_over(c, true))
		return -EINPROGRESS;
	rc = c->rc;
	free_call(c);
	return rc;
}
