/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/io/workers.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "lib/io/clock.h"
#include "lib/io/file.h"

#define WORKER_STACK (256 * 1024) /* bytes; an open walks /proc for a lock's holder */

/*
 * A thread beside the loop's (TD_IO_NEAR).  A write that the page cache takes at once costs less
 * than its way to a thread and back: each of the two wakes a processor that is idle, most often,
 * and that takes longer than all else.  So such a thread stays on a processor on which the loop has
 * been, and the loop gives way to it there: when it comes back, the write is done.  A write that
 * has to wait for something holds up nobody: it ends as any other.
 */
struct near {
	pthread_cond_t more;
	struct td_list todo;
	pthread_t thread;
	struct td_workers *of;
	int cpu; /* where the loop was when it last gave it something */
	bool started;
};

#define NEAR 4 /* of them: a loop seldom moves, and then between few processors */
/* ns that giving way may take: else others want the processor; and ns without it after that */
#define LOST    UINT64_C(500000)
#define FOR_NOW UINT64_C(100000000)

struct td_workers {
	struct td_io *io;
	pthread_mutex_t lock; /* over all below but the loop's own */
	pthread_cond_t more;
	struct td_list todo, done; /* td_iop.link */
	unsigned rows;             /* in todo, each for one thread */
	unsigned idle, started;
	bool stop;
	pthread_t threads[TD_WORKERS_MAX];
	struct near near[NEAR];
	bool looks;          /* the loop does so soon, and is not to be woken */
	uint64_t not_before; /* ns: the loop's own */
	ev_async async;
};

/* With the lock, which is let go for a moment. */
static void do_one(struct td_workers *w, struct td_iop *op)
{
	bool tell;

	pthread_mutex_unlock(&w->lock);
	op->res = td_file_op(op);
	pthread_mutex_lock(&w->lock);
	tell = td_list_empty(&w->done) && !w->looks;
	td_list_add(&w->done, &op->link);
	if (!tell)
		return;
	pthread_mutex_unlock(&w->lock); /* which is what the loop takes when it wakes */
	ev_async_send(w->io->loop, &w->async);
	pthread_mutex_lock(&w->lock);
}

/*
 * Writes to the page cache of one file: the file system lets one of them after the other in, so
 * that threads for each would only meet there.  What stands in a row of them is one thread's.
 */
static bool is_in_row(const struct td_iop *op)
{
	return op->op == TD_IO_WRITE && !(op->flags & (TD_IO_DSYNC | TD_IO_ROOM)) &&
	       !(op->file->flags & TD_FILE_DIRECT) && !op->file->st.blockdev;
}

static bool continues(const struct td_iop *op, const struct td_iop *next)
{
	return is_in_row(op) && is_in_row(next) && op->file == next->file;
}

static bool in_a_row(struct td_list *l, struct td_list *next)
{
	return continues(td_entry(l, struct td_iop, link), td_entry(next, struct td_iop, link));
}

/* With the lock.  How many threads more could be busy now? */
static unsigned add_rows(struct td_workers *w, struct td_list *ops)
{
	struct td_list *last = td_list_empty(&w->todo) ? NULL : w->todo.prev;
	unsigned n = 0;

	td_list_each (l, ops) {
		n += !last || !in_a_row(last, l);
		last = l;
	}
	td_list_splice(&w->todo, ops);
	w->rows += n;
	return n;
}

/* With the lock: the first of those that wait, and its row. */
static bool take_row(struct td_workers *w, struct td_list *row)
{
	struct td_list *l = td_list_pop(&w->todo);

	if (!l)
		return false;
	w->rows--;
	td_list_add(row, l);
	while (!td_list_empty(&w->todo) && in_a_row(l, w->todo.next)) {
		l = td_list_pop(&w->todo);
		td_list_add(row, l);
	}
	return true;
}

static void *worker(void *arg)
{
	struct td_workers *w = arg;
	struct td_list row;
	struct td_list *l;

	/* else it would have its starter's; who names another thread writes a file */
	prctl(PR_SET_NAME, "tapdisk-io");
	td_list_init(&row);
	pthread_mutex_lock(&w->lock);
	for (;;) {
		while (!take_row(w, &row) && !w->stop) {
			w->idle++;
			pthread_cond_wait(&w->more, &w->lock);
			w->idle--;
		}
		if (td_list_empty(&row))
			break;
		while ((l = td_list_pop(&row)))
			do_one(w, td_entry(l, struct td_iop, link));
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

static bool stay_on(int cpu)
{
	cpu_set_t one;

	if (cpu < 0 || cpu >= CPU_SETSIZE)
		return false;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	return !sched_setaffinity(0, sizeof one, &one);
}

static void *near_worker(void *arg)
{
	struct near *n = arg;
	struct td_workers *w = n->of;
	struct td_list *l;
	int here = -1;

	prctl(PR_SET_NAME, "tapdisk-io");
	pthread_mutex_lock(&w->lock);
	for (;;) {
		int cpu;

		while (!(l = td_list_pop(&n->todo)) && !w->stop)
			pthread_cond_wait(&n->more, &w->lock);
		if (!l)
			break;
		do_one(w, td_entry(l, struct td_iop, link));
		cpu = n->cpu;
		if (cpu == here)
			continue;
		pthread_mutex_unlock(&w->lock); /* for the next one: nobody waits for this */
		if (stay_on(cpu))
			here = cpu;
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
static int start_thread(pthread_t *thread, void *(*run)(void *), void *arg)
{
	pthread_attr_t attr;
	sigset_t all, old;
	int rc;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, WORKER_STACK);
	sigfillset(&all);
	sigdelset(&all, SIGSYS); /* a call that its own sandbox catches */
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(thread, &attr, run, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
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
	for (int i = 0; i < NEAR; i++) {
		pthread_cond_init(&w->near[i].more, NULL);
		td_list_init(&w->near[i].todo);
		w->near[i].of = w;
	}
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
	for (int i = 0; i < NEAR; i++)
		pthread_cond_signal(&w->near[i].more);
	pthread_mutex_unlock(&w->lock);
	for (unsigned i = 0; i < w->started; i++)
		pthread_join(w->threads[i], NULL);
	for (int i = 0; i < NEAR; i++) {
		if (w->near[i].started)
			pthread_join(w->near[i].thread, NULL);
		pthread_cond_destroy(&w->near[i].more);
	}
	ev_async_stop(w->io->loop, &w->async);
	pthread_cond_destroy(&w->more);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

/* As many threads as there are new rows; each takes the lock as the first thing. */
static void wake(struct td_workers *w, unsigned n, unsigned idle)
{
	if (n >= idle)
		pthread_cond_broadcast(&w->more);
	else
		while (n--)
			pthread_cond_signal(&w->more);
}

static void run_anywhere(struct td_workers *w, struct td_list *ops)
{
	unsigned n, idle;

	pthread_mutex_lock(&w->lock);
	n = add_rows(w, ops);
	/* all that waits is counted, not the new alone: an idle thread that is woken for an earlier
	 * one still counts as idle */
	for (unsigned need = w->rows > w->idle ? w->rows - w->idle : 0;
	     need && w->started < TD_WORKERS_MAX; need--)
		if (start_thread(&w->threads[w->started], worker, w) < 0)
			break;
		else
			w->started++;
	idle = w->idle;
	pthread_mutex_unlock(&w->lock);
	if (w->started) {
		wake(w, n, idle);
		return;
	}
	/* no thread can be had at all: do the work here, late but done */
	struct td_list row;
	struct td_list *l;
	td_list_init(&row);
	pthread_mutex_lock(&w->lock);
	while (take_row(w, &row))
		while ((l = td_list_pop(&row)))
			do_one(w, td_entry(l, struct td_iop, link));
	pthread_mutex_unlock(&w->lock);
	ev_async_send(w->io->loop, &w->async);
}

static void take_near(struct td_list *ops, struct td_list *near)
{
	td_list_each_safe (l, tmp, ops) {
		if (!(td_entry(l, struct td_iop, link)->flags & TD_IO_NEAR))
			continue;
		td_list_del(l);
		td_list_add(near, l);
	}
}

/* What is done when this comes back is there in this turn of the loop. */
static void give_way(struct td_workers *w)
{
	uint64_t begun = td_clock_now(), now;
	bool any;

	sched_yield();
	now = td_clock_now();
	if (now - begun > LOST)
		w->not_before = now + FOR_NOW;
	pthread_mutex_lock(&w->lock);
	w->looks = false;
	any = !td_list_empty(&w->done);
	pthread_mutex_unlock(&w->lock);
	if (any)
		ev_feed_event(w->io->loop, &w->async, EV_ASYNC);
}

static void run_near(struct td_workers *w, struct td_list *ops)
{
	int cpu = sched_getcpu();
	struct near *n = &w->near[cpu < 0 ? 0 : cpu % NEAR];

	if (!n->started)
		n->started = !start_thread(&n->thread, near_worker, n);
	if (!n->started) {
		run_anywhere(w, ops);
		return;
	}
	pthread_mutex_lock(&w->lock);
	td_list_splice(&n->todo, ops);
	n->cpu = cpu;
	w->looks = true;
	pthread_mutex_unlock(&w->lock);
	pthread_cond_signal(&n->more);
	give_way(w);
}

void td_workers_run(struct td_workers *w, struct td_list *ops)
{
	struct td_list near;

	td_list_init(&near);
	if (td_clock() >= w->not_before)
		take_near(ops, &near);
	if (!td_list_empty(ops))
		run_anywhere(w, ops);
	if (!td_list_empty(&near))
		run_near(w, &near);
}
