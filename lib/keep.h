/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files that outlive their process and are written through a mapping: a disk's redo log, its
 * syncmark, its requests in flight, and what a driver leaves to the next open of an image. */
#ifndef TD_LIB_KEEP_H
#define TD_LIB_KEEP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A new file of that size, zeroed, for its owner alone; one of that name is replaced.  All its
 * space is allocated at once, because a store to a page that a full tmpfs has no room for is a
 * SIGBUS.  A descriptor for reading and writing, or -errno with no file left at path.
 */
int td_keep_new(const char *path, size_t bytes);

/*
 * What a driver leaves to the next open of an image (td_image.left), also where its process dies:
 * a struct that begins with a uint32_t, the magic number, and has the image's name in name_len
 * bytes at name_at.  The magic comes last, so that a file that has it is whole.
 */
struct td_keep_kind {
	uint32_t magic;
	size_t bytes, name_at, name_len;
};

#define TD_KEEP_KIND(type, is)                                                                     \
	{                                                                                          \
		.magic = (is), .bytes = sizeof(type), .name_at = offsetof(type, name),             \
		.name_len = sizeof((type *)0)->name                                                \
	}

struct td_image;
struct td_err;

/*
 * For the open of an image, on its fiber: the struct at image->left, mapped; *out is the driver's
 * to unmap, unless it is `own'.
 *   TD_KEEP_FOUND   again, and it is there, of that kind and for that image
 *   TD_KEEP_NEW     a new one instead of what was there: zeroes after magic and name
 *   TD_KEEP_OWN     own: nothing is left of this image, which is only read, or of no disk
 *   -errno          with text; *out is own
 */
enum { TD_KEEP_OWN, TD_KEEP_NEW, TD_KEEP_FOUND };
int td_keep_left(const struct td_image *image, const struct td_keep_kind *k, bool again, void *own,
		 void **out, struct td_err *err);

#endif
