/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/settle.h"

#include <errno.h>
#include <string.h>

#include "lib/io/file.h"
#include "lib/redo.h"

/* A parent on a file system that nobody can write to (squashfs, an ISO) has nothing to make
 * durable. */
static bool cannot_be_dirty(const struct td_image *image, int rc)
{
	return (image->file_flags & TD_FILE_PARENT) && (rc == -EINVAL || rc == -EROFS);
}

bool td_lost(const struct td_image *image)
{
	return image->lost && *image->lost;
}

int td_settled(struct td_image *image, const char *path, int rc, struct td_err *err)
{
	if (rc >= 0 || cannot_be_dirty(image, rc))
		return 0;
	if (!image->lost)
		return td_fail(err, -rc,
			       "%s: what its last user wrote could not be made durable (%s), and "
			       "some of it may be lost: check its "
			       "contents before it is opened again",
			       path, strerror(-rc));
	td_log(LOG_ERR, "%s: what was written to it before could not be made durable: %s", path,
	       strerror(-rc));
	*image->lost = rc; /* S2 */
	return 0;
}

int td_settle(struct td_image *image, struct td_file *f, struct td_err *err)
{
	int rc;

	f->mark = image->mark;
	if (!image->settle)
		return 0;
	rc = td_file_rw(f, TD_IO_SYNC, NULL, 0, 0, 0);
	if (rc < 0 && !cannot_be_dirty(image, rc))
		td_redo_fail_of(f); /* G9: the next sync of it finds nothing any more */
	return td_settled(image, f->path, rc, err);
}
