/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * DISCARD and WRITE_ZEROES, on a fiber of their own, block by block and run by run: what is in the
 * image becomes zeroes, or a hole; what is not becomes zeroes where a parent would show.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/cipher.h"
#include "drivers/vhd/vhd.h"
#include "lib/fiber/fiber.h"
#include "lib/zeroes.h"

#define ZERO_LARGE                                                                                 \
	(64u                                                                                       \
	 << 10) /* bytes from which on the store is asked to make zeroes, rather than sent them */

static int write_zeroes(struct vhd *v, uint64_t place, uint64_t len)
{
	struct iovec iov[16];
	int rc = 0;

	while (len && !rc) {
		struct td_iop op = {.op = TD_IO_WRITE, .file = v->file, .off = place, .iov = iov};

		for (; op.iovcnt < 16 && op.len < len; op.iovcnt++) {
			iov[op.iovcnt] = td_zeroes_iov(len - op.len);
			op.len += iov[op.iovcnt].iov_len;
		}
		place += op.len;
		len -= op.len;
		rc = td_await_file(v->image->io, &op);
	}
	return rc;
}

int vhd_zero(struct vhd *v, enum td_io_op how, uint64_t place, uint64_t len)
{
	struct td_iop op = {.op = how, .file = v->file, .off = place, .len = len};

	/* what the store zeroes does not make a file longer */
	if (len < ZERO_LARGE || (!v->file->st.blockdev && place + len > v->eof) ||
	    td_await_file(v->image->io, &op) < 0)
		return write_zeroes(v, place, len);
	return 0;
}

/* Zeroes that an encrypted image shows as zeroes. */
static int write_crypt_zeroes(struct vhd *v, uint64_t off, uint64_t len)
{
	uint64_t part = len < ZERO_LARGE ? len : ZERO_LARGE;
	char *buf;
	int rc = 0;

	if (posix_memalign((void **)&buf, 4096, part))
		return -ENOMEM;
	for (; len && !rc; off += part, len -= part) {
		part = part < len ? part : len;
		memset(buf, 0, part);
		rc = td_encrypt(v->crypt, off, buf, part);
		if (!rc)
			rc = td_file_rw(v->file, TD_IO_WRITE, buf, vhd_place_of(v, off), part, 0);
	}
	free(buf);
	return rc;
}

/* Sectors of the image, and only whole units of the store's: what it does to others nobody knows.
 */
static int discard_run(struct vhd *v, uint64_t off, uint64_t len)
{
	uint64_t place = vhd_place_of(v, off), unit = v->image->info.discard_gran;
	uint64_t from = (place + unit - 1) / unit * unit, to = (place + len) / unit * unit;
	struct td_iop op = {
		.op = TD_IO_PUNCH, .file = v->file, .off = from, .len = to > from ? to - from : 0};
	int rc;

	/* a hole would be decrypted to noise */
	if (to <= from || !v->image->info.discard || v->crypt)
		return 0;
	rc = td_await_file(v->image->io, &op);
	return rc == -EOPNOTSUPP ? 0 : rc;
}

static int zero_run(struct vhd *v, struct td_req *req, uint64_t off, uint64_t len)
{
	if (v->crypt)
		return write_crypt_zeroes(v, off, len);
	return vhd_zero(v, req->flags & TD_UNMAP ? TD_IO_PUNCH : TD_IO_ZERO, vhd_place_of(v, off),
			len);
}

/* Zeroes where the parent shows or nothing is: they become the image's. */
static int zero_anew(struct vhd *v, struct td_req *req, struct vhd_bitmap *bm, uint64_t off,
		     uint32_t first, uint32_t n)
{
	int rc;

	if (!vhd_write_begin(v, bm))
		return vhd_wait_room(v) ?: -EAGAIN;
	rc = zero_run(v, req, off, (uint64_t)n * VHD_SECTOR);
	vhd_write_end(v, bm, first, n, rc);
	return rc;
}

/* Do zeroes have to be written where the image has nothing?  Over a parent, and to have the space.
 */
static bool wants_zeroes(const struct vhd *v, const struct td_req *req)
{
	return req->op == TD_WRITE_ZEROES && (v->diff || !(req->flags & TD_UNMAP));
}

/*
 * One run of a block that is in the image, from `off' on; its length goes to *len.  A discarded
 * sector stays in the image, so that no older byte of a parent comes back.
 */
static int clear_run(struct vhd *v, struct td_req *req, uint64_t off, uint64_t *len)
{
	uint32_t block = vhd_block_of(v, off),
		 first = (uint32_t)((off & (v->l.block_size - 1)) / VHD_SECTOR), n;
	bool set = true;
	struct vhd_bitmap *bm = NULL;

	if (!vhd_is_full(v, block)) {
		bm = vhd_map_find(v, block);
		if (!bm || bm->state != VHD_BM_READY)
			return vhd_map_load(v, block) ?: -EAGAIN;
		n = (uint32_t)vhd_bits_run(bm->bits, first, first + (uint32_t)(*len / VHD_SECTOR),
					   &set);
		*len = (uint64_t)n * VHD_SECTOR;
	}
	if (set)
		return req->op == TD_WRITE_ZEROES ? zero_run(v, req, off, *len)
						  : discard_run(v, off, *len);
	return wants_zeroes(v, req)
		       ? zero_anew(v, req, bm, off, first, (uint32_t)(*len / VHD_SECTOR))
		       : 0;
}

static int clear_step(struct vhd *v, struct td_req *req)
{
	uint64_t at = req->state[1], off = req->off + at,
		 len = v->fixed ? req->len : vhd_part_len(v, req, at);
	int rc = v->broken;

	if (rc)
		return rc;
	if (v->fixed) {
		rc = req->op == TD_WRITE_ZEROES ? zero_run(v, req, off, len)
						: discard_run(v, off, len);
	} else if (v->bat[vhd_block_of(v, off)] == VHD_UNUSED) {
		if (wants_zeroes(v, req))
			return vhd_alloc(v, vhd_block_of(v, off), NULL);
	} else {
		rc = clear_run(v, req, off, &len);
	}
	if (!rc)
		req->state[1] += len;
	return rc == -EAGAIN ? 0 : rc;
}

static void clear_fiber(void *arg)
{
	struct td_req *req = arg;
	struct vhd *v = req->image->priv;
	int rc = 0;

	while (req->state[1] < req->len && !rc)
		rc = clear_step(v, req);
	vhd_put(req, rc);
}

void vhd_clear(struct vhd *v, struct td_req *req)
{
	int rc = td_fiber_start(v->image->io->loop, clear_fiber, req);

	if (rc < 0)
		vhd_put(req, rc);
}
