/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What goes to the file as it is mapped: a request as one operation, without a copy and without
 * memory taken; or a part of it.  Of an encrypted image, what was read is decrypted where it lies,
 * and what is written is an encrypted copy.
 */
#include <errno.h>
#include <stdlib.h>

#include "drivers/cipher.h"
#include "drivers/qcow/qcow.h"
#include "lib/fiber/fiber.h"
#include "lib/io/iov.h"

/* --- operations that found their place by the mapping (Q4) --- */

void qcow_fly(struct qcow *q, unsigned *epoch)
{
	*epoch = q->epoch;
	q->flying[q->epoch]++;
}

void qcow_land(struct qcow *q, unsigned epoch)
{
	if (--q->flying[epoch] == 0 && q->draining)
		td_cond_wake(&q->drained);
}

/* --- pieces --- */

/* With the iovec of [skip, skip + len) of req; kept when done, so that after the first burst
 * nothing is allocated. */
int qcow_op_get(struct qcow *q, struct td_req *req, uint64_t skip, uint64_t len,
		struct qcow_op **out)
{
	struct qcow_op *op = q->ops;

	if (op)
		q->ops = op->next;
	else if (!(op = calloc(1, sizeof *op)))
		return -ENOMEM;
	if (op->iovmax < req->iovcnt) {
		struct iovec *iov = realloc(op->iov, (size_t)req->iovcnt * sizeof *iov);

		if (!iov) {
			op->next = q->ops;
			q->ops = op;
			return -ENOMEM;
		}
		op->iov = iov;
		op->iovmax = req->iovcnt;
	}
	op->q = q;
	op->req = req;
	op->bounce = NULL;
	op->iop = (struct td_iop){.off = 0, .len = len, .iov = op->iov};
	op->iop.iovcnt = td_iov_slice(req->iov, req->iovcnt, skip, len, op->iov, op->iovmax);
	*out = op;
	return 0;
}

void qcow_op_put(struct qcow_op *op)
{
	free(op->bounce);
	op->next = op->q->ops;
	op->q->ops = op;
}

/* --- requests --- */

static unsigned flags_of(const struct qcow *q, const struct td_req *req, enum td_io_op what,
			 uint64_t host)
{
	return what == TD_IO_READ ? 0 : (req->flags & TD_FUA ? TD_IO_DSYNC : 0) | qcow_new(q, host);
}

static void whole_done(struct td_iop *iop, int err)
{
	struct td_req *req = iop->data;
	struct qcow *q = req->image->priv;

	qcow_land(q, (unsigned)req->state[0]);
	if (q->crypt && !err)
		err = td_decrypt(q->crypt, req->state[1], req->iov, req->iovcnt);
	td_req_done(req, err);
}

void qcow_whole(struct qcow *q, struct td_req *req, enum td_io_op what, uint64_t host)
{
	unsigned epoch;

	if (q->crypt && what == TD_IO_WRITE) {
		td_req_split(req);
		qcow_part(q, req, 0, req->len, what, host);
		td_req_put(req, 0);
		return;
	}
	qcow_fly(q, &epoch);
	req->state[0] = epoch;
	req->state[1] = qcow_crypt_at(q, host, req->off);
	req->iop = (struct td_iop){.op = what,
				   .flags = flags_of(q, req, what, host),
				   .file = q->data,
				   .off = host,
				   .len = req->len,
				   .iov = req->iov,
				   .iovcnt = req->iovcnt,
				   .done = whole_done,
				   .data = req};
	td_file_io(req->io, &req->iop);
}

static void part_done(struct td_iop *iop, int err)
{
	struct qcow_op *op = td_entry(iop, struct qcow_op, iop);
	struct td_req *req = op->req;

	qcow_land(op->q, op->epoch);
	if (op->q->crypt && !err && iop->op == TD_IO_READ)
		err = td_decrypt(op->q->crypt, op->crypt_at, op->iov, iop->iovcnt);
	qcow_op_put(op);
	td_req_put(req, err);
}

static int encrypt(struct qcow_op *op)
{
	int rc = td_encrypt_copy(op->q->crypt, op->crypt_at, op->iov, op->iop.iovcnt, op->iop.len,
				 &op->bounce);

	op->iov[0] = (struct iovec){op->bounce, op->iop.len};
	op->iop.iovcnt = 1;
	return rc;
}

void qcow_part(struct qcow *q, struct td_req *req, uint64_t skip, uint64_t len, enum td_io_op what,
	       uint64_t host)
{
	struct qcow_op *op;
	int rc = qcow_op_get(q, req, skip, len, &op);

	req->pending++;
	if (rc < 0) {
		td_req_put(req, rc);
		return;
	}
	op->crypt_at = qcow_crypt_at(q, host, req->off + skip);
	op->iop.op = what;
	op->iop.flags = flags_of(q, req, what, host);
	op->iop.file = q->data;
	op->iop.off = host;
	op->iop.done = part_done;
	if (q->crypt && what == TD_IO_WRITE && (rc = encrypt(op))) {
		qcow_op_put(op);
		td_req_put(req, rc);
		return;
	}
	qcow_fly(q, &op->epoch);
	td_file_io(req->io, &op->iop);
}

int qcow_await_write(struct qcow *q, struct td_io *io, struct td_iop *op, uint64_t guest)
{
	void *copy = NULL;
	struct iovec one;
	int rc = 0;

	if (q->crypt) {
		rc = td_encrypt_copy(q->crypt, qcow_crypt_at(q, op->off, guest), op->iov,
				     op->iovcnt, op->len, &copy);
		one = (struct iovec){copy, op->len};
		op->iov = &one;
		op->iovcnt = 1;
	}
	if (!rc)
		rc = td_await_file(io, op);
	free(copy);
	return rc;
}
