/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Numbers in a file's bytes, whatever their alignment; and sums that do not wrap.
 *
 * td_get_beN(p) reads N bits, most significant byte first; td_put_beN(p, v) writes them; le: the
 * other way round.  td_add and td_mul say true when the result fits in 64 bits, and store it.
 */
#ifndef TD_LIB_BYTES_H
#define TD_LIB_BYTES_H

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define TD_BYTES(order, bits)                                                                      \
	static inline uint##bits##_t td_get_##order##bits(const void *p)                           \
	{                                                                                          \
		uint##bits##_t v;                                                                  \
		memcpy(&v, p, sizeof v);                                                           \
		return order##bits##toh(v);                                                        \
	}                                                                                          \
	static inline void td_put_##order##bits(void *p, uint##bits##_t v)                         \
	{                                                                                          \
		v = hto##order##bits(v);                                                           \
		memcpy(p, &v, sizeof v);                                                           \
	}

TD_BYTES(be, 16)
TD_BYTES(be, 32)
TD_BYTES(be, 64)
TD_BYTES(le, 16)
TD_BYTES(le, 32)
TD_BYTES(le, 64)

#undef TD_BYTES

static inline bool td_add(uint64_t a, uint64_t b, uint64_t *sum)
{
	return !__builtin_add_overflow(a, b, sum);
}

static inline bool td_mul(uint64_t a, uint64_t b, uint64_t *product)
{
	return !__builtin_mul_overflow(a, b, product);
}

/* v up to the next multiple of unit, a power of two; v is far from 2^64. */
static inline uint64_t td_round_up(uint64_t v, uint64_t unit)
{
	return (v + unit - 1) & ~(unit - 1);
}

#endif
