/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A request's way through a VHD.
 *
 * What lies in one block, in the image as a whole, goes to the file as it is: one operation, no
 * copy, nothing allocated.  All else is walked, block by block and run of bits by run of bits: a
 * piece for each part that the file has, one for each that the parent has (over as many blocks as
 * it goes on), zeroes for what nobody has.  Where the walk needs a bitmap that is not in memory, or
 * a new block, it goes on on a fiber.
 *
 * A request that is walked is held by the walk and by each piece (td_req.pending).  td_req.state:
 * flags, and how far the walk has come.
 *
 * One thing: a write that allocates a block waits for a commit, and a commit sends the writes
 * that waited on (vhd-alloc.c, vhd-clear.c, vhd-commit.c, vhd-map.c, vhd-piece.c).
 */
#include <errno.h>

#include "drivers/cipher.h"
#include "drivers/vhd/vhd.h"
#include "lib/fiber/fiber.h"
#include "lib/io/iov.h"

static struct vhd *vhd_of(const struct td_req *req)
{
	return req->image->priv;
}

/* What the walk must have before it can go on. */
enum need { NOTHING, BLOCK, BITMAP, ROOM };

/* A run of bytes of the request that is not in this image, not yet asked of the parent. */
struct gap {
	uint64_t at, len; /* at: from the start of the request */
};

/* --- reads --- */

static void below_done(struct td_req *child, int err)
{
	vhd_piece_end(td_entry(child, struct vhd_piece, child), err);
}

static void read_below(struct td_req *req, struct gap *gap)
{
	struct td_image *below = req->image->backing;
	uint64_t from = req->off + gap->at, inside = 0;
	struct vhd_piece *p;

	if (!gap->len)
		return;
	if (below && from < below->info.size)
		inside = below->info.size - from < gap->len ? below->info.size - from : gap->len;
	/* a parent may be smaller */
	td_iov_zero(req->iov, req->iovcnt, gap->at + inside, gap->len - inside);
	if (inside && !(p = vhd_piece_new(req, gap->at, inside))) {
		req->err = -ENOMEM;
	} else if (inside) {
		p->child = (struct td_req){.op = TD_READ,
					   .off = from,
					   .len = inside,
					   .iov = p->iov,
					   .iovcnt = p->iop.iovcnt,
					   .io = req->io,
					   .done = below_done};
		td_submit(below, &p->child);
	}
	gap->len = 0;
}

static void add_gap(struct td_req *req, struct gap *gap, uint64_t at, uint64_t len)
{
	if (gap->len && gap->at + gap->len != at)
		read_below(req, gap);
	if (!gap->len)
		gap->at = at;
	gap->len += len;
}

static void read_file(struct td_req *req, uint64_t at, uint64_t len)
{
	struct vhd_piece *p;

	if (vhd_is_lost(vhd_of(req), req->off + at, len))
		req->err = -EIO;
	else if (!(p = vhd_piece_new(req, at, len)))
		req->err = -ENOMEM;
	else
		vhd_to_file(p, TD_IO_READ, 0, vhd_place_of(vhd_of(req), req->off + at));
}

/* The part at..at+len-1 of a read, within one block. */
static enum need read_part(struct td_req *req, uint64_t at, uint64_t len, struct gap *gap)
{
	struct vhd *v = vhd_of(req);
	uint64_t off = req->off + at;
	uint32_t block = vhd_block_of(v, off),
		 first = (uint32_t)((off & (v->l.block_size - 1)) / VHD_SECTOR), n;
	uint32_t end = first + (uint32_t)(len / VHD_SECTOR);
	struct vhd_bitmap *bm;
	bool set;

	if (v->bat[block] == VHD_UNUSED) {
		add_gap(req, gap, at, len);
		return NOTHING;
	}
	if (vhd_is_full(v, block)) {
		read_file(req, at, len);
		return NOTHING;
	}
	bm = vhd_map_find(v, block);
	if (!bm || bm->state != VHD_BM_READY)
		return BITMAP;
	for (; first < end; first += n, at += (uint64_t)n * VHD_SECTOR) {
		n = (uint32_t)vhd_bits_run(bm->bits, first, end, &set);
		if (set)
			read_file(req, at, (uint64_t)n * VHD_SECTOR);
		else
			add_gap(req, gap, at, (uint64_t)n * VHD_SECTOR);
	}
	return NOTHING;
}

/* --- writes --- */

static enum need write_part(struct td_req *req, uint64_t at, uint64_t len, struct gap *gap)
{
	struct vhd *v = vhd_of(req);
	uint64_t off = req->off + at;
	uint32_t block = vhd_block_of(v, off),
		 first = (uint32_t)((off & (v->l.block_size - 1)) / VHD_SECTOR);
	uint32_t n = (uint32_t)(len / VHD_SECTOR);
	bool fua = req->flags & TD_FUA, set = true;
	struct vhd_bitmap *bm = NULL;
	struct vhd_piece *p;
	int rc = 0;

	if (v->bat[block] == VHD_UNUSED)
		return BLOCK;
	if (!vhd_is_full(v, block)) {
		bm = vhd_map_find(v, block);
		if (!bm || bm->state != VHD_BM_READY)
			return BITMAP;
		set = vhd_bits_run(bm->bits, first, first + n, &set) == n && set;
		if (!set && !vhd_write_begin(v, bm))
			return ROOM;
		if (fua && (!set || bm->dirty || bm->committing))
			req->state[0] |= VHD_NEEDS_COMMIT;
	}
	p = vhd_piece_new(req, at, len);
	if (p && v->crypt)
		rc = vhd_piece_encrypt(p);
	if (!p || rc) {
		req->err = -ENOMEM;
		if (!set)
			vhd_write_end(v, bm, first, n, -ENOMEM);
		if (p)
			vhd_piece_end(p, rc);
		return NOTHING;
	}
	if (!set)
		p->bm = bm;
	p->first = first;
	p->n = n;
	vhd_to_file(p, TD_IO_WRITE, fua && !(req->state[0] & VHD_NEEDS_COMMIT) ? TD_IO_DSYNC : 0,
		    vhd_place_of(v, off));
	return NOTHING;
}

/* --- the walk --- */

static void walk_fiber(void *arg);

uint64_t vhd_part_len(const struct vhd *v, const struct td_req *req, uint64_t at)
{
	uint64_t in_block = v->l.block_size - ((req->off + at) & (v->l.block_size - 1)),
		 left = req->len - at;

	return in_block < left ? in_block : left;
}

/* The part at..at+len-1 of a write to a block that is not there; on a fiber.  As vhd_alloc. */
static int write_first(struct td_req *req, uint64_t at, uint64_t len)
{
	struct vhd *v = vhd_of(req);
	uint64_t off = req->off + at;
	struct vhd_piece *p = vhd_piece_new(req, at, len);
	struct vhd_first with = {p ? &p->iop : NULL,
				 (uint32_t)((off & (v->l.block_size - 1)) / VHD_SECTOR),
				 (uint32_t)(len / VHD_SECTOR)};
	int rc;

	if (!p)
		return -ENOMEM;
	p->iop.op = TD_IO_WRITE;
	p->iop.flags = 0;
	p->iop.file = v->file;
	rc = v->crypt ? vhd_piece_encrypt(p) : 0;
	if (!rc)
		rc = vhd_alloc(v, vhd_block_of(v, off), &with);
	if (rc == 1 && req->flags & TD_FUA)
		req->state[0] |= VHD_NEEDS_COMMIT;
	vhd_piece_end(p, 0); /* the walk holds the request */
	return rc;
}

/* On a fiber.  1: the part is done; 0: look again; or -errno. */
static int satisfy(struct td_req *req, enum need need, uint64_t at, uint64_t len)
{
	struct vhd *v = vhd_of(req);

	if (need == BLOCK)
		return write_first(req, at, len);
	return need == BITMAP ? vhd_map_load(v, vhd_block_of(v, req->off + at)) : vhd_wait_room(v);
}

static void walk(struct td_req *req, bool may_wait)
{
	enum need (*part)(struct td_req *, uint64_t, uint64_t, struct gap *) =
		req->op == TD_READ ? read_part : write_part;
	struct vhd *v = vhd_of(req);
	struct gap gap = {0, 0};

	while (req->state[1] < req->len && !req->err) {
		uint64_t at = req->state[1], len = vhd_part_len(v, req, at);
		enum need need = part(req, at, len, &gap);
		int rc = 0;

		if (need == NOTHING) {
			req->state[1] += len;
			continue;
		}
		read_below(req, &gap);
		if (may_wait) {
			rc = satisfy(req, need, at, len);
			if (rc == 1)
				req->state[1] += len;
			if (rc >= 0)
				rc = req->op == TD_READ ? 0 : v->broken;
		} else {
			rc = td_fiber_start(v->image->io->loop, walk_fiber, req);
			if (!rc)
				return;
		}
		if (rc && !req->err)
			req->err = rc;
	}
	read_below(req, &gap);
	vhd_put(req, 0);
}

static void walk_fiber(void *arg)
{
	walk(arg, true);
}

/* --- the ways in --- */

static void whole_done(struct td_iop *op, int err)
{
	struct td_req *req = op->data;
	struct vhd *v = vhd_of(req);

	if (!err && v->crypt && req->op == TD_READ)
		err = td_decrypt(v->crypt, req->off, req->iov, req->iovcnt);
	if (err && req->op == TD_FLUSH)
		vhd_break(v, err);
	td_req_done(req, err);
}

static void whole(struct vhd *v, struct td_req *req, enum td_io_op what, uint64_t place)
{
	struct td_iop *op = &req->iop;

	op->op = what;
	op->flags = req->flags & TD_FUA ? TD_IO_DSYNC : 0;
	op->file = v->file;
	op->off = place;
	op->len = req->len;
	op->iov = req->iov;
	op->iovcnt = req->iovcnt;
	op->done = whole_done;
	op->data = req;
	td_file_io(req->io, op);
}

/* Is all of it in one block and in the image, so that nothing needs to be known or changed when it
 * has been read or written? */
static bool is_whole(struct vhd *v, const struct td_req *req)
{
	uint32_t block = vhd_block_of(v, req->off),
		 first = (uint32_t)((req->off & (v->l.block_size - 1)) / VHD_SECTOR);
	uint32_t n = (uint32_t)(req->len / VHD_SECTOR);
	struct vhd_bitmap *bm;
	bool set;

	if (v->fixed)
		return true;
	/* V8: it may be for a bit that the log has missed */
	if (req->op == TD_WRITE && td_redo_missed(v->image->redo))
		return false;
	if (vhd_part_len(v, req, 0) != req->len || v->bat[block] == VHD_UNUSED ||
	    (v->crypt && req->op != TD_READ))
		return false;
	if (block == v->lost_block)
		return false;
	if (vhd_is_full(v, block))
		return true;
	bm = vhd_map_find(v, block);
	if (!bm || bm->state != VHD_BM_READY ||
	    ((req->flags & TD_FUA) && (bm->dirty || bm->committing)))
		return false;
	return vhd_bits_run(bm->bits, first, first + n, &set) == n && set;
}

void vhd_submit(struct td_image *image, struct td_req *req)
{
	struct vhd *v = image->priv;

	if (req->op != TD_READ && v->broken) {
		td_req_done(req, v->broken); /* V6 */
	} else if (req->op == TD_FLUSH) {
		if (v->dirty || v->committing)
			vhd_commit(v, req);
		else
			whole(v, req, TD_IO_SYNC, 0);
	} else if ((req->op == TD_READ || req->op == TD_WRITE) && is_whole(v, req)) {
		whole(v, req, req->op == TD_READ ? TD_IO_READ : TD_IO_WRITE,
		      vhd_place_of(v, req->off));
	} else {
		td_req_split(req);
		req->state[0] = req->state[1] = 0;
		if (req->op == TD_READ || req->op == TD_WRITE)
			walk(req, false);
		else
			vhd_clear(v, req);
	}
}
