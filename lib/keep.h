/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files that outlive their process and are written through a mapping: a disk's redo log, its
 * syncmark, its requests in flight, and what an NBD connection leaves to the next. */
#ifndef TD_LIB_KEEP_H
#define TD_LIB_KEEP_H

#include <stddef.h>

/*
 * A new file of that size, zeroed, for its owner alone; one of that name is replaced.  All its
 * space is allocated at once, because a store to a page that a full tmpfs has no room for is a
 * SIGBUS.  A descriptor for reading and writing, or -errno with no file left at path.
 */
int td_keep_new(const char *path, size_t bytes);

#endif
