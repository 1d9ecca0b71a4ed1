/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Metadata back to the file.  At a power cut each sector that was not made durable may be there or
 * not, so:
 *
 * Q1 A reference that is on disk is counted on disk: a cluster's refcount is durable before an
 *    entry that points to it is written. (Phase 1 before phase 2.)  A count without a reference
 *    is a leak, and no harm.
 * Q2 What an entry on disk points to is there: a cluster's contents - the guest's bytes, what was
 *    copied around them, and zeroes - are durable before its L2 entry is written.  An L2 entry
 *    changes in memory only when its data has been written, and phase 1 ends in an fdatasync that
 *    began after phase 2's pages were copied.
 * Q3 A new L2 table is all zeroes, or a copy of the one that it replaces, in the file before its
 *    L1 entry is set in memory; so L1 and L2 may be written in any order within phase 2.
 * Q4 A cluster whose reference is gone is counted until that is durable (qcow_release: after
 *    phase 2 of a write-back that began after the change), and is punched and taken anew only
 *    when no operation that found it by the old mapping is under way (the epochs).
 * Q5 A refcount block holds its own count and is durable before the refcount table's entry that
 *    makes it one is set in memory; a new, larger refcount table and its blocks are durable
 *    before the header names it; the header is one sector, changed as a whole.
 * Q6 A page is written from a copy that was taken when the write-back began: what changes later
 *    waits for the next.
 * Q7 A flush is answered when a write-back that began after it arrived is over, or when there was
 *    nothing to write, by fdatasync.
 * Q8 Lazy refcounts, where the image asks for them: Q1 does not hold, but the mark in the header
 *    that says so is durable before the first reference without a durable count is written.  It
 *    is taken away at close, when all counts are durable; an open that finds the mark
 *    counts anew.
 *
 * Q9 A change of an entry or a count is in image->redo before the request that needs it is
 *    answered: a process that dies takes none along.  When the log has missed one, all changes
 *    and writes are answered after a commit; and no cluster is taken anew, since the log may
 *    still say that it is free.
 *
 * Q10 What is mapped lies in the file: a cluster that is taken behind the end is within the file's
 *    length, or is written to its last byte, before an entry points to it.  So what an entry names
 *    beyond the end was cut off: it is lost, a read of it is an error, and an image with such an
 *    entry is not opened for writing, when what is taken anew would come into its place
 *    (qcow-end.c).
 *
 * One write-back runs at a time.  When one fails, its pages are dirty again and nothing was given
 * back.
 *
 * One thing: a page that has to make room is flushed, a flush frees clusters, and freeing them
 * changes pages (qcow-page.c, qcow-reap.c).
 */
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/qcow/qcow.h"
#include "lib/fiber/fiber.h"

#define PER_SECTOR (QCOW_SECTOR / 8)

int qcow_sync(struct td_file *f)
{
	struct td_iop op = {.op = TD_IO_SYNC, .file = f};

	return td_await_file(f->io, &op);
}

int qcow_set_length(struct td_file *f, uint64_t size)
{
	return f->st.blockdev ? size > f->st.size ? -ENOSPC : 0 : td_file_truncate(f, size);
}

bool qcow_clean(const struct qcow *q)
{
	uint32_t ndirty =
		q->lazy ? q->pages.ndirty - q->pages.ndirty_refs : q->pages.ndirty + q->ref.ndirty;

	return !ndirty && !q->l1.ndirty && !q->wb_lock.held;
}

/* --- copies of what is dirty --- */

/* Pieces of the file to be written together; adjacent ones are one write. */
struct set {
	struct piece {
		uint64_t off;
		void *owner; /* a page, or NULL for a sector of the table */
		uint32_t sector;
	} * at;
	uint8_t *buf; /* of `size' bytes each, in the order of at */
	struct qcow_table *table;
	size_t n;
	uint32_t size;
};

struct write {
	struct td_iop iop;
	struct iovec iov;
	struct wave *wave;
};

struct wave {
	struct td_cond done;
	unsigned running;
	int err;
};

static int by_offset(const void *a, const void *b)
{
	uint64_t x = ((const struct piece *)a)->off, y = ((const struct piece *)b)->off;

	return x < y ? -1 : x > y;
}

static int set_init(struct set *s, size_t n, uint32_t size)
{
	s->size = size;
	s->n = 0;
	s->at = calloc(n ? n : 1, sizeof *s->at);
	if (posix_memalign((void **)&s->buf, 4096, n ? n * size : size))
		s->buf = NULL;
	return s->at && s->buf ? 0 : -ENOMEM;
}

static void set_fini(struct set *s)
{
	free(s->at);
	free(s->buf);
}

static int take_pages(struct qcow *q, struct set *s, enum qcow_page_kind kind)
{
	size_t n = 0;

	for (uint32_t i = 0; q->pages.ndirty && i < q->pages.n; i++)
		n += q->pages.page[i].used && q->pages.page[i].dirty &&
		     q->pages.page[i].kind == kind;
	if (set_init(s, n, q->pages.size) < 0)
		return -ENOMEM;
	for (uint32_t i = 0; n && i < q->pages.n; i++) {
		struct qcow_page *p = &q->pages.page[i];

		if (p->used && p->dirty && p->kind == kind)
			s->at[s->n++] = (struct piece){.off = p->off, .owner = p};
	}
	qsort(s->at, s->n, sizeof *s->at, by_offset);
	for (size_t i = 0; i < s->n; i++) {
		struct qcow_page *p = s->at[i].owner;

		memcpy(s->buf + i * s->size, p->data, s->size); /* Q6 */
		p->dirty = false;
		p->writing = true;
		q->pages.ndirty--;
		q->pages.ndirty_refs -= kind == QCOW_PAGE_REF;
	}
	return 0;
}

static int take_table(struct qcow_table *t, struct set *s)
{
	if (set_init(s, t->ndirty, QCOW_SECTOR) < 0)
		return -ENOMEM;
	s->table = t;
	for (uint32_t i = 0; t->ndirty && i <= t->n / PER_SECTOR; i++) {
		uint8_t *to = s->buf + s->n * QCOW_SECTOR;

		if (!t->dirty[i])
			continue;
		memset(to, 0, QCOW_SECTOR);
		for (uint32_t j = 0; j < PER_SECTOR && i * PER_SECTOR + j < t->n; j++)
			td_put_be64(to + 8 * j, t->entry[i * PER_SECTOR + j]);
		s->at[s->n++] =
			(struct piece){.off = t->off + (uint64_t)i * QCOW_SECTOR, .sector = i};
		t->dirty[i] = 0;
		t->ndirty--;
	}
	return 0;
}

/* The set's pieces are written, or (failed) as dirty as before. */
static void settle_set(struct qcow *q, struct set *s, bool failed)
{
	for (size_t i = 0; i < s->n; i++) {
		struct qcow_page *p = s->at[i].owner;

		if (p) {
			p->writing = false;
			if (failed)
				qcow_page_soil(q, p);
		} else if (failed && !s->table->dirty[s->at[i].sector]) {
			s->table->dirty[s->at[i].sector] = 1;
			s->table->ndirty++;
		}
	}
}

static void write_done(struct td_iop *iop, int err)
{
	struct wave *w = td_entry(iop, struct write, iop)->wave;

	if (err && !w->err)
		w->err = err;
	if (--w->running == 0)
		td_cond_wake(&w->done);
}

static uint64_t clip(uint64_t off, uint64_t len, uint64_t end)
{
	return off + len > end ? end - off : len;
}

static int write_set(struct qcow *q, const struct set *s)
{
	struct wave wave = {0};
	struct write *op = calloc(s->n ? s->n : 1, sizeof *op);
	size_t nops = 0;

	if (!op)
		return -ENOMEM;
	td_cond_init(&wave.done);
	for (size_t i = 0, j; i < s->n; i = j) {
		struct write *o = &op[nops++];

		for (j = i + 1; j < s->n && s->at[j].off == s->at[j - 1].off + s->size &&
				(j - i) * s->size < (1u << 20);
		     j++)
			;
		o->wave = &wave;
		o->iov = (struct iovec){s->buf + i * s->size, (j - i) * s->size};
		if (s->table) /* what follows a table is not always its own */
			o->iov.iov_len = clip(s->at[i].off, o->iov.iov_len,
					      s->table->off + (uint64_t)s->table->n * 8);
		o->iop = (struct td_iop){.op = TD_IO_WRITE,
					 .file = q->file,
					 .flags = s->at[i].off >= q->old ? TD_IO_NEW : 0,
					 .off = s->at[i].off,
					 .len = o->iov.iov_len,
					 .iov = &o->iov,
					 .iovcnt = 1,
					 .done = write_done};
		wave.running++;
	}
	for (size_t i = 0; i < nops; i++)
		td_file_io(q->io, &op[i].iop);
	while (wave.running)
		td_cond_wait(&wave.done);
	free(op);
	return wave.err;
}

/* --- a write-back --- */

struct writeback {
	struct set ref, ref_table, l2, l1;
	struct qcow_freed_list freed;
	bool uncounted; /* what it maps is counted in memory alone (Q8) */
};

static int take_all(struct qcow *q, struct writeback *w)
{
	bool refs = !q->lazy || q->wb_refs;
	int rc = refs ? take_pages(q, &w->ref, QCOW_PAGE_REF) : 0;

	q->wb_refs = false;
	if (!rc && refs)
		rc = take_table(&q->ref, &w->ref_table);
	w->uncounted = q->pages.ndirty_refs || q->ref.ndirty;
	if (!rc)
		rc = take_pages(q, &w->l2, QCOW_PAGE_L2);
	if (!rc)
		rc = take_table(&q->l1, &w->l1);
	if (!rc)
		td_redo_freeze(q->image->redo);
	w->freed = q->freed;
	q->freed = (struct qcow_freed_list){0};
	return rc;
}

void qcow_sync_failed(struct qcow *q, int err)
{
	char text[TD_SPEC_MAX + 200];

	if (q->broken)
		return;
	q->broken = err;
	snprintf(text, sizeof text,
		 "a sync of %s failed (%s): writes and flushes fail until it is closed, checked "
		 "and opened again",
		 q->image->path, strerror(-err));
	td_log(LOG_ERR, "%s", text);
	/* writes by a map that was given out (qcow_tell_map) do not pass here */
	td_image_fault(q->image, text);
}

int qcow_sync_all(struct qcow *q)
{
	int rc = q->external ? qcow_sync(q->data) : 0;

	if (!rc)
		rc = qcow_sync(q->file);
	if (rc)
		qcow_sync_failed(q, rc);
	/* another sync, of a flush that had nothing to write, may have failed meanwhile, over what
	 * this one was to make durable */
	return q->broken;
}

static int write_first(struct qcow *q)
{
	int rc;

	td_lock(&q->header_lock); /* of two writes at once the older could be the last */
	rc = td_file_rw(q->file, TD_IO_WRITE, q->first, 0, QCOW_SECTOR, 0);
	td_unlock(&q->header_lock);
	return rc;
}

/* The counts on disk are not to be believed from now on; durable with the next sync. */
static int mark_dirty(struct qcow *q)
{
	int rc;

	if (q->h.incompat & QCOW_INCOMPAT_DIRTY)
		return 0;
	td_put_be64(q->first + QCOW_H_INCOMPAT, q->h.incompat | QCOW_INCOMPAT_DIRTY);
	rc = write_first(q);
	if (!rc)
		q->h.incompat |= QCOW_INCOMPAT_DIRTY;
	return rc;
}

static int write_all(struct qcow *q, struct writeback *w)
{
	bool mapping = w->l2.n || w->l1.n;
	int rc = write_set(q, &w->ref);

	if (!rc)
		rc = write_set(q, &w->ref_table);
	if (!rc && w->uncounted) /* without a mapping too: the log has the mark no more, and may
				    soon have an entry */
		rc = mark_dirty(q);
	if (!rc)
		rc = qcow_sync_all(q); /* Q1, Q2, Q8 */
	if (!rc && mapping)
		rc = write_set(q, &w->l2);
	if (!rc && mapping)
		rc = write_set(q, &w->l1);
	if (!rc && mapping)
		rc = qcow_sync_all(q);
	return rc;
}

static int freed_add(struct qcow_freed_list *l, uint64_t cluster, uint64_t n)
{
	struct qcow_freed *at;

	if (l->n && l->at[l->n - 1].cluster + l->at[l->n - 1].n == cluster) {
		l->at[l->n - 1].n += n;
		return 0;
	}
	if (l->n == l->room) {
		at = realloc(l->at, (l->room ? 2 * l->room : 64) * sizeof *at);
		if (!at)
			return -ENOMEM;
		l->at = at;
		l->room = l->room ? 2 * l->room : 64;
	}
	l->at[l->n++] = (struct qcow_freed){cluster, n};
	return 0;
}

static void freed_move(struct qcow_freed_list *to, struct qcow_freed_list *from)
{
	for (size_t i = 0; i < from->n; i++)
		if (freed_add(to, from->at[i].cluster, from->at[i].n) < 0)
			break; /* a leak */
	free(from->at);
	*from = (struct qcow_freed_list){0};
}

void qcow_release(struct qcow *q, uint64_t cluster, uint64_t n)
{
	if (n && !q->v1)
		/* without memory it is a leak, which a check finds */
		freed_add(&q->freed, cluster, n);
}

static int write_back(struct qcow *q)
{
	struct writeback w = {0};
	int rc;

	if (q->broken)
		return q->broken;
	rc = take_all(q, &w);
	if (!rc)
		rc = write_all(q, &w);
	td_redo_done(q->image->redo, rc);
	settle_set(q, &w.ref, rc);
	settle_set(q, &w.ref_table, rc);
	settle_set(q, &w.l2, rc);
	settle_set(q, &w.l1, rc);
	freed_move(rc ? &q->freed : &q->ready, &w.freed); /* Q4 */
	set_fini(&w.ref);
	set_fini(&w.ref_table);
	set_fini(&w.l2);
	set_fini(&w.l1);
	td_cond_wake(&q->pages.changed);
	return rc;
}

int qcow_flush(struct qcow *q)
{
	uint64_t need = q->wb_begun + 1; /* Q7 */
	int rc;

	td_lock(&q->wb_lock);
	if (q->wb_done >= need) {
		rc = q->wb_err;
	} else {
		q->wb_begun++;
		rc = q->wb_err = write_back(q);
		q->wb_done++;
	}
	td_unlock(&q->wb_lock);
	qcow_reap(q);
	return rc;
}

int qcow_flush_refs(struct qcow *q)
{
	q->wb_refs = true;
	return qcow_flush(q);
}

/* --- the header --- */

int qcow_header_write(struct qcow *q)
{
	int rc = write_first(q);

	if (rc)
		return rc;
	rc = qcow_sync(q->file);
	if (rc)
		qcow_sync_failed(q, rc); /* the kernel tells of it once */
	return rc;
}

void qcow_unmark(struct qcow *q)
{
	bool lazy = q->h.incompat & QCOW_INCOMPAT_DIRTY,
	     marked = q->h.version == 3 && QCOW_MARK(q->h.autoclear);

	if (!(lazy || marked) || !q->writable || q->broken || !qcow_clean(q))
		return;
	td_put_be64(q->first + QCOW_H_INCOMPAT, q->h.incompat & ~QCOW_INCOMPAT_DIRTY);
	if (marked)
		td_put_be64(q->first + QCOW_H_AUTOCLEAR, q->h.autoclear & UINT32_MAX);
	if (qcow_header_write(q) < 0)
		td_log(LOG_WARNING, "%s: it could not be marked as closed%s", q->image->path,
		       lazy ? ": its refcounts will be rebuilt when it is opened" : "");
}

int qcow_corrupt(struct qcow *q, const char *fmt, ...)
{
	char why[256], text[TD_SPEC_MAX + 256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof why, fmt, ap);
	va_end(ap);
	if (q->broken)
		return -EIO;
	q->broken = -EIO;
	snprintf(text, sizeof text, "%s is corrupt: %s", q->image->path, why);
	td_log(LOG_ERR,
	       "%s.  Nothing is written to it any more; detach it and look at it with `td-qcow "
	       "check'",
	       text);
	td_image_fault(q->image, text);
	if (q->writable && q->h.version == 3) {
		q->h.incompat |= QCOW_INCOMPAT_CORRUPT;
		td_put_be64(q->first + QCOW_H_INCOMPAT,
			    td_get_be64(q->first + QCOW_H_INCOMPAT) | QCOW_INCOMPAT_CORRUPT);
		/* a mark of lazy counts that stands there would take it away */
		td_redo_put(q->image->redo, TD_REDO_FIRST, QCOW_H_INCOMPAT,
			    q->first + QCOW_H_INCOMPAT, 8);
		if (qcow_header_write(q) < 0)
			td_log(LOG_ERR, "%s: and it could not be marked as corrupt",
			       q->image->path);
	}
	return -EIO;
}
