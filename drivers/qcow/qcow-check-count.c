/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Every reference in a qcow2: tables, data, compressed clusters, internal snapshots, bitmaps, and
 * the refcounts' own clusters. */
#include <errno.h>
#include <stdlib.h>

#include "drivers/qcow/qcow-checking.h"

static void lost(struct qcow_checking *k, const char *what, uint64_t off)
{
	qcow_check_say(k, "ERROR %s at %#llx goes beyond the end of the file", what,
		       qcow_check_llu(off));
	k->c->corruptions++;
	k->c->lost++;
}

/* Bytes [off, off + len) of the file are referred to by `what'.  The last cluster need not be all
 * there. */
static void refer(struct qcow_checking *k, const char *what, uint64_t off, uint64_t len)
{
	uint64_t from = off >> k->h.cluster_bits, to;

	if (!len)
		return;
	if (off >= k->n << k->h.cluster_bits || len > (k->n << k->h.cluster_bits) - off) {
		lost(k, what, off);
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

/* The same of a table, which is there to its last byte. */
static void refer_table(struct qcow_checking *k, const char *what, uint64_t off, uint64_t len)
{
	if (off < k->n << k->h.cluster_bits &&
	    len > k->file->st.size - (off < k->file->st.size ? off : k->file->st.size))
		lost(k, what, off);
	refer(k, what, off, len);
}

/* Of a data cluster, how many bytes from its start on the disk shows; room: bytes of the disk from
 * its place on. */
static uint64_t shown(const struct qcow_checking *k, uint64_t e, uint64_t map, uint64_t room)
{
	uint64_t len = qcow_check_csize(k);

	if (qcow_extl2(&k->h))
		len = map & UINT32_MAX ? len / 32 * (32 - (unsigned)__builtin_clz((uint32_t)map))
				       : 0;
	else if (e & QCOW_ZERO)
		len = 0;
	return len < room ? len : room;
}

static bool bad_offset(struct qcow_checking *k, const char *what, uint64_t entry, uint64_t off,
		       uint64_t reserved)
{
	if (!(entry & reserved) && !(off & (qcow_check_csize(k) - 1)))
		return false;
	qcow_check_say(k, "ERROR %s %#llx: not a cluster's offset", what, qcow_check_llu(entry));
	k->c->corruptions++;
	return true;
}

/* room: as of shown(). */
static void count_entry(struct qcow_checking *k, uint64_t e, uint64_t map, bool active,
			uint64_t room)
{
	bool ext = qcow_extl2(&k->h), external = k->h.incompat & QCOW_INCOMPAT_DATA;
	uint64_t off = e & QCOW_OFFSET, len;

	if (e & QCOW_ZIPPED) {
		qcow_zip_range(k->h.cluster_bits, e, &off, &len);
		if (e & QCOW_COPIED) {
			qcow_check_say(k, "ERROR a compressed cluster is marked as writable: %#llx",
				       qcow_check_llu(e));
			k->c->corruptions++;
		}
		if (off < k->file->st.size && len > k->file->st.size - off) {
			if (len - (k->file->st.size - off) >= QCOW_SECTOR)
				lost(k, "a compressed cluster", off);
			len = k->file->st.size - off; /* the last sector need not be all there */
		}
		refer(k, "a compressed cluster", off, len);
		k->c->compressed += active;
		k->c->allocated += active;
		k->c->fragmented += active;
		return;
	}
	if (ext && (map & map >> 32 & UINT32_MAX)) {
		qcow_check_say(k,
			       "ERROR subclusters that are data and zeroes at once: entry %#llx, "
			       "bitmap %#llx",
			       qcow_check_llu(e), qcow_check_llu(map));
		k->c->corruptions++;
	}
	if (!off || external)
		return;
	if (bad_offset(k, "L2 entry", e, off, QCOW_L2_RESERVED))
		return;
	if (off < k->n << k->h.cluster_bits && off + shown(k, e, map, room) > k->file->st.size)
		lost(k, "a data cluster", off);
	refer(k, "a data cluster", off, qcow_check_csize(k));
	if (active && (ext || !(e & QCOW_ZERO))) {
		k->c->allocated++;
		k->c->fragmented += k->last && off != k->last;
		k->last = off + qcow_check_csize(k);
	}
}

/* guest: where on the disk its first cluster stands; disk: bytes of that. */
static int count_l2(struct qcow_checking *k, uint64_t off, bool active, uint64_t guest,
		    uint64_t disk)
{
	unsigned esize = qcow_extl2(&k->h) ? 16 : 8;
	int rc = td_file_rw(k->file, TD_IO_READ, k->buf, off, qcow_check_csize(k), TD_IO_EOF_ZERO);

	for (uint64_t i = 0; !rc && i < qcow_check_csize(k); i += esize) {
		uint64_t e = td_get_be64(k->buf + i);

		if (e)
			count_entry(k, e, esize == 16 ? td_get_be64(k->buf + i + 8) : 0, active,
				    guest < disk ? disk - guest : 0);
		guest += qcow_check_csize(k);
	}
	return rc;
}

static int count_l1(struct qcow_checking *k, uint64_t off, uint32_t n, bool active, uint64_t disk)
{
	uint64_t *l1;
	int rc;

	if (!n)
		return 0;
	refer_table(k, "an L1 table", off, (uint64_t)n * 8);
	rc = qcow_check_table(k, off, n, &l1);
	if (rc)
		return rc;
	for (uint32_t i = 0; !rc && i < n; i++) {
		uint64_t l2 = l1[i] & QCOW_OFFSET;

		if (!l1[i] || bad_offset(k, "L1 entry", l1[i], l2, QCOW_L1_RESERVED) || !l2)
			continue;
		refer_table(k, "an L2 table", l2, qcow_check_csize(k));
		if (l2 < k->file->st.size)
			rc = count_l2(k, l2, active, (uint64_t)i << qcow_l2_bits(&k->h), disk);
	}
	free(l1);
	return rc;
}

static int count_snapshots(struct qcow_checking *k, struct td_err *err)
{
	struct qcow_snapshot *s = NULL;
	uint64_t end = 0;
	int rc;

	if (!k->h.nsnapshots)
		return 0;
	rc = qcow_snapshots(k->file, &k->h, &s, &end, err);
	if (rc)
		return rc;
	refer(k, "the snapshot table", k->h.snapshots_off, end);
	for (uint32_t i = 0; !rc && i < k->h.nsnapshots; i++)
		rc = count_l1(k, s[i].l1_off, s[i].l1_size, false,
			      s[i].disk_size ? s[i].disk_size : k->h.size);
	free(s);
	return rc;
}

/* A bitmap's table, and its clusters. */
static int count_bitmap(struct qcow_checking *k, uint64_t off, uint32_t n)
{
	uint64_t *t;
	int rc;

	refer(k, "a bitmap's table", off, (uint64_t)n * 8);
	if (off > k->file->st.size || (uint64_t)n * 8 > k->file->st.size - off)
		return 0; /* which has been said */
	rc = qcow_check_table(k, off, n, &t);
	if (rc)
		return rc;
	for (uint32_t i = 0; i < n; i++)
		if (t[i] & QCOW_OFFSET)
			refer(k, "a bitmap", t[i] & QCOW_OFFSET, qcow_check_csize(k));
	free(t);
	return 0;
}

static int count_bitmaps(struct qcow_checking *k)
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
		at += td_round_up(
			24 + (uint64_t)td_get_be16(dir + at + 18) + td_get_be32(dir + at + 20), 8);
	}
	free(dir);
	return rc;
}

/* All but the refcount structure itself. */
static int count_all(struct qcow_checking *k, struct td_err *err)
{
	int rc;

	refer(k, "the header", 0, qcow_check_csize(k));
	rc = count_l1(k, k->h.l1_off, k->h.l1_size, true, k->h.size);
	if (!rc)
		rc = count_snapshots(k, err);
	if (!rc)
		rc = count_bitmaps(k);
	refer(k, "the encryption header", k->h.luks_off, k->h.luks_off ? k->h.luks_len : 0);
	return rc;
}

static int count_refcounts(struct qcow_checking *k)
{
	int rc;

	k->nref = (uint32_t)((uint64_t)k->h.ref_clusters << k->h.cluster_bits >> 3);
	rc = qcow_check_table(k, k->h.ref_off, k->nref, &k->ref);
	if (rc)
		return rc;
	refer_table(k, "the refcount table", k->h.ref_off,
		    (uint64_t)k->h.ref_clusters << k->h.cluster_bits);
	for (uint32_t i = 0; i < k->nref; i++) {
		uint64_t off = k->ref[i] & ~QCOW_REF_RESERVED;

		if (!k->ref[i])
			continue;
		if (bad_offset(k, "refcount table entry", k->ref[i], off, QCOW_REF_RESERVED) ||
		    off >= k->n << k->h.cluster_bits || k->count[off >> k->h.cluster_bits]) {
			k->c->lost += off >= k->n << k->h.cluster_bits;
			qcow_check_say(k,
				       "ERROR refcount block %u at %#llx is beyond the file, or "
				       "something else's",
				       i, qcow_check_llu(off));
			k->c->corruptions++;
			k->rebuild = true;
			k->ref[i] = 0;
			continue;
		}
		refer_table(k, "a refcount block", off, qcow_check_csize(k));
	}
	return 0;
}

int qcow_check_count(struct qcow_checking *k, struct td_err *err)
{
	int rc = count_all(k, err);

	return rc ? rc : count_refcounts(k);
}
