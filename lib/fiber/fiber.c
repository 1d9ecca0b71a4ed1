/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/fiber/fiber.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/fiber/fiber-switch.h"
#include "lib/io/clock.h"
#include "lib/io/file.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

struct td_fiber {
	struct td_stop here, back; /* where it stopped; where the one that resumed it goes on */
	void *map, *stack;         /* the mapping with its guard page; the stack proper */
	struct td_fiber *next;     /* kept */
	void (*fn)(void *arg);
	void *arg;
	struct ev_loop *loop;
	ev_prepare resume; /* never started: fed to the loop by a wake */
	ev_timer timer;
	bool waiting, woken, ended;
	void *asan_self, *asan_back; /* the sanitizer's fake stacks */
	const void *back_stack;
	size_t back_size;
	void *tsan_self, *tsan_back;
};

/* Ended ones that a thread keeps for the next: to make a stack takes five system calls.  Sanitizers
 * see more when each has its own. */
#if defined(TD_SANITIZED) || defined(__SANITIZE_THREAD__)
#define KEPT_MAX 0
#else
#define KEPT_MAX 32
#endif

static _Thread_local struct td_fiber *running;
static _Thread_local struct kept {
	struct td_fiber *first;
	unsigned n;
	bool known; /* to at_exit */
} kept;
static pthread_key_t at_exit;
static bool have_key;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* The sanitizers want to hear of each switch of stacks: before it, and, on the other side, after.
 */
static void switch_begin(struct td_fiber *f, bool into)
{
#if defined(__SANITIZE_ADDRESS__)
	if (into)
		__sanitizer_start_switch_fiber(&f->asan_back, f->stack, TD_FIBER_STACK);
	else
		__sanitizer_start_switch_fiber(f->ended ? NULL : &f->asan_self, f->back_stack,
					       f->back_size);
#endif
#if defined(__SANITIZE_THREAD__)
	if (into)
		f->tsan_back = __tsan_get_current_fiber();
	__tsan_switch_to_fiber(into ? f->tsan_self : f->tsan_back, 0);
#endif
	(void)f, (void)into;
}

static void switch_end(struct td_fiber *f, bool into)
{
#if defined(__SANITIZE_ADDRESS__)
	if (into)
		__sanitizer_finish_switch_fiber(f->asan_self, &f->back_stack, &f->back_size);
	else
		__sanitizer_finish_switch_fiber(f->asan_back, NULL, NULL);
#endif
	(void)f, (void)into;
}

static void fiber_free(struct td_fiber *f)
{
#if defined(__SANITIZE_THREAD__)
	__tsan_destroy_fiber(f->tsan_self);
#endif
	munmap(f->map, TD_FIBER_STACK + TD_FIBER_GUARD);
	free(f);
}

static void free_kept(void *arg)
{
	struct kept *k = arg;
	struct td_fiber *f;

	while ((f = k->first)) {
		k->first = f->next;
		fiber_free(f);
	}
	k->n = 0;
}

void td_fiber_trim(void)
{
	free_kept(&kept);
}

static void make_key(void)
{
	have_key = !pthread_key_create(&at_exit, free_kept);
}

/* What a thread keeps goes with it; the first thread's end is the process's. */
static bool is_known(void)
{
	if (kept.known || gettid() == getpid())
		return kept.known = true;
	pthread_once(&once, make_key);
	return kept.known = have_key && !pthread_setspecific(at_exit, &kept);
}

static void keep_fiber(struct td_fiber *f)
{
	if (kept.n == KEPT_MAX || !is_known()) {
		fiber_free(f);
		return;
	}
	f->next = kept.first;
	kept.first = f;
	kept.n++;
}

static void fiber_run(struct td_fiber *f)
{
	struct td_fiber *outer = running;

	running = f;
	switch_begin(f, true);
	td_switch(&f->back, &f->here);
	switch_end(f, false);
	running = outer;
	if (f->ended)
		keep_fiber(f);
}

static void fiber_leave(struct td_fiber *f)
{
	switch_begin(f, false);
	td_switch(&f->here, &f->back);
	switch_end(f, true);
}

static void fiber_main(void *arg)
{
	struct td_fiber *f = arg;

	switch_end(f, true);
	for (;;) { /* once more when it is started again */
		f->fn(f->arg);
		f->ended = true;
		fiber_leave(f);
	}
}

static void on_resume(struct ev_loop *loop, ev_prepare *w, int revents)
{
	struct td_fiber *f = w->data;

	f->waiting = false;
	fiber_run(f);
}

static void on_timer(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct td_fiber *f = w->data;

	f->waiting = false;
	fiber_run(f);
}

static struct td_fiber *fiber_new(void)
{
	struct td_fiber *f = calloc(1, sizeof *f);

	if (!f)
		return NULL;
	f->map = mmap(NULL, TD_FIBER_STACK + TD_FIBER_GUARD, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
	if (f->map == MAP_FAILED) {
		free(f);
		return NULL;
	}
	/* an overrun stops here, not in somebody's data */
	mprotect(f->map, TD_FIBER_GUARD, PROT_NONE);
	f->stack = (char *)f->map + TD_FIBER_GUARD;
	ev_init(&f->resume, on_resume);
	f->resume.data = f;
	ev_init(&f->timer, on_timer);
	f->timer.data = f;
#if defined(__SANITIZE_THREAD__)
	f->tsan_self = __tsan_create_fiber(0);
#endif
	td_stop_new(&f->here, f->stack, TD_FIBER_STACK, fiber_main, f);
	return f;
}

int td_fiber_start(struct ev_loop *loop, void (*fn)(void *arg), void *arg)
{
	struct td_fiber *f = kept.first;

	if (f) {
		kept.first = f->next;
		kept.n--;
	} else if (!(f = fiber_new())) {
		return -ENOMEM;
	}
	f->fn = fn;
	f->arg = arg;
	f->loop = loop;
	f->waiting = f->woken = f->ended = false;
	fiber_run(f);
	return 0;
}

struct td_fiber *td_fiber_self(void)
{
	return running;
}

void td_fiber_wait(void)
{
	struct td_fiber *f = running;

	if (!f->woken) {
		f->waiting = true;
		fiber_leave(f);
	}
	f->woken = false;
}

bool td_fiber_wait_for(double seconds)
{
	struct td_fiber *f = running;
	bool woken;

	if (!f->woken) {
		td_clock_update(f->loop);
		ev_timer_set(&f->timer, seconds > 0 ? seconds : 0, 0);
		ev_timer_start(f->loop, &f->timer);
		f->waiting = true;
		fiber_leave(f);
		ev_timer_stop(f->loop, &f->timer);
		/* a wake and the timer may both have fired in one turn: one resume is enough */
		ev_clear_pending(f->loop, &f->timer);
		ev_clear_pending(f->loop, &f->resume);
	}
	woken = f->woken;
	f->woken = false;
	return woken;
}

void td_fiber_wake(struct td_fiber *f)
{
	f->woken = true;
	if (f->waiting && !ev_is_pending(&f->resume))
		ev_feed_event(f->loop, &f->resume, EV_CUSTOM);
}

struct waiter {
	struct td_fiber *fiber;
	bool done;
	int err;
};

static void await_done(struct td_iop *op, int err)
{
	struct waiter *w = op->data;

	w->done = true;
	w->err = err;
	td_fiber_wake(w->fiber);
}

static int await_by(void (*queue)(struct td_io *, struct td_iop *), struct td_io *io,
		    struct td_iop *op)
{
	struct waiter w = {.fiber = running};

	op->done = await_done;
	op->data = &w;
	queue(io, op);
	while (!w.done) /* a wake may be meant for somebody further out */
		td_fiber_wait();
	return w.err;
}

int td_await(struct td_io *io, struct td_iop *op)
{
	return await_by(td_iop_queue, io, op);
}

int td_await_file(struct td_io *io, struct td_iop *op)
{
	return await_by(td_file_io, io, op);
}

struct call {
	struct td_iop op;
	long (*fn)(void *arg);
	void *arg;
	long res;
};

static long call_run(struct td_iop *op)
{
	struct call *c = td_entry(op, struct call, op);

	c->res = c->fn(c->arg);
	return 0;
}

long td_await_call(struct td_io *io, long (*fn)(void *arg), void *arg)
{
	struct call c = {.op = {.op = TD_IO_CALL, .call = call_run}, .fn = fn, .arg = arg};
	int rc = td_await(io, &c.op);

	return rc < 0 ? rc : c.res;
}
