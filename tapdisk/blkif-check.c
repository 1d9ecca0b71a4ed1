/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a request asks for, and whether it may: R4, on the private copy of it alone. */
#include "tapdisk/blkif-ring.h"

#include <errno.h>

static int malformed(struct blkif *b, const struct blkif_desc *d, const char *what)
{
	b->n.malformed++;
	td_log_limited(&b->limit, LOG_WARNING, "domain %u, device %u: a malformed request (operation %u, %u segments, sector %llu): %s",
		       b->p.domid, b->p.devid, d->op, d->nr_segs, (unsigned long long)d->sector, what);
	return -EINVAL;
}

/* R4 for a request that carries data; its length in sectors, or -errno. */
static int check_data(struct blkif *b, const struct blkif_desc *d)
{
	unsigned sectors = 0;

	if (d->nr_segs < 1 || d->nr_segs > BLKIF_MAX_SEGS)
		return malformed(b, d, "the number of segments is not from 1 to 11");
	for (unsigned i = 0; i < d->nr_segs; i++) {
		if (d->seg[i].first > d->seg[i].last || d->seg[i].last >= TD_PAGE / 512)
			return malformed(b, d, "a segment is not within its page");
		sectors += d->seg[i].last - d->seg[i].first + 1u;
	}
	if (d->sector > b->disk->sectors || sectors > b->disk->sectors - d->sector)
		return malformed(b, d, "it reaches beyond the end of the disk");
	return (int)sectors;
}

/* R4 for a DISCARD, which has a length of its own; a secure one is not offered. */
static int check_discard(struct blkif *b, const struct blkif_desc *d, struct td_req *req)
{
	if (d->nr_segs)
		return -EOPNOTSUPP;
	if (!d->nr_sectors || d->sector > b->disk->sectors || d->nr_sectors > b->disk->sectors - d->sector)
		return malformed(b, d, "what it discards is nothing, or reaches beyond the end of the disk");
	req->off = d->sector * 512;
	req->len = d->nr_sectors * 512;
	return 0;
}

/* What the operation is to the layers below; -EOPNOTSUPP for what is not offered. */
static int translate(struct blkif *b, const struct blkif_desc *d, struct td_req *req)
{
	bool data = d->nr_segs != 0;

	switch (d->op) {
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
		if (!b->disk->discard)
			return -EOPNOTSUPP;
		req->op = TD_DISCARD;
		req->flags = 0;
		break;
	default:
		return -EOPNOTSUPP;
	}
	if (b->disk->read_only)
		return malformed(b, d, "the disk is read-only");
	return 0;
}

int blkif_check(struct blkif_req *r)
{
	struct blkif *b = r->ring;
	const struct blkif_desc *d = blkif_desc_of(r);
	int n = translate(b, d, &r->req);

	if (n < 0)
		return n;
	r->req.off = r->req.len = 0;
	if (r->req.op == TD_FLUSH) /* its sector number means nothing */
		return 0;
	if (r->req.op == TD_DISCARD)
		return check_discard(b, d, &r->req);
	n = check_data(b, d);
	if (n < 0)
		return n;
	r->buf = td_pool_get(b->pool);
	r->req.off = d->sector * 512;
	r->req.len = (uint64_t)n * 512;
	r->iov = (struct iovec){r->buf, r->req.len};
	return 0;
}
