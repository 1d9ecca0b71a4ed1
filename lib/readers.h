/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who has a file open as a reader or a parent: told by the locks that lib/io/file-lock.c takes, on
 * this host.  For tools; it reads /proc and may take a while.
 */
#ifndef TD_LIB_READERS_H
#define TD_LIB_READERS_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Does a process hold a shared lock on fd's file, and no further one on the file of `through', as
 * each reader that comes by that file would?  A process that has several disks open has a lock for
 * each.  mine, own: locks of the caller's own on fd's file and on the other.  who: " by NAME (pid
 * N)", as far as it can be found, else empty.  Another host's locks tell whether there is one, not
 * whose.
 */
bool td_readers_beside(int fd, unsigned mine, int through, unsigned own, char *who, size_t len);

/* How many shared locks there are on fd's file, by processes of this host. */
unsigned td_readers(int fd);

#endif
