/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Room for counts: new refcount blocks, and a larger table of them.  Q5 of qcow-flush.c is kept
 * here.  And where the clusters end, at open. */
#include <errno.h>
#include <stdlib.h>

#include "drivers/qcow/qcow-refcount.h"

/* A block in buf that counts `n' clusters from `first' on, which it covers, once. */
static void fill_block(struct qcow *q, uint8_t *buf, uint64_t first, uint64_t n)
{
	memset(buf, 0, qcow_csize(q));
	for (uint64_t c = first; c < first + n; c++)
		qcow_ref_set(buf, q->h.ref_order, c % qcow_per_block(q), 1);
}

/* The first block of a range that has none: it lies in the range itself, and is the first thing
 * that it counts (Q5). */
int qcow_ref_new_block(struct qcow *q, uint32_t index)
{
	uint64_t first = (uint64_t)index * qcow_per_block(q), at = q->end > first ? q->end : first;
	uint8_t *buf = NULL;
	int rc;

	if (q->end >= first + qcow_per_block(q))
		at = first; /* all of the range lies below the end, and nothing in it is counted: it
			       is free */
	else if (!qcow_room_for(q, at + 1 - q->end))
		return -ENOSPC;
	if (posix_memalign((void **)&buf, 4096, qcow_csize(q)))
		return -ENOMEM;
	fill_block(q, buf, at, 1);
	rc = td_file_rw(q->file, TD_IO_WRITE, buf, at << q->cbits, qcow_csize(q), 0);
	if (!rc)
		rc = qcow_sync_all(q);
	free(buf);
	if (!rc && qcow_is_meta(q, at << q->cbits))
		rc = qcow_corrupt(q, "the free cluster at %#llx is metadata",
				  (unsigned long long)at << q->cbits);
	if (!rc)
		rc = qcow_meta_add(q, at << q->cbits);
	if (rc)
		return rc;
	qcow_pages_forget(q, at << q->cbits, qcow_csize(q));
	qcow_table_set(q, &q->ref, index, at << q->cbits);
	if (at >= q->end)
		q->end = at + 1;
	return 0;
}

/* Lays out, from cluster `first' on, which the old table cannot count: the blocks that count all of
 * this, and then the table. */
static uint64_t plan_table(const struct qcow *q, uint64_t first, uint64_t *entries,
			   uint64_t *blocks)
{
	uint64_t clusters = 0;

	for (*blocks = 1;; ++*blocks) {
		*entries = first / qcow_per_block(q) + *blocks;
		*entries += *entries / 2; /* so that it does not grow again soon */
		clusters = (*entries * 8 + qcow_csize(q) - 1) >> q->cbits;
		*entries = clusters << q->cbits >> 3;
		if (first % qcow_per_block(q) + *blocks + clusters <= *blocks * qcow_per_block(q))
			return clusters;
	}
}

static int write_table(struct qcow *q, const struct qcow_table *t, uint64_t clusters)
{
	size_t bytes = (size_t)clusters << q->cbits;
	uint8_t *buf;
	int rc;

	if (posix_memalign((void **)&buf, 4096, bytes))
		return -ENOMEM;
	for (uint32_t i = 0; i < t->n; i++)
		td_put_be64(buf + 8 * (size_t)i, t->entry[i]);
	rc = td_file_rw(q->file, TD_IO_WRITE, buf, t->off, bytes, 0);
	free(buf);
	return rc;
}

static int write_blocks(struct qcow *q, struct qcow_table *t, uint64_t first, uint64_t blocks,
			uint64_t clusters)
{
	uint8_t *buf;
	int rc = 0;

	if (posix_memalign((void **)&buf, 4096, qcow_csize(q)))
		return -ENOMEM;
	for (uint64_t i = 0; !rc && i < blocks; i++) {
		uint64_t index = first / qcow_per_block(q) + i, from = index * qcow_per_block(q),
			 to = from + qcow_per_block(q);
		uint64_t a = from > first ? from : first, b = first + blocks + clusters;

		b = b < to ? b : to;
		fill_block(q, buf, a, b > a ? b - a : 0);
		t->entry[index] = (first + i) << q->cbits;
		rc = td_file_rw(q->file, TD_IO_WRITE, buf, (first + i) << q->cbits, qcow_csize(q),
				0);
	}
	free(buf);
	return rc;
}

static void put_table(struct qcow *q, uint64_t off, uint64_t clusters)
{
	td_put_be64(q->first + QCOW_H_REF_OFF, off);
	td_put_be32(q->first + QCOW_H_REF_CLUSTERS, (uint32_t)clusters);
}

/*
 * The header names another refcount table.  A write without space, of one sector, has not been
 * done: the header goes on to name the old one, and whoever asked may ask again.  Nobody else may
 * write the header before it does (header_lock).  After any other failure it is not known which
 * table the file has.
 */
static int name_table(struct qcow *q, const struct qcow_table *t, uint64_t clusters)
{
	int rc;

	td_lock(&q->header_lock);
	put_table(q, t->off, clusters);
	rc = td_file_rw(q->file, TD_IO_WRITE, q->first, 0, QCOW_SECTOR, 0);
	if (rc == -ENOSPC || rc == -EDQUOT)
		put_table(q, q->h.ref_off, q->h.ref_clusters);
	td_unlock(&q->header_lock);
	if (rc == -ENOSPC || rc == -EDQUOT)
		return rc;
	if (!rc)
		rc = qcow_sync(q->file);
	if (rc)
		qcow_sync_failed(q, -EIO);
	return rc;
}

/* A larger refcount table (Q5).  The end has come to the first cluster that the old one cannot
 * count.  The caller has alloc_lock. */
int qcow_ref_grow(struct qcow *q)
{
	uint64_t first = q->end, added = 0, blocks, entries,
		 clusters = plan_table(q, first, &entries, &blocks);
	struct qcow_table t;
	int rc;

	if (clusters << q->cbits > QCOW_REFTABLE_MAX)
		return -EFBIG;
	if (!qcow_room_for(q, blocks + clusters))
		return -ENOSPC;
	rc = qcow_flush(q); /* the old table's changes are in the file, and so in the new one's copy
			       no earlier than allowed */
	if (!rc)
		rc = qcow_table_init(&t, (uint32_t)entries, (first + blocks) << q->cbits);
	if (rc)
		return rc;
	memcpy(t.entry, q->ref.entry, q->ref.n * sizeof *t.entry);
	rc = write_blocks(q, &t, first, blocks, clusters);
	if (!rc)
		rc = write_table(q, &t, clusters);
	if (!rc)
		rc = qcow_sync_all(q);
	for (; !rc && added < blocks; added += !rc)
		rc = qcow_meta_add(q, (first + added) << q->cbits);
	if (rc)
		goto fail;
	q->end = first + blocks + clusters;
	rc = name_table(q, &t, clusters);
	if (rc)
		goto fail;
	qcow_release(q, q->ref.off >> q->cbits, q->h.ref_clusters);
	q->h.ref_off = t.off;
	q->h.ref_clusters = (uint32_t)clusters;
	qcow_table_fini(&q->ref);
	q->ref = t;
	return 0;
fail:
	if (!q->broken)
		q->end = first;
	while (added && !q->broken)
		qcow_meta_del(q, (first + --added) << q->cbits);
	qcow_table_fini(&t);
	return rc;
}

/* The block that counts `cluster' exists after it; it may have taken clusters at the end. */
int qcow_ref_need_block(struct qcow *q, uint64_t cluster)
{
	uint64_t index = cluster / qcow_per_block(q);

	if (index >= q->ref.n)
		return qcow_ref_grow(q);
	return q->ref.entry[index] ? 0 : qcow_ref_new_block(q, (uint32_t)index);
}

/* --- at open --- */

#define BLOCKS_LOOKED_AT 64

/* Blocks without a count at the end are few, or an attack: then it is their end. */
int qcow_last_counted(struct qcow *q, uint64_t *end)
{
	int looked = 0, rc = 0;
	uint8_t *buf;

	*end = 1;
	if (posix_memalign((void **)&buf, 4096, qcow_csize(q)))
		return -ENOMEM;
	for (uint32_t i = q->ref.n; !rc && *end == 1 && i-- > 0;) {
		if (!q->ref.entry[i])
			continue;
		rc = td_file_rw(q->file, TD_IO_READ, buf, q->ref.entry[i], qcow_csize(q),
				TD_IO_EOF_ZERO);
		for (uint64_t j = qcow_per_block(q); !rc && *end == 1 && j-- > 0;)
			if (qcow_ref_get(buf, q->h.ref_order, j))
				*end = (uint64_t)i * qcow_per_block(q) + j + 1;
		if (*end == 1 && ++looked == BLOCKS_LOOKED_AT)
			*end = (uint64_t)i * qcow_per_block(q) + 1;
	}
	free(buf);
	return rc;
}

int qcow_find_end(struct qcow *q)
{
	q->end = (q->file->st.size + qcow_csize(q) - 1) >> q->cbits;
	q->space = q->end;
	q->old = q->length = q->file->st.size;
	return q->file->st.blockdev ? qcow_last_counted(q, &q->end) : 0;
}
