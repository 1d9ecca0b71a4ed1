/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The blkif ring as bytes: the shared page's layout in the three ABIs, and a private, ABI-free copy
 * of a request.
 *
 * Facts from xen/io/blkif.h, xen/io/ring.h and xen/io/protocols.h.  They stand here on their own so
 * that the memory transport needs no Xen headers and one consumer serves all three ABIs by a slot
 * stride instead of three sets of macros; tests/unit/test-blkif-abi.c holds every number against
 * Xen's headers.
 *
 * Nothing here checks a value: a struct blkif_desc is what the guest wrote.
 * tapdisk/blkif/blkif-check.c checks.
 */
#ifndef TAPDISK_BLKIF_ABI_H
#define TAPDISK_BLKIF_ABI_H

#include <stdint.h>

#define BLKIF_MAX_RING_ORDER 4 /* pages: 1 << order */
#define BLKIF_MAX_QUEUES     8 /* rings of one device */
#define BLKIF_MAX_SEGS       11
#define BLKIF_MAX_SLOTS      512 /* of a ring of 16 pages, in each ABI */
/* segments of an INDIRECT that we take: 2 MiB; one page holds them */
#define BLKIF_MAX_INDIRECT   512
#define BLKIF_INDIRECT_PAGES 8 /* that an INDIRECT has room for */

enum {
	BLKIF_READ = 0,
	BLKIF_WRITE = 1,
	BLKIF_WRITE_BARRIER = 2,
	BLKIF_FLUSH_DISKCACHE = 3,
	BLKIF_DISCARD = 5,
	BLKIF_INDIRECT = 6,
};
enum { BLKIF_OKAY = 0, BLKIF_ERROR = -1, BLKIF_EOPNOTSUPP = -2 };

enum blkif_abi { BLKIF_NATIVE, BLKIF_X86_64, BLKIF_X86_32 };

/* "native", "x86_64", "x86_32" (and the frontend's words "x86_64-abi", "x86_32-abi"); -1 for
 * another. */
int blkif_abi_find(const char *name);
const char *blkif_abi_name(enum blkif_abi abi);

/* The head of the shared page; the slots begin at byte 64 in every ABI. */
struct blkif_sring {
	volatile uint32_t req_prod, req_event; /* the frontend's; the backend's */
	volatile uint32_t rsp_prod, rsp_event; /* the backend's; the frontend's */
	uint8_t pad[48];
};

/* A segment, laid out as in an INDIRECT's page in every ABI. */
struct blkif_seg {
	uint32_t ref;
	uint8_t first, last; /* 512-byte sectors in the page, both inclusive */
	uint16_t pad;
};

/* A request as copied once from the ring. */
struct blkif_desc {
	uint64_t id, sector; /* sector: 512 bytes, whatever the disk's sector size */
	uint64_t nr_sectors; /* DISCARD only */
	uint16_t handle;
	uint8_t op;
	uint8_t nr_segs;      /* of DISCARD: its flag byte; of INDIRECT: the inner operation */
	uint16_t nr_indirect; /* INDIRECT only: its segments, which stand in the pages page[] */
	union {
		/* all eleven are copied, whatever nr_segs says */
		struct blkif_seg seg[BLKIF_MAX_SEGS];
		uint32_t page[BLKIF_INDIRECT_PAGES];
	};
};

/* Slots in a ring of `pages' pages: a power of two. */
unsigned blkif_slots(enum blkif_abi abi, unsigned pages);

/*
 * Backend's side.  get: copies slot `idx' (any index; it is taken modulo slots), each byte read
 * once. put: writes a response, every byte of the slot that belongs to it.
 */
void blkif_get_request(enum blkif_abi abi, const struct blkif_sring *ring, unsigned slots,
		       uint32_t idx, struct blkif_desc *d);
void blkif_put_response(enum blkif_abi abi, struct blkif_sring *ring, unsigned slots, uint32_t idx,
			uint64_t id, uint8_t op, int16_t status);

#endif
