/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The frontend's side of a ring: a request is put into its slot, a response is taken from it. */
#ifndef TESTS_BLKIF_FRONT_H
#define TESTS_BLKIF_FRONT_H

#include "tapdisk/blkif/blkif-abi.h"
#include "tapdisk/blkif/blkif-layout.h"

static inline void blkif_put_request(enum blkif_abi abi, struct blkif_sring *shared, unsigned slots,
				     uint32_t idx, const struct blkif_desc *d)
{
	const struct blkif_layout *l = &blkif_layouts[abi];
	uint8_t buf[BLKIF_SLOT_MAX] = {0};

	buf[0] = d->op;
	buf[1] = d->nr_segs;
	memcpy(buf + l->id, &d->id, 8);
	memcpy(buf + l->sector, &d->sector, 8);
	if (d->op == BLKIF_INDIRECT) {
		memcpy(buf + 2, &d->nr_indirect, 2);
		memcpy(buf + l->segs, &d->handle, 2);
		memcpy(buf + l->segs + 4, d->page, sizeof d->page);
	} else {
		memcpy(buf + 2, &d->handle, 2);
		if (d->op == BLKIF_DISCARD)
			memcpy(buf + l->segs, &d->nr_sectors, 8);
	}
	for (int i = 0; i < BLKIF_MAX_SEGS && d->op != BLKIF_DISCARD && d->op != BLKIF_INDIRECT;
	     i++) {
		uint8_t *s = buf + l->segs + i * BLKIF_SEG_SIZE;

		memcpy(s, &d->seg[i].ref, 4);
		s[4] = d->seg[i].first;
		s[5] = d->seg[i].last;
	}
	blkif_copy_out((char *)shared + blkif_slot(l, slots, idx), buf, l->stride);
}

static inline void blkif_get_response(enum blkif_abi abi, const struct blkif_sring *shared,
				      unsigned slots, uint32_t idx, uint64_t *id, uint8_t *op,
				      int16_t *status)
{
	const struct blkif_layout *l = &blkif_layouts[abi];
	uint8_t buf[16];

	blkif_copy_in(buf, (const char *)shared + blkif_slot(l, slots, idx), l->response);
	memcpy(id, buf, 8);
	*op = buf[8];
	memcpy(status, buf + 10, 2);
}

#endif
