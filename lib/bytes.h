/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Numbers in a file's bytes, whatever their alignment; bytes as text; and sums that do not wrap.
 *
 * td_get_beN(p) reads N bits, most significant byte first; td_put_beN(p, v) writes them; le: the
 * other way round.  td_add and td_mul say true when the result fits in 64 bits, and store it.
 */
#ifndef TD_LIB_BYTES_H
#define TD_LIB_BYTES_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
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

/* n bytes as 2n hexadecimal digits, and a 0 behind them: out has room for these. */
static inline void td_put_hex(char *out, const uint8_t *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		out[2 * i] = "0123456789abcdef"[bytes[i] >> 4];
		out[2 * i + 1] = "0123456789abcdef"[bytes[i] & 15];
	}
	out[2 * n] = 0;
}

/* And back.  False when the text is not 2n digits, and no more; then out holds anything. */
static inline bool td_get_hex(const char *text, uint8_t *out, size_t n)
{
	for (size_t i = 0; i < 2 * n; i++) {
		char c = text[i];
		int v = c >= '0' && c <= '9'   ? c - '0'
			: c >= 'a' && c <= 'f' ? c - 'a' + 10
			: c >= 'A' && c <= 'F' ? c - 'A' + 10
					       : -1;

		if (v < 0)
			return false;
		out[i / 2] = (uint8_t)(i % 2 ? out[i / 2] << 4 | v : v);
	}
	return !text[2 * n];
}

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
