/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow images (version 1) from strangers: opened, which is for reading, and read. */
#include <errno.h>

#include "lib/bytes.h"
#include "tests/fuzz/image.h"

const char fuzz_name[] = "qcow", fuzz_unit[] = "images that opened";
const char *const fuzz_words[] = {"QFI\xfb", "p.img", NULL};

static const struct image_field fields[] = {{NULL, 8, 8},  {NULL, 16, 4}, {NULL, 24, 8},
					    {NULL, 32, 1}, {NULL, 33, 1}, {NULL, 36, 4},
					    {NULL, 40, 8}, {NULL, 0, 0}};

/* No tool of ours makes one: a header, an L1 table of one entry, an L2 table, two clusters. */
size_t fuzz_seed(unsigned n, uint8_t *out)
{
	uint8_t *b = out + IMAGE_HEAD;

	if (n > 1)
		return 0;
	memset(out, 0, IMAGE_HEAD + 4096);
	out[4] = 2;
	memcpy(b, "QFI\xfb", 4);
	td_put_be32(b + 4, 1);
	if (n) {
		td_put_be64(b + 8, 48);
		td_put_be32(b + 16, 5);
		memcpy(b + 48, "p.img", 5);
	}
	td_put_be64(b + 24, 16384);
	b[32] = 9;                   /* cluster_bits */
	b[33] = 9;                   /* l2_bits */
	td_put_be64(b + 40, 512);    /* the L1 table */
	td_put_be64(b + 512, 1024);  /* the L2 table */
	td_put_be64(b + 1024, 5120); /* beyond the end of this seed */
	td_put_be64(b + 1032, 3584);
	return IMAGE_HEAD + 4096;
}

void fuzz_start(void)
{
	image_start();
}

int fuzz_one(const uint8_t *data, size_t size)
{
	return image_run("qcow", data, size, fields, NULL);
}
