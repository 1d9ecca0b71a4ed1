/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* From guest offsets to host offsets.  What an entry says is checked each time that it is used. */
#include <errno.h>
#include <stdlib.h>

#include "drivers/qcow/qcow.h"
#include "lib/fiber/fiber.h"

#define SUBS 32 /* subclusters of a cluster, with extended entries */

static uint64_t min64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Offset in its table of the entry of off. */
static uint64_t entry_off(const struct qcow *q, uint64_t off)
{
	return (off >> q->cbits) % q->l2_entries * q->esize;
}

/* A host offset that a standard entry may have. */
static bool host_ok(const struct qcow *q, uint64_t entry, uint64_t guest,
		    const struct qcow_page *page)
{
	uint64_t host = entry & QCOW_OFFSET;

	if ((entry & QCOW_L2_RESERVED) || (host & (qcow_csize(q) - 1)))
		return false;
	if (q->external)
		return host == (guest & ~(qcow_csize(q) - 1));
	return host >> q->cbits < q->end && !(page->suspect && qcow_is_meta(q, host));
}

void qcow_zip_place(const struct qcow *q, uint64_t entry, uint64_t *off, uint64_t *len)
{
	if (q->v1)
		qcow1_zip_range(q->cbits, entry, off, len);
	else
		qcow_zip_range(q->cbits, entry, off, len);
}

static void zip(const struct qcow *q, struct qcow_run *run)
{
	uint64_t off, len;

	qcow_zip_place(q, run->entry, &off, &len);
	run->kind = q->external || (!q->v1 && (run->entry & QCOW_COPIED)) || !off ||
				    off >> q->cbits >= q->end || len > 2 * qcow_csize(q)
			    ? QCOW_RUN_BAD
			    : QCOW_RUN_ZIP;
}

/* A standard entry: unallocated, zeroes, or data. */
static void standard(const struct qcow *q, uint64_t guest, const struct qcow_page *page,
		     struct qcow_run *run)
{
	uint64_t e = run->entry;
	bool allocated = (e & QCOW_OFFSET) || (q->external && (e & QCOW_COPIED));

	if (allocated ? !host_ok(q, e, guest, page) : (e & (QCOW_L2_RESERVED | QCOW_COPIED))) {
		run->kind = QCOW_RUN_BAD;
	} else if (e & QCOW_ZERO) {
		run->kind = q->h.version >= 3 ? QCOW_RUN_ZERO : QCOW_RUN_BAD;
	} else if (allocated) {
		run->kind = QCOW_RUN_DATA;
		run->host = e & QCOW_OFFSET;
		run->own = e & QCOW_COPIED;
	} else {
		run->kind = QCOW_RUN_NONE;
	}
}

/* Version 1: an offset or nothing. */
static void version1(const struct qcow *q, struct qcow_run *run)
{
	uint64_t e = run->entry;
	bool ok = !(e & (qcow_csize(q) - 1)) && e >> q->cbits < q->end &&
		  (e >= q->l1.off + (uint64_t)q->l1.n * 8);

	run->kind = !e ? QCOW_RUN_NONE : ok ? QCOW_RUN_DATA : QCOW_RUN_BAD;
	run->host = e;
	run->own = true;
}

/* One subcluster of an extended entry. */
static void extended(const struct qcow *q, uint64_t guest, const struct qcow_page *page,
		     uint64_t bitmap, struct qcow_run *run)
{
	unsigned sub = (unsigned)((guest & (qcow_csize(q) - 1)) >> q->ubits);
	bool data = bitmap >> sub & 1, zero = bitmap >> (sub + SUBS) & 1;
	uint64_t e = run->entry;
	bool allocated = (e & QCOW_OFFSET) || (q->external && (e & QCOW_COPIED));

	if ((data && (zero || !allocated)) || (e & QCOW_ZERO) ||
	    (allocated && !host_ok(q, e, guest, page)) ||
	    (!allocated && (e & (QCOW_L2_RESERVED | QCOW_COPIED)))) {
		run->kind = QCOW_RUN_BAD;
	} else if (data) {
		run->kind = QCOW_RUN_DATA;
		run->host = (e & QCOW_OFFSET) + ((uint64_t)sub << q->ubits);
		run->own = e & QCOW_COPIED;
	} else {
		run->kind = zero ? QCOW_RUN_ZERO : QCOW_RUN_NONE;
	}
}

/* What the unit (cluster or subcluster) of guest offset off is. */
static void unit(struct qcow *q, struct qcow_page *page, uint64_t off, struct qcow_run *run)
{
	const uint8_t *p = qcow_page_at(q, page, entry_off(q, off));

	run->entry = td_get_be64(p);
	run->own = false;
	run->host = 0;
	if (qcow_zipped(q, run->entry))
		zip(q, run);
	else if (q->v1)
		version1(q, run);
	else if (q->ext)
		extended(q, off, page, td_get_be64(p + 8), run);
	else
		standard(q, off, page, run);
}

void qcow_map(struct qcow *q, uint64_t off, uint64_t len, struct qcow_run *run)
{
	uint64_t l2, inside = off & ((UINT64_C(1) << q->ubits) - 1), stop, at;
	struct qcow_page *page;

	l2 = q->l1.entry[off >> q->l2_bits] & QCOW_OFFSET;
	if (!l2) {
		*run = (struct qcow_run){
			QCOW_RUN_NONE, min64(len, (((off >> q->l2_bits) + 1) << q->l2_bits) - off),
			0, 0, false};
		return;
	}
	page = qcow_page_find(q, l2 + entry_off(q, off));
	if (!page) {
		*run = (struct qcow_run){QCOW_RUN_MISS, len, 0, 0, false};
		return;
	}
	unit(q, page, off, run);
	if (run->kind == QCOW_RUN_ZIP) {
		run->len = min64(len, qcow_csize(q) - (off & (qcow_csize(q) - 1)));
		return;
	}
	run->host += inside;
	/* as far as the page tells, and the same goes on */
	stop = off | (((uint64_t)q->page_entries << q->cbits) - 1);
	stop = min64(stop + 1, off + len);
	for (at = off - inside + (UINT64_C(1) << q->ubits); at < stop;
	     at += UINT64_C(1) << q->ubits) {
		struct qcow_run next;

		unit(q, page, at, &next);
		if (next.kind != run->kind || next.kind == QCOW_RUN_BAD ||
		    (next.kind == QCOW_RUN_DATA &&
		     (next.own != run->own || next.host != run->host + (at - off))))
			break;
	}
	run->len = min64(at, stop) - off;
}

#define TELL_UNIT (64u << 10) /* bytes: what is told begins at such a place, if it can, */
#define TELL_MOST (2u << 20)  /* and ends before this */

/*
 * What may be written in place stays where it is until a DISCARD or WRITE_ZEROES, as no snapshot is
 * taken of an image in use.  No bitmap must hear of a write, and nothing of what is encrypted
 * passes without us.
 */
bool qcow_tell_map(struct td_image *image, uint64_t off, uint64_t len, struct td_map *out)
{
	struct qcow *q = image->priv;
	uint64_t from = off & ~(uint64_t)(TELL_UNIT - 1),
		 most = min64(TELL_MOST, image->info.size - from);
	struct qcow_run run;

	if (q->crypt || q->broken || q->nbitmaps || !q->writable || td_redo_missed(image->redo))
		return false;
	qcow_map(q, from, most, &run);
	if (run.kind != QCOW_RUN_DATA || !run.own || from + run.len < off + len) {
		from = off;
		qcow_map(q, off, len, &run);
	}
	*out = (struct td_map){.off = from,
			       .len = run.len,
			       .file = q->data,
			       .at = run.host,
			       .flags = {0, qcow_new(q, run.host + run.len - 1)}};
	return run.kind == QCOW_RUN_DATA && run.own && from + run.len >= off + len;
}

static int bad_entry(struct qcow *q, uint64_t off, const struct qcow_run *run)
{
	return qcow_corrupt(q,
			    "the L2 entry of offset %#llx is %#llx, which cannot be: beyond the "
			    "file, unaligned, or on metadata",
			    (unsigned long long)off, (unsigned long long)run->entry);
}

int qcow_map_wait(struct qcow *q, uint64_t off, uint64_t len, struct qcow_run *run)
{
	struct qcow_page *page;
	int rc;

	for (;;) {
		qcow_map(q, off, len, run);
		if (run->kind == QCOW_RUN_BAD)
			return bad_entry(q, off, run);
		if (run->kind != QCOW_RUN_MISS)
			return 0;
		rc = qcow_page_get(
			q, (q->l1.entry[off >> q->l2_bits] & QCOW_OFFSET) + entry_off(q, off),
			QCOW_PAGE_L2, &page);
		if (rc)
			return rc;
	}
}

/* --- changes --- */

int qcow_l2_entry(struct qcow *q, uint64_t off, struct qcow_page **page, uint8_t **at)
{
	uint64_t where = (q->l1.entry[off >> q->l2_bits] & QCOW_OFFSET) + entry_off(q, off);
	int rc = qcow_page_get(q, where, QCOW_PAGE_L2, page);

	*at = rc ? NULL : qcow_page_at(q, *page, where);
	return rc;
}

/* An L2 table with the rest of its last cluster. */
static uint64_t l2_bytes(const struct qcow *q)
{
	return td_round_up((uint64_t)q->l2_entries * q->esize, qcow_csize(q));
}

/* A new L2 table: zeroes, or a copy (Q3).  Written in full where its space is not reserved, so that
 * writing it back needs none. */
static int write_l2(struct qcow *q, uint64_t from, uint64_t to, bool fresh)
{
	uint8_t *buf = NULL;
	int rc = 0;

	if (!from && fresh && (to + l2_bytes(q)) >> q->cbits <= q->space)
		return 0; /* zeroes, and space, are there */

	if (posix_memalign((void **)&buf, 4096, l2_bytes(q)))
		return -ENOMEM;
	memset(buf, 0, l2_bytes(q));
	if (from)
		rc = td_file_rw(q->file, TD_IO_READ, buf, from, qcow_csize(q), TD_IO_EOF_ZERO);
	/* what a shared table's entries point to is shared too */
	for (uint64_t i = 0; from && i < qcow_csize(q); i += q->esize)
		td_put_be64(buf + i, td_get_be64(buf + i) & ~QCOW_COPIED);
	if (!rc)
		rc = td_file_rw(q->file, TD_IO_WRITE, buf, to, l2_bytes(q), 0);
	free(buf);
	return rc;
}

static int new_l2(struct qcow *q, uint32_t i)
{
	uint64_t old = q->l1.entry[i] & QCOW_OFFSET, cluster, got, off;
	bool fresh;
	/* of version 1 a table may be several clusters, which always come in a row there */
	int rc = qcow_alloc(q, l2_bytes(q) >> q->cbits, &cluster, &got, &fresh);

	if (rc)
		return rc;
	off = cluster << q->cbits;
	qcow_pages_forget(q, off, l2_bytes(q));
	rc = write_l2(q, old, off, fresh);
	if (!rc)
		rc = qcow_meta_add(q, off);
	if (rc) {
		qcow_release(q, cluster, 1);
		return rc;
	}
	qcow_table_set(q, &q->l1, i, off | qcow_own(q));
	if (old)
		qcow_release(q, old >> q->cbits, 1);
	return 0;
}

static bool l2_is_own(const struct qcow *q, uint32_t i)
{
	return q->v1 ? q->l1.entry[i] : q->l1.entry[i] & QCOW_COPIED;
}

int qcow_l2_own(struct qcow *q, uint64_t off)
{
	uint32_t i = (uint32_t)(off >> q->l2_bits);
	int rc = 0;

	if (l2_is_own(q, i))
		return 0;
	td_lock(&q->l1_lock);
	if (!l2_is_own(q, i)) /* still */
		rc = new_l2(q, i);
	td_unlock(&q->l1_lock);
	return rc;
}

void qcow_release_entry(struct qcow *q, uint64_t entry)
{
	uint64_t off, len;

	if (q->v1)
		return; /* nobody counts there: what is not used any more stays where it is */
	if (entry & QCOW_ZIPPED) {
		qcow_zip_range(q->cbits, entry, &off, &len);
		qcow_release(q, off >> q->cbits,
			     ((off + len - 1) >> q->cbits) - (off >> q->cbits) + 1);
	} else if ((entry & QCOW_OFFSET) && !q->external) {
		qcow_release(q, (entry & QCOW_OFFSET) >> q->cbits, 1);
	}
}
