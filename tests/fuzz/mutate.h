/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Small changes of an input, for driver.c, from numbers that a seed repeats. */
#ifndef TESTS_FUZZ_MUTATE_H
#define TESTS_FUZZ_MUTATE_H

#include <stddef.h>
#include <stdint.h>

struct fuzz_input {
	uint8_t *data;
	size_t size;
};

void mutate_seed(uint64_t seed);
uint64_t mutate_below(uint64_t n); /* a number from 0 to n - 1 */

/* Changes size bytes of data, which has room for FUZZ_SIZE_MAX, once or several times; the new
 * size.  other: an input that pieces may come from. */
size_t mutate(uint8_t *data, size_t size, const struct fuzz_input *other);

#endif
