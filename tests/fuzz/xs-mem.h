/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A xenstore in memory, in the place of libxenstore: its functions, and below them one tree for
 * everybody.  Names are absolute; those that are not are domain 0's.
 */
#ifndef TESTS_FUZZ_XS_MEM_H
#define TESTS_FUZZ_XS_MEM_H

#include <stdbool.h>
#include <stddef.h>

#define XS_MEM_PATH 256

void xs_mem_clear(void); /* no node, no watch, no event */
/* Somebody else writes: watches fire. */
void xs_mem_put(const char *path, const char *value, size_t len);
void xs_mem_remove(const char *path);
const char *xs_mem_get(const char *path); /* NULL: it is not there */

/* Of the daemon under test, with absolute names. */
extern void (*xs_mem_reads)(const char *path);
extern void (*xs_mem_writes)(const char *path, const char *value); /* NULL: removes */
extern unsigned xs_mem_busy;  /* so many commits from now on are told that somebody was faster */
extern unsigned xs_mem_calls; /* so far */

#endif
