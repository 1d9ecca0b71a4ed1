/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Host clusters: taken by a count of one, given back by one less.  The invariants Q1, Q4 and Q5 of qcow-flush.c are kept here.
 *
 * A free cluster is looked for in one page of counts (from `hint' on) and otherwise taken from the end, so that an allocation costs the
 * same whatever the size of the file; the search goes on with the next, until all of the file has been looked through once.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "drivers/qcow.h"
#include "lib/fiber.h"

static uint64_t per_block(const struct qcow *q)
{
	return qcow_refs_per_block(&q->h);
}

static uint64_t per_page(const struct qcow *q)
{
	return ((uint64_t)q->pages.size * 8) >> q->h.ref_order;
}

/* The page that counts a cluster, whose block exists. */
static int count_page(struct qcow *q, uint64_t cluster, struct qcow_page **page)
{
	uint64_t i = cluster % per_block(q), block = q->ref.entry[cluster / per_block(q)];

	return qcow_page_get(q, block + (i << q->h.ref_order >> 3), QCOW_PAGE_REF, page);
}

static uint64_t count_get(struct qcow *q, const struct qcow_page *page, uint64_t cluster)
{
	return qcow_ref_get(page->data, q->h.ref_order, cluster % per_page(q));
}

static void count_set(struct qcow *q, struct qcow_page *page, uint64_t cluster, uint64_t count)
{
	uint64_t i = cluster % per_page(q);

	qcow_ref_set(page->data, q->h.ref_order, i, count);
	qcow_page_dirty(q, page, page->data + (i << q->h.ref_order >> 3), q->h.ref_order < 3 ? 1 : 1u << q->h.ref_order >> 3);
}

/* --- new blocks ------------------------------------------------------------------------------------------------------ */

/* A block in buf that counts `n' clusters from `first' on, which it covers, once. */
static void fill_block(struct qcow *q, uint8_t *buf, uint64_t first, uint64_t n)
{
	memset(buf, 0, qcow_csize(q));
	for (uint64_t c = first; c < first + n; c++)
		qcow_ref_set(buf, q->h.ref_order, c % per_block(q), 1);
}

static bool room_for(const struct qcow *q, uint64_t clusters)
{
	return !q->file->st.blockdev || q->end + clusters <= q->file->st.size >> q->cbits;
}

/* The first block of a range that has none: it lies in the range itself, and is the first thing that it counts (Q5). */
static int new_block(struct qcow *q, uint32_t index)
{
	uint64_t first = (uint64_t)index * per_block(q), at = q->end > first ? q->end : first;
	uint8_t *buf = NULL;
	int rc;

	if (q->end >= first + per_block(q))
		at = first; /* all of the range lies below the end, and nothing in it is counted: it is free */
	else if (!room_for(q, at + 1 - q->end))
		return -ENOSPC;
	if (posix_memalign((void **)&buf, 4096, qcow_csize(q)))
		return -ENOMEM;
	fill_block(q, buf, at, 1);
	rc = td_file_rw(q->file, TD_IO_WRITE, buf, at << q->cbits, qcow_csize(q), 0);
	if (!rc)
		rc = qcow_sync_all(q);
	free(buf);
	if (!rc && qcow_is_meta(q, at << q->cbits))
		rc = qcow_corrupt(q, "the free cluster at %#llx is metadata", (unsigned long long)at << q->cbits);
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

/* Lays out, from cluster `first' on, which the old table cannot count: the blocks that count all of this, and then the table. */
static uint64_t plan_table(const struct qcow *q, uint64_t first, uint64_t *entries, uint64_t *blocks)
{
	uint64_t clusters = 0;

	for (*blocks = 1;; ++*blocks) {
		*entries = first / per_block(q) + *blocks;
		*entries += *entries / 2; /* so that it does not grow again soon */
		clusters = (*entries * 8 + qcow_csize(q) - 1) >> q->cbits;
		*entries = clusters << q->cbits >> 3;
		if (first % per_block(q) + *blocks + clusters <= *blocks * per_block(q))
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

static int write_blocks(struct qcow *q, struct qcow_table *t, uint64_t first, uint64_t blocks, uint64_t clusters)
{
	uint8_t *buf;
	int rc = 0;

	if (posix_memalign((void **)&buf, 4096, qcow_csize(q)))
		return -ENOMEM;
	for (uint64_t i = 0; !rc && i < blocks; i++) {
		uint64_t index = first / per_block(q) + i, from = index * per_block(q), to = from + per_block(q);
		uint64_t a = from > first ? from : first, b = first + blocks + clusters;

		b = b < to ? b : to;
		fill_block(q, buf, a, b > a ? b - a : 0);
		t->entry[index] = (first + i) << q->cbits;
		rc = td_file_rw(q->file, TD_IO_WRITE, buf, (first + i) << q->cbits, qcow_csize(q), 0);
	}
	free(buf);
	return rc;
}

/* A larger refcount table (Q5).  The end has come to the first cluster that the old one cannot count. */
static int grow_table(struct qcow *q)
{
	uint64_t first = q->end, blocks, entries, clusters = plan_table(q, first, &entries, &blocks);
	struct qcow_table t;
	int rc;

	if (clusters << q->cbits > QCOW_REFTABLE_MAX)
		return -EFBIG;
	if (!room_for(q, blocks + clusters))
		return -ENOSPC;
	rc = qcow_flush(q); /* the old table's changes are in the file, and so in the new one's copy no earlier than allowed */
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
	for (uint64_t i = 0; !rc && i < blocks; i++)
		rc = qcow_meta_add(q, (first + i) << q->cbits);
	if (rc)
		goto fail;
	q->end = first + blocks + clusters;
	td_put_be64(q->first + QCOW_H_REF_OFF, t.off);
	td_put_be32(q->first + QCOW_H_REF_CLUSTERS, (uint32_t)clusters);
	rc = qcow_header_write(q);
	if (rc) {
		qcow_sync_failed(q, -EIO); /* which table the file has is not known */
		goto fail;
	}
	qcow_release(q, q->ref.off >> q->cbits, q->h.ref_clusters);
	q->h.ref_off = t.off;
	q->h.ref_clusters = (uint32_t)clusters;
	qcow_table_fini(&q->ref);
	q->ref = t;
	return 0;
fail:
	qcow_table_fini(&t);
	return rc;
}

/* The block that counts `cluster' exists after it; it may have taken clusters at the end. */
static int need_block(struct qcow *q, uint64_t cluster)
{
	uint64_t index = cluster / per_block(q);

	if (index >= q->ref.n)
		return grow_table(q);
	return q->ref.entry[index] ? 0 : new_block(q, (uint32_t)index);
}

/* --- space ------------------------------------------------------------------------------------------------------------ */

#define RESERVE_MIN (UINT64_C(1) << 20) /* bytes */
#define RESERVE_MAX (UINT64_C(64) << 20)

/*
 * Space for clusters up to `upto', and some more: a file that grows with each write is slow, and so is one that is made of holes.  What
 * is reserved reads as zeroes.  Where it fails, writes find their space, or none, themselves.
 */
static void reserve(struct qcow *q, uint64_t upto)
{
	struct td_iop op = {.op = TD_IO_ZERO, .file = q->file};
	uint64_t from = q->space > q->end ? q->space : q->end, more = (q->end << q->cbits) / 8;

	if (q->no_space || q->file->st.blockdev || upto <= q->space)
		return;
	more = more < RESERVE_MIN ? RESERVE_MIN : more > RESERVE_MAX ? RESERVE_MAX : more;
	upto += (more >> q->cbits) + 1;
	op.off = from << q->cbits;
	op.len = (upto - from) << q->cbits;
	if (qcow_set_length(q->file, upto << q->cbits) || td_await_file(q->io, &op))
		q->no_space = true;
	else
		q->space = upto;
}

void qcow_trim_end(struct qcow *q)
{
	if (q->writable && q->space > q->end && !q->file->st.blockdev)
		qcow_set_length(q->file, q->end << q->cbits);
}

/* --- taking ---------------------------------------------------------------------------------------------------------- */

static int take(struct qcow *q, struct qcow_page *page, uint64_t first, uint64_t n)
{
	for (uint64_t c = first; c < first + n; c++) {
		if (!q->external && qcow_is_meta(q, c << q->cbits))
			return qcow_corrupt(q, "the cluster at %#llx is counted as free, but it is metadata", (unsigned long long)c << q->cbits);
		count_set(q, page, c, 1);
	}
	return 0;
}

/* The first free clusters in a row, at most n, in the page of `from' and below the end; 0: none. */
static uint64_t free_run(struct qcow *q, const struct qcow_page *page, uint64_t from, uint64_t n, uint64_t *first)
{
	uint64_t stop = (from / per_page(q) + 1) * per_page(q), got = 0;

	for (uint64_t c = from; c < stop && c < q->end && got < n; c++) {
		if (!count_get(q, page, c)) {
			if (!got++)
				*first = c;
		} else if (got) {
			break;
		}
	}
	return got;
}

/* Looks through the page of hint; 1: found, 0: not in this page, and the hint stands behind it. */
static int search_page(struct qcow *q, uint64_t n, uint64_t *first, uint64_t *got)
{
	struct qcow_page *page;
	uint64_t index = q->hint / per_block(q);
	int rc;

	if (index >= q->ref.n) {
		q->hint = q->end;
		return 0;
	}
	if (!q->ref.entry[index]) {
		q->hint = (index + 1) * per_block(q); /* that range has not even a block: it is left alone */
		return 0;
	}
	/* a count of nought that is in the log must not come back over one that the log has missed: rather a commit, and the end of the file */
	if (!q->lazy && (td_redo_crowded(q->image->redo) || td_redo_missed(q->image->redo)))
		return qcow_flush(q);
	rc = count_page(q, q->hint, &page);
	if (rc)
		return rc;
	*got = free_run(q, page, q->hint, n, first);
	if (!*got) {
		q->hint = (q->hint / per_page(q) + 1) * per_page(q);
		return 0;
	}
	q->hint = *first + *got;
	rc = take(q, page, *first, *got);
	return rc ? rc : 1;
}

static int append(struct qcow *q, uint64_t n, uint64_t *first, uint64_t *got)
{
	struct qcow_page *page;
	uint64_t room;
	int rc;

	for (;;) {
		rc = room_for(q, 1) ? need_block(q, q->end) : -ENOSPC;
		if (rc)
			return rc;
		/* the block itself may have been put there, and the next range may begin there */
		if (!room_for(q, 1))
			return -ENOSPC;
		if (q->end / per_block(q) >= q->ref.n || !q->ref.entry[q->end / per_block(q)])
			continue;
		rc = count_page(q, q->end, &page);
		if (rc)
			return rc;
		if (!count_get(q, page, q->end))
			break;
		q->end++; /* counted, but never written: leaked */
	}
	room = per_page(q) - q->end % per_page(q);
	reserve(q, q->end + (n < room ? n : room));
	rc = count_page(q, q->end, &page); /* which may have been moved meanwhile */
	if (rc)
		return rc;
	for (*got = 0; *got < n && *got < room && room_for(q, *got + 1) && !count_get(q, page, q->end + *got); ++*got)
		;
	*first = q->end;
	rc = take(q, page, *first, *got);
	if (!rc)
		q->end += *got;
	return rc;
}

/* Version 1 counts nothing: the end of the file is where the free clusters are.  (Never on a device: its end says nothing.) */
static int append_v1(struct qcow *q, uint64_t n, uint64_t *first, uint64_t *got, bool *fresh)
{
	td_lock(&q->alloc_lock);
	reserve(q, q->end + n);
	*first = q->end;
	*got = n;
	*fresh = true;
	q->end += n;
	td_unlock(&q->alloc_lock);
	return q->broken;
}

int qcow_alloc(struct qcow *q, uint64_t n, uint64_t *cluster, uint64_t *got, bool *fresh)
{
	int rc = 0;

	if (q->v1)
		return append_v1(q, n, cluster, got, fresh);
	td_lock(&q->alloc_lock);
	if (q->broken)
		rc = q->broken;
	*fresh = false;
	if (!rc && q->hint < q->end)
		rc = search_page(q, n, cluster, got);
	if (!rc) {
		rc = append(q, n, cluster, got);
		*fresh = !rc && !q->file->st.blockdev; /* behind the end of a file there is nothing but zeroes */
		/* a device is full: what is free below the end has to be found now */
		while (rc == -ENOSPC && q->hint < q->end)
			if ((rc = search_page(q, n, cluster, got)) == 0)
				rc = -ENOSPC;
	}
	td_unlock(&q->alloc_lock);
	return rc < 0 ? rc : 0;
}

/* A block for a range that lies ahead, in the next free cluster, whose own count is durable first (Q5). */
static int block_ahead(struct qcow *q, uint32_t index)
{
	uint64_t at, got;
	uint8_t *buf;
	int rc = append(q, 1, &at, &got);

	if (rc)
		return rc;
	if (posix_memalign((void **)&buf, 4096, qcow_csize(q)))
		return -ENOMEM;
	memset(buf, 0, qcow_csize(q));
	rc = td_file_rw(q->file, TD_IO_WRITE, buf, at << q->cbits, qcow_csize(q), 0);
	free(buf);
	if (!rc)
		rc = qcow_flush_refs(q);
	if (!rc)
		rc = qcow_meta_add(q, at << q->cbits);
	if (rc)
		return rc;
	qcow_pages_forget(q, at << q->cbits, qcow_csize(q));
	qcow_table_set(q, &q->ref, index, at << q->cbits);
	return 0;
}

/* Makes the next block that n clusters from the end on need; 1: there are all. */
static int next_block(struct qcow *q, uint64_t n)
{
	uint64_t from = q->end / per_block(q), to = (q->end + n - 1) / per_block(q);

	for (uint64_t i = from; i <= to; i++) {
		if (i >= q->ref.n) {
			q->end = (uint64_t)q->ref.n * per_block(q) > q->end ? (uint64_t)q->ref.n * per_block(q) : q->end;
			return grow_table(q);
		}
		if (!q->ref.entry[i])
			return i == from ? new_block(q, (uint32_t)i) : block_ahead(q, (uint32_t)i);
	}
	return 1;
}

int qcow_alloc_row(struct qcow *q, uint64_t n, uint64_t *cluster)
{
	struct qcow_page *page;
	int rc = 0;

	td_lock(&q->alloc_lock);
	while (!rc)
		rc = room_for(q, n) ? next_block(q, n) : -ENOSPC;
	*cluster = q->end;
	for (uint64_t i = 0; rc > 0 && i < n; i++) {
		int err = count_page(q, *cluster + i, &page);

		if (!err)
			err = take(q, page, *cluster + i, 1);
		if (err)
			rc = err;
	}
	q->end += rc > 0 ? n : 0;
	td_unlock(&q->alloc_lock);
	return rc < 0 ? rc : 0;
}

/* --- giving back ------------------------------------------------------------------------------------------------------ */

static int punch(struct qcow *q, uint64_t first, uint64_t n)
{
	struct td_iop op = {.op = q->file->st.blockdev ? TD_IO_DISCARD : TD_IO_PUNCH, .file = q->file, .off = first << q->cbits,
			    .len = n << q->cbits};
	int rc = td_await_file(q->io, &op);

	return rc == -EOPNOTSUPP ? 0 : rc;
}

/* One reference less for each; those in a row whose last it was are punched at once, before anybody can take them. */
static int give_back(struct qcow *q, uint64_t first, uint64_t n)
{
	struct qcow_page *page;
	uint64_t last = 0; /* of those from first on, how many have one reference */
	int rc = 0;

	while (n) {
		uint64_t index = first / per_block(q), count = 0;

		if (index < q->ref.n && q->ref.entry[index]) {
			rc = count_page(q, first, &page);
			if (rc)
				return rc;
			count = count_get(q, page, first);
		}
		if (!count)
			return qcow_corrupt(q, "the cluster at %#llx is in use, but counted as free", (unsigned long long)first << q->cbits);
		if (count > 1) {
			count_set(q, page, first, count - 1);
			first++, n--;
			continue;
		}
		for (last = 1; last < n && (first + last) % per_page(q) && count_get(q, page, first + last) == 1; last++)
			;
		td_unlock(&q->alloc_lock); /* counted, and nobody's: nothing changes them meanwhile */
		rc = punch(q, first, last);
		td_lock(&q->alloc_lock);
		if (!rc)
			rc = count_page(q, first, &page);
		if (rc)
			return rc;
		for (uint64_t c = first; c < first + last; c++) {
			count_set(q, page, c, 0);
			qcow_meta_del(q, c << q->cbits);
		}
		if (first < q->hint)
			q->hint = first;
		first += last, n -= last;
	}
	return 0;
}

/* Waits until the operations that began before now are over (Q4). */
static void drain(struct qcow *q)
{
	unsigned old = q->epoch;

	q->epoch ^= 1;
	q->draining = true;
	while (q->flying[old])
		td_cond_wait(&q->drained);
	q->draining = false;
}

static void reaper(void *arg)
{
	struct qcow *q = arg;

	while (q->ready.n && !q->broken) {
		struct qcow_freed_list now = q->ready;

		q->ready = (struct qcow_freed_list){0};
		drain(q);
		td_lock(&q->alloc_lock);
		for (size_t i = 0; i < now.n; i++)
			if (give_back(q, now.at[i].cluster, now.at[i].n) < 0)
				break; /* a leak */
		td_unlock(&q->alloc_lock);
		free(now.at);
	}
	q->reaping = false;
	td_cond_wake(&q->idle);
}

void qcow_reap(struct qcow *q)
{
	if (!q->ready.n || q->reaping || q->broken)
		return;
	q->reaping = true;
	if (td_fiber_start(q->io->loop, reaper, q) < 0)
		q->reaping = false; /* the next flush tries again */
}

/* --- at open ---------------------------------------------------------------------------------------------------------- */

#define BLOCKS_LOOKED_AT 64

/* Of a device: the last cluster that is counted.  Blocks without a count at the end are few, or an attack: then it is their end. */
static int last_counted(struct qcow *q, uint64_t *end)
{
	int looked = 0, rc = 0;
	uint8_t *buf;

	*end = 1;
	if (posix_memalign((void **)&buf, 4096, qcow_csize(q)))
		return -ENOMEM;
	for (uint32_t i = q->ref.n; !rc && *end == 1 && i-- > 0;) {
		if (!q->ref.entry[i])
			continue;
		rc = td_file_rw(q->file, TD_IO_READ, buf, q->ref.entry[i], qcow_csize(q), TD_IO_EOF_ZERO);
		for (uint64_t j = per_block(q); !rc && *end == 1 && j-- > 0;)
			if (qcow_ref_get(buf, q->h.ref_order, j))
				*end = (uint64_t)i * per_block(q) + j + 1;
		if (*end == 1 && ++looked == BLOCKS_LOOKED_AT)
			*end = (uint64_t)i * per_block(q) + 1;
	}
	free(buf);
	return rc;
}

int qcow_find_end(struct qcow *q)
{
	q->end = (q->file->st.size + qcow_csize(q) - 1) >> q->cbits;
	q->space = q->end;
	q->old = q->file->st.size;
	return q->file->st.blockdev ? last_counted(q, &q->end) : 0;
}
