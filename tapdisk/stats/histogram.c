/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tapdisk/stats/histogram.h"

void histogram_join(struct histogram *h, const struct histogram *from)
{
	uint64_t max = __atomic_load_n(&from->max, __ATOMIC_RELAXED);

	for (unsigned i = 0; i < HIST_BUCKETS; i++)
		h->bucket[i] += __atomic_load_n(&from->bucket[i], __ATOMIC_RELAXED);
	if (max > h->max)
		h->max = max;
}

uint64_t histogram_end(unsigned index)
{
	unsigned top = index < 2u << HIST_SUB ? 0 : (index >> HIST_SUB) - 1;

	return ((uint64_t)(index - (top << HIST_SUB)) + 1) << (top + HIST_UNIT);
}

uint64_t histogram_percentile(const struct histogram *h, double part)
{
	uint64_t count = 0, rank, seen = 0;

	for (unsigned i = 0; i < HIST_BUCKETS; i++)
		count += h->bucket[i];
	/* the first of which at least `part' of all are no slower: of 10, p50 is the 5th, p99 the
	 * 10th */
	rank = (uint64_t)((double)count * part);
	if ((double)rank < (double)count * part || !rank)
		rank++;
	for (unsigned i = 0; count && i < HIST_BUCKETS; i++) {
		seen += h->bucket[i];
		if (seen >= rank)
			return histogram_end(i) < h->max ? histogram_end(i) : h->max;
	}
	return 0;
}
