/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a request asks for, and whether it may: R4, on the private copy of it alone. */
#include "tapdisk/blkif/blkif-ring.h"

#include <errno.h>

static int malformed(struct blkif_req *r, const char *what)
{
	struct blkif *b = r->ring;
	const struct blkif_desc *d = blkif_desc_of(r);

	BLKIF_COUNT(b->n.malformed, 1);
	td_log_limited(&b->limit, LOG_WARNING,
		       "domain %u, device %u: a malformed request (operation %u, %u segments, "
		       "sector %llu): %s",
		       b->p.domid, b->p.devid, d->op, r->nr_segs, (unsigned long long)d->sector,
		       what);
	return -EINVAL;
}

/* R4 for a request that carries data; its length in sectors, or -errno. */
static int check_data(struct blkif_req *r)
{
	uint64_t size = __atomic_load_n(&r->ring->disk->sectors, __ATOMIC_RELAXED),
		 sector = blkif_desc_of(r)->sector;
	unsigned sectors = 0;

	for (unsigned i = 0; i < r->nr_segs; i++) {
		if (r->seg[i].first > r->seg[i].last || r->seg[i].last >= TD_PAGE / 512)
			return malformed(r, "a segment is not within its page");
		sectors += r->seg[i].last - r->seg[i].first + 1u;
	}
	if (sector > size || sectors > size - sector)
		return malformed(r, "it reaches beyond the end of the disk");
	if (r->req.op == TD_WRITE && r->ring->disk->block &&
	    (sector | sectors) % (r->ring->disk->block / 512))
		return malformed(
			r, "the disk is shared, and takes whole sectors of its own size only");
	return (int)sectors;
}

/* R4 for a DISCARD, which has a length of its own; a secure one is not offered. */
static int check_discard(struct blkif_req *r, const struct blkif_desc *d, struct td_req *req)
{
	uint64_t size = __atomic_load_n(&r->ring->disk->sectors, __ATOMIC_RELAXED);

	if (d->nr_segs)
		return -EOPNOTSUPP;
	if (!d->nr_sectors || d->sector > size || d->nr_sectors > size - d->sector)
		return malformed(
			r, "what it discards is nothing, or reaches beyond the end of the disk");
	req->off = d->sector * 512;
	req->len = d->nr_sectors * 512;
	return 0;
}

/* What the operation is to the layers below; -EOPNOTSUPP for what is not offered. */
static int translate(struct blkif_req *r, const struct blkif_desc *d, struct td_req *req)
{
	const struct blkif_disk *disk = r->ring->disk;
	uint8_t op = d->op == BLKIF_INDIRECT ? d->nr_segs : d->op;
	bool data = d->nr_segs != 0;

	if (d->op == BLKIF_INDIRECT && op != BLKIF_READ && op != BLKIF_WRITE)
		return malformed(r, "what is indirect is neither a read nor a write");
	switch (op) {
	case BLKIF_READ:
		req->op = TD_READ;
		req->flags = 0;
		return 0;
	case BLKIF_WRITE:
		req->op = TD_WRITE;
		req->flags = 0;
		break;
	case BLKIF_WRITE_BARRIER:
		req->op = data ? TD_WRITE : TD_FLUSH;
		req->flags = TD_BARRIER;
		break;
	case BLKIF_FLUSH_DISKCACHE:
		req->op = data ? TD_WRITE : TD_FLUSH;
		req->flags = data ? TD_PREFLUSH : 0;
		if (!data)
			return 0; /* allowed on a read-only disk too */
		break;
	case BLKIF_DISCARD:
		if (!disk->discard)
			return -EOPNOTSUPP;
		req->op = TD_DISCARD;
		req->flags = 0;
		break;
	default:
		return -EOPNOTSUPP;
	}
	if (disk->read_only)
		return malformed(r, "the disk is read-only");
	return 0;
}

bool blkif_is_indirect(const struct blkif_req *r)
{
	const struct blkif_desc *d = blkif_desc_of(r);

	return d->op == BLKIF_INDIRECT && d->nr_indirect >= 1 &&
	       d->nr_indirect <= BLKIF_MAX_INDIRECT;
}

size_t blkif_room(const struct blkif_req *r)
{
	const struct blkif_desc *d = blkif_desc_of(r);

	if (blkif_is_indirect(r))
		return (1 + (size_t)d->nr_indirect) * TD_PAGE;
	if (d->op > BLKIF_FLUSH_DISKCACHE || d->nr_segs > BLKIF_MAX_SEGS)
		return 0; /* it carries no data, or is refused */
	return d->nr_segs * (size_t)TD_PAGE;
}

bool blkif_cost(const struct blkif_req *r, bool *write, uint64_t *bytes)
{
	const struct blkif_desc *d = blkif_desc_of(r);
	uint8_t op = d->op == BLKIF_INDIRECT ? d->nr_segs : d->op;

	*write = op != BLKIF_READ;
	*bytes = 0;
	if (op == BLKIF_DISCARD)
		return true;
	if (!blkif_room(r))
		return false; /* it has no data, or is refused */
	if (d->op == BLKIF_INDIRECT)
		*bytes = d->nr_indirect * (uint64_t)TD_PAGE;
	else
		for (unsigned i = 0; i < d->nr_segs; i++)
			if (d->seg[i].first <= d->seg[i].last && d->seg[i].last < TD_PAGE / 512)
				*bytes += (d->seg[i].last - d->seg[i].first + 1u) * 512;
	return true;
}

/* Where the segments are, and where the data go. */
static int find_room(struct blkif_req *r, const struct blkif_desc *d)
{
	if (d->op == BLKIF_INDIRECT) {
		if (!blkif_is_indirect(r))
			return malformed(r, "the number of indirect segments is not from 1 to 512");
		r->seg = r->room;
		r->buf = (char *)r->room + TD_PAGE;
		return 0;
	}
	if (d->nr_segs < 1 || d->nr_segs > BLKIF_MAX_SEGS)
		return malformed(r, "the number of segments is not from 1 to 11");
	r->seg = d->seg;
	r->buf = r->room;
	return 0;
}

int blkif_check(struct blkif_req *r)
{
	const struct blkif_desc *d = blkif_desc_of(r);
	int n;

	r->nr_segs = d->op == BLKIF_INDIRECT ? d->nr_indirect : d->nr_segs;
	n = translate(r, d, &r->req);
	if (n < 0)
		return n;
	r->req.off = r->req.len = 0;
	if (r->req.op == TD_FLUSH) /* its sector number means nothing */
		return 0;
	if (r->req.op == TD_DISCARD)
		return check_discard(r, d, &r->req);
	n = find_room(r, d);
	if (!n)
		n = check_data(r);
	if (n < 0)
		return n;
	r->req.off = d->sector * 512;
	r->req.len = (uint64_t)n * 512;
	r->mapped = blkif_persist_get(r, r->buf);
	if (r->mapped) {
		BLKIF_COUNT(r->ring->n.mapped, 1);
		return 0;
	}
	r->iov = (struct iovec){r->buf, r->req.len};
	r->req.iov = &r->iov;
	r->req.iovcnt = 1;
	return 0;
}
