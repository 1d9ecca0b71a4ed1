/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a check mends beyond counts in place: flags that say "mine alone", and a refcount structure
 * that is made anew. */
#include <errno.h>
#include <stdlib.h>

#include "drivers/qcow/qcow-checking.h"

/* --- flags --- */

static uint16_t references(const struct qcow_checking *k, uint64_t off)
{
	uint64_t i = off >> k->h.cluster_bits;

	return i < k->n ? k->count[i] : 0;
}

/* May this entry have the flag at all? */
static bool has_flag(const struct qcow_checking *k, uint64_t e, bool data)
{
	return (e & QCOW_OFFSET) &&
	       !(data && ((e & QCOW_ZIPPED) || (k->h.incompat & QCOW_INCOMPAT_DATA)));
}

/* Does this entry's flag say what the count says?  set: which way the pass goes (see the top). */
static bool wrong_flag(const struct qcow_checking *k, uint64_t e, bool data, bool set)
{
	bool is = e & QCOW_COPIED, want = references(k, e & QCOW_OFFSET) == 1;

	return has_flag(k, e, data) && is != want && want == set;
}

/* Is it absent, but perhaps not yet on the disk (see the top of qcow-check.c)?  One that is present
 * in memory alone is no harm. */
static bool doubtful_flag(const struct qcow_checking *k, uint64_t e, bool data, bool set)
{
	return k->anew && !set && has_flag(k, e, data) && !(e & QCOW_COPIED);
}

static void found_flag(struct qcow_checking *k, const char *what, uint64_t e)
{
	qcow_check_say(k,
		       "ERROR %s %#llx: its mark \"mine alone\" is wrong, there are %u references",
		       what, qcow_check_llu(e), references(k, e & QCOW_OFFSET));
	*(k->c->fix_errors ? &k->c->corruptions_fixed : &k->c->corruptions) += 1;
}

static int flags_l2(struct qcow_checking *k, uint64_t off, bool set)
{
	unsigned esize = qcow_extl2(&k->h) ? 16 : 8;
	bool changed = false;
	int rc = td_file_rw(k->file, TD_IO_READ, k->buf, off, qcow_check_csize(k), TD_IO_EOF_ZERO);

	for (uint64_t i = 0; !rc && i < qcow_check_csize(k); i += esize) {
		uint64_t e = td_get_be64(k->buf + i);

		changed |= doubtful_flag(k, e, true, set);
		if (!wrong_flag(k, e, true, set))
			continue;
		found_flag(k, "L2 entry", e);
		td_put_be64(k->buf + i, e ^ QCOW_COPIED);
		changed = true;
	}
	return !rc && changed && k->c->fix_errors
		       ? td_file_rw(k->file, TD_IO_WRITE, k->buf, off, qcow_check_csize(k), 0)
		       : rc;
}

/* Of the active tables alone: in snapshots the flags mean nothing. */
int qcow_check_flags(struct qcow_checking *k, bool set)
{
	uint64_t *l1;
	bool changed = false;
	int rc = qcow_check_table(k, k->h.l1_off, k->h.l1_size, &l1);

	if (rc)
		return rc;
	for (uint32_t i = 0; !rc && i < k->h.l1_size; i++) {
		uint64_t l2 = l1[i] & QCOW_OFFSET;

		if (!l2 || l2 >= k->file->st.size || (l2 & (qcow_check_csize(k) - 1)))
			continue;
		/* a shared one is a copy in waiting: its flags mean nothing */
		if (references(k, l2) == 1)
			rc = flags_l2(k, l2, set);
		changed |= doubtful_flag(k, l1[i], false, set);
		if (wrong_flag(k, l1[i], false, set)) {
			found_flag(k, "L1 entry", l1[i]);
			l1[i] ^= QCOW_COPIED;
			changed = true;
		}
	}
	for (uint32_t i = 0; i < k->h.l1_size; i++)
		l1[i] = htobe64(l1[i]);
	if (!rc && changed && k->c->fix_errors)
		rc = td_file_rw(k->file, TD_IO_WRITE, l1, k->h.l1_off, (uint64_t)k->h.l1_size * 8,
				0);
	free(l1);
	return rc;
}

/* --- a new refcount structure --- */

static void patch_table(struct qcow_checking *k, uint8_t *p)
{
	td_put_be64(p + QCOW_H_REF_OFF, k->h.ref_off);
	td_put_be32(p + QCOW_H_REF_CLUSTERS, k->h.ref_clusters);
}

static uint64_t count_at(const struct qcow_checking *k, uint64_t i, uint64_t from, uint64_t to)
{
	return i >= from && i < to ? 1 : i < k->n ? k->count[i] : 0;
}

/* Behind the end: blocks for every range, themselves and the table among it, and the table. */
static int make_anew(struct qcow_checking *k)
{
	uint64_t per = qcow_refs_per_block(&k->h), first = k->n, blocks = 1, clusters;
	uint64_t *t;
	int rc = 0;

	for (;; blocks++) {
		clusters = (blocks * 8 + qcow_check_csize(k) - 1) >> k->h.cluster_bits;
		if (first + blocks + clusters <= blocks * per)
			break;
	}
	if (clusters << k->h.cluster_bits > QCOW_REFTABLE_MAX)
		return -EFBIG;
	if (posix_memalign((void **)&t, 4096, clusters << k->h.cluster_bits))
		return -ENOMEM;
	memset(t, 0, clusters << k->h.cluster_bits);
	for (uint64_t b = 0; !rc && b < blocks; b++) {
		memset(k->buf, 0, qcow_check_csize(k));
		for (uint64_t i = 0; i < per; i++) {
			uint64_t want = count_at(k, b * per + i, first, first + blocks + clusters);

			qcow_ref_set(k->buf, k->h.ref_order, i,
				     want < qcow_ref_max(k->h.ref_order)
					     ? want
					     : qcow_ref_max(k->h.ref_order));
		}
		t[b] = htobe64((first + b) << k->h.cluster_bits);
		rc = td_file_rw(k->file, TD_IO_WRITE, k->buf, (first + b) << k->h.cluster_bits,
				qcow_check_csize(k), 0);
	}
	if (!rc)
		rc = td_file_rw(k->file, TD_IO_WRITE, t, (first + blocks) << k->h.cluster_bits,
				clusters << k->h.cluster_bits, 0);
	if (!rc)
		rc = qcow_check_sync(k);
	free(t);
	k->h.ref_off = (first + blocks) << k->h.cluster_bits;
	k->h.ref_clusters = (uint32_t)clusters;
	k->c->end = (first + blocks + clusters) << k->h.cluster_bits;
	return rc ? rc : qcow_check_patch(k, patch_table);
}

/* The old structure is nobody's any more. */
static void forget_refcounts(struct qcow_checking *k)
{
	uint64_t off = k->h.ref_off >> k->h.cluster_bits;

	for (uint32_t i = 0; i < k->h.ref_clusters && off + i < k->n; i++)
		k->count[off + i] -= k->count[off + i] != 0;
	for (uint32_t i = 0; i < k->nref; i++)
		if (k->ref[i])
			k->count[k->ref[i] >> k->h.cluster_bits]--;
}

int qcow_check_rebuild(struct qcow_checking *k)
{
	forget_refcounts(k);
	return make_anew(k);
}
