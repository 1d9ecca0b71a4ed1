/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* VHD images made by hand, for tests of the driver: empty, with what a test wants to say about
 * them. */
#ifndef TESTS_VHD_MAKE_H
#define TESTS_VHD_MAKE_H

#include "drivers/vhd/vhd-format.h"
#include "tests/support/fault-io.h"

struct vhd_make {
	const char *name; /* of the file */
	uint64_t size;    /* bytes of the disk */
	uint32_t block_size;
	enum vhd_type type;
	uint8_t uuid;        /* the first byte of the uuid; the rest is zeroes */
	const char *parent;  /* differencing: its name */
	unsigned locators;   /* that hold it: 1 to 3, W2ru, MacX, W2ku; 0: 1 */
	uint8_t parent_uuid; /* 0: raw */
	bool no_batmap;
	const char *key; /* encrypted: its 32 or 64 bytes */
	unsigned key_len;
	uint64_t device; /* a block device of so many bytes, full of 0xee where there is nothing of
			    ours; 0: a file */
};

/* Adds the file to f. */
struct fault_file *vhd_make(struct fault_io *f, const struct vhd_make *m);

#endif
