/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/io/workers.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "lib/io/file.h"

#define WORKER_STACK (256 * 1024) /* bytes; an open walks /proc for a lock's holder */

struct td_workers {
	struct td_io *io;
	pthread_mutex_t lock; /* over all below but the loop's own async */
	pthread_cond_t more;
	struct td_list todo, done; /* td_iop.link */
	unsigned ntodo, idle, started;
	bool stop;
	pthread_t threads[TD_WORKERS_MAX];
	ev_async async;
};

static void *worker(void *arg)
{
	struct td_workers *w = arg;
	struct td_list *l;

	/* else it would have its starter's; who names another thread writes a file */
	prctl(PR_SET_NAME, "tapdisk-io");
	pthread_mutex_lock(&w->lock);
	for (;;) {
		while (!(l = td_list_pop(&w->todo)) && !w->stop) {
			w->idle++;
			pthread_cond_wait(&w->more, &w->lock);
			w->idle--;
		}
		if (!l)
			break;
		w->ntodo--;
		pthread_mutex_unlock(&w->lock);
		struct td_iop *op = td_entry(l, struct td_iop, link);
		op->res = td_file_op(op);
		pthread_mutex_lock(&w->lock);
		bool first = td_list_empty(&w->done);
		td_list_add(&w->done, &op->link);
		if (!first)
			continue;
		pthread_mutex_unlock(&w->lock); /* which is what the loop takes when it wakes */
		ev_async_send(w->io->loop, &w->async);
		pthread_mutex_lock(&w->lock);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

static void on_done(struct ev_loop *loop, ev_async *a, int revents)
{
	struct td_workers *w = a->data;
	struct td_list done;
	struct td_list *l;

	td_list_init(&done);
	pthread_mutex_lock(&w->lock);
	td_list_splice(&done, &w->done);
	pthread_mutex_unlock(&w->lock);
	while ((l = td_list_pop(&done))) {
		struct td_iop *op = td_entry(l, struct td_iop, link);

		td_iop_result(op, op->res);
	}
}

/* Signals stay with the main thread, whose loop handles them. */
static int start_thread(struct td_workers *w)
{
	pthread_attr_t attr;
	sigset_t all, old;
	int rc;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, WORKER_STACK);
	sigfillset(&all);
	sigdelset(&all, SIGSYS); /* a call that its own sandbox catches */
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(&w->threads[w->started], &attr, worker, w);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	w->started += !rc;
	return -rc;
}

int td_workers_new(struct td_io *io, struct td_workers **out)
{
	struct td_workers *w = calloc(1, sizeof *w);

	if (!w)
		return -ENOMEM;
	w->io = io;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->more, NULL);
	td_list_init(&w->todo);
	td_list_init(&w->done);
	ev_async_init(&w->async, on_done);
	w->async.data = w;
	ev_async_start(io->loop, &w->async);
	*out = w;
	return 0;
}

void td_workers_free(struct td_workers *w)
{
	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	w->stop = true;
	pthread_cond_broadcast(&w->more);
	pthread_mutex_unlock(&w->lock);
	for (unsigned i = 0; i < w->started; i++)
		pthread_join(w->threads[i], NULL);
	ev_async_stop(w->io->loop, &w->async);
	pthread_cond_destroy(&w->more);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

/* As many threads as there are new operations; each takes the lock as the first thing. */
static void wake(struct td_workers *w, unsigned n, unsigned idle)
{
	if (n >= idle)
		pthread_cond_broadcast(&w->more);
	else
		while (n--)
			pthread_cond_signal(&w->more);
}

void td_workers_run(struct td_workers *w, struct td_list *ops)
{
	unsigned n = 0, idle;

	td_list_each (l, ops)
		n++;
	pthread_mutex_lock(&w->lock);
	td_list_splice(&w->todo, ops);
	w->ntodo += n;
	/* all that waits is counted, not the new alone: an idle thread that is woken for an earlier
	 * one still counts as idle */
	for (unsigned need = w->ntodo > w->idle ? w->ntodo - w->idle : 0;
	     need && w->started < TD_WORKERS_MAX; need--)
		if (start_thread(w) < 0)
			break;
	idle = w->idle;
	pthread_mutex_unlock(&w->lock);
	if (w->started) {
		wake(w, n, idle);
		return;
	}
	/* no thread can be had at all: do the work here, late but done */
	struct td_list *l;
	while ((l = td_list_pop(&w->todo))) {
		struct td_iop *op = td_entry(l, struct td_iop, link);

		w->ntodo--;
		op->res = td_file_op(op);
		td_list_add(&w->done, &op->link);
	}
	ev_async_send(w->io->loop, &w->async);
}
