/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A guest with several rings: its memory, a transport to it, and threads that scribble on it. */
#ifndef TESTS_FUZZ_BULK_GUEST_H
#define TESTS_FUZZ_BULK_GUEST_H

#include "tapdisk/blkif/blkif-abi.h"
#include "td/xport.h"
#include "tests/fuzz/bulk.h"

enum {
	GUEST_QUEUES = 4,
	GUEST_DATA = 64,
	GUEST_INDIRECT = 32,
	GUEST_PAGES = GUEST_DATA + GUEST_INDIRECT
};

/* What changes while the consumer looks at it. */
enum {
	SCRIBBLE_DATA = 1,   /* pages, those of INDIRECTs' segments too */
	SCRIBBLE_BODIES = 2, /* of requests, behind what a response lies on */
	SCRIBBLE_HEADS = 4,  /* what it lies on: operations and ids too */
	SCRIBBLE_EVENTS = 8, /* the header, but for req_prod */
	SCRIBBLE_PROD = 16,  /* req_prod */
};

struct guest_queue {
	struct td_xport x;
	union {
		struct blkif_sring sring;
		char bytes[16 * 4096];
	} ring __attribute__((aligned(64)));
	int kick;
	unsigned slots, notified;
	uint32_t prod, cons; /* private */
	uint32_t published;
	unsigned ring_maps, page_maps, bound, closed;
};

extern struct guest_queue guest_queue[GUEST_QUEUES];
extern char guest_mem[GUEST_PAGES][4096];
extern enum blkif_abi guest_abi;
extern bool guest_refuses_pages;

void guest_start(void);
void guest_begin(struct guest_queue *q, unsigned pages); /* a new ring */
void guest_end(struct guest_queue *q);                   /* which nobody holds any more */
/* How: SCRIBBLE_*, 0: not.  between: at each copy, by the round's numbers; threads: by them. */
void guest_scribble(unsigned how, bool between, bool threads, unsigned queues);

#endif
