/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The whole disk from start to end, in requests of any length that continue each other, as many at
 * once as the ring holds. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/tdguest.h"

#define UNIT 4096

static struct {
	uint64_t sector;
	unsigned bytes;
} sent[BLKIF_MAX_SLOTS];

static int one_done(struct guest *g, uint8_t op, int slot, int status, uint64_t seed)
{
	long bad = -1;

	if (status) {
		printf("request of %u bytes at sector %llu: status %d\n", sent[slot].bytes,
		       (unsigned long long)sent[slot].sector, status);
		return 1;
	}
	if (op == BLKIF_READ)
		bad = guest_check(guest_data(g, slot), sent[slot].sector, sent[slot].bytes, seed);
	if (bad >= 0)
		printf("wrong data at byte %llu\n",
		       (unsigned long long)sent[slot].sector * 512 + (unsigned long long)bad);
	return bad >= 0;
}

static int pass(struct guest *g, uint8_t op, uint64_t seed)
{
	int slot, status, rc = 0;

	for (uint64_t at = 0; at < g->sectors && !rc;) {
		unsigned n = 0;

		for (; at < g->sectors && (slot = guest_slot(g)) >= 0; n++) {
			unsigned most = g->max_bytes / UNIT,
				 bytes = UNIT * (1 + (unsigned)random() % (most < 8 ? most : 8));

			if (bytes / 512 > g->sectors - at)
				bytes = (unsigned)(g->sectors - at) * 512;
			if (op == BLKIF_WRITE)
				guest_fill(guest_data(g, slot), at, bytes, seed);
			sent[slot].sector = at;
			sent[slot].bytes = bytes;
			guest_queue(g, slot, op, at, bytes);
			at += bytes / 512;
		}
		guest_push(g);
		while (n) {
			if (guest_wait(g, 30000)) {
				printf("no answer\n");
				return 1;
			}
			for (; guest_reap(g, &slot, &status); n--)
				rc |= one_done(g, op, slot, status, seed);
		}
	}
	return rc;
}

int tdguest_stream(struct guest *g, uint64_t seed)
{
	int rc = pass(g, BLKIF_WRITE, seed);

	if (!rc)
		rc = guest_do(g, BLKIF_FLUSH_DISKCACHE, 0, NULL, 0);
	return rc ? 1 : pass(g, BLKIF_READ, seed);
}
