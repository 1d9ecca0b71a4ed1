/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Buffers of one size, page-aligned, for direct I/O: made once, so that the data path allocates
 * nothing.  Last in, first out, so that few are touched while the queue is short.  What is touched
 * is counted, page by page and against an account, and can be given back while others are out.
 * Belongs to one queue; not thread safe.
 */
#ifndef TD_LIB_POOL_H
#define TD_LIB_POOL_H

#include <stddef.h>

#include "lib/io/budget.h"

struct td_pool;

/*
 * n buffers of `size' bytes, a multiple of 4,096.  a: pays for what is touched; it outlives the
 * pool; NULL: nobody does.  NULL: no memory.
 */
struct td_pool *td_pool_new(size_t size, unsigned n, struct td_account *a);
void td_pool_free(struct td_pool *p); /* NULL is fine */

void *td_pool_get(struct td_pool *p); /* a whole one; NULL: all are out, or the account refuses */
/* One of which the first `bytes' are touched, and no others.  must: whatever the account says. */
void *td_pool_get_part(struct td_pool *p, size_t bytes, bool must);
void td_pool_put(struct td_pool *p, void *buf);
unsigned td_pool_left(const struct td_pool *p); /* buffers that are not out */

/* Gives the memory of the buffers that are not out back to the kernel; its bytes. */
size_t td_pool_trim(struct td_pool *p);
/* A while ends: of the buffers that are not out, gives back what has been used neither in it nor
 * in the one before. */
void td_pool_age(struct td_pool *p);
size_t td_pool_touched(const struct td_pool *p); /* bytes: what a trim could give back, and what is
						    out */

#endif
