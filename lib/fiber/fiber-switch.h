/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One thread, several stacks: how it goes from one to another. */
#ifndef TD_LIB_FIBER_SWITCH_H
#define TD_LIB_FIBER_SWITCH_H

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <ucontext.h>

/* Where a stack was left, or is to begin. */
struct td_stop {
	bool left; /* false: it has not begun */
	jmp_buf at;
	ucontext_t context;
};

/* A stack of size bytes from `stack' on, which is to begin with fn(arg); fn never returns. */
void td_stop_new(struct td_stop *s, void *stack, size_t size, void (*fn)(void *arg), void *arg);

/* Leaves the stack that runs, and goes on with another; comes back when somebody goes to `from'. */
void td_switch(struct td_stop *from, struct td_stop *to);

#endif
