/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What /proc tells of a process that does not answer. */
#ifndef TD_LIB_PROC_H
#define TD_LIB_PROC_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

bool td_proc_stopped(pid_t pid); /* by a signal or a debugger */

/*
 * Why it does not go on, for people: that it is stopped, which of its threads the kernel holds
 * (state D) and where in the kernel, or what its main thread is at.  Needs the right to look at it
 * for the place; "" when there is no such process.
 */
void td_proc_waits(pid_t pid, char *text, size_t size);

#endif
