/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A request's way through a VHD.
 *
 * What lies in one block, in the image as a whole, goes to the file as it is: one operation, no copy, nothing allocated.  All else is
 * walked, block by block and run of bits by run of bits: a piece for each part that the file has, one for each that the parent has
 * (over as many blocks as it goes on), zeroes for what nobody has.  Where the walk needs a bitmap that is not in memory, or a new block, it
 * goes on on a fiber.
 *
 * A request that is walked is held by the walk and by each piece (td_req.pending).  td_req.state: flags, and how far the walk has come.
 */
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/cipher.h"
#include "drivers/vhd.h"
#include "lib/fiber.h"

enum { NEEDS_COMMIT = 1 }; /* a FUA request's bits or blocks are not in the file */

#define ZERO_LARGE (64u << 10) /* bytes from which on the store is asked to make zeroes, rather than sent them */

static uint8_t zeroes[64 << 10] __attribute__((aligned(4096)));

/* What the walk must have before it can go on. */
enum need { NOTHING, BLOCK, BITMAP, ROOM };

/* A run of bytes of the request that is not in this image, not yet asked of the parent. */
struct gap {
	uint64_t at, len; /* at: from the start of the request */
};

static struct vhd *vhd_of(const struct td_req *req)
{
	return req->image->priv;
}

static void put(struct td_req *req, int err)
{
	assert(req->pending);
	if (err && !req->err)
		req->err = err;
	if (--req->pending)
		return;
	if (!req->err && req->state[0] & NEEDS_COMMIT)
		vhd_commit(vhd_of(req), req);
	else
		td_req_done(req, req->err);
}

/* --- pieces --------------------------------------------------------------------------------------------------------- */

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

/* The pieces of the request's memory that are its bytes at..at+len-1; their number.  out may be NULL. */
static int slice(const struct td_req *req, uint64_t at, uint64_t len, struct iovec *out)
{
	int n = 0;

	for (int i = 0; len; i++) {
		const struct iovec *e = &req->iov[i];
		size_t part = e->iov_len;

		if (at >= part) {
			at -= part;
			continue;
		}
		part = part - at < len ? part - at : len;
		if (out)
			out[n] = (struct iovec){(char *)e->iov_base + at, part};
		n++;
		len -= part;
		at = 0;
	}
	return n;
}

/* A piece for the request's bytes at..at+len-1, which holds it; NULL: no memory. */
static struct vhd_piece *piece_new(struct td_req *req, uint64_t at, uint64_t len)
{
	struct vhd *v = vhd_of(req);
	struct vhd_piece *p = v->pieces;
	int n;

	if (p)
		v->pieces = p->next;
	else if (!(p = malloc(sizeof *p))) /* kept when done: after the first burst nothing is allocated */
		return NULL;
	p->v = v;
	p->req = req;
	p->bm = NULL;
	p->bounce = NULL;
	p->at = req->off + at;
	p->iov = p->few;
	n = slice(req, at, len, NULL);
	if (n > (int)(sizeof p->few / sizeof *p->few) && !(p->iov = malloc((size_t)n * sizeof *p->iov))) {
		p->iov = p->few;
		piece_free(p);
		return NULL;
	}
	slice(req, at, len, p->iov);
	p->iop.iov = p->iov;
	p->iop.iovcnt = n;
	p->iop.len = len;
	req->pending++;
	return p;
}

static void piece_end(struct vhd_piece *p, int err)
{
	struct td_req *req = p->req;

	piece_free(p);
	put(req, err);
}

static void read_done(struct td_iop *op, int err)
{
	struct vhd_piece *p = td_entry(op, struct vhd_piece, iop);

	if (!err && p->v->crypt)
		err = td_decrypt(p->v->crypt, p->at, p->iov, op->iovcnt);
	piece_end(p, err);
}

static void write_done(struct td_iop *op, int err)
{
	struct vhd_piece *p = td_entry(op, struct vhd_piece, iop);

	if (p->bm)
		vhd_write_end(p->v, p->bm, p->first, p->n, err);
	piece_end(p, err);
}

static void below_done(struct td_req *child, int err)
{
	piece_end(td_entry(child, struct vhd_piece, child), err);
}

static void to_file(struct vhd_piece *p, enum td_io_op what, unsigned flags, uint64_t place)
{
	p->iop.op = what;
	p->iop.flags = flags;
	p->iop.file = p->v->file;
	p->iop.off = place;
	p->iop.done = what == TD_IO_READ ? read_done : write_done;
	td_file_io(p->req->io, &p->iop);
}

/* The guest's memory is not ours to change: what is encrypted is a copy. */
static int encrypt(struct vhd_piece *p)
{
	int rc = td_encrypt_copy(p->v->crypt, p->at, p->iov, p->iop.iovcnt, p->iop.len, &p->bounce);

	p->iov[0] = (struct iovec){p->bounce, p->iop.len};
	p->iop.iovcnt = 1;
	return rc;
}

/* --- reads ---------------------------------------------------------------------------------------------------------- */

static void zero_memory(struct td_req *req, uint64_t at, uint64_t len)
{
	for (int i = 0; i < req->iovcnt && len; i++) {
		struct iovec *e = &req->iov[i];
		size_t part = e->iov_len;

		if (at >= part) {
			at -= part;
			continue;
		}
		part = part - at < len ? part - at : len;
		memset((char *)e->iov_base + at, 0, part);
		len -= part;
		at = 0;
	}
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
	zero_memory(req, gap->at + inside, gap->len - inside); /* a parent may be smaller */
	if (inside && !(p = piece_new(req, gap->at, inside))) {
		req->err = -ENOMEM;
	} else if (inside) {
		p->child = (struct td_req){.op = TD_READ, .off = from, .len = inside, .iov = p->iov, .iovcnt = p->iop.iovcnt,
					   .io = req->io, .done = below_done};
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
	struct vhd_piece *p = piece_new(req, at, len);

	if (!p)
		req->err = -ENOMEM;
	else
		to_file(p, TD_IO_READ, 0, vhd_place_of(vhd_of(req), req->off + at));
}

/* The part at..at+len-1 of a read, within one block. */
static enum need read_part(struct td_req *req, uint64_t at, uint64_t len, struct gap *gap)
{
	struct vhd *v = vhd_of(req);
	uint64_t off = req->off + at;
	uint32_t block = vhd_block_of(v, off), first = (uint32_t)((off & (v->l.block_size - 1)) / VHD_SECTOR), n;
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

/* --- writes --------------------------------------------------------------------------------------------------------- */

static enum need write_part(struct td_req *req, uint64_t at, uint64_t len, struct gap *gap)
{
	struct vhd *v = vhd_of(req);
	uint64_t off = req->off + at;
	uint32_t block = vhd_block_of(v, off), first = (uint32_t)((off & (v->l.block_size - 1)) / VHD_SECTOR);
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
			req->state[0] |= NEEDS_COMMIT;
	}
	p = piece_new(req, at, len);
	if (p && v->crypt)
		rc = encrypt(p);
	if (!p || rc) {
		req->err = -ENOMEM;
		if (!set)
			vhd_write_end(v, bm, first, n, -ENOMEM);
		if (p)
			piece_end(p, rc);
		return NOTHING;
	}
	if (!set)
		p->bm = bm;
	p->first = first;
	p->n = n;
	to_file(p, TD_IO_WRITE, fua && !(req->state[0] & NEEDS_COMMIT) ? TD_IO_DSYNC : 0, vhd_place_of(v, off));
	return NOTHING;
}

/* --- the walk ------------------------------------------------------------------------------------------------------- */

static void walk_fiber(void *arg);

static uint64_t part_len(const struct vhd *v, const struct td_req *req, uint64_t at)
{
	uint64_t in_block = v->l.block_size - ((req->off + at) & (v->l.block_size - 1)), left = req->len - at;

	return in_block < left ? in_block : left;
}

/* The part at..at+len-1 of a write to a block that is not there; on a fiber.  As vhd_alloc. */
static int write_first(struct td_req *req, uint64_t at, uint64_t len)
{
	struct vhd *v = vhd_of(req);
	uint64_t off = req->off + at;
	struct vhd_piece *p = piece_new(req, at, len);
	struct vhd_first with = {p ? &p->iop : NULL, (uint32_t)((off & (v->l.block_size - 1)) / VHD_SECTOR), (uint32_t)(len / VHD_SECTOR)};
	int rc;

	if (!p)
		return -ENOMEM;
	p->iop.op = TD_IO_WRITE;
	p->iop.flags = 0;
	p->iop.file = v->file;
	rc = v->crypt ? encrypt(p) : 0;
	if (!rc)
		rc = vhd_alloc(v, vhd_block_of(v, off), &with);
	if (rc == 1 && req->flags & TD_FUA)
		req->state[0] |= NEEDS_COMMIT;
	piece_end(p, 0); /* the walk holds the request */
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
	enum need (*part)(struct td_req *, uint64_t, uint64_t, struct gap *) = req->op == TD_READ ? read_part : write_part;
	struct vhd *v = vhd_of(req);
	struct gap gap = {0, 0};

	while (req->state[1] < req->len && !req->err) {
		uint64_t at = req->state[1], len = part_len(v, req, at);
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
	put(req, 0);
}

static void walk_fiber(void *arg)
{
	walk(arg, true);
}

/* --- zeroes and discards, on a fiber -------------------------------------------------------------------------------- */

static int write_zeroes(struct vhd *v, uint64_t place, uint64_t len)
{
	struct iovec iov[16];
	int rc = 0;

	while (len && !rc) {
		struct td_iop op = {.op = TD_IO_WRITE, .file = v->file, .off = place, .iov = iov};

		for (; op.iovcnt < 16 && op.len < len; op.iovcnt++) {
			uint64_t n = len - op.len < sizeof zeroes ? len - op.len : sizeof zeroes;

			iov[op.iovcnt] = (struct iovec){zeroes, n};
			op.len += n;
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
	if (len < ZERO_LARGE || (!v->file->st.blockdev && place + len > v->eof) || td_await_file(v->image->io, &op) < 0)
		return write_zeroes(v, place, len);
	return 0;
}

/* Zeroes that an encrypted image shows as zeroes. */
static int write_crypt_zeroes(struct vhd *v, uint64_t off, uint64_t len)
{
	uint64_t part = len < sizeof zeroes ? len : sizeof zeroes;
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

/* Sectors of the image, and only whole units of the store's: what it does to others nobody knows. */
static int discard_run(struct vhd *v, uint64_t off, uint64_t len)
{
	uint64_t place = vhd_place_of(v, off), unit = v->image->info.discard_gran;
	uint64_t from = (place + unit - 1) / unit * unit, to = (place + len) / unit * unit;
	struct td_iop op = {.op = TD_IO_PUNCH, .file = v->file, .off = from, .len = to > from ? to - from : 0};
	int rc;

	if (to <= from || !v->image->info.discard || v->crypt) /* a hole would be decrypted to noise */
		return 0;
	rc = td_await_file(v->image->io, &op);
	return rc == -EOPNOTSUPP ? 0 : rc;
}

static int zero_run(struct vhd *v, struct td_req *req, uint64_t off, uint64_t len)
{
	if (v->crypt)
		return write_crypt_zeroes(v, off, len);
	return vhd_zero(v, req->flags & TD_UNMAP ? TD_IO_PUNCH : TD_IO_ZERO, vhd_place_of(v, off), len);
}

/* Zeroes where the parent shows or nothing is: they become the image's. */
static int zero_anew(struct vhd *v, struct td_req *req, struct vhd_bitmap *bm, uint64_t off, uint32_t first, uint32_t n)
{
	int rc;

	if (!vhd_write_begin(v, bm))
		return vhd_wait_room(v) ?: -EAGAIN;
	rc = zero_run(v, req, off, (uint64_t)n * VHD_SECTOR);
	vhd_write_end(v, bm, first, n, rc);
	return rc;
}

/* Do zeroes have to be written where the image has nothing?  Over a parent, and to have the space. */
static bool wants_zeroes(const struct vhd *v, const struct td_req *req)
{
	return req->op == TD_WRITE_ZEROES && (v->diff || !(req->flags & TD_UNMAP));
}

/*
 * One run of a block that is in the image, from `off' on; its length goes to *len.  A discarded sector stays in the image, so that no older
 * byte of a parent comes back.
 */
static int clear_run(struct vhd *v, struct td_req *req, uint64_t off, uint64_t *len)
{
	uint32_t block = vhd_block_of(v, off), first = (uint32_t)((off & (v->l.block_size - 1)) / VHD_SECTOR), n;
	bool set = true;
	struct vhd_bitmap *bm = NULL;

	if (!vhd_is_full(v, block)) {
		bm = vhd_map_find(v, block);
		if (!bm || bm->state != VHD_BM_READY)
			return vhd_map_load(v, block) ?: -EAGAIN;
		n = (uint32_t)vhd_bits_run(bm->bits, first, first + (uint32_t)(*len / VHD_SECTOR), &set);
		*len = (uint64_t)n * VHD_SECTOR;
	}
	if (set)
		return req->op == TD_WRITE_ZEROES ? zero_run(v, req, off, *len) : discard_run(v, off, *len);
	return wants_zeroes(v, req) ? zero_anew(v, req, bm, off, first, (uint32_t)(*len / VHD_SECTOR)) : 0;
}

static int clear_step(struct vhd *v, struct td_req *req)
{
	uint64_t at = req->state[1], off = req->off + at, len = v->fixed ? req->len : part_len(v, req, at);
	int rc = v->broken;

	if (rc)
		return rc;
	if (v->fixed) {
		rc = req->op == TD_WRITE_ZEROES ? zero_run(v, req, off, len) : discard_run(v, off, len);
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
	struct vhd *v = vhd_of(req);
	int rc = 0;

	while (req->state[1] < req->len && !rc)
		rc = clear_step(v, req);
	if (req->flags & TD_FUA)
		req->state[0] |= NEEDS_COMMIT;
	put(req, rc);
}

/* --- the ways in ---------------------------------------------------------------------------------------------------- */

static void whole_done(struct td_iop *op, int err)
{
	struct td_req *req = op->data;
	struct vhd *v = vhd_of(req);

	if (!err && v->crypt && req->op == TD_READ)
		err = td_decrypt(v->crypt, req->off, req->iov, req->iovcnt);
	if (err && req->op == TD_FLUSH && !v->broken)
		v->broken = err; /* V6 */
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

/* Is all of it in one block and in the image, so that nothing needs to be known or changed when it has been read or written? */
static bool is_whole(struct vhd *v, const struct td_req *req)
{
	uint32_t block = vhd_block_of(v, req->off), first = (uint32_t)((req->off & (v->l.block_size - 1)) / VHD_SECTOR);
	uint32_t n = (uint32_t)(req->len / VHD_SECTOR);
	struct vhd_bitmap *bm;
	bool set;

	if (v->fixed)
		return true;
	if (part_len(v, req, 0) != req->len || v->bat[block] == VHD_UNUSED || (v->crypt && req->op != TD_READ))
		return false;
	if (vhd_is_full(v, block))
		return true;
	bm = vhd_map_find(v, block);
	if (!bm || bm->state != VHD_BM_READY || ((req->flags & TD_FUA) && (bm->dirty || bm->committing)))
		return false;
	return vhd_bits_run(bm->bits, first, first + n, &set) == n && set;
}

static void clear(struct vhd *v, struct td_req *req)
{
	int rc = td_fiber_start(v->image->io->loop, clear_fiber, req);

	if (rc < 0)
		put(req, rc);
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
		whole(v, req, req->op == TD_READ ? TD_IO_READ : TD_IO_WRITE, vhd_place_of(v, req->off));
	} else {
		td_req_split(req);
		req->state[0] = req->state[1] = 0;
		if (req->op == TD_READ || req->op == TD_WRITE)
			walk(req, false);
		else
			clear(v, req);
	}
}

/* --- extents -------------------------------------------------------------------------------------------------------- */

int vhd_extents(struct td_image *image, uint64_t off, uint64_t len, struct td_extent *out, int max)
{
	struct vhd *v = image->priv;
	unsigned none = v->diff ? TD_EXTENT_PARENT : TD_EXTENT_HOLE | TD_EXTENT_ZERO;
	uint64_t end = off + len;
	int n = 0;

	if (v->fixed)
		return td_file_extents(v->file, off, len, out, max);
	while (off < end) {
		uint32_t block = vhd_block_of(v, off), first = (uint32_t)((off & (v->l.block_size - 1)) / VHD_SECTOR), last;
		uint64_t to = ((uint64_t)block + 1) << v->l.block_shift;
		bool set = v->bat[block] != VHD_UNUSED;

		to = to < end ? to : end;
		if (set && !vhd_is_full(v, block)) {
			struct vhd_bitmap *bm = vhd_map_find(v, block);

			if (!bm || bm->state != VHD_BM_READY) {
				int rc = vhd_map_load(v, block);

				if (rc < 0)
					return rc;
				continue;
			}
			last = first + (uint32_t)((to - off) / VHD_SECTOR);
			to = off + vhd_bits_run(bm->bits, first, last, &set) * VHD_SECTOR;
		}
		if (n && out[n - 1].flags == (set ? 0 : none)) {
			out[n - 1].len += to - off;
		} else if (n == max) {
			break;
		} else {
			out[n++] = (struct td_extent){off, to - off, set ? 0 : none};
		}
		off = to;
	}
	return n;
}
