/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * DISCARD and WRITE_ZEROES: whole units change in the mapping, and what they stood on is given back
 * (Q4); the edges of WRITE_ZEROES are written.  A discarded unit never shows what stands below it:
 * over a backing file it is marked as zeroes, and kept where the version has no such mark.
 */
#include <errno.h>
#include <stdlib.h>

#include "drivers/qcow/qcow.h"
#include "lib/fiber/fiber.h"
#include "lib/zeroes.h"

#define ALL_ZERO UINT64_C(0xffffffff00000000)

/* What a cluster that holds nothing looks like; false: this image cannot say so. */
static bool nothing(const struct qcow *q, uint64_t off, uint64_t *entry, uint64_t *map)
{
	bool below = !q->forget && !qcow_backing_zero(q, off);

	*entry = 0;
	*map = 0;
	if (q->ext)
		*map = below ? ALL_ZERO : 0;
	else if (below && q->h.version < 3)
		return false;
	else if (below)
		*entry = QCOW_ZERO;
	return true;
}

/* Clusters [from, to), of one page of an L2 table, which is ours. */
static int clear_entries(struct qcow *q, uint64_t from, uint64_t to)
{
	struct qcow_page *page;
	uint8_t *at;
	int rc = qcow_l2_entry(q, from << q->cbits, &page, &at);

	if (rc)
		return rc;
	for (uint64_t c = from; c < to; c++, at += q->esize) {
		uint64_t old = td_get_be64(at), entry, map;

		if (!nothing(q, c << q->cbits, &entry, &map))
			continue;
		if (old == entry && (!q->ext || td_get_be64(at + 8) == map))
			continue;
		if (!(old & (QCOW_OFFSET | QCOW_ZIPPED | QCOW_COPIED)) && (old & QCOW_ZERO) &&
		    !entry && !q->ext && !q->forget)
			continue; /* zeroes by mark are as good */
		td_put_be64(at, entry);
		if (q->ext)
			td_put_be64(at + 8, map);
		qcow_page_dirty(q, page, at, q->esize);
		qcow_release_entry(q, old);
	}
	return 0;
}

/* External data: a cluster's place there is always the same, and nobody else's: its space is given
 * back while it is locked. */
static int punch_data(struct qcow *q, uint64_t from, uint64_t to, enum td_io_op what)
{
	uint64_t end = to << q->cbits;
	struct td_iop op = {.op = what, .file = q->data, .off = from << q->cbits};
	int rc;

	if (end > q->image->info.size)
		end = q->image->info.size;
	op.len = end - op.off;
	rc = td_await_file(q->io, &op);
	return rc == -EOPNOTSUPP && what != TD_IO_ZERO ? 0 : rc;
}

/* Nothing to clear where nothing stands and nothing shows through. */
static bool is_nothing(struct qcow *q, uint64_t off, uint64_t end)
{
	return !(q->l1.entry[off >> q->l2_bits] & QCOW_OFFSET) &&
	       (q->forget || qcow_backing_zero(q, off)) && end >> q->l2_bits == off >> q->l2_bits;
}

static int clear_clusters(struct qcow *q, uint64_t from, uint64_t to)
{
	uint64_t per_page = q->page_entries, stop;
	struct qcow_range range;
	int rc = 0;

	for (uint64_t c = from; !rc && c < to; c = stop) {
		stop = (c / per_page + 1) * per_page;
		if (stop > to)
			stop = to;
		if (is_nothing(q, c << q->cbits, (stop << q->cbits) - 1))
			continue;
		if (q->h.version < 3 && !q->forget && !qcow_backing_zero(q, c << q->cbits))
			continue; /* kept: this version has no mark for zeroes */
		qcow_range_lock(q, &range, c, stop);
		rc = q->broken ? q->broken : qcow_l2_own(q, c << q->cbits);
		if (!rc)
			rc = clear_entries(q, c, stop);
		if (!rc && q->external)
			rc = punch_data(q, c, stop,
					q->data->st.blockdev ? TD_IO_DISCARD : TD_IO_PUNCH);
		qcow_range_unlock(q, &range);
	}
	return rc;
}

/* Zeroes as data, through the ordinary way. */
static int write_zeroes(struct qcow *q, struct td_req *req, uint64_t off, uint64_t len)
{
	int rc = 0;

	for (uint64_t at = off, n; !rc && at < off + len; at += n) {
		struct iovec iov = td_zeroes_iov(off + len - at);
		struct td_req part = {.op = TD_WRITE,
				      .off = at,
				      .len = n = iov.iov_len,
				      .iov = &iov,
				      .iovcnt = 1,
				      .io = req->io};

		rc = qcow_write(q, &part);
	}
	return rc;
}

/* An edge of WRITE_ZEROES: what reads as zeroes is left alone. */
static int zero_edge(struct qcow *q, struct td_req *req, uint64_t off, uint64_t end)
{
	struct qcow_run run;
	int rc = 0;

	for (uint64_t at = off; !rc && at < end; at += run.len) {
		rc = qcow_map_wait(q, at, end - at, &run);
		if (!rc && run.kind != QCOW_RUN_ZERO &&
		    (run.kind != QCOW_RUN_NONE || !qcow_backing_zero(q, at)))
			rc = write_zeroes(q, req, at, run.len);
	}
	return rc;
}

/* Marks clusters [from, to), of one page, as zeroes that keep their place; 1 where one has none. */
static int mark_entries(struct qcow *q, uint64_t from, uint64_t to)
{
	struct qcow_page *page;
	uint8_t *at;
	int rc = qcow_l2_entry(q, from << q->cbits, &page, &at);

	for (uint64_t i = 0; !rc && i < to - from; i++)
		if ((td_get_be64(at + i * q->esize) & (QCOW_ZIPPED | QCOW_COPIED)) != QCOW_COPIED)
			rc = 1;
	for (uint64_t i = 0; !rc && i < to - from; i++, at += q->esize) {
		if (q->ext)
			td_put_be64(at + 8, ALL_ZERO);
		else
			td_put_be64(at, td_get_be64(at) | QCOW_ZERO);
		qcow_page_dirty(q, page, at, q->esize);
	}
	return rc;
}

/* WRITE_ZEROES without TD_UNMAP: space that is there stays, and where there is none it is taken. */
static int zero_keep(struct qcow *q, struct td_req *req, uint64_t from, uint64_t to, uint64_t end)
{
	struct qcow_range range;
	int rc = 0;

	for (uint64_t c = from; !rc && c < to; c++) {
		uint64_t off = c << q->cbits,
			 len = end - off < qcow_csize(q) ? end - off : qcow_csize(q);

		qcow_range_lock(q, &range, c, c + 1);
		rc = q->broken                                      ? q->broken
		     : q->l1.entry[off >> q->l2_bits] & QCOW_COPIED ? mark_entries(q, c, c + 1)
								    : 1;
		qcow_range_unlock(q, &range);
		if (rc > 0)
			rc = write_zeroes(q, req, off, len);
	}
	return rc;
}

int qcow_discard(struct qcow *q, struct td_req *req)
{
	uint64_t end = req->off + req->len, size = qcow_csize(q);
	uint64_t from = (req->off + size - 1) >> q->cbits, to = end >> q->cbits;
	bool must = req->op == TD_WRITE_ZEROES;
	int rc = 0;

	if (q->v1)
		/* nothing can be given back, and zeroes are written as data */
		return must ? -EOPNOTSUPP : 0;

	if (end == q->image->info.size)
		to = (end + size - 1) >> q->cbits; /* the last cluster ends where the disk ends */
	if (from >= to)
		return must ? zero_edge(q, req, req->off, end) : 0;
	if (must)
		rc = zero_edge(q, req, req->off, from << q->cbits);
	if (!rc && must && to << q->cbits < end)
		rc = zero_edge(q, req, to << q->cbits, end);
	/* the data file alone is the disk: its bytes have to change */
	if (!rc && (q->h.autoclear & QCOW_AUTOCLEAR_RAW)) {
		rc = punch_data(q, from, to, must ? TD_IO_ZERO : TD_IO_PUNCH);
		return rc == -EOPNOTSUPP
			       ? write_zeroes(q, req, from << q->cbits,
					      (to << q->cbits < end ? to << q->cbits : end) -
						      (from << q->cbits))
			       : rc;
	}
	if (!rc && must && !(req->flags & TD_UNMAP))
		return q->h.version < 3 || q->external
			       ? write_zeroes(q, req, from << q->cbits,
					      (to << q->cbits < end ? to << q->cbits : end) -
						      (from << q->cbits))
			       : zero_keep(q, req, from, to, end);
	if (!rc && must && q->h.version < 3 && !qcow_backing_zero(q, from << q->cbits))
		return write_zeroes(q, req, from << q->cbits,
				    (to << q->cbits < end ? to << q->cbits : end) -
					    (from << q->cbits));
	return rc ? rc : clear_clusters(q, from, to);
}
