/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Counting, comparing, mending.  Mending goes in an order that leaves the image no worse at any
 * power cut: flags that say "mine alone" where it is not so are taken away first; then counts are
 * set (each is right by itself), in place or as a whole new refcount structure behind the end,
 * which the header names when all of it is durable; then flags are set where they may be; the marks
 * in the header come off last.
 *
 * Before a mark comes off, what it excused is durable: counts (dirty) and all that is mended
 * (corrupt).  That a count reads right does not make it so: it may be a write of the last user, or
 * of a mending before this one, whose sync failed.  The page cache, or the disk's, shows it, no
 * later sync tells of it, and a power cut takes it away.  So where a mark stands, counts, the table
 * of their blocks, and tables with flags that are rightly absent are written again as they are.
 *
 * One thing: this file leads, and what counts and what mends report their findings through it.
 */
#include "drivers/qcow/qcow-checking.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define LINES_MAX 1000

void qcow_check_say(struct qcow_checking *k, const char *fmt, ...)
{
	char line[256];
	va_list ap;

	if (!k->c->say || k->c->lines++ >= LINES_MAX)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	k->c->say(k->c, k->c->lines == LINES_MAX ? "... and more" : line);
}

int qcow_check_table(struct qcow_checking *k, uint64_t off, uint64_t n, uint64_t **out)
{
	uint64_t *t;
	int rc;

	if (posix_memalign((void **)&t, 4096, n ? n * 8 : 8))
		return -ENOMEM;
	rc = td_file_rw(k->file, TD_IO_READ, t, off, n * 8, TD_IO_EOF_ZERO);
	for (uint64_t i = 0; !rc && i < n; i++)
		t[i] = be64toh(t[i]);
	if (rc)
		free(t);
	else
		*out = t;
	return rc;
}

int qcow_check_sync(struct qcow_checking *k)
{
	return td_file_rw(k->file, TD_IO_SYNC, NULL, 0, 0, 0);
}

int qcow_check_patch(struct qcow_checking *k, void (*patch)(struct qcow_checking *k, uint8_t *p))
{
	int rc = td_file_rw(k->file, TD_IO_READ, k->buf, 0, QCOW_SECTOR, TD_IO_EOF_ZERO);

	if (rc)
		return rc;
	patch(k, k->buf);
	rc = td_file_rw(k->file, TD_IO_WRITE, k->buf, 0, QCOW_SECTOR, 0);
	return rc ? rc : qcow_check_sync(k);
}

/* --- comparing, and counts in place --- */

/* One block's counts against what was found; changed: k->buf is to be written. */
static void compare_block(struct qcow_checking *k, uint64_t first, bool *changed)
{
	struct qcow_check *c = k->c;
	uint64_t n = qcow_refs_per_block(&k->h);

	for (uint64_t i = 0; i < n; i++) {
		uint64_t is = qcow_ref_get(k->buf, k->h.ref_order, i),
			 want = first + i < k->n ? k->count[first + i] : 0;
		bool leak = is > want, fix = leak ? c->fix_leaks || c->fix_errors : c->fix_errors;

		if (is == want)
			continue;
		qcow_check_say(k, "%s cluster %llu refcount=%llu reference=%llu",
			       leak ? "Leaked" : "ERROR", qcow_check_llu(first + i),
			       qcow_check_llu(is), qcow_check_llu(want));
		if (want > qcow_ref_max(k->h.ref_order))
			fix = false;
		if (fix && !k->rebuild) {
			qcow_ref_set(k->buf, k->h.ref_order, i, want);
			*changed = true;
		}
		*(leak ? &c->leaks : &c->corruptions) += !fix;
		*(leak ? &c->leaks_fixed : &c->corruptions_fixed) += fix;
	}
}

/* Clusters of a range that has no block, but should. */
static void compare_nothing(struct qcow_checking *k, uint64_t first)
{
	uint64_t n = qcow_refs_per_block(&k->h);

	for (uint64_t i = first; i < first + n && i < k->n; i++) {
		if (!k->count[i])
			continue;
		qcow_check_say(k, "ERROR cluster %llu refcount=0 reference=%u", qcow_check_llu(i),
			       k->count[i]);
		k->rebuild = true;
		*(k->c->fix_errors ? &k->c->corruptions_fixed : &k->c->corruptions) += 1;
	}
}

static uint64_t max64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* The refcount table, as it is. */
static int rewrite_table(struct qcow_checking *k)
{
	uint64_t bytes = (uint64_t)k->nref * 8;
	void *buf;
	int rc;

	if (posix_memalign(&buf, 4096, bytes))
		return -ENOMEM;
	rc = td_file_rw(k->file, TD_IO_READ, buf, k->h.ref_off, bytes, TD_IO_EOF_ZERO);
	if (!rc)
		rc = td_file_rw(k->file, TD_IO_WRITE, buf, k->h.ref_off, bytes, 0);
	free(buf);
	return rc;
}

static int compare_counts(struct qcow_checking *k)
{
	uint64_t per = qcow_refs_per_block(&k->h), blocks = max64(k->nref, (k->n + per - 1) / per);
	int rc = k->anew && !k->rebuild ? rewrite_table(k) : 0;

	for (uint64_t b = 0; !rc && b < blocks; b++) {
		bool changed = k->anew;

		if (b >= k->nref || !k->ref[b]) {
			compare_nothing(k, b * per);
			continue;
		}
		rc = td_file_rw(k->file, TD_IO_READ, k->buf, k->ref[b], qcow_check_csize(k),
				TD_IO_EOF_ZERO);
		if (!rc)
			compare_block(k, b * per, &changed);
		if (!rc && changed)
			rc = td_file_rw(k->file, TD_IO_WRITE, k->buf, k->ref[b],
					qcow_check_csize(k), 0);
	}
	return rc;
}

/* --- all of it --- */

static void patch_marks(struct qcow_checking *k, uint8_t *p)
{
	k->h.incompat &= ~(QCOW_INCOMPAT_DIRTY | QCOW_INCOMPAT_CORRUPT);
	td_put_be64(p + QCOW_H_INCOMPAT, k->h.incompat);
}

static int mend(struct qcow_checking *k)
{
	bool fix = k->c->fix_errors,
	     marked = k->h.incompat & (QCOW_INCOMPAT_DIRTY | QCOW_INCOMPAT_CORRUPT);
	int rc;

	k->anew = fix && marked;
	rc = qcow_check_flags(k, false);
	if (!rc && fix)
		rc = qcow_check_sync(k);
	if (!rc)
		rc = compare_counts(k);
	if (!rc && fix && k->rebuild)
		rc = qcow_check_rebuild(k);
	if (!rc && (fix || k->c->fix_leaks))
		rc = qcow_check_sync(k);
	if (!rc)
		rc = qcow_check_flags(k, true);
	if (!rc && fix)
		rc = qcow_check_sync(k);
	if (!rc && fix && !k->c->corruptions && marked)
		rc = qcow_check_patch(k, patch_marks);
	return rc;
}

int qcow_check(struct td_file *file, const struct qcow_header *h, struct qcow_check *c,
	       struct td_err *err)
{
	struct qcow_checking k = {.file = file, .h = *h, .c = c};
	size_t bytes;
	int rc = 0;

	k.n = (file->st.size + qcow_cluster(h) - 1) >> h->cluster_bits;
	c->total = (h->size + qcow_cluster(h) - 1) >> h->cluster_bits;
	bytes = k.n * sizeof *k.count;
	/* as sparse as the file */
	k.count = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (k.count == MAP_FAILED || posix_memalign((void **)&k.buf, 4096, qcow_cluster(h)))
		rc = -ENOMEM;
	if (!rc)
		rc = qcow_check_count(&k, err);
	if (!rc && c->lost && (c->fix_errors || c->fix_leaks)) {
		qcow_check_say(&k, "nothing is repaired: the file was cut off, and what it lacks "
				   "is to be fetched again");
		c->fix_errors = c->fix_leaks = false;
	}
	if (!rc)
		rc = mend(&k);
	free(k.buf);
	free(k.ref);
	if (k.count != MAP_FAILED)
		munmap(k.count, bytes);
	return rc ? td_fail(err, -rc, "cannot check %s: %s", file->path, strerror(-rc)) : 0;
}
