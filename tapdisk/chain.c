/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tapdisk/chain.h"

#include <errno.h>

#include "drivers/drivers.h"

static int open_one(const char *spec, unsigned flags, struct td_io *io, struct td_image **out, struct td_err *err)
{
	const char *path;
	const struct td_driver *d = td_driver_parse(spec, &path, err);

	return d ? td_image_open(d, path, flags, io, out, err) : -err->code;
}

int chain_open(const char *spec, unsigned flags, struct td_io *io, struct td_image **leaf, struct td_err *err)
{
	/* a parent keeps the leaf's way past the page cache, is never written, and is shared with other leaves */
	unsigned parent = (flags & (TD_FILE_DIRECT | TD_FILE_NOSYNC)) | TD_FILE_PARENT | TD_FILE_RDONLY;
	struct td_image *image = NULL;
	char below[TD_SPEC_MAX];
	int rc = open_one(spec, flags, io, leaf, err);

	if (rc < 0)
		return rc;
	image = *leaf;
	for (int depth = 1; image->driver->backing; depth++) {
		rc = image->driver->backing(image, below, err);
		if (rc <= 0)
			break;
		rc = depth == CHAIN_MAX ? td_fail(err, ELOOP, "%s: more than %d images stand under it: a loop?", spec, CHAIN_MAX)
					: open_one(below, parent, io, &image->backing, err);
		if (rc < 0)
			break;
		image = image->backing;
	}
	if (rc < 0) {
		chain_close(*leaf);
		*leaf = NULL;
	}
	return rc < 0 ? rc : 0;
}

void chain_close(struct td_image *leaf)
{
	while (leaf) {
		struct td_image *below = leaf->backing;

		td_image_close(leaf);
		leaf = below;
	}
}
