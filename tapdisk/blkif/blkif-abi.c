/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The three ABIs differ in one thing: a 32-bit x86 compiler aligns 64-bit fields to four bytes.  So
 * the layout is a small table of offsets, and a slot is moved as a whole between the ring and a
 * private buffer.
 */
#include <string.h>

#include "tapdisk/blkif/blkif-abi.h"
#include "tapdisk/blkif/blkif-layout.h"

_Static_assert(sizeof(struct blkif_seg) == BLKIF_SEG_SIZE,
	       "a page of segments is an array of them");

const struct blkif_layout blkif_layouts[3] = {
	[BLKIF_X86_64] = {.stride = 112, .id = 8, .sector = 16, .segs = 24, .response = 16},
	[BLKIF_X86_32] = {.stride = 108, .id = 4, .sector = 12, .segs = 20, .response = 12},
#ifdef __i386__
	[BLKIF_NATIVE] = {.stride = 108, .id = 4, .sector = 12, .segs = 20, .response = 12},
#else
	[BLKIF_NATIVE] = {.stride = 112, .id = 8, .sector = 16, .segs = 24, .response = 16},
#endif
};

static const char *const names[] = {
	[BLKIF_NATIVE] = "native", [BLKIF_X86_64] = "x86_64", [BLKIF_X86_32] = "x86_32"};

int blkif_abi_find(const char *name)
{
	for (int i = 0; i < 3; i++) {
		size_t n = strlen(names[i]);

		if (!strncmp(name, names[i], n) &&
		    (!name[n] || (i != BLKIF_NATIVE && !strcmp(name + n, "-abi"))))
			return i;
	}
	return -1;
}

const char *blkif_abi_name(enum blkif_abi abi)
{
	return names[abi];
}

unsigned blkif_slots(enum blkif_abi abi, unsigned pages)
{
	unsigned fit = (pages * 4096 - BLKIF_RING_HEAD) / blkif_layouts[abi].stride;
	unsigned n = 1;

	while (n * 2 <= fit)
		n *= 2;
	return n;
}

void blkif_get_request(enum blkif_abi abi, const struct blkif_sring *ring, unsigned slots,
		       uint32_t idx, struct blkif_desc *d)
{
	const struct blkif_layout *l = &blkif_layouts[abi];
	uint8_t buf[BLKIF_SLOT_MAX];

	blkif_copy_in(buf, (const char *)ring + blkif_slot(l, slots, idx), l->stride);
	d->op = buf[0];
	d->nr_segs = buf[1];
	memcpy(&d->handle, buf + 2, 2);
	memcpy(&d->id, buf + l->id, 8);
	memcpy(&d->sector, buf + l->sector, 8);
	d->nr_sectors = 0;
	d->nr_indirect = 0;
	if (d->op == BLKIF_DISCARD || d->op == BLKIF_INDIRECT) {
		memset(d->seg, 0, sizeof(d->seg));
		if (d->op == BLKIF_DISCARD)
			memcpy(&d->nr_sectors, buf + l->segs, 8);
		if (d->op == BLKIF_INDIRECT) {
			memcpy(&d->nr_indirect, buf + 2, 2);
			memcpy(&d->handle, buf + l->segs, 2);
			memcpy(d->page, buf + l->segs + 4, sizeof d->page);
		}
		return;
	}
	for (int i = 0; i < BLKIF_MAX_SEGS; i++) {
		const uint8_t *s = buf + l->segs + i * BLKIF_SEG_SIZE;

		memcpy(&d->seg[i].ref, s, 4);
		d->seg[i].first = s[4];
		d->seg[i].last = s[5];
		d->seg[i].pad = 0;
	}
}

void blkif_put_response(enum blkif_abi abi, struct blkif_sring *ring, unsigned slots, uint32_t idx,
			uint64_t id, uint8_t op, int16_t status)
{
	const struct blkif_layout *l = &blkif_layouts[abi];
	uint8_t buf[16] = {0};

	memcpy(buf, &id, 8);
	buf[8] = op;
	memcpy(buf + 10, &status, 2);
	blkif_copy_out((char *)ring + blkif_slot(l, slots, idx), buf, l->response);
}
