/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Counts of host clusters, shared by those who take clusters (qcow-refcount.c), give them back
 * (qcow-reap.c), and make room for more counts (qcow-refblock.c).  All of it under q->alloc_lock,
 * on a fiber, unless it says otherwise.
 */
#ifndef DRIVERS_QCOW_REFCOUNT_H
#define DRIVERS_QCOW_REFCOUNT_H

#include "drivers/qcow/qcow.h"

/* Clusters that a block counts, and a page of one. */
static inline uint64_t qcow_per_block(const struct qcow *q)
{
	return qcow_refs_per_block(&q->h);
}

static inline uint64_t qcow_per_page(const struct qcow *q)
{
	return ((uint64_t)q->pages.size * 8) >> q->h.ref_order;
}

/* The page that counts a cluster, whose block exists. */
static inline int qcow_count_page(struct qcow *q, uint64_t cluster, struct qcow_page **page)
{
	uint64_t i = cluster % qcow_per_block(q), block = q->ref.entry[cluster / qcow_per_block(q)];

	return qcow_page_get(q, block + (i << q->h.ref_order >> 3), QCOW_PAGE_REF, page);
}

static inline uint64_t qcow_count_get(struct qcow *q, const struct qcow_page *page,
				      uint64_t cluster)
{
	return qcow_ref_get(page->data, q->h.ref_order, cluster % qcow_per_page(q));
}

static inline void qcow_count_set(struct qcow *q, struct qcow_page *page, uint64_t cluster,
				  uint64_t count)
{
	uint64_t i = cluster % qcow_per_page(q);

	qcow_ref_set(page->data, q->h.ref_order, i, count);
	qcow_page_dirty(q, page, page->data + (i << q->h.ref_order >> 3),
			q->h.ref_order < 3 ? 1 : 1u << q->h.ref_order >> 3);
}

/* Are there so many clusters behind the end?  A file grows. */
static inline bool qcow_room_for(const struct qcow *q, uint64_t clusters)
{
	return !q->file->st.blockdev || q->end + clusters <= q->file->st.size >> q->cbits;
}

/* --- qcow-refblock.c --- */
/* The block that counts `cluster' exists after it; it may have taken clusters at the end. */
int qcow_ref_need_block(struct qcow *q, uint64_t cluster);
int qcow_ref_new_block(struct qcow *q, uint32_t index); /* the first of a range that has none */
int qcow_ref_grow(struct qcow *q); /* a larger refcount table; the end is where the old one ends */

#endif
