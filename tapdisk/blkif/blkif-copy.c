/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Data between the guest's pages and our buffers, by copy: one call for all the writes of a batch,
 * one for all the reads of a turn. A page is let go before its response (R10), and of a read only
 * what the disk gave goes to the guest (R11).  What is mapped (blkif-persist.c) needs none of it.
 */
#include "tapdisk/blkif/blkif-ring.h"

#include <errno.h>
#include <string.h>

/* Notes the pieces of a request for the next copy. */
static void add_copies(struct blkif *b, const struct blkif_req *r, bool to_guest)
{
	char *p = r->buf;

	for (unsigned i = 0; i < r->nr_segs; i++) {
		const struct blkif_seg *s = &r->seg[i];
		uint16_t len = (uint16_t)((s->last - s->first + 1) * 512);

		b->copies[b->ncopies++] =
			(struct td_copy){p, s->ref, (uint16_t)(s->first * 512), len, to_guest, 0};
		p += len;
	}
}

static int copies_result(struct blkif *b, const struct td_copy *c, unsigned n)
{
	for (unsigned i = 0; i < n; i++) /* R5 */
		if (c[i].err) {
			BLKIF_COUNT(b->n.copy_errors, 1);
			td_log_limited(&b->limit, LOG_WARNING,
				       "domain %u, device %u: cannot copy its grant %u: %s",
				       b->p.domid, b->p.devid, c[i].ref, strerror(-c[i].err));
			return c[i].err;
		}
	return 0;
}

static bool is_fetched(const struct blkif_req *r)
{
	return r->req.op == TD_WRITE && !r->err && !r->mapped;
}

static bool is_read_back(const struct blkif_req *r)
{
	return r->req.op == TD_READ && !r->err && r->buf && !r->mapped;
}

static void copy_all(struct blkif *b, struct blkif_req *first,
		     bool (*wanted)(const struct blkif_req *r), bool to_guest)
{
	struct td_copy *c = b->copies;

	b->ncopies = 0;
	for (struct blkif_req *r = first; r; r = r->next)
		if (wanted(r))
			add_copies(b, r, to_guest);
	if (!b->ncopies)
		return;
	b->x->ops->copy(b->x, b->copies, b->ncopies);
	for (struct blkif_req *r = first; r; r = r->next)
		if (wanted(r)) {
			r->err = copies_result(b, c, r->nr_segs);
			c += r->nr_segs;
		}
}

void blkif_fetch_segments(struct blkif *b, struct blkif_req *first)
{
	struct td_copy *c = b->copies;

	b->ncopies = 0;
	for (struct blkif_req *r = first; r; r = r->next)
		if (blkif_is_indirect(r)) {
			uint16_t len = (uint16_t)(blkif_desc_of(r)->nr_indirect *
						  sizeof(struct blkif_seg));

			b->copies[b->ncopies++] = (struct td_copy){
				r->room, blkif_desc_of(r)->page[0], 0, len, false, 0};
		}
	if (!b->ncopies)
		return;
	b->x->ops->copy(b->x, b->copies, b->ncopies);
	for (struct blkif_req *r = first; r; r = r->next)
		if (blkif_is_indirect(r))
			r->err = copies_result(b, c++, 1);
}

void blkif_fetch_writes(struct blkif *b, struct blkif_req *first)
{
	copy_all(b, first, is_fetched, false);
}

void blkif_hand_out_reads(struct blkif *b, struct blkif_req *first)
{
	copy_all(b, first, is_read_back, true);
}
