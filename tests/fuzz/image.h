/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the targets of image formats share: an image from a stranger, and a raw parent, on the store
 * in memory (tests/support/fault-io.h). */
#ifndef TESTS_FUZZ_IMAGE_H
#define TESTS_FUZZ_IMAGE_H

#include "td/io.h"
#include "tests/fuzz/fuzz.h"

#define IMAGE_PATH   "/a.img"
#define IMAGE_PARENT "/p.img" /* raw */

/* A number of the format, big-endian: its place, from the image's beginning or from the first of
 * certain bytes on.  A list of them ends with one of 0 bytes. */
struct image_field {
	const char *after; /* NULL: the image's beginning */
	unsigned at, bytes;
};

#define IMAGE_CHANGES 3

void image_start(void);
/*
 * An input: a seed of what is done to the disk (4 bytes), flags (1: the first footer is put at the
 * end of the file, too; 2: read-only; 4: the store fails now and then), the zeroes behind the image
 * in units of 64 KiB (1), IMAGE_CHANGES fields that are made others (which: 1, 0: none; how: 1; a
 * number: 8), the image.  fields: those of the format, or NULL; sums: makes its checksums right,
 * or NULL.
 */
int image_run(const char *type, const uint8_t *data, size_t size, const struct image_field *fields,
	      void (*sums)(uint8_t *image, size_t size));

#define IMAGE_HEAD (6 + IMAGE_CHANGES * 10) /* bytes before the image */

/* For seeds: runs make on a fiber, which makes an image at IMAGE_PATH, and puts it into out. */
size_t image_seed(void (*make)(struct td_io *io, unsigned n), unsigned n, uint8_t *out);

#endif
