/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Connected sockets that were passed to this process, by the names that came with them:
 * tapdisk/nbd/nbd-passed.c brings them, a driver takes them.  The loop's thread alone.
 */
#ifndef TD_LIB_PASSED_H
#define TD_LIB_PASSED_H

#include <stddef.h>

/* sockets that wait to be taken; the oldest is closed when there are more */
#define TD_PASSED_MAX  256
#define TD_PASSED_NAME 1024 /* bytes of a name */
#define TD_PASSED_NOTE 64   /* bytes of what a taker may leave with a socket that it gives back */

/* Keeps fd, which is the store's from now on; another of that name is closed.  note: len bytes,
 * NULL for none.  0, or -errno: fd is closed. */
int td_passed_keep(const char *name, int fd, const void *note, size_t len);

/* Takes it out: the descriptor, or -ENOENT.  note, len bytes, is zeroed where none was left. */
int td_passed_take(const char *name, void *note, size_t len);

void td_passed_close_all(void);

#endif
