/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where the fields of a slot stand, and copies between a ring and private memory: for
 * tapdisk/blkif/blkif-abi.c, and for the guests of the tests (tests/support/blkif-front.h). */
#ifndef TAPDISK_BLKIF_LAYOUT_H
#define TAPDISK_BLKIF_LAYOUT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define BLKIF_RING_HEAD 64  /* bytes before the first slot */
#define BLKIF_SLOT_MAX  112 /* bytes: the larger stride */
#define BLKIF_SEG_SIZE  8 /* bytes of a segment in the ring: reference, first, last, padding (2) */

struct blkif_layout {
	uint8_t stride; /* bytes from slot to slot */
	uint8_t id;     /* offsets in a request */
	uint8_t sector;
	uint8_t segs;     /* DISCARD: its nr_sectors; INDIRECT: its handle, and after two bytes of
			     padding its pages */
	uint8_t response; /* bytes of a response */
};

/* Offsets that all ABIs share: op 0, nr_segs 1, handle 2; in a response id 0, op 8, status 10. */
extern const struct blkif_layout blkif_layouts[3]; /* by enum blkif_abi */

static inline size_t blkif_slot(const struct blkif_layout *l, unsigned slots, uint32_t idx)
{
	return BLKIF_RING_HEAD + (size_t)(idx & (slots - 1)) * l->stride;
}

/* The other side may write at any moment: volatile keeps the compiler from reading (or writing) a
 * word twice. */
static inline void blkif_copy_in(void *to, const void *shared, size_t n)
{
	const volatile uint32_t *from = shared;

	for (size_t i = 0; i < n / 4; i++) {
		uint32_t w = from[i];

		memcpy((char *)to + i * 4, &w, 4);
	}
}

static inline void blkif_copy_out(void *shared, const void *from, size_t n)
{
	volatile uint32_t *to = shared;

	for (size_t i = 0; i < n / 4; i++) {
		uint32_t w;

		memcpy(&w, (const char *)from + i * 4, 4);
		to[i] = w;
	}
}

#endif
