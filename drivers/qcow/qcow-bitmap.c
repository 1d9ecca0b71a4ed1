/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Persistent dirty bitmaps: what backup tools leave in an image so that they need to copy only what
 * changes.  Those that are "auto" must tell of every change, so they are loaded when the image is
 * opened for writing, and marked on disk as in use (durable before anything is written): at a power
 * cut they say of themselves that they are not to be believed.  At close they are stored, and when
 * that is durable the mark is taken off.  The others are left as they are.
 */
#include <errno.h>
#include <stdlib.h>

#include "drivers/qcow/qcow.h"

/* bytes of all bitmaps in memory; what does not fit stays marked as in use */
#define BITS_MAX (8u << 20)
#define FIXED    24 /* bytes of a directory entry without names */

enum { IN_USE = 1, AUTO = 2, EXTRA_OK = 4 };

struct qcow_bitmap {
	uint64_t table_off;
	uint32_t table_n;
	unsigned shift; /* a bit stands for 1 << shift bytes */
	uint64_t bytes; /* of bits */
	uint8_t *bits;
	uint8_t *flags; /* in the directory: 32 bits */
};

void qcow_bitmaps_mark(struct qcow *q, uint64_t off, uint64_t len)
{
	for (uint32_t i = 0; i < q->nbitmaps; i++) {
		struct qcow_bitmap *b = &q->bitmaps[i];

		for (uint64_t bit = off >> b->shift; bit <= (off + len - 1) >> b->shift; bit++)
			b->bits[bit >> 3] |= (uint8_t)(1u << (bit & 7));
	}
}

static int write_directory(struct qcow *q)
{
	int rc = td_file_rw(q->file, TD_IO_WRITE, q->bitmap_dir, q->h.bitmaps_off,
			    q->h.bitmaps_size, 0);

	return rc ? rc : qcow_sync(q->file);
}

static int read_bitmap_table(struct qcow *q, const struct qcow_bitmap *b, uint64_t **table)
{
	int rc;

	if (posix_memalign((void **)table, 4096, (size_t)b->table_n * 8))
		return -ENOMEM;
	rc = td_file_rw(q->file, TD_IO_READ, *table, b->table_off, (uint64_t)b->table_n * 8, 0);
	if (rc)
		free(*table);
	return rc;
}

static bool place_ok(const struct qcow *q, uint64_t off)
{
	return !(off & (qcow_csize(q) - 1)) && off >> q->cbits < q->end && !qcow_is_meta(q, off);
}

/* One cluster of bits at a time: fn reads or writes it. */
static int load_bits(struct qcow *q, struct qcow_bitmap *b)
{
	uint64_t *table;
	int rc = read_bitmap_table(q, b, &table);

	if (rc)
		return rc;
	for (uint32_t i = 0; !rc && i < b->table_n; i++) {
		uint64_t e = be64toh(table[i]), off = e & QCOW_OFFSET, at = (uint64_t)i << q->cbits;
		uint64_t len = b->bytes - at < qcow_csize(q) ? b->bytes - at : qcow_csize(q);

		if (off && !place_ok(q, off))
			rc = -EINVAL;
		else if (off)
			rc = td_file_rw(q->file, TD_IO_READ, b->bits + at, off, len,
					TD_IO_EOF_ZERO);
		else
			memset(b->bits + at, e & 1 ? 0xff : 0, len);
	}
	free(table);
	return rc;
}

/* Can this entry be kept up to date?  Then b is filled, and loaded. */
static int take_entry(struct qcow *q, uint8_t *p, size_t *room, struct qcow_bitmap *b)
{
	uint64_t bits;
	int rc;

	*b = (struct qcow_bitmap){.table_off = td_get_be64(p),
				  .table_n = td_get_be32(p + 8),
				  .shift = p[17],
				  .flags = p + 12};
	if (p[16] != 1 || b->shift < 9 || b->shift > 31 ||
	    (td_get_be32(p + 20) && !(td_get_be32(p + 12) & EXTRA_OK)))
		return -ENOTSUP;
	bits = (q->h.size + (UINT64_C(1) << b->shift) - 1) >> b->shift;
	b->bytes = (bits + 7) / 8;
	if (b->table_n != (b->bytes + qcow_csize(q) - 1) >> q->cbits || !place_ok(q, b->table_off))
		return -EINVAL;
	if (b->bytes > *room)
		return -EFBIG;
	b->bits = calloc(1, b->bytes);
	if (!b->bits)
		return -ENOMEM;
	rc = load_bits(q, b);
	if (rc)
		free(b->bits);
	else
		*room -= b->bytes;
	return rc;
}

static int scan(struct qcow *q)
{
	uint64_t at = 0, next;
	size_t room = BITS_MAX;

	for (uint32_t i = 0; i < q->h.nbitmaps; i++, at = next) {
		uint8_t *p = q->bitmap_dir + at;
		uint32_t flags;
		int rc;

		if (q->h.bitmaps_size - at < FIXED)
			return -EINVAL;
		next = at +
		       td_round_up(FIXED + (uint64_t)td_get_be16(p + 18) + td_get_be32(p + 20), 8);
		if (next > q->h.bitmaps_size)
			return -EINVAL;
		flags = td_get_be32(p + 12);
		if (!(flags & AUTO) || (flags & IN_USE))
			continue; /* it does not follow what is written; or nobody believes it */
		rc = take_entry(q, p, &room, &q->bitmaps[q->nbitmaps]);
		if (rc)
			td_log(LOG_WARNING,
			       "%s: the dirty bitmap '%.*s' cannot be kept up to date (%s): it is "
			       "marked as inconsistent",
			       q->image->path, (int)td_get_be16(p + 18),
			       (const char *)p + FIXED + td_get_be32(p + 20), strerror(-rc));
		else
			q->nbitmaps++;
		td_put_be32(p + 12, flags | IN_USE);
	}
	return 0;
}

int qcow_bitmaps_open(struct qcow *q)
{
	int rc;

	if (!q->h.nbitmaps || !q->writable)
		return 0;
	q->bitmaps = calloc(q->h.nbitmaps, sizeof *q->bitmaps);
	if (!q->bitmaps || posix_memalign((void **)&q->bitmap_dir, 4096, q->h.bitmaps_size)) {
		q->bitmap_dir = NULL;
		return -ENOMEM;
	}
	rc = td_file_rw(q->file, TD_IO_READ, q->bitmap_dir, q->h.bitmaps_off, q->h.bitmaps_size, 0);
	if (!rc)
		rc = scan(q);
	return rc ? rc : write_directory(q);
}

/* --- at close --- */

static bool any_bit(const uint8_t *p, size_t len)
{
	return p[0] || memcmp(p, p + 1, len - 1);
}

static int store_cluster(struct qcow *q, struct qcow_bitmap *b, uint32_t i, uint64_t *entry,
			 uint8_t *buf)
{
	uint64_t at = (uint64_t)i << q->cbits,
		 len = b->bytes - at < qcow_csize(q) ? b->bytes - at : qcow_csize(q);
	uint64_t off = *entry & QCOW_OFFSET, cluster, got;
	bool fresh;
	int rc;

	if (!off && !any_bit(b->bits + at, len)) {
		*entry = 0;
		return 0;
	}
	if (!off) {
		rc = qcow_alloc(q, 1, &cluster, &got, &fresh);
		if (rc)
			return rc;
		off = cluster << q->cbits;
	}
	memset(buf, 0, qcow_csize(q));
	memcpy(buf, b->bits + at, len);
	*entry = off;
	return td_file_rw(q->file, TD_IO_WRITE, buf, off, qcow_csize(q), 0);
}

static int store(struct qcow *q, struct qcow_bitmap *b)
{
	uint8_t *buf;
	uint64_t *table;
	int rc;

	if (posix_memalign((void **)&buf, 4096, qcow_csize(q)))
		return -ENOMEM;
	rc = read_bitmap_table(q, b, &table);
	if (rc) {
		free(buf);
		return rc;
	}
	for (uint32_t i = 0; !rc && i < b->table_n; i++) {
		uint64_t e = be64toh(table[i]);

		rc = store_cluster(q, b, i, &e, buf);
		table[i] = htobe64(e);
	}
	if (!rc)
		rc = qcow_flush(q); /* counted, and there, before the table says so (Q1, Q2) */
	if (!rc)
		rc = td_file_rw(q->file, TD_IO_WRITE, table, b->table_off, (uint64_t)b->table_n * 8,
				0);
	free(table);
	free(buf);
	return rc;
}

void qcow_bitmaps_close(struct qcow *q)
{
	int rc = q->broken;

	for (uint32_t i = 0; !rc && i < q->nbitmaps; i++)
		rc = store(q, &q->bitmaps[i]);
	if (!rc && q->nbitmaps)
		rc = qcow_sync(q->file);
	for (uint32_t i = 0; !rc && i < q->nbitmaps; i++)
		td_put_be32(q->bitmaps[i].flags,
			    td_get_be32(q->bitmaps[i].flags) & ~(uint32_t)IN_USE);
	if (!rc && q->nbitmaps)
		rc = write_directory(q);
	if (rc && q->nbitmaps)
		td_log(LOG_WARNING,
		       "%s: its dirty bitmaps could not be stored (%s): they stay marked as "
		       "inconsistent",
		       q->image->path, strerror(-rc));
}

void qcow_bitmaps_free(struct qcow *q)
{
	for (uint32_t i = 0; i < q->nbitmaps; i++)
		free(q->bitmaps[i].bits);
	free(q->bitmaps);
	free(q->bitmap_dir);
}
