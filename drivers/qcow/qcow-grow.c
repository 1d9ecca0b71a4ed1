/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A qcow2 made larger, while nothing else is asked of it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/qcow/qcow.h"
#include "lib/fiber/await.h"
#include "lib/zeroes.h"

/* The header's fields, in one write. */
int qcow_write_size(struct qcow *q, uint64_t size)
{
	td_put_be64(q->first + QCOW_H_SIZE, size);
	td_put_be32(q->first + QCOW_H_L1_SIZE, q->l1.n);
	td_put_be64(q->first + QCOW_H_L1_OFF, q->l1.off);
	q->h.size = size;
	q->image->info.size = size;
	return qcow_header_write(q);
}

/* A longer L1 table: a copy, durable before the header names it. */
static int grow_l1(struct qcow *q, uint32_t n, uint64_t size)
{
	uint64_t bytes = td_round_up((uint64_t)n * 8, qcow_csize(q)), first = 0,
		 old = q->l1.off >> q->cbits;
	uint64_t old_n = ((uint64_t)q->l1.n * 8 + qcow_csize(q) - 1) >> q->cbits;
	struct qcow_table t;
	uint8_t *buf;
	int rc = qcow_table_init(&t, n, 0);

	if (rc || posix_memalign((void **)&buf, 4096, bytes))
		return -ENOMEM;
	rc = qcow_alloc_row(q, bytes >> q->cbits, &first);
	if (!rc)
		rc = qcow_flush_refs(q); /* counted before the header names it */
	memset(buf, 0, bytes);
	t.off = first << q->cbits;
	for (uint32_t i = 0; i < q->l1.n; i++) {
		t.entry[i] = q->l1.entry[i];
		td_put_be64(buf + 8 * (size_t)i, t.entry[i]);
	}
	if (!rc)
		rc = td_file_rw(q->file, TD_IO_WRITE, buf, t.off, bytes, 0);
	if (!rc && (rc = qcow_sync(q->file)))
		qcow_sync_failed(q, rc); /* or the next try's would do well, with nothing there */
	free(buf);
	if (rc) {
		qcow_table_fini(&t);
		return rc;
	}
	qcow_table_fini(&q->l1);
	q->l1 = t;
	rc = qcow_write_size(q, size);
	if (!rc)
		qcow_release(q, old, old_n);
	return rc;
}

int qcow_image_grow(struct td_image *image, uint64_t size)
{
	struct qcow *q = image->priv;
	uint64_t was = image->info.size, n = qcow_l1_needed(&q->h, size),
		 below = image->backing ? image->backing->info.size : 0,
		 end = td_round_up(was, qcow_csize(q));
	int rc;

	if (n > QCOW_L1_MAX / 8)
		return -EFBIG;
	rc = n > q->l1.n ? grow_l1(q, (uint32_t)n, size) : qcow_write_size(q, size);
	/* a backing file that is longer than the image was must not show in the new part; nor must
	 * what others have left in the last cluster when they made the image smaller */
	end = below > end ? below : end;
	end = end < size ? end : size;
	if (!rc && end > was)
		rc = td_await_request(image, image->io, TD_WRITE_ZEROES, TD_UNMAP, was, end - was,
				      NULL, 0);
	if (!rc && q->external && (q->h.autoclear & QCOW_AUTOCLEAR_RAW))
		rc = td_file_rw(q->data, TD_IO_WRITE, td_zeroes_iov(QCOW_SECTOR).iov_base,
				size - QCOW_SECTOR, QCOW_SECTOR, 0);
	return rc ? rc : qcow_flush(q);
}

int qcow_grow(struct td_image *image, uint64_t size, struct td_err *err)
{
	const struct qcow_header *h = &((struct qcow *)image->priv)->h;
	int rc = h->nsnapshots || h->nbitmaps ? -ENOTSUP : qcow_image_grow(image, size);

	return rc ? td_fail(err, -rc, "cannot enlarge %s%s: %s", image->path,
			    rc == -ENOTSUP ? ", which has internal snapshots or dirty bitmaps" : "",
			    strerror(-rc))
		  : 0;
}
