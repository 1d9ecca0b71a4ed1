/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Random numbers that a seed replays: splitmix64, by value in whatever needs some. */
#ifndef CRASH_RNG_H
#define CRASH_RNG_H

#include <stdbool.h>
#include <stdint.h>

struct rng {
	uint64_t state;
};

static inline uint64_t mix64(uint64_t x)
{
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

static inline uint64_t rng_next(struct rng *r)
{
	return mix64(r->state += UINT64_C(0x9e3779b97f4a7c15));
}

static inline struct rng rng_seed(uint64_t seed, uint64_t purpose)
{
	struct rng r = {mix64(seed + 1) ^ mix64(purpose * UINT64_C(0xd1342543de82ef95))};

	return r;
}

static inline uint64_t rng_below(struct rng *r, uint64_t n) /* 0..n-1 */
{
	return n ? rng_next(r) % n : 0;
}

static inline bool rng_chance(struct rng *r, unsigned percent)
{
	return rng_below(r, 100) < percent;
}

#endif
