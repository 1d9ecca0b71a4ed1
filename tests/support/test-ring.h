/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The ring's consumer with a test at both ends of it: a frontend and its transport, and an image
 * (test-image.h). */
#ifndef TESTS_TEST_RING_H
#define TESTS_TEST_RING_H

#include "tapdisk/blkif/blkif.h"
#include "tapdisk/stats/stats.h"
#include "tests/support/suite.h"
#include "tests/support/test-image.h"

#define PAGES 4096 /* of guest memory; a reference is a page's number */

/* A guest: its memory, its ring, and a transport to both. */
struct test_guest {
	struct td_xport x;
	union {
		struct blkif_sring sring;
		char bytes[16 * 4096];
	} ring;
	int kick;
	unsigned notified, copies, acks, mapped, bound, closed;
	unsigned pages_mapped, maps; /* pages: now, and so far */
	bool refuse_map, refuse_bind, refuse_page;
	void (*on_copy)(void);
	enum blkif_abi abi;
	unsigned slots;
	uint32_t prod, cons; /* private */
	char mem[PAGES][4096];
};

extern struct test_guest g;
extern struct ev_loop *loop;
extern struct test_image img;
extern char disk[TEST_IMAGE_SECTORS * 512]; /* what the image holds */
extern struct cache cache;
extern struct blkif_disk bdisk;
extern struct blkif *ring;
extern unsigned nbroken, nidle;
extern bool persistent;
extern unsigned guest_pages; /* a reference is less than this */
/* where begin has the ring's record; NULL until a test says otherwise */
extern const struct blkif_keep *keep;
extern unsigned polling_us, polling_idle; /* what begin asks for; 0 until a test says otherwise */

/* A ring of `pages' pages that runs, on an image that completes at once; and its end: nothing may
 * be in flight or mapped. */
void begin(enum blkif_abi abi, unsigned pages);
void end(void);
/* The same in two steps, for many rings of one disk; begin_ring leaves the guest's pages as they
 * are. */
void begin_disk(void);
void begin_ring(enum blkif_abi abi, unsigned pages);
void end_ring(void);
void end_disk(void);
int try_connect(enum blkif_abi abi, unsigned pages, struct td_err *err);

char as_made(unsigned sector); /* the first byte of a sector that nobody has written */

/* The frontend.  desc: whole pages, from page 0 on; put, then kick, then turns of the loop, then
 * responses. */
struct blkif_desc desc(uint8_t op, uint64_t id, uint64_t sector, unsigned segs);
void put(struct blkif_desc d);
void kick(void);
void turns(int n);
unsigned nresponses(void);
int response(uint64_t *id, uint8_t *op); /* takes one: its status */
/* One request alone, and its answer's status; the operation comes back as it went. */
int ask(struct blkif_desc d);
int ask_seg(uint8_t op, uint64_t sector, unsigned first, unsigned last);

#endif
