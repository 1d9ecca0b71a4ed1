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
	size = made->size < FUZZ_SIZE_MAX - 6 ? made->size : FUZZ_SIZE_MAX - 6;
	memset(out, 0, 6);
	memcpy(out + 6, made->data, size);
	free(made->data);
	return size + 6;
}

void fuzz_start(void)
{
	image_start();
}

int fuzz_one(const uint8_t *data, size_t size)
{
	return image_run("vhd", data, size, sums);
}
