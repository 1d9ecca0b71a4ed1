/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* VHDs from strangers, through the driver; the checksums of footer and header are made right in all
 * inputs but one in eight. */
#include "drivers/vhd/vhd-format.h"
#include "lib/bytes.h"
#include "tests/fuzz/image.h"
#include "tests/support/vhd-make.h"

const char fuzz_name[] = "vhd", fuzz_unit[] = "images that opened";
const char *const fuzz_words[] = {"conectix", "cxsparse", "tdbatmap", "W2ru",
				  "MacX",     "p.img",    "tap",      NULL};

static const struct image_field fields[] = {
	{NULL, 12, 4},        {NULL, 16, 8},        {NULL, 40, 8},        {NULL, 48, 8},
	{NULL, 60, 4},        {"cxsparse", 8, 8},   {"cxsparse", 16, 8},  {"cxsparse", 24, 4},
	{"cxsparse", 28, 4},  {"cxsparse", 32, 4},  {"cxsparse", 576, 4}, {"cxsparse", 580, 4},
	{"cxsparse", 584, 4}, {"cxsparse", 592, 8}, {"tdbatmap", 8, 8},   {"tdbatmap", 16, 4},
	{"tdbatmap", 20, 4},  {"tdbatmap", 24, 4},  {NULL, 0, 0},
};

static void sum(uint8_t *b, size_t n, size_t at)
{
	uint32_t s = 0;

	memset(b + at, 0, 4);
	for (size_t i = 0; i < n; i++)
		s += b[i];
	td_put_be32(b + at, ~s);
}

static void sums(uint8_t *b, size_t n)
{
	uint64_t header = n >= VHD_FOOTER ? td_get_be64(b + 16) : 0;

	if (n < VHD_FOOTER || b[n - 1] % 8 == 7)
		return;
	sum(b, VHD_FOOTER, 64);
	if (header >= VHD_FOOTER && header <= n && n - header >= VHD_HEADER)
		sum(b + header, VHD_HEADER, 36);
}

size_t fuzz_seed(unsigned n, uint8_t *out)
{
	static const struct vhd_make kinds[] = {
		{.size = 64 << 10, .block_size = 4096, .type = VHD_DYNAMIC},
		{.size = 1 << 20, .block_size = 2 << 20, .type = VHD_DYNAMIC, .no_batmap = true},
		{.size = 64 << 10, .block_size = 4096, .type = VHD_DIFF, .parent = "p.img"},
		{.size = 4096, .type = VHD_FIXED},
		{.size = 640 << 10, .block_size = 4096, .type = VHD_DYNAMIC},
	};
	struct fault_io f = {0};
	struct vhd_make m;
	struct fault_file *made;
	size_t size;

	if (n >= sizeof kinds / sizeof *kinds)
		return 0;
	m = kinds[n];
	m.name = "/a.img";
	m.uuid = 1;
	made = vhd_make(&f, &m);
	size = made->size < FUZZ_SIZE_MAX - IMAGE_HEAD ? made->size : FUZZ_SIZE_MAX - IMAGE_HEAD;
	memset(out, 0, IMAGE_HEAD);
	memcpy(out + IMAGE_HEAD, made->data, size);
	free(made->data);
	return size + IMAGE_HEAD;
}

void fuzz_start(void)
{
	image_start();
}

int fuzz_one(const uint8_t *data, size_t size)
{
	return image_run("vhd", data, size, fields, sums);
}
