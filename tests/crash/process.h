/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Processes of the simulated host: several tapdisks in this one process, each with memory of its
 * own, one of which runs at a time.
 *
 * What a process has is what a death takes along: its heap (malloc, here, gives from the heap of
 * whoever runs), the static variables of the program (those of the tapdisk: what is the lab's own
 * stands in the section `lab'), its mappings, its descriptors.  The files in the control directory
 * stay.  A death leaves by a long jump, from whatever depth and from whatever fiber's stack.
 *
 * Under a sanitizer the heap is the sanitizer's, and what a dead process had is lost memory.
 */
#ifndef CRASH_PROCESS_H
#define CRASH_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LAB                                                                                        \
	__attribute__((section(                                                                    \
		"lab"))) /* of a variable that is no tapdisk's; it has to have a value: = 0 */

#define PROCESSES 3

/* Once, before any other: what static variables hold now is what a new process finds. */
void process_init(void);

/* A new process in place i, which was free. */
void process_new(unsigned i);
/* Runs fn there: true when it came back, false when it died meanwhile. */
bool process_run(unsigned i, void (*fn)(void *arg), void *arg);
/* Of the one that runs: it ends, here and now. */
_Noreturn void process_die(void);
/* All that it had is gone; not the one that runs. */
void process_end(unsigned i);

int process_current(void); /* -1: the lab's own code */

/* Between these, what is allocated is the lab's: for what a process calls of the lab. */
int process_lab(void);
void process_back(int was);

/* A system call of the one that runs is about to be made: the lab counts it, and may not come back.
 */
extern void (*process_called)(const char *what);

/* Can it make that file?  0, or an errno. */
extern int (*process_refuses)(const char *path);

/* What is written to descriptor fd, or to a copy of it, is told and goes nowhere. */
void process_bell(int fd, void (*rung)(void *arg), void *arg);

#endif
