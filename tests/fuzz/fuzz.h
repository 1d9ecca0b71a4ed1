/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A fuzz target: one file a target, which a stranger's bytes go into, and one of two programs
 * around it.  driver.c mutates by itself, with any compiler; libfuzzer.c is for clang's libFuzzer.
 */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FUZZ_SIZE_MAX 65536 /* bytes of an input */

/* --- what a target has --- */

extern const char fuzz_name[];
extern const char fuzz_unit[];         /* what fuzz_count counts */
extern const char *const fuzz_words[]; /* that its inputs may contain; NULL behind the last */

void fuzz_start(void); /* once */
/* Whatever it finds wrong ends the process.  0. */
int fuzz_one(const uint8_t *data, size_t size);
/* Makes an input that is worth beginning with, after fuzz_start(): its bytes, at most
 * FUZZ_SIZE_MAX, into out; 0: there are no more than n. */
size_t fuzz_seed(unsigned n, uint8_t *out);

/* --- what it has of the program --- */

extern uint64_t fuzz_count;

#define FUZZ_ASSERT(x)                                                                             \
	do {                                                                                       \
		if (!(x)) {                                                                        \
			fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #x);          \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

/* An input is read from its front; when it is used up, it goes on with zeroes. */
struct fuzz_in {
	const uint8_t *p;
	size_t left;
};

static inline size_t fuzz_take(struct fuzz_in *in, void *out, size_t n)
{
	size_t has = n < in->left ? n : in->left;

	memcpy(out, in->p, has);
	memset((char *)out + has, 0, n - has);
	in->p += has;
	in->left -= has;
	return has;
}

static inline uint8_t fuzz_u8(struct fuzz_in *in)
{
	uint8_t v;

	fuzz_take(in, &v, 1);
	return v;
}

static inline uint16_t fuzz_u16(struct fuzz_in *in)
{
	uint16_t v;

	fuzz_take(in, &v, 2);
	return v;
}

static inline uint32_t fuzz_u32(struct fuzz_in *in)
{
	uint32_t v;

	fuzz_take(in, &v, 4);
	return v;
}

static inline uint64_t fuzz_u64(struct fuzz_in *in)
{
	uint64_t v;

	fuzz_take(in, &v, 8);
	return v;
}

/* For seeds, which are written as they are read. */
static inline uint8_t *fuzz_put(uint8_t *p, const void *from, size_t n)
{
	memcpy(p, from, n);
	return p + n;
}

#endif
