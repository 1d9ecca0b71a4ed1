/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Fibers: waits, wakes that come early, late and twice, time, many at once, and I/O from within. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/fiber/call.h"
#include "lib/fiber/fiber.h"
#include "lib/seccomp.h"
#include "tests/support/fault-io.h"
#include "tests/support/on-fiber.h"
#include "tests/support/stacks.h"
#include "tests/support/suite.h"

static struct ev_loop *loop;
static struct td_fiber *fiber;
static int step;

static void begin(void)
{
	loop = ev_loop_new(EVFLAG_AUTO);
	step = 0;
	fiber = NULL;
}

static void end(void)
{
	ck_assert_ptr_null(td_fiber_self());
	ev_loop_destroy(loop);
}

static void turns(int n)
{
	while (n--)
		ev_run(loop, EVRUN_NOWAIT);
}

static void wait_twice(void *arg)
{
	fiber = td_fiber_self();
	step = 1;
	td_fiber_wait();
	step = 2;
	td_fiber_wait();
	step = 3;
}

START_TEST(a_fiber_runs_until_it_waits_and_goes_on_from_the_loop)
{
	begin();
	ck_assert_int_eq(td_fiber_start(loop, wait_twice, NULL), 0);
	ck_assert_int_eq(step, 1);
	turns(3);
	ck_assert_int_eq(step, 1);
	td_fiber_wake(fiber);
	ck_assert_int_eq(step, 1); /* never inside the waker */
	turns(1);
	ck_assert_int_eq(step, 2);
	td_fiber_wake(fiber);
	td_fiber_wake(fiber); /* twice is once */
	turns(2);
	ck_assert_int_eq(step, 3);
	end();
}
END_TEST

static void early(void *arg)
{
	td_fiber_wake(td_fiber_self());
	td_fiber_wait();
	step = 1;
	td_fiber_wake(td_fiber_self());
	ck_assert(td_fiber_wait_for(10));
	step = 2;
}

START_TEST(a_wake_before_the_wait_is_not_lost)
{
	begin();
	ck_assert_int_eq(td_fiber_start(loop, early, NULL), 0);
	ck_assert_int_eq(step, 2);
	end();
}
END_TEST

static void timed(void *arg)
{
	double t = ev_time();

	fiber = td_fiber_self();
	ck_assert(!td_fiber_wait_for(0.05));
	ck_assert(ev_time() - t >= 0.04);
	step = 1;
	ck_assert(td_fiber_wait_for(100));
	step = 2;
	ck_assert(!td_fiber_wait_for(0));
	ck_assert(!td_fiber_wait_for(-1));
	step = 3;
	td_fiber_wait(); /* nothing of the timers comes after them */
	step = 4;
}

START_TEST(a_wait_for_a_time_ends_in_time_or_with_a_wake)
{
	begin();
	ck_assert_int_eq(td_fiber_start(loop, timed, NULL), 0);
	for (int i = 0; i < 100 && step < 1; i++)
		ev_run(loop, EVRUN_ONCE);
	td_fiber_wake(fiber);
	for (int i = 0; i < 10 && step < 3; i++)
		ev_run(loop, EVRUN_ONCE);
	ck_assert_int_eq(step, 3);
	turns(5);
	ck_assert_int_eq(step, 3);
	td_fiber_wake(fiber);
	turns(1);
	ck_assert_int_eq(step, 4);
	end();
}
END_TEST

static void wait_a_little(void *arg)
{
	fiber = td_fiber_self();
	td_fiber_wait_for(0.001);
	step++;
	td_fiber_wait();
	step++;
}

START_TEST(a_wake_and_the_end_of_the_time_in_one_turn_are_one)
{
	begin();
	for (int i = 0; i < 100; i++) {
		double until;

		step = 0;
		ck_assert_int_eq(td_fiber_start(loop, wait_a_little, NULL), 0);
		until = ev_time() + 0.002;
		while (ev_time() < until)
			;
		td_fiber_wake(fiber);
		turns(3);
		ck_assert_int_eq(step, 1); /* not resumed twice */
		td_fiber_wake(fiber);
		turns(2);
		ck_assert_int_eq(step, 2);
	}
	end();
}
END_TEST

static void inner(void *arg)
{
	ck_assert_ptr_ne(td_fiber_self(), arg);
	step++;
}

static void outer(void *arg)
{
	fiber = td_fiber_self();
	ck_assert_int_eq(td_fiber_start(loop, inner, fiber), 0);
	ck_assert_ptr_eq(td_fiber_self(), fiber);
	step++;
	td_fiber_wait();
	step++;
}

START_TEST(a_fiber_may_start_a_fiber)
{
	begin();
	ck_assert_int_eq(td_fiber_start(loop, outer, NULL), 0);
	ck_assert_int_eq(step, 2);
	td_fiber_wake(fiber);
	turns(1);
	ck_assert_int_eq(step, 3);
	end();
}
END_TEST

static struct td_fiber *many[500];

static void one_of_many(void *arg)
{
	char stack[8192];
	int me = *(int *)arg, wrong = 0;

	many[me] = td_fiber_self();
	memset(stack, me, sizeof stack);
	td_fiber_wait();
	for (size_t i = 0; i < sizeof stack; i++)
		wrong += stack[i] != (char)me;
	ck_assert_int_eq(wrong, 0);
	step++;
}

START_TEST(five_hundred_fibers_have_each_its_own_stack)
{
	int n[500];

	begin();
	for (int i = 0; i < 500; i++) {
		n[i] = i;
		ck_assert_int_eq(td_fiber_start(loop, one_of_many, &n[i]), 0);
	}
	for (int i = 499; i >= 0; i -= 2)
		td_fiber_wake(many[i]);
	turns(2);
	ck_assert_int_eq(step, 250);
	for (int i = 0; i < 500; i += 2)
		td_fiber_wake(many[i]);
	turns(2);
	ck_assert_int_eq(step, 500);
	end();
}
END_TEST

static struct fault_io fio;

static long twice(void *arg)
{
	return *(int *)arg * 2;
}

static void await_things(void *arg)
{
	int n = 21;

	ck_assert_int_eq(td_await_call(fio.io, twice, &n), 42);
	n = -EPERM;
	ck_assert_int_eq(td_await_call(fio.io, twice, &n), -2 * EPERM);
	td_fiber_wake(td_fiber_self()); /* somebody else's */
	n = 4;
	ck_assert_int_eq(td_await_call(fio.io, twice, &n), 8);
	step = 1;
}

START_TEST(a_wake_meant_for_another_wait_does_not_end_an_operation)
{
	begin();
	fault_io_new(&fio, loop, 1, 1);
	ck_assert_int_eq(td_fiber_start(loop, await_things, NULL), 0);
	turns(10);
	ck_assert_int_eq(step, 1);
	fault_io_free(&fio);
	end();
}
END_TEST

/* --- calls that block --- */

static int gate[2];

static pthread_t caller;

/* Waits for the loop, which must run meanwhile. */
static long through_gate(void *arg)
{
	char c;

	caller = pthread_self();
	ck_assert_int_eq(read(gate[0], &c, 1), 1);
	return c;
}

static void open_gate(struct ev_loop *l, ev_timer *w, int revents)
{
	ck_assert_int_eq(write(gate[1], "x", 1), 1);
}

static void call_through(void *arg)
{
	ck_assert_int_eq(td_call(through_gate, NULL), 'x');
	ck_assert_int_eq(td_call_open("/nowhere/at/all", O_RDONLY, 0), -ENOENT);
	ck_assert_int_eq(td_call_unlink("/nowhere/at/all"), -ENOENT);
	step = 1;
}

START_TEST(a_call_that_blocks_does_not_hold_up_the_loop)
{
	ev_timer later;

	begin();
	ck_assert_int_eq(pipe(gate), 0);
	ck_assert_int_eq(td_calls_start(loop, NULL), 0);
	ev_timer_init(&later, open_gate, 0.01, 0);
	ev_timer_start(loop, &later);
	ck_assert_int_eq(td_fiber_start(loop, call_through, NULL), 0);
	ck_assert_int_eq(step, 0);
	while (!step)
		ev_run(loop, EVRUN_ONCE);
	ck_assert(!pthread_equal(caller, pthread_self()));
	/* outside of a fiber there is nothing that could wait */
	open_gate(loop, &later, 0);
	ck_assert_int_eq(td_call(through_gate, NULL), 'x');
	ck_assert(pthread_equal(caller, pthread_self()));
	td_calls_stop();
	close(gate[0]);
	close(gate[1]);
	end();
}
END_TEST

static void note_stack(void *arg)
{
	*(uintptr_t *)arg = (uintptr_t)__builtin_frame_address(0);
	td_fiber_wake(td_fiber_self()); /* in vain: it waits no more */
}

START_TEST(the_stack_of_an_ended_fiber_is_the_next_ones)
{
	uintptr_t first, second;

	begin();
	ck_assert_int_eq(td_fiber_start(loop, note_stack, &first), 0);
	ck_assert_int_eq(td_fiber_start(loop, note_stack, &second), 0);
#ifndef TD_SANITIZED
	ck_assert_uint_eq(first, second);
#endif
	ck_assert_int_eq(td_fiber_start(loop, wait_twice, NULL), 0);
	turns(1);
	ck_assert_int_eq(step, 1); /* the wake was the other's */
	for (int i = 2; i <= 3; i++) {
		td_fiber_wake(fiber);
		turns(1);
		ck_assert_int_eq(step, i);
	}
	end();
}
END_TEST

static void wait_once(void *arg)
{
	*(struct td_fiber **)arg = td_fiber_self();
	td_fiber_wait();
}

static void use_many(void)
{
	struct ev_loop *own = ev_loop_new(EVFLAG_AUTO);
	struct td_fiber *waits[100];

	for (int i = 0; i < 100; i++)
		ck_assert_int_eq(td_fiber_start(own, wait_once, &waits[i]), 0);
	for (int i = 0; i < 100; i++)
		td_fiber_wake(waits[i]);
	ev_run(own, EVRUN_NOWAIT);
	ev_loop_destroy(own);
}

START_TEST(at_rest_the_stacks_are_given_back)
{
	unsigned before;

	use_many();
	td_fiber_trim();
	before = stacks();
	use_many();
#ifndef TD_SANITIZED
	ck_assert_uint_gt(stacks(), before + 16);
#endif
	td_fiber_trim();
	ck_assert_uint_le(stacks(), before);
	use_many();
	td_fiber_trim();
	ck_assert_uint_le(stacks(), before);
}
END_TEST

static void *leave_some(void *arg)
{
	use_many();
	return NULL;
}

START_TEST(a_thread_that_ends_leaves_no_stacks)
{
	unsigned before = 0;

	for (int i = 0; i < 20; i++) {
		pthread_t thread;

		ck_assert_int_eq(pthread_create(&thread, NULL, leave_some, NULL), 0);
		ck_assert_int_eq(pthread_join(thread, NULL), 0);
		if (i == 3)
			before = stacks();
	}
	ck_assert_uint_le(stacks(), before);
}
END_TEST

#ifdef TD_SECCOMP_ARCH
static void wait_often(void *arg)
{
	fiber = td_fiber_self();
	for (step = 0; step < 1000; step++)
		td_fiber_wait();
}

/* swapcontext() makes one, which the sandbox catches. */
START_TEST(a_switch_makes_no_system_call_for_signals)
{
	static struct sock_filter program[16];
	struct td_seccomp filter = {program, 0, 16};

	begin();
	ck_assert_int_eq(td_fiber_start(loop, wait_often, NULL), 0);
	td_seccomp_begin(&filter);
	td_seccomp_is(&filter, SYS_rt_sigprocmask, 0, 1);
	td_seccomp_answer(&filter, SECCOMP_RET_ERRNO | ENOSYS);
	td_seccomp_answer(&filter, SECCOMP_RET_ALLOW);
	ck_assert(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) && td_seccomp_set(&filter, false));
	for (int i = 0; i < 1000; i++) {
		ck_assert_int_eq(step, i);
		td_fiber_wake(fiber);
		turns(1);
	}
	ck_assert_int_eq(step, 1000);
	end();
}
END_TEST
#endif

int main(void)
{
	Suite *s = suite_create("fiber");

	SUITE_ADD(s, a_fiber_runs_until_it_waits_and_goes_on_from_the_loop);
	SUITE_ADD(s, a_wake_before_the_wait_is_not_lost);
	SUITE_ADD(s, a_wait_for_a_time_ends_in_time_or_with_a_wake);
	SUITE_ADD(s, a_wake_and_the_end_of_the_time_in_one_turn_are_one);
	SUITE_ADD(s, a_fiber_may_start_a_fiber);
	SUITE_ADD(s, five_hundred_fibers_have_each_its_own_stack);
	SUITE_ADD(s, a_wake_meant_for_another_wait_does_not_end_an_operation);
	SUITE_ADD(s, a_call_that_blocks_does_not_hold_up_the_loop);
	SUITE_ADD(s, the_stack_of_an_ended_fiber_is_the_next_ones);
	SUITE_ADD(s, at_rest_the_stacks_are_given_back);
	SUITE_ADD(s, a_thread_that_ends_leaves_no_stacks);
#ifdef TD_SECCOMP_ARCH
	SUITE_ADD(s, a_switch_makes_no_system_call_for_signals);
#endif
	return suite_run(s);
}
