/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How long requests took: a histogram of fixed size, exact to 1/16, whose count is one addition to
 * one of its buckets.
 *
 * Times are in nanoseconds, kept in units of 64.  The first 32 buckets are one unit wide each; from
 * there on each power of two is cut into 16, up to 2^40 ns (18 minutes), where all that is longer
 * is counted too.  No allocation, no lock: one thread adds.
 */
#ifndef TAPDISK_HISTOGRAM_H
#define TAPDISK_HISTOGRAM_H

#include <stdint.h>

#define HIST_UNIT    6  /* log2 of the nanoseconds of a unit */
#define HIST_SUB     4  /* log2 of the buckets a power of two is cut into */
#define HIST_TOP     34 /* log2 of the units where it ends */
#define HIST_BUCKETS ((HIST_TOP - HIST_SUB + 1) << HIST_SUB)

struct histogram {
	uint64_t max; /* ns */
	uint64_t bucket[HIST_BUCKETS];
};

static inline unsigned histogram_index(uint64_t ns)
{
	uint64_t v = ns >> HIST_UNIT;
	unsigned top;

	if (v >= (uint64_t)1 << HIST_TOP)
		v = ((uint64_t)1 << HIST_TOP) - 1;
	top = v < 2u << HIST_SUB ? 0 : 63 - (unsigned)__builtin_clzll(v) - HIST_SUB;
	return (top << HIST_SUB) + (unsigned)(v >> top);
}

static inline void histogram_add(struct histogram *h, uint64_t ns)
{
	uint64_t *b = &h->bucket[histogram_index(ns)];

	__atomic_store_n(b, *b + 1, __ATOMIC_RELAXED); /* others may read */
	if (ns > h->max)
		__atomic_store_n(&h->max, ns, __ATOMIC_RELAXED);
}

/* Adds all of `from', which its thread may be adding to. */
void histogram_join(struct histogram *h, const struct histogram *from);

/* ns at which a bucket ends: what it holds took less. */
uint64_t histogram_end(unsigned index);

/*
 * The time within which `part' (0..1) of all were done: the end of the bucket in which that one is,
 * so never too little and at most 1/16 too much, and never more than the longest.  0 when there are
 * none.
 */
uint64_t histogram_percentile(const struct histogram *h, double part);

#endif
