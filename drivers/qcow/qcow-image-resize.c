/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A qcow2 that no guest uses: made larger or smaller. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/qcow/qcow-image-inside.h"
#include "drivers/qcow/qcow-image.h"

/* --- resize --- */

static int shrink_to(struct td_image *image, uint64_t size)
{
	struct qcow *q = image->priv;
	uint64_t was = image->info.size;
	int rc = qcow_image_request(image, TD_DISCARD, 0, NULL, size, was - size);

	if (!rc)
		rc = qcow_flush(q);
	return rc ? rc : qcow_write_size(q, size);
}

int qcow_image_resize(const char *path, uint64_t size, bool shrink, const struct td_key *key,
		      struct td_io *io, struct td_err *err)
{
	struct td_image *image;
	int rc;

	if (!size || size % QCOW_SECTOR)
		return td_fail(err, EINVAL,
			       "%s: %llu bytes cannot be: a disk's size is a multiple of 512", path,
			       (unsigned long long)size);
	rc = qcow_chain_open(path, 0, TD_FILE_PARENT | TD_FILE_RDONLY, key, io, &image, err);
	if (rc)
		return rc;
	if (((struct qcow *)image->priv)->h.nsnapshots)
		rc = td_fail(
			err, ENOTSUP,
			"%s has internal snapshots: its size stays as it is while they are there",
			path);
	else if (((struct qcow *)image->priv)->h.nbitmaps)
		rc = td_fail(err, ENOTSUP,
			     "%s has dirty bitmaps, which do not fit another size: remove them "
			     "with `qemu-img bitmap --remove'",
			     path);
	else if (size > image->info.size)
		rc = qcow_image_grow(image, size);
	else if (size < image->info.size && !shrink)
		rc = td_fail(err, EINVAL,
			     "%s has %llu bytes: making it smaller destroys what lies beyond; say "
			     "--shrink if that is meant",
			     path, (unsigned long long)image->info.size);
	else if (size < image->info.size)
		rc = shrink_to(image, size);
	qcow_chain_close(image);
	return rc ? td_fail(err, -rc, "cannot resize %s: %s", path, strerror(-rc)) : 0;
}
