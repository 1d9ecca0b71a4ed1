/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * swapcontext() sets the signal mask with each switch: a system call, and in the sandbox, which
 * catches that one (tapdisk/opener/opener.c), two more and a signal.  All fibers of a thread have
 * its mask, so setjmp() and longjmp() do, which make none; only a stack's beginning is a context's.
 *
 * swapcontext() is kept for those who must hear of each switch or forbid such jumps: the
 * sanitizers, and a processor that keeps a second stack of return addresses.
 */
#undef _FORTIFY_SOURCE /* whose longjmp() takes another stack for an error */
#define _FORTIFY_SOURCE 0

#include "lib/fiber/fiber-switch.h"

#include <stdint.h>

static bool by_context(void)
{
#if defined(TD_SANITIZED) || defined(__SANITIZE_THREAD__)
	return true;
#elif defined __x86_64__ && defined __CET__
	uint64_t second = 0; /* and stays so, where there is none */

	__asm__ volatile("rdsspq %0" : "+r"(second));
	return second;
#elif defined __ARM_FEATURE_GCS_DEFAULT
	return true;
#else
	return false;
#endif
}

/* makecontext() hands ints over. */
static void stack_begin(unsigned fn_hi, unsigned fn_lo, unsigned hi, unsigned lo)
{
	uintptr_t fn = ((uintptr_t)fn_hi << 16 << 16) | fn_lo;

	((void (*)(void *))fn)((void *)(((uintptr_t)hi << 16 << 16) | lo));
}

void td_stop_new(struct td_stop *s, void *stack, size_t size, void (*fn)(void *arg), void *arg)
{
	uintptr_t f = (uintptr_t)fn, a = (uintptr_t)arg;

	s->left = false;
	getcontext(&s->context);
	s->context.uc_stack.ss_sp = stack;
	s->context.uc_stack.ss_size = size;
	makecontext(&s->context, (void (*)(void))(void *)stack_begin, 4, (unsigned)(f >> 16 >> 16),
		    (unsigned)f, (unsigned)(a >> 16 >> 16), (unsigned)a);
}

void td_switch(struct td_stop *from, struct td_stop *to)
{
	if (by_context()) {
		swapcontext(&from->context, &to->context);
		return;
	}
	from->left = true;
	if (_setjmp(from->at))
		return;
	if (to->left)
		_longjmp(to->at, 1);
	setcontext(&to->context);
}
