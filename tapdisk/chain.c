/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tapdisk/chain.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "drivers/drivers.h"
#include "lib/fiber/fiber.h"
#include "lib/io/file.h"

static int open_one(const char *spec, const struct td_how *how, struct td_io *io,
		    struct td_image **out, struct td_err *err)
{
	const char *path;
	const struct td_driver *d = td_driver_parse(spec, &path, err);

	return d ? td_image_open_how(d, path, how, io, out, err) : -err->code;
}

struct reach_call {
	struct td_reach *reach;
	const char *path;
	const struct td_how *how;
};

static long reach_run(void *arg)
{
	struct reach_call *c = arg;

	return td_reach_init(c->reach, c->path, c->how->dirs, c->how->parents);
}

int chain_reach(const char *spec, const struct td_how *how, struct td_io *io,
		struct td_reach *reach, struct td_err *err)
{
	const char *colon = strchr(spec, ':');
	struct reach_call c = {reach, colon ? colon + 1 : "", how};
	int rc = (int)td_await_call(io, reach_run, &c);

	reach->data = how->data && *how->data ? how->data : NULL;
	return rc < 0 ? td_fail(err, -rc, "out of memory: cannot open %s", spec) : 0;
}

/* A VHD knows its VHD parent by its uuid. */
static bool knows(const struct td_image *child, const char *spec)
{
	return !strcmp(child->driver->name, "vhd") && !strncmp(spec, "vhd:", 4);
}

/* One that is only read, with the flags and the engine that suit it (PC2, PC4). */
static int open_read_only(const char *spec, const struct td_how *as_asked, struct td_io *io,
			  struct td_image **out, struct td_err *err)
{
	const char *colon = strchr(spec, ':');
	struct td_how how = *as_asked;

	if (colon)
		td_file_cached(colon + 1, how.cached, &how.flags, &io);
	return open_one(spec, &how, io, out, err);
}

/* A parent is asked for as the leaf is, past the page cache or not (but see open_read_only), is
 * never written, and is shared with other leaves. */
static struct td_how below_of(const struct td_how *how)
{
	struct td_how below = *how;

	below.redo = NULL;
	below.left = NULL;
	below.settle = !(how->flags & (TD_FILE_RDONLY | TD_FILE_LOOK)); /* S1 of lib/settle.h */
	below.flags =
		(how->flags & (TD_FILE_DIRECT | TD_FILE_NOSYNC)) | TD_FILE_PARENT | TD_FILE_RDONLY;
	return below;
}

int chain_open(const char *spec, const struct td_how *how, struct td_io *io, struct td_image **leaf,
	       struct td_err *err)
{
	struct td_how top = *how, below = below_of(how);
	struct td_image *image = NULL;
	char name[TD_SPEC_MAX];
	struct td_reach reach;
	int rc;

	below.reach = top.reach = how->trusted ? NULL : &reach;
	rc = chain_reach(spec, how, io, &reach, err);
	if (!rc)
		rc = top.flags & TD_FILE_RDONLY ? open_read_only(spec, &top, io, leaf, err)
						: open_one(spec, &top, io, leaf, err);
	if (rc < 0) {
		td_reach_fini(&reach);
		return rc;
	}
	image = *leaf;
	for (int depth = 1; !how->alone && image->driver->backing; depth++) {
		rc = image->driver->backing(image, name, err);
		if (rc <= 0)
			break;
		reach.known = knows(image, name);
		rc = depth == CHAIN_MAX ? td_fail(err, ELOOP,
						  "%s: more than %d images stand under it: a loop?",
						  spec, CHAIN_MAX)
					: open_read_only(name, &below, io, &image->backing, err);
		if (rc < 0)
			break;
		image = image->backing;
	}
	for (image = *leaf; image; image = image->backing) {
		image->reach = NULL;
		image->cached = NULL;
	}
	if (rc < 0) {
		chain_close(*leaf);
		*leaf = NULL;
	}
	td_reach_fini(&reach);
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

int chain_open_again(const struct td_image *image, const struct td_image *child, unsigned lock,
		     const char *leaf, const struct td_how *how, struct td_io *io,
		     struct td_image **out, struct td_err *err)
{
	struct td_how h = below_of(how);
	char spec[TD_SPEC_MAX];
	struct td_reach reach;
	bool write = lock & TD_FILE_BENEATH;
	int rc = chain_reach(leaf, how, io, &reach, err);

	snprintf(spec, sizeof spec, "%s:%s", image->driver->name, image->path);
	reach.data = NULL; /* the host has named one for the leaf alone */
	reach.known = knows(child, spec);
	h.reach = how->trusted ? NULL : &reach;
	h.lost = NULL;
	if (write) {
		h.flags = how->flags & TD_FILE_DIRECT;
		h.settle = false; /* it follows from the flags */
		h.mark = NULL;    /* a sync that fails is the job's */
	}
	h.flags |= lock;
	if (!rc)
		rc = write ? open_one(spec, &h, io, out, err)
			   : open_read_only(spec, &h, io, out, err);
	if (!rc) {
		(*out)->reach = NULL;
		(*out)->cached = NULL;
	}
	td_reach_fini(&reach);
	return rc < 0 ? rc : 0;
}
