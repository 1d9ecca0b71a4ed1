/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A qcow2 that no guest uses: where each part of the disk is stored. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/qcow/qcow-image-inside.h"
#include "drivers/qcow/qcow-image.h"

/* --- map --- */

struct walk {
	int (*each)(void *data, const struct qcow_extent *e);
	void *data;
};

static int map_range(struct walk *w, struct td_image *image, unsigned depth, uint64_t off,
		     uint64_t len);

static int map_qcow(struct walk *w, struct td_image *image, unsigned depth, uint64_t off,
		    uint64_t len)
{
	struct qcow *q = image->priv;
	struct qcow_run run;
	int rc = 0;

	for (uint64_t at = off; !rc && at < off + len; at += run.len) {
		struct qcow_extent e = {
			.off = at, .depth = depth, .present = true, .file = q->data->path};

		rc = qcow_map_wait(q, at, off + len - at, &run);
		if (rc)
			break;
		if (run.kind == QCOW_RUN_NONE && image->backing) {
			rc = map_range(w, image->backing, depth + 1, at, run.len);
			continue;
		}
		e.len = run.len;
		e.zero = run.kind == QCOW_RUN_ZERO || run.kind == QCOW_RUN_NONE;
		e.present = run.kind != QCOW_RUN_NONE;
		e.data = !e.zero;
		e.zipped = run.kind == QCOW_RUN_ZIP;
		e.has_host = run.kind == QCOW_RUN_DATA;
		e.host = run.host;
		rc = w->each(w->data, &e);
	}
	return rc;
}

static int map_other(struct walk *w, struct td_image *image, unsigned depth, uint64_t off,
		     uint64_t len)
{
	int rc = 0;

	for (uint64_t at = off; !rc && at < off + len;) {
		struct qcow_extent e = {
			.off = at, .depth = depth, .present = true, .file = image->path};
		struct td_extent x = {at, off + len - at, 0};

		if (image->driver->extents &&
		    image->driver->extents(image, at, off + len - at, &x, 1) < 1)
			x = (struct td_extent){at, off + len - at, 0};
		if (x.flags & TD_EXTENT_PARENT && image->backing) {
			rc = map_range(w, image->backing, depth + 1, at, x.len);
		} else {
			e.len = x.len;
			e.zero = x.flags & (TD_EXTENT_ZERO | TD_EXTENT_PARENT);
			e.data = !(x.flags & (TD_EXTENT_HOLE | TD_EXTENT_PARENT));
			e.has_host = !strcmp(image->driver->name, "aio");
			e.host = at;
			rc = w->each(w->data, &e);
		}
		at += x.len;
	}
	return rc;
}

static int map_range(struct walk *w, struct td_image *image, unsigned depth, uint64_t off,
		     uint64_t len)
{
	uint64_t inside = off < image->info.size ? image->info.size - off : 0;
	int rc = 0;

	if (inside > len)
		inside = len;
	if (inside)
		rc = (!strcmp(image->driver->name, "qcow2") ? map_qcow : map_other)(w, image, depth,
										    off, inside);
	if (!rc && inside < len) {
		struct qcow_extent e = {
			.off = off + inside, .len = len - inside, .depth = depth, .zero = true};

		rc = w->each(w->data, &e);
	}
	return rc;
}

int qcow_image_map(const char *path, int (*each)(void *data, const struct qcow_extent *e),
		   void *data, const struct td_key *key, struct td_io *io, struct td_err *err)
{
	struct walk w = {each, data};
	struct td_image *image;
	int rc = qcow_chain_open(path, TD_FILE_RDONLY, TD_FILE_PARENT | TD_FILE_RDONLY, key, io,
				 &image, err);

	if (rc)
		return rc;
	rc = map_range(&w, image, 0, 0, image->info.size);
	if (!rc)
		rc = each(data, NULL);
	qcow_chain_close(image);
	return rc ? td_fail(err, -rc, "cannot map %s: %s", path, strerror(-rc)) : 0;
}
