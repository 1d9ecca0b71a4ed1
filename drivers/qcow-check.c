/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Counting, comparing, mending.  Mending goes in an order that leaves the image no worse at any power cut: flags that say "mine alone"
 * where it is not so are taken away first; then counts are set (each is right by itself), in place or as a whole new refcount structure
 * behind the end, which the header names when all of it is durable; then flags are set where they may be; the marks in the header
 * come off last.
 */
#include "drivers/qcow-check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define LINES_MAX 1000

struct check {
	struct td_file *file;
	struct qcow_header h;
	struct qcow_check *c;
	uint64_t n;         /* clusters that are looked at */
	uint16_t *count;    /* references found to each, up to 65535 */
	uint8_t *buf;       /* a cluster */
	uint64_t *ref;      /* the refcount table; 0 where its entry makes no sense */
	uint32_t nref;
	bool rebuild;       /* the refcount structure cannot be mended in place */
	uint64_t last;      /* data: host offset behind the last cluster, for the fragmentation */
};

static void say(struct check *k, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void say(struct check *k, const char *fmt, ...)
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

static uint64_t csize(const struct check *k)
{
	return qcow_cluster(&k->h);
}

static unsigned long long llu(uint64_t v)
{
	return v;
}

/* --- counting ---------------------------------------------------------------------------------------------------------- */

/* Bytes [off, off + len) of the file are referred to by `what'. */
static void refer(struct check *k, const char *what, uint64_t off, uint64_t len)
{
	uint64_t from = off >> k->h.cluster_bits, to;

	if (!len)
		return;
	if (off >= k->n << k->h.cluster_bits || len > (k->n << k->h.cluster_bits) - off) {
		say(k, "ERROR %s at %#llx goes beyond the end of the file", what, llu(off));
		k->c->corruptions++;
		return;
	}
	to = (off + len - 1) >> k->h.cluster_bits;
	for (uint64_t i = from; i <= to; i++) {
		if (k->count[i] < UINT16_MAX)
			k->count[i]++;
	}
	if ((to + 1) << k->h.cluster_bits > k->c->end)
		k->c->end = (to + 1) << k->h.cluster_bits;
}

static bool bad_offset(struct check *k, const char *what, uint64_t entry, uint64_t off, uint64_t reserved)
{
	if (!(entry & reserved) && !(off & (csize(k) - 1)))
		return false;
	say(k, "ERROR %s %#llx: not a cluster's offset", what, llu(entry));
	k->c->corruptions++;
	return true;
}

static void count_entry(struct check *k, uint64_t e, uint64_t map, bool active)
{
	bool ext = qcow_extl2(&k->h), external = k->h.incompat & QCOW_INCOMPAT_DATA;
	uint64_t off = e & QCOW_OFFSET, len;

	if (e & QCOW_ZIPPED) {
		qcow_zip_range(k->h.cluster_bits, e, &off, &len);
		if (e & QCOW_COPIED) {
			say(k, "ERROR a compressed cluster is marked as writable: %#llx", llu(e));
			k->c->corruptions++;
		}
		if (off < k->file->st.size && len > k->file->st.size - off)
			len = k->file->st.size - off; /* the last sector need not be all there */
		refer(k, "a compressed cluster", off, len);
		k->c->compressed += active;
		k->c->allocated += active;
		k->c->fragmented += active;
		return;
	}
	if (ext && (map & map >> 32 & UINT32_MAX)) {
		say(k, "ERROR subclusters that are data and zeroes at once: entry %#llx, bitmap %#llx", llu(e), llu(map));
		k->c->corruptions++;
	}
	if (!off || external)
		return;
	if (bad_offset(k, "L2 entry", e, off, QCOW_L2_RESERVED))
		return;
	refer(k, "a data cluster", off, csize(k));
	if (active && (ext || !(e & QCOW_ZERO))) {
		k->c->allocated++;
		k->c->fragmented += k->last && off != k->last;
		k->last = off + csize(k);
	}
}

static int count_l2(struct check *k, uint64_t off, bool active)
{
	unsigned esize = qcow_extl2(&k->h) ? 16 : 8;
	int rc = td_file_rw(k->file, TD_IO_READ, k->buf, off, csize(k), TD_IO_EOF_ZERO);

	for (uint64_t i = 0; !rc && i < csize(k); i += esize) {
		uint64_t e = td_get_be64(k->buf + i);

		if (e)
			count_entry(k, e, esize == 16 ? td_get_be64(k->buf + i + 8) : 0, active);
	}
	return rc;
}

static int read_table(struct check *k, uint64_t off, uint64_t n, uint64_t **out)
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

static int count_l1(struct check *k, uint64_t off, uint32_t n, bool active)
{
	uint64_t *l1;
	int rc;

	if (!n)
		return 0;
	refer(k, "an L1 table", off, (uint64_t)n * 8);
	rc = read_table(k, off, n, &l1);
	if (rc)
		return rc;
	for (uint32_t i = 0; !rc && i < n; i++) {
		uint64_t l2 = l1[i] & QCOW_OFFSET;

		if (!l1[i] || bad_offset(k, "L1 entry", l1[i], l2, QCOW_L1_RESERVED) || !l2)
			continue;
		refer(k, "an L2 table", l2, csize(k));
		if (l2 < k->file->st.size)
			rc = count_l2(k, l2, active);
	}
	free(l1);
	return rc;
}

static int count_snapshots(struct check *k, struct td_err *err)
{
	struct qcow_snapshot *s;
	uint64_t end;
	int rc;

	if (!k->h.nsnapshots)
		return 0;
	rc = qcow_snapshots(k->file, &k->h, &s, &end, err);
	if (rc)
		return rc;
	refer(k, "the snapshot table", k->h.snapshots_off, end);
	for (uint32_t i = 0; !rc && i < k->h.nsnapshots; i++)
		rc = count_l1(k, s[i].l1_off, s[i].l1_size, false);
	free(s);
	return rc;
}

/* A bitmap's table, and its clusters. */
static int count_bitmap(struct check *k, uint64_t off, uint32_t n)
{
	uint64_t *t;
	int rc;

	refer(k, "a bitmap's table", off, (uint64_t)n * 8);
	if (off > k->file->st.size || (uint64_t)n * 8 > k->file->st.size - off)
		return 0; /* which has been said */
	rc = read_table(k, off, n, &t);
	if (rc)
		return rc;
	for (uint32_t i = 0; i < n; i++)
		if (t[i] & QCOW_OFFSET)
			refer(k, "a bitmap", t[i] & QCOW_OFFSET, csize(k));
	free(t);
	return 0;
}

static int count_bitmaps(struct check *k)
{
	uint8_t *dir;
	uint64_t at = 0;
	int rc;

	if (!k->h.nbitmaps)
		return 0;
	refer(k, "the bitmap directory", k->h.bitmaps_off, k->h.bitmaps_size);
	if (posix_memalign((void **)&dir, 4096, k->h.bitmaps_size))
		return -ENOMEM;
	rc = td_file_rw(k->file, TD_IO_READ, dir, k->h.bitmaps_off, k->h.bitmaps_size, 0);
	for (uint32_t i = 0; !rc && i < k->h.nbitmaps && at + 24 <= k->h.bitmaps_size; i++) {
		rc = count_bitmap(k, td_get_be64(dir + at), td_get_be32(dir + at + 8));
		at += td_round_up(24 + (uint64_t)td_get_be16(dir + at + 18) + td_get_be32(dir + at + 20), 8);
	}
	free(dir);
	return rc;
}

/* All but the refcount structure itself. */
static int count_all(struct check *k, struct td_err *err)
{
	int rc;

	refer(k, "the header", 0, csize(k));
	rc = count_l1(k, k->h.l1_off, k->h.l1_size, true);
	if (!rc)
		rc = count_snapshots(k, err);
	if (!rc)
		rc = count_bitmaps(k);
	refer(k, "the encryption header", k->h.luks_off, k->h.luks_off ? k->h.luks_len : 0);
	return rc;
}

static int count_refcounts(struct check *k)
{
	int rc;

	k->nref = (uint32_t)((uint64_t)k->h.ref_clusters << k->h.cluster_bits >> 3);
	rc = read_table(k, k->h.ref_off, k->nref, &k->ref);
	if (rc)
		return rc;
	refer(k, "the refcount table", k->h.ref_off, (uint64_t)k->h.ref_clusters << k->h.cluster_bits);
	for (uint32_t i = 0; i < k->nref; i++) {
		uint64_t off = k->ref[i] & ~QCOW_REF_RESERVED;

		if (!k->ref[i])
			continue;
		if (bad_offset(k, "refcount table entry", k->ref[i], off, QCOW_REF_RESERVED) || off >= k->n << k->h.cluster_bits ||
		    k->count[off >> k->h.cluster_bits]) {
			say(k, "ERROR refcount block %u at %#llx is beyond the file, or something else's", i, llu(off));
			k->c->corruptions++;
			k->rebuild = true;
			k->ref[i] = 0;
			continue;
		}
		refer(k, "a refcount block", off, csize(k));
	}
	return 0;
}

/* --- comparing, and counts in place -------------------------------------------------------------------------------------- */

/* One block's counts against what was found; changed: k->buf is to be written. */
static void compare_block(struct check *k, uint64_t first, bool *changed)
{
	struct qcow_check *c = k->c;
	uint64_t n = qcow_refs_per_block(&k->h);

	for (uint64_t i = 0; i < n; i++) {
		uint64_t is = qcow_ref_get(k->buf, k->h.ref_order, i), want = first + i < k->n ? k->count[first + i] : 0;
		bool leak = is > want, fix = leak ? c->fix_leaks || c->fix_errors : c->fix_errors;

		if (is == want)
			continue;
		say(k, "%s cluster %llu refcount=%llu reference=%llu", leak ? "Leaked" : "ERROR", llu(first + i), llu(is), llu(want));
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
static void compare_nothing(struct check *k, uint64_t first)
{
	uint64_t n = qcow_refs_per_block(&k->h);

	for (uint64_t i = first; i < first + n && i < k->n; i++) {
		if (!k->count[i])
			continue;
		say(k, "ERROR cluster %llu refcount=0 reference=%u", llu(i), k->count[i]);
		k->rebuild = true;
		*(k->c->fix_errors ? &k->c->corruptions_fixed : &k->c->corruptions) += 1;
	}
}

static uint64_t max64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static int compare(struct check *k)
{
	uint64_t per = qcow_refs_per_block(&k->h), blocks = max64(k->nref, (k->n + per - 1) / per);
	int rc = 0;

	for (uint64_t b = 0; !rc && b < blocks; b++) {
		bool changed = false;

		if (b >= k->nref || !k->ref[b]) {
			compare_nothing(k, b * per);
			continue;
		}
		rc = td_file_rw(k->file, TD_IO_READ, k->buf, k->ref[b], csize(k), TD_IO_EOF_ZERO);
		if (!rc)
			compare_block(k, b * per, &changed);
		if (!rc && changed)
			rc = td_file_rw(k->file, TD_IO_WRITE, k->buf, k->ref[b], csize(k), 0);
	}
	return rc;
}

/* --- flags --------------------------------------------------------------------------------------------------------------- */

static uint16_t references(const struct check *k, uint64_t off)
{
	uint64_t i = off >> k->h.cluster_bits;

	return i < k->n ? k->count[i] : 0;
}

/* Does this entry's flag say what the count says?  set: which way the pass goes (see the top). */
static bool wrong_flag(const struct check *k, uint64_t e, bool data, bool set)
{
	bool is = e & QCOW_COPIED, want = references(k, e & QCOW_OFFSET) == 1;

	if (!(e & QCOW_OFFSET) || (data && ((e & QCOW_ZIPPED) || (k->h.incompat & QCOW_INCOMPAT_DATA))))
		return false;
	return is != want && want == set;
}

static void found_flag(struct check *k, const char *what, uint64_t e)
{
	say(k, "ERROR %s %#llx: its mark \"mine alone\" is wrong, there are %u references", what, llu(e), references(k, e & QCOW_OFFSET));
	*(k->c->fix_errors ? &k->c->corruptions_fixed : &k->c->corruptions) += 1;
}

static int flags_l2(struct check *k, uint64_t off, bool set)
{
	unsigned esize = qcow_extl2(&k->h) ? 16 : 8;
	bool changed = false;
	int rc = td_file_rw(k->file, TD_IO_READ, k->buf, off, csize(k), TD_IO_EOF_ZERO);

	for (uint64_t i = 0; !rc && i < csize(k); i += esize) {
		uint64_t e = td_get_be64(k->buf + i);

		if (!wrong_flag(k, e, true, set))
			continue;
		found_flag(k, "L2 entry", e);
		td_put_be64(k->buf + i, e ^ QCOW_COPIED);
		changed = true;
	}
	return !rc && changed && k->c->fix_errors ? td_file_rw(k->file, TD_IO_WRITE, k->buf, off, csize(k), 0) : rc;
}

/* Of the active tables alone: in snapshots the flags mean nothing. */
static int flags(struct check *k, bool set)
{
	uint64_t *l1;
	bool changed = false;
	int rc = read_table(k, k->h.l1_off, k->h.l1_size, &l1);

	if (rc)
		return rc;
	for (uint32_t i = 0; !rc && i < k->h.l1_size; i++) {
		uint64_t l2 = l1[i] & QCOW_OFFSET;

		if (!l2 || l2 >= k->file->st.size || (l2 & (csize(k) - 1)))
			continue;
		if (references(k, l2) == 1) /* a shared one is a copy in waiting: its flags mean nothing */
			rc = flags_l2(k, l2, set);
		if (wrong_flag(k, l1[i], false, set)) {
			found_flag(k, "L1 entry", l1[i]);
			l1[i] ^= QCOW_COPIED;
			changed = true;
		}
	}
	for (uint32_t i = 0; i < k->h.l1_size; i++)
		l1[i] = htobe64(l1[i]);
	if (!rc && changed && k->c->fix_errors)
		rc = td_file_rw(k->file, TD_IO_WRITE, l1, k->h.l1_off, (uint64_t)k->h.l1_size * 8, 0);
	free(l1);
	return rc;
}

/* --- a new refcount structure --------------------------------------------------------------------------------------------- */

static int sync_file(struct check *k)
{
	return td_file_rw(k->file, TD_IO_SYNC, NULL, 0, 0, 0);
}

static int patch_header(struct check *k, void (*patch)(struct check *k, uint8_t *p))
{
	int rc = td_file_rw(k->file, TD_IO_READ, k->buf, 0, QCOW_SECTOR, TD_IO_EOF_ZERO);

	if (rc)
		return rc;
	patch(k, k->buf);
	rc = td_file_rw(k->file, TD_IO_WRITE, k->buf, 0, QCOW_SECTOR, 0);
	return rc ? rc : sync_file(k);
}

static void patch_table(struct check *k, uint8_t *p)
{
	td_put_be64(p + QCOW_H_REF_OFF, k->h.ref_off);
	td_put_be32(p + QCOW_H_REF_CLUSTERS, k->h.ref_clusters);
}

static uint64_t count_at(const struct check *k, uint64_t i, uint64_t from, uint64_t to)
{
	return i >= from && i < to ? 1 : i < k->n ? k->count[i] : 0;
}

/* Behind the end: blocks for every range, themselves and the table among it, and the table. */
static int rebuild(struct check *k)
{
	uint64_t per = qcow_refs_per_block(&k->h), first = k->n, blocks = 1, clusters;
	uint64_t *t;
	int rc = 0;

	for (;; blocks++) {
		clusters = (blocks * 8 + csize(k) - 1) >> k->h.cluster_bits;
		if (first + blocks + clusters <= blocks * per)
			break;
	}
	if (clusters << k->h.cluster_bits > QCOW_REFTABLE_MAX)
		return -EFBIG;
	if (posix_memalign((void **)&t, 4096, clusters << k->h.cluster_bits))
		return -ENOMEM;
	memset(t, 0, clusters << k->h.cluster_bits);
	for (uint64_t b = 0; !rc && b < blocks; b++) {
		memset(k->buf, 0, csize(k));
		for (uint64_t i = 0; i < per; i++) {
			uint64_t want = count_at(k, b * per + i, first, first + blocks + clusters);

			qcow_ref_set(k->buf, k->h.ref_order, i, want < qcow_ref_max(k->h.ref_order) ? want : qcow_ref_max(k->h.ref_order));
		}
		t[b] = htobe64((first + b) << k->h.cluster_bits);
		rc = td_file_rw(k->file, TD_IO_WRITE, k->buf, (first + b) << k->h.cluster_bits, csize(k), 0);
	}
	if (!rc)
		rc = td_file_rw(k->file, TD_IO_WRITE, t, (first + blocks) << k->h.cluster_bits, clusters << k->h.cluster_bits, 0);
	if (!rc)
		rc = sync_file(k);
	free(t);
	k->h.ref_off = (first + blocks) << k->h.cluster_bits;
	k->h.ref_clusters = (uint32_t)clusters;
	k->c->end = (first + blocks + clusters) << k->h.cluster_bits;
	return rc ? rc : patch_header(k, patch_table);
}

/* The old structure is nobody's any more. */
static void forget_refcounts(struct check *k)
{
	uint64_t off = k->h.ref_off >> k->h.cluster_bits;

	for (uint32_t i = 0; i < k->h.ref_clusters && off + i < k->n; i++)
		k->count[off + i] -= k->count[off + i] != 0;
	for (uint32_t i = 0; i < k->nref; i++)
		if (k->ref[i])
			k->count[k->ref[i] >> k->h.cluster_bits]--;
}

/* --- all of it --------------------------------------------------------------------------------------------------------------- */

static void patch_marks(struct check *k, uint8_t *p)
{
	k->h.incompat &= ~(QCOW_INCOMPAT_DIRTY | QCOW_INCOMPAT_CORRUPT);
	td_put_be64(p + QCOW_H_INCOMPAT, k->h.incompat);
}

static int mend(struct check *k)
{
	bool fix = k->c->fix_errors;
	int rc = flags(k, false);

	if (!rc && fix)
		rc = sync_file(k);
	if (!rc)
		rc = compare(k);
	if (!rc && fix && k->rebuild) {
		forget_refcounts(k);
		rc = rebuild(k);
	}
	if (!rc && (fix || k->c->fix_leaks))
		rc = sync_file(k);
	if (!rc)
		rc = flags(k, true);
	if (!rc && fix)
		rc = sync_file(k);
	if (!rc && fix && !k->c->corruptions && (k->h.incompat & (QCOW_INCOMPAT_DIRTY | QCOW_INCOMPAT_CORRUPT)))
		rc = patch_header(k, patch_marks);
	return rc;
}

int qcow_check(struct td_file *file, const struct qcow_header *h, struct qcow_check *c, struct td_err *err)
{
	struct check k = {.file = file, .h = *h, .c = c};
	size_t bytes;
	int rc = 0;

	k.n = (file->st.size + qcow_cluster(h) - 1) >> h->cluster_bits;
	c->total = (h->size + qcow_cluster(h) - 1) >> h->cluster_bits;
	bytes = k.n * sizeof *k.count;
	/* as sparse as the file */
	k.count = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (k.count == MAP_FAILED || posix_memalign((void **)&k.buf, 4096, qcow_cluster(h)))
		rc = -ENOMEM;
	if (!rc)
		rc = count_all(&k, err);
	if (!rc)
		rc = count_refcounts(&k);
	if (!rc)
		rc = mend(&k);
	free(k.buf);
	free(k.ref);
	if (k.count != MAP_FAILED)
		munmap(k.count, bytes);
	return rc ? td_fail(err, -rc, "cannot check %s: %s", file->path, strerror(-rc)) : 0;
}
