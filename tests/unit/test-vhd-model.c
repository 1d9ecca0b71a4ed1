/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The VHD driver against a model: tests/support/model.h. */
#include <stdlib.h>
#include <string.h>

#include "tests/support/model.h"
#include "tests/support/suite.h"
#include "tests/support/vhd-make.h"

struct world {
	struct vhd_make make; /* the first image */
	uint64_t size;
	uint32_t off_align;
	int steps, chain_max, reopen; /* as a model's */
};

static struct td_key key;

static void make(struct fault_io *f, int n, const void *arg)
{
	struct vhd_make m = *(const struct vhd_make *)arg;

	m.uuid = (uint8_t)(n + 1);
	m.name = model_name(n);
	if (n) {
		m.type = VHD_DIFF;
		m.parent = model_name(n - 1);
		m.parent_uuid = (uint8_t)n;
		m.device = 0;
	}
	vhd_make(f, &m);
}

/* As long as its last block and the footer, and the footer as it is at the start. */
static void closed(struct fault_io *f, int n, const void *arg)
{
	const struct vhd_make *m = arg;
	const struct fault_file *file = &f->file[n];

	if (m->type != VHD_FIXED)
		ck_assert_mem_eq(file->data, file->data + file->size - VHD_FOOTER, VHD_FOOTER);
}

static void run(struct world w)
{
	w.make.size = w.size;
	model_run(&(struct model){.type = "vhd",
				  .size = w.size,
				  .off_align = w.off_align,
				  .flags = TD_FILE_DIRECT,
				  .steps = w.steps,
				  .chain_max = w.chain_max,
				  .reopen = w.reopen,
				  .key = key.len ? &key : NULL,
				  .make = make,
				  .closed = closed,
				  .arg = &w.make});
}

START_TEST(dynamic)
{
	run((struct world){.make = {.type = VHD_DYNAMIC, .block_size = 2 << 20},
			   .size = 24 << 20,
			   .off_align = 512,
			   .steps = 8000,
			   .chain_max = 1});
}
END_TEST

START_TEST(an_odd_size_in_blocks)
{
	run((struct world){.make = {.type = VHD_DYNAMIC, .block_size = 64 << 10},
			   .size = (5 << 20) + 3 * 512,
			   .off_align = 512,
			   .steps = 8000,
			   .chain_max = 1});
}
END_TEST

START_TEST(more_bitmaps_than_there_is_room_for)
{
	run((struct world){.make = {.type = VHD_DYNAMIC, .block_size = 4096},
			   .size = 64 << 20,
			   .off_align = 512,
			   .steps = 30000,
			   .chain_max = 1});
}
END_TEST

START_TEST(blocks_of_a_sector)
{
	run((struct world){.make = {.type = VHD_DYNAMIC, .block_size = 512},
			   .size = 2 << 20,
			   .off_align = 512,
			   .steps = 5000,
			   .chain_max = 2});
}
END_TEST

START_TEST(large_bitmaps)
{
	run((struct world){.make = {.type = VHD_DYNAMIC, .block_size = 16 << 20},
			   .size = 64 << 20,
			   .off_align = 512,
			   .steps = 5000,
			   .chain_max = 2});
}
END_TEST

START_TEST(without_a_batmap)
{
	run((struct world){.make = {.type = VHD_DYNAMIC, .block_size = 32 << 10, .no_batmap = true},
			   .size = 4 << 20,
			   .off_align = 512,
			   .steps = 8000,
			   .chain_max = 3});
}
END_TEST

START_TEST(a_store_of_4096)
{
	run((struct world){.make = {.type = VHD_DYNAMIC, .block_size = 128 << 10},
			   .size = 8 << 20,
			   .off_align = 4096,
			   .steps = 8000,
			   .chain_max = 3});
}
END_TEST

START_TEST(chains_of_snapshots)
{
	run((struct world){.make = {.type = VHD_DYNAMIC, .block_size = 64 << 10},
			   .size = 8 << 20,
			   .off_align = 512,
			   .steps = 30000,
			   .chain_max = 33,
			   .reopen = 400});
}
END_TEST

START_TEST(fixed)
{
	run((struct world){.make = {.type = VHD_FIXED},
			   .size = 4 << 20,
			   .off_align = 512,
			   .steps = 5000,
			   .chain_max = 1});
}
END_TEST

START_TEST(snapshots_of_a_fixed_disk)
{
	run((struct world){.make = {.type = VHD_FIXED, .block_size = 64 << 10},
			   .size = 4 << 20,
			   .off_align = 512,
			   .steps = 8000,
			   .chain_max = 4});
}
END_TEST

START_TEST(a_block_device)
{
	run((struct world){
		.make = {.type = VHD_DYNAMIC, .block_size = 64 << 10, .device = 16 << 20},
		.size = 8 << 20,
		.off_align = 512,
		.steps = 10000,
		.chain_max = 1});
}
END_TEST

START_TEST(encrypted)
{
	for (key.len = 32; key.len <= 64; key.len += 32) {
		for (unsigned i = 0; i < key.len; i++)
			key.bytes[i] = (uint8_t)(i * 7 + 1);
		run((struct world){.make = {.type = VHD_DYNAMIC,
					    .block_size = 64 << 10,
					    .key = (char *)key.bytes,
					    .key_len = key.len},
				   .size = 4 << 20,
				   .off_align = 512,
				   .steps = 5000,
				   .chain_max = 3});
	}
	key.len = 0;
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vhd against a model");

	SUITE_ADD(s, dynamic);
	SUITE_ADD(s, an_odd_size_in_blocks);
	SUITE_ADD(s, more_bitmaps_than_there_is_room_for);
	SUITE_ADD(s, blocks_of_a_sector);
	SUITE_ADD(s, large_bitmaps);
	SUITE_ADD(s, without_a_batmap);
	SUITE_ADD(s, a_store_of_4096);
	SUITE_ADD(s, chains_of_snapshots);
	SUITE_ADD(s, fixed);
	SUITE_ADD(s, snapshots_of_a_fixed_disk);
	SUITE_ADD(s, a_block_device);
	SUITE_ADD(s, encrypted);
	return suite_run(s);
}
