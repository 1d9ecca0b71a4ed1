/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tapdisk/vbd/settle.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "drivers/drivers.h"
#include "lib/ctl-dir.h"
#include "lib/redo.h"
#include "tapdisk/chain.h"

int settle(struct queue *q, int minor, const char *spec, const struct vbd_options *o, bool must,
	   struct td_err *err)
{
	struct td_how how = {.flags = o->mode->file_flags,
			     .dirs = o->parent_dirs,
			     .parents = o->parents,
			     .data = o->data_file};
	const struct td_driver *d;
	const char *path;
	char log[PATH_MAX];
	struct td_io *io;
	int rc;

	d = td_driver_parse(spec, &path, err);
	if (!d)
		return -err->code;
	if (td_ctl_redo_path(minor, log))
		return td_fail(err, ENAMETOOLONG, "the control directory's name is too long");
	rc = td_redo_adopt(log, must, &how.redo, err);
	if (rc < 0)
		return rc;
	if (td_redo_pending(how.redo)) {
		struct td_reach reach = {.own = NULL};

		rc = queue_engine(q, NULL, how.flags & TD_FILE_DIRECT, &io, err);
		if (!rc)
			rc = chain_reach(spec, &how, io, &reach, err);
		how.reach = &reach;
		if (!rc)
			rc = td_image_settle(d, path, &how, io, err);
		if (!rc && td_redo_pending(how.redo)) /* a driver that keeps no log, say */
			rc = td_fail(err, EINVAL, "%s is no image that %s could be of", spec, log);
		td_reach_fini(&reach);
	}
	td_redo_free(how.redo);
	return rc;
}
