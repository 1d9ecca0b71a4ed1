/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A request in parts, each to one place: its memory, its way to the file and back, and the end of
 * the request with the last of them. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "drivers/cipher.h"
#include "drivers/vhd/vhd.h"
#include "lib/io/iov.h"

void vhd_put(struct td_req *req, int err)
{
	struct vhd *v = req->image->priv;

	assert(req->pending);
	if (err && !req->err)
		req->err = err;
	if (--req->pending)
		return;
	/* what the log of changes has no room for must be in the file before it is answered; which
	 * request it was is not asked */
	if (!req->err && (req->state[0] & VHD_NEEDS_COMMIT ||
			  (req->op != TD_READ && td_redo_missed(v->image->redo))))
		vhd_commit(v, req);
	else
		td_req_done(req, req->err);
}

static void piece_free(struct vhd_piece *p)
{
	struct vhd *v = p->v;

	if (p->iov != p->few)
		free(p->iov);
	free(p->bounce);
	p->next = v->pieces;
	v->pieces = p;
}

void vhd_io_fini(struct vhd *v)
{
	while (v->pieces) {
		struct vhd_piece *p = v->pieces;

		v->pieces = p->next;
		free(p);
	}
}

/* A piece for the request's bytes at..at+len-1, which holds it; NULL: no memory. */
struct vhd_piece *vhd_piece_new(struct td_req *req, uint64_t at, uint64_t len)
{
	struct vhd *v = req->image->priv;
	struct vhd_piece *p = v->pieces;
	int n;

	if (p)
		v->pieces = p->next;
	else if (!(p = malloc(sizeof *p))) /* kept when done: after the first burst nothing is
					      allocated */
		return NULL;
	p->v = v;
	p->req = req;
	p->bm = NULL;
	p->bounce = NULL;
	p->at = req->off + at;
	p->iov = p->few;
	n = td_iov_slice(req->iov, req->iovcnt, at, len, NULL, 0);
	if (n > (int)(sizeof p->few / sizeof *p->few) &&
	    !(p->iov = malloc((size_t)n * sizeof *p->iov))) {
		p->iov = p->few;
		piece_free(p);
		return NULL;
	}
	td_iov_slice(req->iov, req->iovcnt, at, len, p->iov, n);
	p->iop.iov = p->iov;
	p->iop.iovcnt = n;
	p->iop.len = len;
	req->pending++;
	return p;
}

void vhd_piece_end(struct vhd_piece *p, int err)
{
	struct td_req *req = p->req;

	piece_free(p);
	vhd_put(req, err);
}

static void read_done(struct td_iop *op, int err)
{
	struct vhd_piece *p = td_entry(op, struct vhd_piece, iop);

	if (!err && p->v->crypt)
		err = td_decrypt(p->v->crypt, p->at, p->iov, op->iovcnt);
	vhd_piece_end(p, err);
}

static void write_done(struct td_iop *op, int err)
{
	struct vhd_piece *p = td_entry(op, struct vhd_piece, iop);

	if (p->bm)
		vhd_write_end(p->v, p->bm, p->first, p->n, err);
	vhd_piece_end(p, err);
}

void vhd_to_file(struct vhd_piece *p, enum td_io_op what, unsigned flags, uint64_t place)
{
	p->iop.op = what;
	p->iop.flags = flags;
	p->iop.file = p->v->file;
	p->iop.off = place;
	p->iop.done = what == TD_IO_READ ? read_done : write_done;
	td_file_io(p->req->io, &p->iop);
}

/* The guest's memory is not ours to change: what is encrypted is a copy. */
int vhd_piece_encrypt(struct vhd_piece *p)
{
	int rc = td_encrypt_copy(p->v->crypt, p->at, p->iov, p->iop.iovcnt, p->iop.len, &p->bounce);

	p->iov[0] = (struct iovec){p->bounce, p->iop.len};
	p->iop.iovcnt = 1;
	return rc;
}
