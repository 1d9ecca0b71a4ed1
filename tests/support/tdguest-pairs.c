/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Rounds of writes and then, when all are answered, of as many FLUSHes, which become visible at
 * once: the tapdisk may answer them by one fdatasync, and each of them wants one that begins after
 * that moment.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/tdguest.h"

static int round_of(struct guest *g, uint8_t op, unsigned n, uint64_t seed)
{
	int slot, status;

	for (unsigned i = 0; i < n; i++) {
		slot = guest_slot(g);
		if (op == BLKIF_WRITE) {
			guest_fill(guest_data(g, slot), i * 8, 4096, seed);
			guest_queue(g, slot, op, i * 8, 4096);
		} else {
			guest_queue(g, slot, op, 0, 0);
		}
	}
	guest_push(g);
	while (n) {
		if (guest_wait(g, 30000)) {
			printf("no answer\n");
			return 1;
		}
		for (; guest_reap(g, &slot, &status); n--)
			if (status) {
				printf("%s: status %d\n", op == BLKIF_WRITE ? "write" : "FLUSH",
				       status);
				return 1;
			}
	}
	return 0;
}

int tdguest_pairs(struct guest *g, unsigned count, unsigned depth, uint64_t seed)
{
	if (!depth || depth > g->slots || depth * 8 > g->sectors)
		depth = 1;
	for (unsigned n; count; count -= n, seed++) {
		n = count < depth ? count : depth;
		if (round_of(g, BLKIF_WRITE, n, seed) ||
		    round_of(g, BLKIF_FLUSH_DISKCACHE, n, seed))
			return 1;
	}
	return 0;
}
