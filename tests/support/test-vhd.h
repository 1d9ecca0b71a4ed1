/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* VHDs on a simulated store, and what their driver has of them. */
#ifndef TESTS_TEST_VHD_H
#define TESTS_TEST_VHD_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/drivers.h"
#include "drivers/vhd/vhd.h"
#include "lib/bytes.h"
#include "lib/fiber/fiber.h"
#include "tests/support/drive.h"
#include "tests/support/suite.h"
#include "tests/support/vhd-make.h"

#define BLOCK (64u << 10)
#define SIZE  (4 * MIB)

static inline struct fault_file *dynamic(void)
{
	return vhd_make(&fio, &(struct vhd_make){.name = "/a.vhd",
						 .size = SIZE,
						 .block_size = BLOCK,
						 .type = VHD_DYNAMIC,
						 .uuid = 1});
}

/* A differencing image on a raw one whose sectors say where they are. */
static inline void upon_raw(void)
{
	struct fault_file *raw = fault_io_file(&fio, "/base.img", SIZE);

	for (uint64_t i = 0; i < SIZE; i++)
		raw->data[i] = (uint8_t)(1 + i / 512 % 251);
	vhd_make(&fio, &(struct vhd_make){.name = "/a.vhd",
					  .size = SIZE,
					  .block_size = BLOCK,
					  .type = VHD_DIFF,
					  .uuid = 1,
					  .parent = "./base.img"});
}

static inline struct vhd *driver(void)
{
	return leaf->priv;
}

/* What the file says of a block now. */
static inline uint32_t entry_in(const struct fault_file *f, uint32_t block)
{
	return td_get_be32(f->data + 1536 + 4 * block);
}

#endif
