/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Host clusters: taken by a count of one.  The invariant Q1 of qcow-flush.c is kept here.
 *
 * A free cluster is looked for in one page of counts (from `hint' on) and otherwise taken from the
 * end, so that an allocation costs the same whatever the size of the file; the search goes on with
 * the next, until all of the file has been looked through once.
 */
#include <errno.h>
#include <stdlib.h>

#include "drivers/qcow/qcow-refcount.h"
#include "lib/fiber/fiber.h"

/* --- space --- */

#define RESERVE_MIN (UINT64_C(1) << 20) /* bytes */
#define RESERVE_MAX (UINT64_C(64) << 20)

/*
 * Space for clusters up to `upto', and some more: a file that grows with each write is slow, and so
 * is one that is made of holes.  What is reserved reads as zeroes.  Where it fails, writes find
 * their space, or none, themselves.
 */
static void reserve(struct qcow *q, uint64_t upto)
{
	struct td_iop op = {.op = TD_IO_ZERO, .file = q->file};
	uint64_t from = q->space > q->end ? q->space : q->end, more = (q->end << q->cbits) / 8;

	if (q->file->st.blockdev ||
	    (q->no_space ? upto << q->cbits <= q->length : upto <= q->space))
		return;
	more = more < RESERVE_MIN ? RESERVE_MIN : more > RESERVE_MAX ? RESERVE_MAX : more;
	upto += (more >> q->cbits) + 1;
	op.off = from << q->cbits;
	op.len = (upto - from) << q->cbits;
	/* the length even where space cannot be had: what is mapped lies in the file (Q10) */
	if (!qcow_set_length(q->file, upto << q->cbits))
		q->length = upto << q->cbits;
	if (q->no_space)
		return;
	if (q->length < upto << q->cbits || td_await_file(q->io, &op))
		q->no_space = true;
	else
		q->space = upto;
}

/* Do these clusters, behind all that was ever taken, read as zeroes? */
static bool is_fresh(const struct qcow *q, uint64_t first, uint64_t n)
{
	return !q->file->st.blockdev && (first + n) << q->cbits <= q->length;
}

void qcow_trim_end(struct qcow *q)
{
	if (q->writable && q->length > q->end << q->cbits && !q->file->st.blockdev)
		qcow_set_length(q->file, q->end << q->cbits);
}

/* --- taking --- */

static int take_clusters(struct qcow *q, struct qcow_page *page, uint64_t first, uint64_t n)
{
	for (uint64_t c = first; c < first + n; c++) {
		if (qcow_is_meta(q, c << q->cbits))
			return qcow_corrupt(
				q, "the cluster at %#llx is counted as free, but it is metadata",
				(unsigned long long)c << q->cbits);
		qcow_count_set(q, page, c, 1);
	}
	return 0;
}

/* The first free clusters in a row, at most n, in the page of `from' and below the end; 0: none. */
static uint64_t free_run(struct qcow *q, const struct qcow_page *page, uint64_t from, uint64_t n,
			 uint64_t *first)
{
	uint64_t stop = (from / qcow_per_page(q) + 1) * qcow_per_page(q), got = 0;

	for (uint64_t c = from; c < stop && c < q->end && got < n; c++) {
		if (!qcow_count_get(q, page, c)) {
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
	uint64_t index = q->hint / qcow_per_block(q);
	int rc;

	if (index >= q->ref.n) {
		q->hint = q->end;
		return 0;
	}
	if (!q->ref.entry[index]) {
		/* that range has not even a block: it is left alone */
		q->hint = (index + 1) * qcow_per_block(q);
		return 0;
	}
	/* a count of nought that is in the log must not come back over one that the log has missed:
	 * rather a commit, and the end of the file */
	if (!q->lazy && (td_redo_crowded(q->image->redo) || td_redo_missed(q->image->redo)))
		return qcow_flush(q);
	rc = qcow_count_page(q, q->hint, &page);
	if (rc)
		return rc;
	*got = free_run(q, page, q->hint, n, first);
	if (!*got) {
		q->hint = (q->hint / qcow_per_page(q) + 1) * qcow_per_page(q);
		return 0;
	}
	q->hint = *first + *got;
	rc = take_clusters(q, page, *first, *got);
	return rc ? rc : 1;
}

static int append(struct qcow *q, uint64_t n, uint64_t *first, uint64_t *got)
{
	struct qcow_page *page;
	uint64_t room;
	int rc;

	for (;;) {
		rc = qcow_room_for(q, 1) ? qcow_ref_need_block(q, q->end) : -ENOSPC;
		if (rc)
			return rc;
		/* the block itself may have been put there, and the next range may begin there */
		if (!qcow_room_for(q, 1))
			return -ENOSPC;
		if (q->end / qcow_per_block(q) >= q->ref.n ||
		    !q->ref.entry[q->end / qcow_per_block(q)])
			continue;
		rc = qcow_count_page(q, q->end, &page);
		if (rc)
			return rc;
		if (!qcow_count_get(q, page, q->end))
			break;
		q->end++; /* counted, but never written: leaked */
	}
	room = qcow_per_page(q) - q->end % qcow_per_page(q);
	reserve(q, q->end + (n < room ? n : room));
	rc = qcow_count_page(q, q->end, &page); /* which may have been moved meanwhile */
	if (rc)
		return rc;
	for (*got = 0; *got < n && *got < room && qcow_room_for(q, *got + 1) &&
		       !qcow_count_get(q, page, q->end + *got);
	     ++*got)
		;
	*first = q->end;
	rc = take_clusters(q, page, *first, *got);
	if (!rc)
		q->end += *got;
	return rc;
}

/* Version 1 counts nothing: the end of the file is where the free clusters are.  (Never on a
 * device: its end says nothing.) */
static int append_v1(struct qcow *q, uint64_t n, uint64_t *first, uint64_t *got, bool *fresh)
{
	td_lock(&q->alloc_lock);
	reserve(q, q->end + n);
	*first = q->end;
	*got = n;
	*fresh = is_fresh(q, *first, n);
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
		*fresh = !rc && is_fresh(q, *cluster, *got);
		/* a device is full: what is free below the end has to be found now */
		while (rc == -ENOSPC && q->hint < q->end)
			if ((rc = search_page(q, n, cluster, got)) == 0)
				rc = -ENOSPC;
	}
	td_unlock(&q->alloc_lock);
	return rc < 0 ? rc : 0;
}

/* A block for a range that lies ahead, in the next free cluster, whose own count is durable first
 * (Q5). */
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
	uint64_t from = q->end / qcow_per_block(q), to = (q->end + n - 1) / qcow_per_block(q);

	for (uint64_t i = from; i <= to; i++) {
		if (i >= q->ref.n) {
			q->end = (uint64_t)q->ref.n * qcow_per_block(q) > q->end
					 ? (uint64_t)q->ref.n * qcow_per_block(q)
					 : q->end;
			return qcow_ref_grow(q);
		}
		if (!q->ref.entry[i])
			return i == from ? qcow_ref_new_block(q, (uint32_t)i)
					 : block_ahead(q, (uint32_t)i);
	}
	return 1;
}

int qcow_alloc_row(struct qcow *q, uint64_t n, uint64_t *cluster)
{
	struct qcow_page *page;
	int rc = 0;

	td_lock(&q->alloc_lock);
	while (!rc)
		rc = qcow_room_for(q, n) ? next_block(q, n) : -ENOSPC;
	*cluster = q->end;
	for (uint64_t i = 0; rc > 0 && i < n; i++) {
		int err = qcow_count_page(q, *cluster + i, &page);

		if (!err)
			err = take_clusters(q, page, *cluster + i, 1);
		if (err)
			rc = err;
	}
	q->end += rc > 0 ? n : 0;
	td_unlock(&q->alloc_lock);
	return rc < 0 ? rc : 0;
}
