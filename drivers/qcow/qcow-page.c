/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Metadata in memory: pages of L2 tables and refcount blocks within a bound, found by their offset
 * in the file; the L1 and refcount tables as a whole; and the set of clusters that hold metadata,
 * which nothing else may point to.
 *
 * A page leaves memory only when it is clean and at rest; when all are dirty, what needs one writes
 * them back first.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "drivers/qcow/qcow.h"

static uint32_t hash(const struct qcow *q, uint64_t off)
{
	return (uint32_t)((off / q->pages.size * UINT64_C(0x9e3779b97f4a7c15)) >> 32) &
	       (q->pages.nhash - 1);
}

int qcow_pages_init(struct qcow *q)
{
	size_t bytes = QCOW_CACHE;

	td_cond_init(&q->pages.changed);
	q->pages.size = qcow_csize(q) < QCOW_PAGE ? (uint32_t)qcow_csize(q) : QCOW_PAGE;
	q->pages.n = QCOW_CACHE / q->pages.size;
	q->pages.nhash = q->pages.n;
	q->pages.page = calloc(q->pages.n, sizeof *q->pages.page);
	q->pages.hash = calloc(q->pages.nhash, sizeof *q->pages.hash);
	q->pages.mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (q->pages.mem == MAP_FAILED)
		q->pages.mem = NULL;
	if (!q->pages.page || !q->pages.hash || !q->pages.mem)
		return -ENOMEM;
	madvise(q->pages.mem, bytes, MADV_NOHUGEPAGE); /* only what is used is to be resident */
	return 0;
}

void qcow_pages_fini(struct qcow *q)
{
	free(q->pages.page);
	free(q->pages.hash);
	if (q->pages.mem)
		munmap(q->pages.mem, QCOW_CACHE);
	free(q->meta.at);
}

static struct qcow_page *lookup(struct qcow *q, uint64_t off)
{
	struct qcow_page *p = q->pages.hash[hash(q, off)];

	while (p && p->off != off)
		p = p->next;
	return p;
}

struct qcow_page *qcow_page_find(struct qcow *q, uint64_t off)
{
	struct qcow_page *p = lookup(q, off & ~(uint64_t)(q->pages.size - 1));

	if (!p || p->loading)
		return NULL;
	p->recent = true;
	return p;
}

static void unhash(struct qcow *q, struct qcow_page *page)
{
	struct qcow_page **p = &q->pages.hash[hash(q, page->off)];

	while (*p != page)
		p = &(*p)->next;
	*p = page->next;
	page->used = false;
}

/* A page to be filled: free, or clean and not looked at lately.  NULL: all are dirty or busy. */
static struct qcow_page *victim(struct qcow *q)
{
	for (uint32_t i = 0; i < 2 * q->pages.n; i++) {
		struct qcow_page *p = &q->pages.page[q->pages.hand];

		q->pages.hand = (q->pages.hand + 1) % q->pages.n;
		if (!p->used)
			return p;
		if (p->loading || p->writing || p->dirty)
			continue;
		if (!p->recent) {
			unhash(q, p);
			return p;
		}
		p->recent = false;
	}
	return NULL;
}

/* An L2 table that points into metadata is a trap: a guest's write would go there. */
static bool points_into_metadata(struct qcow *q, const struct qcow_page *page)
{
	for (uint32_t i = 0; !q->v1 && i < q->pages.size; i += q->esize) {
		uint64_t e = td_get_be64(page->data + i);

		if (e && !(e & QCOW_ZIPPED) && (e & QCOW_OFFSET) && !q->external &&
		    qcow_is_meta(q, e & QCOW_OFFSET))
			return true;
	}
	return false;
}

static int load_page(struct qcow *q, struct qcow_page *p, uint64_t off, enum qcow_page_kind kind)
{
	uint32_t h = hash(q, off);
	int rc;

	*p = (struct qcow_page){.off = off,
				.data = q->pages.mem + (size_t)(p - q->pages.page) * q->pages.size,
				.next = q->pages.hash[h],
				.kind = (uint8_t)kind,
				.used = true,
				.loading = true,
				.recent = true};
	q->pages.hash[h] = p;
	/* version 1 may end with a table of less than a page */
	rc = td_file_rw(q->file, TD_IO_READ, p->data, off, q->pages.size,
			q->v1 ? TD_IO_EOF_ZERO : 0);
	p->loading = false;
	if (rc < 0)
		unhash(q, p);
	else if (kind == QCOW_PAGE_L2)
		p->suspect = points_into_metadata(q, p);
	td_cond_wake(&q->pages.changed);
	return rc;
}

int qcow_page_get(struct qcow *q, uint64_t off, enum qcow_page_kind kind, struct qcow_page **out)
{
	int rc = 0;

	off &= ~(uint64_t)(q->pages.size - 1);
	for (;;) {
		struct qcow_page *p = lookup(q, off);

		if (p && !p->loading) {
			p->recent = true;
			*out = p;
			return p->kind == kind ? 0
					       : qcow_corrupt(q,
							      "the cluster at %#llx is an L2 table "
							      "and a refcount block",
							      (unsigned long long)off);
		}
		if (p) {
			td_cond_wait(&q->pages.changed);
			continue;
		}
		p = victim(q);
		if (p)
			rc = load_page(q, p, off, kind);
		else if (q->pages.ndirty)
			rc = qcow_flush_refs(q);
		else
			td_cond_wait(&q->pages.changed);
		if (rc < 0)
			return rc;
	}
}

void qcow_page_soil(struct qcow *q, struct qcow_page *page)
{
	assert(page->used && !page->loading);
	if (!page->dirty) {
		page->dirty = true;
		q->pages.ndirty++;
		q->pages.ndirty_refs += page->kind == QCOW_PAGE_REF;
	}
}

/* A count is in the log, or, where counts are lazy, the mark that says so (Q8). */
static void note_count(struct qcow *q, uint64_t off, const void *at, uint32_t len)
{
	uint8_t marked[8];

	if (!q->lazy) {
		td_redo_put(q->image->redo, TD_REDO_FIRST, off, at, len);
		return;
	}
	if (q->h.incompat & QCOW_INCOMPAT_DIRTY)
		return; /* it stands in the file */
	td_put_be64(marked, q->h.incompat | QCOW_INCOMPAT_DIRTY);
	td_redo_put(q->image->redo, TD_REDO_FIRST, QCOW_H_INCOMPAT, marked, sizeof marked);
}

void qcow_page_dirty(struct qcow *q, struct qcow_page *page, const void *at, uint32_t len)
{
	uint64_t off = page->off + (uint64_t)((const uint8_t *)at - page->data);

	if (page->kind == QCOW_PAGE_REF)
		note_count(q, off, at, len);
	else
		td_redo_put(q->image->redo, TD_REDO_SECOND, off, at, len);
	qcow_page_soil(q, page);
}

void qcow_pages_forget(struct qcow *q, uint64_t off, uint64_t len)
{
	for (uint64_t at = off; at < off + len; at += q->pages.size) {
		struct qcow_page *p = lookup(q, at);

		if (!p)
			continue;
		assert(!p->dirty && !p->loading && !p->writing);
		unhash(q, p);
	}
}

/* --- tables --- */

#define PER_SECTOR (QCOW_SECTOR / 8)

int qcow_table_init(struct qcow_table *t, uint32_t n, uint64_t off)
{
	*t = (struct qcow_table){.n = n, .off = off};
	t->entry = calloc(n ? n : 1, sizeof *t->entry);
	t->dirty = calloc(n / PER_SECTOR + 1, 1);
	return t->entry && t->dirty ? 0 : -ENOMEM;
}

void qcow_table_fini(struct qcow_table *t)
{
	free(t->entry);
	free(t->dirty);
	*t = (struct qcow_table){0};
}

void qcow_table_set(struct qcow *q, struct qcow_table *t, uint32_t i, uint64_t value)
{
	uint8_t entry[8];

	td_put_be64(entry, value);
	if (t == &q->ref)
		note_count(q, t->off + 8ull * i, entry, sizeof entry);
	else
		td_redo_put(q->image->redo, TD_REDO_SECOND, t->off + 8ull * i, entry, sizeof entry);
	t->entry[i] = value;
	if (!t->dirty[i / PER_SECTOR]) {
		t->dirty[i / PER_SECTOR] = 1;
		t->ndirty++;
	}
}

/* --- the set of metadata clusters: open addressing, at most half full --- */

static uint32_t slot(const struct qcow *q, uint64_t off)
{
	return (uint32_t)(((off >> q->cbits) * UINT64_C(0x9e3779b97f4a7c15)) >> 32) &
	       (q->meta.n - 1);
}

static uint32_t seek(const struct qcow *q, uint64_t off)
{
	uint32_t i = slot(q, off);

	while (q->meta.at[i] && q->meta.at[i] != off)
		i = (i + 1) & (q->meta.n - 1);
	return i;
}

static int grow_cache(struct qcow *q)
{
	uint64_t *old = q->meta.at, n = q->meta.n;

	q->meta.at = calloc(n ? 2 * n : 256, sizeof *q->meta.at);
	if (!q->meta.at) {
		q->meta.at = old;
		return -ENOMEM;
	}
	q->meta.n = n ? (uint32_t)(2 * n) : 256;
	for (uint64_t i = 0; i < n; i++)
		if (old[i])
			q->meta.at[seek(q, old[i])] = old[i];
	free(old);
	return 0;
}

int qcow_meta_add(struct qcow *q, uint64_t off)
{
	uint32_t i;

	if (2 * (q->meta.used + 1) > q->meta.n && grow_cache(q) < 0)
		return -ENOMEM;
	i = seek(q, off);
	if (q->meta.at[i])
		return -EEXIST;
	q->meta.at[i] = off;
	q->meta.used++;
	return 0;
}

void qcow_meta_del(struct qcow *q, uint64_t off)
{
	uint32_t i = seek(q, off), gap = i;

	if (!q->meta.at[i])
		return;
	/* what follows without a gap may have wanted this slot */
	for (;;) {
		uint32_t want;

		i = (i + 1) & (q->meta.n - 1);
		if (!q->meta.at[i])
			break;
		want = slot(q, q->meta.at[i]);
		if (((i - want) & (q->meta.n - 1)) >= ((i - gap) & (q->meta.n - 1))) {
			q->meta.at[gap] = q->meta.at[i];
			gap = i;
		}
	}
	q->meta.at[gap] = 0;
	q->meta.used--;
}

static bool within(const struct qcow *q, uint64_t off, uint64_t start, uint64_t len)
{
	return len && off + qcow_csize(q) > start && off < start + len;
}

bool qcow_is_meta(const struct qcow *q, uint64_t off)
{
	return off < qcow_csize(q) || within(q, off, q->l1.off, (uint64_t)q->l1.n * 8) ||
	       within(q, off, q->ref.off, (uint64_t)q->ref.n * 8) ||
	       within(q, off, q->h.snapshots_off, q->h.nsnapshots * UINT64_C(40)) ||
	       within(q, off, q->h.bitmaps_off, q->h.nbitmaps ? q->h.bitmaps_size : 0) ||
	       within(q, off, q->h.luks_off, q->h.luks_off ? q->h.luks_len : 0) ||
	       (q->meta.n && q->meta.at[seek(q, off)]);
}
