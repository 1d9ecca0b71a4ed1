/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The three ABIs differ in one thing: a 32-bit x86 compiler aligns 64-bit fields to four bytes.  So
 * the layout is a small table of offsets, and a slot is moved as a whole between the ring and a
 * private buffer.
 */
#include <string.h>

#include "tapdisk/blkif/blkif-abi.h"

#define RING_HEAD 64  /* bytes before the first slot */
#define SLOT_MAX  112 /* bytes: the larger stride */
#define SEG_SIZE  8   /* bytes of a segment in the ring: reference, first, last, two of padding */

_Static_assert(sizeof(struct blkif_seg) == SEG_SIZE, "a page of segments is an array of them");

struct layout {
	uint8_t stride; /* bytes from slot to slot */
	uint8_t id;     /* offsets in a request */
	uint8_t sector;
	uint8_t segs;     /* DISCARD: its nr_sectors; INDIRECT: its handle, and after two bytes of
			     padding its pages */
	uint8_t response; /* bytes of a response */
};

/* Offsets that all ABIs share: op 0, nr_segs 1, handle 2; in a response id 0, op 8, status 10. */
static const struct layout layouts[] = {
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
	unsigned fit = (pages * 4096 - RING_HEAD) / layouts[abi].stride;
	unsigned n = 1;

	while (n * 2 <= fit)
		n *= 2;
	return n;
}

static size_t slot_offset(const struct layout *l, unsigned slots, uint32_t idx)
{
	return RING_HEAD + (size_t)(idx & (slots - 1)) * l->stride;
}

/* The other side may write at any moment: volatile keeps the compiler from reading (or writing) a
 * word twice. */
static void copy_in(void *to, const void *ring, size_t n)
{
	const volatile uint32_t *from = ring;

	for (size_t i = 0; i < n / 4; i++) {
		uint32_t w = from[i];

		memcpy((char *)to + i * 4, &w, 4);
	}
}

static void copy_out(void *ring, const void *from, size_t n)
{
	volatile uint32_t *to = ring;

	for (size_t i = 0; i < n / 4; i++) {
		uint32_t w;

		memcpy(&w, (const char *)from + i * 4, 4);
		to[i] = w;
	}
}

void blkif_get_request(enum blkif_abi abi, const struct blkif_sring *ring, unsigned slots,
		       uint32_t idx, struct blkif_desc *d)
{
	const struct layout *l = &layouts[abi];
	uint8_t buf[SLOT_MAX];

	copy_in(buf, (const char *)ring + slot_offset(l, slots, idx), l->stride);
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
		const uint8_t *s = buf + l->segs + i * SEG_SIZE;

		memcpy(&d->seg[i].ref, s, 4);
		d->seg[i].first = s[4];
		d->seg[i].last = s[5];
		d->seg[i].pad = 0;
	}
}

void blkif_put_response(enum blkif_abi abi, struct blkif_sring *ring, unsigned slots, uint32_t idx,
			uint64_t id, uint8_t op, int16_t status)
{
	const struct layout *l = &layouts[abi];
	uint8_t buf[16] = {0};

	memcpy(buf, &id, 8);
	buf[8] = op;
	memcpy(buf + 10, &status, 2);
	copy_out((char *)ring + slot_offset(l, slots, idx), buf, l->response);
}

void blkif_put_request(enum blkif_abi abi, struct blkif_sring *ring, unsigned slots, uint32_t idx,
		       const struct blkif_desc *d)
{
	const struct layout *l = &layouts[abi];
	uint8_t buf[SLOT_MAX] = {0};

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
		uint8_t *s = buf + l->segs + i * SEG_SIZE;

		memcpy(s, &d->seg[i].ref, 4);
		s[4] = d->seg[i].first;
		s[5] = d->seg[i].last;
	}
	copy_out((char *)ring + slot_offset(l, slots, idx), buf, l->stride);
}

void blkif_get_response(enum blkif_abi abi, const struct blkif_sring *ring, unsigned slots,
			uint32_t idx, uint64_t *id, uint8_t *op, int16_t *status)
{
	const struct layout *l = &layouts[abi];
	uint8_t buf[16];

	copy_in(buf, (const char *)ring + slot_offset(l, slots, idx), l->response);
	memcpy(id, buf, 8);
	*op = buf[8];
	memcpy(status, buf + 10, 2);
}
