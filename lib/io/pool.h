/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Buffers of one size, page-aligned, for direct I/O: made once, so that the data path allocates
 * nothing. Last in, first out, so that few are touched while the queue is short; what was touched
 * can be given back when idle. Belongs to one queue; not thread safe.
 */
#ifndef TD_LIB_POOL_H
#define TD_LIB_POOL_H

#include <stddef.h>

struct td_pool;

/* n buffers of `size' bytes, a multiple of 4,096.  NULL: no memory. */
struct td_pool *td_pool_new(size_t size, unsigned n);
void td_pool_free(struct td_pool *p); /* NULL is fine */

void *td_pool_get(struct td_pool *p); /* NULL: all are out */
void td_pool_put(struct td_pool *p, void *buf);

/* Gives the memory of the buffers that are not out back to the kernel. */
void td_pool_trim(struct td_pool *p);

#endif
