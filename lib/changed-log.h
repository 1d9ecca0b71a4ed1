/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The file that says which blocks of a disk have changed: cbt-util makes it and links it to others;
 * a tapdisk writes its bits (tapdisk/changed.h).  Facts: the bytes are those that XenServer's
 * storage manager and its cbt-util use, little endian:
 *
 *   0   16  uuid of the log before this one, as it is printed
 *   16  16  uuid of the one after it
 *   32  4   1: the disk was closed cleanly; 0: not so, or it is open
 *   36  4   zero
 *   40  8   bytes of the disk
 *   48      a bit for each 64 KiB of the disk, the first one the lowest of its byte; 1: changed
 *
 * It is a file of just that length beside the image, or a block device.
 */
#ifndef TD_LIB_CHANGED_LOG_H
#define TD_LIB_CHANGED_LOG_H

#include <stdint.h>

#include "lib/bytes.h"

#define CHANGED_HEADER 48 /* bytes */
#define CHANGED_BLOCK  65536u

#define CHANGED_PARENT     0
#define CHANGED_CHILD      16
#define CHANGED_CONSISTENT 32
#define CHANGED_SIZE       40

/* Bytes of the bits of a disk of so many bytes. */
static inline uint64_t changed_bytes(uint64_t size)
{
	uint64_t blocks = size / CHANGED_BLOCK + !!(size % CHANGED_BLOCK);

	return blocks / 8 + !!(blocks % 8);
}

#endif
