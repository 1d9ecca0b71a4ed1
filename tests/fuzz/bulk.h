/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzzers that count: a target makes its own inputs, from numbers that follow from a seed, as fast
 * as the code under test takes them.  bulk.c is the program around it.
 *
 * A target works in rounds.  A round begins with nothing that an earlier one has left, so that a
 * seed and its number repeat it.
 */
#ifndef TESTS_FUZZ_BULK_H
#define TESTS_FUZZ_BULK_H

#include "tests/fuzz/fuzz.h"

/* --- what a target has --- */

/* What it has done, for the table at the end; what is NULL behind the last. */
struct bulk_row {
	const char *what;
	uint64_t n;
};

extern const char bulk_name[];
/* the first: what is counted, and what -n means */
extern struct bulk_row bulk_rows[];

void bulk_start(void);
void bulk_round(void);

/* --- what it has of the program --- */

extern unsigned bulk_scribblers; /* threads that may change a guest's memory; 0: none */
extern bool bulk_verbose;

/* The next number of the round: less than below, which is not 0. */
extern uint64_t bulk_state;
static inline uint64_t bulk_any(void)
{
	bulk_state ^= bulk_state << 13;
	bulk_state ^= bulk_state >> 7;
	bulk_state ^= bulk_state << 17;
	return bulk_state * 0x2545f4914f6cdd1d;
}

static inline uint32_t bulk_rnd(uint32_t below)
{
	return (uint32_t)((bulk_any() >> 32) * below >> 32);
}

static inline bool bulk_one_in(uint32_t n)
{
	return bulk_rnd(n) == 0;
}

#endif
