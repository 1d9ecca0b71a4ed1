/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/fuzz/mutate.h"

#include <stdbool.h>

#include "tests/fuzz/fuzz.h"

static uint64_t state;

void mutate_seed(uint64_t seed)
{
	state = seed * 0x9e3779b97f4a7c15 + 1;
}

uint64_t mutate_below(uint64_t n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % n;
}

/* Numbers at which something begins or ends. */
static uint64_t interesting(void)
{
	static const uint64_t values[] = {
		0,          1,          2,          7,           8,         9,         16,
		63,         64,         127,        128,         255,       256,       511,
		512,        4095,       4096,       32767,       32768,     65535,     65536,
		0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, INT64_MAX, UINT64_MAX};
	uint64_t v = values[mutate_below(sizeof values / sizeof *values)];

	return mutate_below(4) ? v : v + mutate_below(3) - 1;
}

static void put_number(uint8_t *at, size_t room)
{
	unsigned n = 1u << mutate_below(4);
	uint64_t v = mutate_below(3) ? interesting() : mutate_below(UINT64_MAX);
	bool little = mutate_below(2);

	for (unsigned i = 0; i < n && i < room; i++)
		at[i] = (uint8_t)(v >> 8 * (little ? i : n - 1 - i));
}

/* Opens a hole of n bytes; how many it has room for. */
static size_t open_hole(uint8_t *data, size_t *size, size_t at, size_t n)
{
	if (n > FUZZ_SIZE_MAX - *size)
		n = FUZZ_SIZE_MAX - *size;
	memmove(data + at + n, data + at, *size - at);
	*size += n;
	return n;
}

/* Puts a piece between the bytes, or over them. */
static void put_piece(uint8_t *data, size_t *size, size_t at, const void *piece, size_t n)
{
	size_t left = *size - at;

	if (mutate_below(2)) {
		n = open_hole(data, size, at, n);
		memcpy(data + at, piece, n);
	} else {
		memcpy(data + at, piece, n < left ? n : left);
	}
}

static void put_word(uint8_t *data, size_t *size, size_t at)
{
	unsigned words = 0;

	while (fuzz_words[words])
		words++;
	if (words) {
		const char *w = fuzz_words[mutate_below(words)];

		put_piece(data, size, at, w, strlen(w));
	}
}

/* Any place, or one of the first 1, 2, 4 ... bytes: a format's header comes first, and counts for
 * more than what follows it.  Often where a number of 4 bytes would begin. */
static size_t place(size_t size)
{
	size_t most = size, at;

	if (!size)
		return 0;
	if (mutate_below(2)) {
		most = (size_t)1 << mutate_below(17);
		if (most > size)
			most = size;
	}
	at = mutate_below(most);
	return mutate_below(2) ? at : at & ~(size_t)3;
}

static void change(uint8_t *data, size_t *size, const struct fuzz_input *other)
{
	size_t at = place(*size), left = *size - at, n = left ? 1 + mutate_below(left) : 0, from;

	if (n > 64 && mutate_below(8))
		n = 1 + mutate_below(64);
	switch (mutate_below(fuzz_words[0] ? 10 : 8)) {
	case 0:
	case 1:
		if (left)
			data[at] ^= (uint8_t)(1u << mutate_below(8));
		break;
	case 2:
	case 3:
		put_number(data + at, left);
		break;
	case 4:
		memmove(data + at, data + at + n, left - n);
		*size -= n;
		break;
	case 5:
	case 6:
		from = other->size ? mutate_below(other->size) : 0;
		n = other->size - from < 512 ? other->size - from : 1 + mutate_below(512);
		put_piece(data, size, at, other->data + from, n);
		break;
	case 7:
		n = open_hole(data, size, at, 1 + mutate_below(16));
		memset(data + at, (int)mutate_below(256), n);
		break;
	default:
		put_word(data, size, at);
	}
}

size_t mutate(uint8_t *data, size_t size, const struct fuzz_input *other)
{
	for (unsigned n = 1 + (unsigned)mutate_below(mutate_below(4) ? 4 : 32); n; n--)
		change(data, &size, other);
	return size;
}
