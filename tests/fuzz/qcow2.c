/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2 images from strangers, through the driver: opened, read, written, flushed, closed. */
#include "drivers/qcow/qcow-image.h"
#include "tests/fuzz/image.h"

const char fuzz_name[] = "qcow2", fuzz_unit[] = "images that opened";
const char *const fuzz_words[] = {"QFI\xfb", "p.img", "raw", "qcow2", "a.img", NULL};

static const struct image_field fields[] = {
	{NULL, 4, 4},  {NULL, 8, 8},   {NULL, 16, 4},  {NULL, 20, 4},  {NULL, 24, 8},
	{NULL, 32, 4}, {NULL, 36, 4},  {NULL, 40, 8},  {NULL, 48, 8},  {NULL, 56, 4},
	{NULL, 60, 4}, {NULL, 64, 8},  {NULL, 72, 8},  {NULL, 80, 8},  {NULL, 88, 8},
	{NULL, 96, 4}, {NULL, 100, 4}, {NULL, 104, 4}, {NULL, 108, 4}, {NULL, 0, 0},
};

static const struct qcow_create seeds[] = {
	{.version = 3, .cluster_bits = 9, .refcount_order = 4},
	{.version = 2, .cluster_bits = 9, .refcount_order = 4},
	{.version = 3, .cluster_bits = 10, .refcount_order = 0},
	{.version = 3, .cluster_bits = 9, .refcount_order = 6, .lazy = true},
	{.version = 3, .cluster_bits = 14, .refcount_order = 4, .extended_l2 = true},
	{.version = 3, .cluster_bits = 9, .refcount_order = 4, .prealloc = QCOW_PREALLOC_METADATA},
	{.version = 3,
	 .cluster_bits = 9,
	 .refcount_order = 4,
	 .backing = "p.img",
	 .backing_format = "raw"},
};

static void make(struct td_io *io, unsigned n)
{
	struct qcow_create o = seeds[n];
	struct td_err err = {0};

	o.size = 64 << 10;
	if (qcow_image_create(IMAGE_PATH, &o, io, &err))
		fprintf(stderr, "%s: seed %u: %s\n", fuzz_name, n, err.text);
	FUZZ_ASSERT(!err.code);
}

size_t fuzz_seed(unsigned n, uint8_t *out)
{
	return n < sizeof seeds / sizeof *seeds ? image_seed(make, n, out) : 0;
}

void fuzz_start(void)
{
	image_start();
}

int fuzz_one(const uint8_t *data, size_t size)
{
	return image_run("qcow2", data, size, fields, NULL);
}
