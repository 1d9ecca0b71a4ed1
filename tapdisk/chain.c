/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tapdisk/chain.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/drivers.h"

static int open_one(const char *spec, const struct td_how *how, struct td_io *io, struct td_image **out, struct td_err *err)
{
	const char *path;
	const struct td_driver *d = td_driver_parse(spec, &path, err);

	return d ? td_image_open_how(d, path, how, io, out, err) : -err->code;
}

/* The leaf's own directory, and those that are allowed beside it; to be freed. */
char *chain_dirs(const char *spec, const char *more)
{
	const char *path = strchr(spec, ':'), *slash = strrchr(spec, '/');
	char *dirs;

	if (!path || !slash || slash < path)
		return strdup(more ? more : "");
	path++;
	return asprintf(&dirs, "%.*s/%s%s", (int)(slash - path), path, more ? ":" : "", more ? more : "") < 0 ? NULL : dirs;
}

int chain_open(const char *spec, const struct td_how *how, struct td_io *io, struct td_image **leaf, struct td_err *err)
{
	struct td_how top = *how, below = *how;
	struct td_image *image = NULL;
	char name[TD_SPEC_MAX];
	char *dirs = chain_dirs(spec, how->dirs);
	int rc;

	/* a parent keeps the leaf's way past the page cache, is never written, and is shared with other leaves */
	below.redo = NULL;
	below.left = NULL;
	below.settle = !(how->flags & (TD_FILE_RDONLY | TD_FILE_LOOK)); /* S1 of lib/settle.h */
	below.flags = (how->flags & (TD_FILE_DIRECT | TD_FILE_NOSYNC)) | TD_FILE_PARENT | TD_FILE_RDONLY;
	below.dirs = top.dirs = dirs;
	rc = dirs ? open_one(spec, &top, io, leaf, err) : td_fail(err, ENOMEM, "no memory to open %s", spec);
	if (rc < 0) {
		free(dirs);
		return rc;
	}
	image = *leaf;
	for (int depth = 1; image->driver->backing; depth++) {
		rc = image->driver->backing(image, name, err);
		if (rc <= 0)
			break;
		rc = depth == CHAIN_MAX ? td_fail(err, ELOOP, "%s: more than %d images stand under it: a loop?", spec, CHAIN_MAX)
					: open_one(name, &below, io, &image->backing, err);
		if (rc < 0)
			break;
		image = image->backing;
	}
	for (image = *leaf; image; image = image->backing)
		image->dirs = NULL;
	if (rc < 0) {
		chain_close(*leaf);
		*leaf = NULL;
	}
	free(dirs);
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
