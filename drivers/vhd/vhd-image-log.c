/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A VHD offline: a tapdisk that died may have left answered changes of it in a log (lib/redo.h),
 * and the image bears the log's mark.  Only a tapdisk applies a log.  Until then the image is not
 * what guests have been told, and a change of it would make the log unfit.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "drivers/vhd/vhd-image.h"
#include "lib/ctl-dir.h"
#include "lib/redo-inside.h"

static void identify_image(const struct vhd_image *v, struct redo_id *id)
{
	struct stat st;

	memset(id, 0, sizeof *id);
	if (!fstat(v->fd, &st))
		redo_identify(&st, id);
}

static int waits(const struct vhd_image *v, int minor, const char *log, struct td_err *err)
{
	const char *name = strrchr(log, '/');
	pid_t pid = 0;

	if (name && strchr(name, '.')) /* moved aside: no disk has it any more */
		return td_fail(err, EBUSY,
			       "%s lacks what a tapdisk that died had answered and not written to "
			       "it yet, which waits in %s: "
			       "`tap-ctl create -a vhd:%s' puts it there",
			       v->path, log, v->path);
	if (td_ctl_marker(minor, &pid) == TD_MARKER_HELD)
		return td_fail(err, EBUSY,
			       "%s lacks what tapdisk %d (minor %d) had answered and could not "
			       "write to it yet: that tapdisk has "
			       "to unpause or close it first",
			       v->path, (int)pid, minor);
	return td_fail(err, EBUSY,
		       "%s lacks what a tapdisk that died had answered and not written to it yet: "
		       "`tap-ctl settle -m %d' puts it "
		       "there, and `tap-ctl revive -m %d' goes on with the disk",
		       v->path, minor, minor);
}

int vhd_image_mind_log(const struct vhd_image *v, struct td_err *err)
{
	char log[PATH_MAX];
	struct redo_id id;
	int minor;

	if (!v->header.reserved || v->flags & VHD_AS_IS ||
	    (v->flags & VHD_FAST && !(v->flags & VHD_HOW)))
		return 0;
	identify_image(v, &id);
	/* with a lock, no tapdisk writes the image; so the log of one that lives waits as well:
	 * its close has failed */
	minor = redo_find(v->header.reserved, &id, v->path, !(v->flags & VHD_HOW), log);
	if (minor < 0)
		return minor == -ENOENT ? 0 : redo_unread(v->path, log, minor, err);
	return waits(v, minor, log, err);
}

int vhd_image_unmark(struct vhd_image *v, struct td_err *err)
{
	bool changed = v->changed;
	uint8_t b[VHD_HEADER];
	int rc;

	if (!v->header.reserved || !(v->flags & (VHD_WRITE | VHD_BENEATH)) ||
	    v->flags & VHD_KEEP_MARK)
		return 0;
	if (access(td_ctl_dir(), R_OK | X_OK) < 0 && errno != ENOENT)
		return 0; /* nobody has looked */
	v->header.reserved = 0;
	vhd_header_encode(&v->header, b);
	rc = vhd_pwrite(v, b, VHD_SECTOR, v->footer.data_offset, err);
	v->changed = changed;
	return rc;
}
