/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading.  What is mapped in memory goes at once, one operation for a request where it is one
 * piece; the rest on a fiber, which loads the tables and then does the same.
 */
#include <errno.h>
#include <stdlib.h>

#include "drivers/cipher.h"
#include "drivers/qcow/qcow.h"
#include "lib/fiber/await.h"
#include "lib/fiber/fiber.h"
#include "lib/io/iov.h"

bool qcow_backing_zero(const struct qcow *q, uint64_t off)
{
	return !q->image->backing || off >= q->image->backing->info.size;
}

static void below_done(struct td_req *child, int err)
{
	struct qcow_op *op = td_entry(child, struct qcow_op, child);
	struct td_req *req = op->req;

	qcow_op_put(op);
	td_req_put(req, err);
}

/* From the backing image; what lies beyond its end is zeroes.  Holds one reference of req until it
 * is done. */
static void read_below(struct qcow *q, struct td_req *req, uint64_t skip, uint64_t len)
{
	uint64_t off = req->off + skip, have;
	struct qcow_op *op;
	int rc;

	if (qcow_backing_zero(q, off)) {
		td_iov_zero(req->iov, req->iovcnt, skip, len);
		return;
	}
	have = q->image->backing->info.size - off;
	if (len > have) {
		td_iov_zero(req->iov, req->iovcnt, skip + have, len - have);
		len = have;
	}
	rc = qcow_op_get(q, req, skip, len, &op);
	if (rc < 0) {
		req->pending++;
		td_req_put(req, rc);
		return;
	}
	td_req_child(req, &op->child);
	op->child.op = TD_READ;
	op->child.off = off;
	op->child.len = len;
	op->child.iov = op->iov;
	op->child.iovcnt = op->iop.iovcnt;
	op->child.done = below_done;
	td_submit(q->image->backing, &op->child);
}

static bool at_once(enum qcow_kind kind)
{
	return kind == QCOW_RUN_DATA || kind == QCOW_RUN_ZERO || kind == QCOW_RUN_NONE;
}

bool qcow_read_fast(struct qcow *q, struct td_req *req)
{
	uint64_t end = req->off + req->len;
	struct qcow_run run;

	for (uint64_t at = req->off; at < end; at += run.len) {
		qcow_map(q, at, end - at, &run);
		if (!at_once(run.kind))
			return false;
		if (run.len == req->len && run.kind == QCOW_RUN_DATA) {
			qcow_whole(q, req, TD_IO_READ, run.host);
			return true;
		}
	}
	td_req_split(req);
	for (uint64_t at = req->off; at < end; at += run.len) {
		uint64_t skip = at - req->off;

		qcow_map(q, at, end - at, &run);
		if (run.kind == QCOW_RUN_DATA)
			qcow_part(q, req, skip, run.len, TD_IO_READ, run.host);
		else if (run.kind == QCOW_RUN_ZERO)
			td_iov_zero(req->iov, req->iovcnt, skip, run.len);
		else
			read_below(q, req, skip, run.len);
	}
	td_req_put(req, 0);
	return true;
}

/* --- on a fiber --- */

struct unzip {
	struct qcow *q;
	const uint8_t *from;
	uint64_t len;
};

static long unzip_run(void *arg)
{
	struct unzip *u = arg;

	return qcow_unzip(u->q->h.compression, u->from, u->len, u->q->zip, qcow_csize(u->q));
}

/* Fills q->zip with the cluster of the entry. */
static int unzip(struct qcow *q, uint64_t entry)
{
	struct unzip u = {.q = q};
	uint64_t off, len, from;
	uint8_t *buf;
	int rc;

	if (!q->zip && posix_memalign((void **)&q->zip, 4096, qcow_csize(q))) {
		q->zip = NULL;
		return -ENOMEM;
	}
	qcow_zip_place(q, entry, &off, &len);
	from = off & ~(uint64_t)(QCOW_SECTOR - 1);
	if (posix_memalign((void **)&buf, 4096, len + (off - from)))
		return -ENOMEM;
	q->zip_entry = 0;
	rc = td_file_rw(q->file, TD_IO_READ, buf, from, len + (off - from), TD_IO_EOF_ZERO);
	u.from = buf + (off - from);
	u.len = len;
	if (!rc)
		/* it takes its time: the loop goes on */
		rc = (int)td_await_call(q->io, unzip_run, &u);
	if (!rc)
		q->zip_entry = entry;
	else if (rc == -EIO)
		td_log(LOG_ERR, "%s: the compressed cluster at %#llx cannot be decompressed",
		       q->image->path, (unsigned long long)off);
	free(buf);
	return rc;
}

/* Copies [guest, guest + run->len), within one compressed cluster. */
int qcow_read_zip(struct qcow *q, const struct qcow_run *run, uint64_t guest, struct iovec *iov,
		  int n)
{
	uint64_t at = guest & (qcow_csize(q) - 1);
	unsigned epoch;
	int rc = 0;

	qcow_fly(q, &epoch);
	td_lock(&q->zip_lock);
	if (q->zip_entry != run->entry)
		rc = unzip(q, run->entry);
	for (int i = 0; !rc && i < n; i++) {
		memcpy(iov[i].iov_base, q->zip + at, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	td_unlock(&q->zip_lock);
	qcow_land(q, epoch);
	return rc;
}

static int read_below_wait(struct qcow *q, struct td_io *io, struct iovec *iov, int n, uint64_t off,
			   uint64_t len);

/* One piece, waited for. */
static int read_run(struct qcow *q, struct td_io *io, const struct qcow_run *run, struct iovec *iov,
		    int n, uint64_t off)
{
	struct td_iop op = {.op = TD_IO_READ,
			    .file = q->data,
			    .off = run->host,
			    .len = run->len,
			    .iov = iov,
			    .iovcnt = n};
	unsigned epoch;
	int rc;

	switch (run->kind) {
	case QCOW_RUN_ZERO:
		td_iov_zero(iov, n, 0, run->len);
		return 0;
	case QCOW_RUN_NONE:
		return read_below_wait(q, io, iov, n, off, run->len);
	case QCOW_RUN_ZIP:
		return qcow_read_zip(q, run, off, iov, n);
	default:
		qcow_fly(q, &epoch);
		rc = td_await_file(io, &op);
		qcow_land(q, epoch);
		return rc || !q->crypt
			       ? rc
			       : td_decrypt(q->crypt, qcow_crypt_at(q, run->host, off), iov, n);
	}
}

static int read_below_wait(struct qcow *q, struct td_io *io, struct iovec *iov, int n, uint64_t off,
			   uint64_t len)
{
	struct td_image *below = q->image->backing;
	struct iovec *part;
	int rc;

	if (qcow_backing_zero(q, off)) {
		td_iov_zero(iov, n, 0, len);
		return 0;
	}
	if (len > below->info.size - off) {
		td_iov_zero(iov, n, below->info.size - off, len - (below->info.size - off));
		len = below->info.size - off;
	}
	part = calloc((size_t)n, sizeof *part);
	if (!part)
		return -ENOMEM;
	rc = td_await_request(below, io, TD_READ, 0, off, len, part,
			      td_iov_slice(iov, n, 0, len, part, n));
	free(part);
	return rc;
}

/* A request with a piece that takes time: piece after piece. */
static int read_slow(struct qcow *q, struct td_req *req)
{
	struct iovec *iov = calloc((size_t)req->iovcnt, sizeof *iov);
	uint64_t end = req->off + req->len;
	struct qcow_run run;
	int rc = iov ? 0 : -ENOMEM;

	for (uint64_t at = req->off; !rc && at < end; at += run.len) {
		rc = qcow_map_wait(q, at, end - at, &run);
		if (!rc)
			rc = read_run(q, req->io, &run, iov,
				      td_iov_slice(req->iov, req->iovcnt, at - req->off, run.len,
						   iov, req->iovcnt),
				      at);
	}
	free(iov);
	td_req_done(req, rc);
	return rc;
}

/* Completes req. */
int qcow_read(struct qcow *q, struct td_req *req)
{
	uint64_t end = req->off + req->len;
	struct qcow_run run;
	int rc;

	for (uint64_t at = req->off; at < end; at += run.len) {
		rc = qcow_map_wait(q, at, end - at, &run);
		if (rc < 0) {
			td_req_done(req, rc);
			return rc;
		}
		if (run.kind == QCOW_RUN_ZIP)
			break;
	}
	return qcow_read_fast(q, req) ? 0 : read_slow(q, req);
}

int qcow_read_buf(struct qcow *q, struct td_io *io, void *buf, uint64_t off, uint64_t len)
{
	uint64_t size = q->image->info.size, end = off + len;
	struct qcow_run run;
	int rc = 0;

	if (end > size) {
		uint64_t from = off > size ? off : size;

		memset((char *)buf + (from - off), 0, end - from);
		end = from;
	}
	for (uint64_t at = off; !rc && at < end; at += run.len) {
		struct iovec iov;

		rc = qcow_map_wait(q, at, end - at, &run);
		iov = (struct iovec){(char *)buf + (at - off), run.len};
		if (!rc)
			rc = read_run(q, io, &run, &iov, 1, at);
	}
	return rc;
}
