/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The driver's part of vhd-relink.h: it is the image's writer, and names the parent itself. */
#include "drivers/vhd/vhd-relink.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "drivers/vhd/vhd-image.h"
#include "drivers/vhd/vhd.h"
#include "lib/fiber/fiber.h"

/* Durably, with cache=unsafe, too (LC3 of tapdisk/commit.h). */
static int put_name(struct vhd *v, const void *data, uint64_t off, uint32_t len)
{
	struct td_iop sync = {.op = TD_IO_SYNC, .file = v->file, .flags = TD_IO_SURE};
	int rc = td_file_rw(v->file, TD_IO_WRITE, (void *)data, off, len, 0);

	if (rc)
		return rc;
	rc = td_await_file(v->image->io, &sync);
	if (rc)
		vhd_break(v, rc); /* the kernel tells of it once */
	return rc;
}

static int relink(struct td_image *image, const struct td_relink *to, struct td_err *err)
{
	struct vhd *v = image->priv;
	uint8_t old[VHD_HEADER];
	struct vhd_relink r;
	bool begun = false;
	int rc;

	rc = td_file_rw(v->file, TD_IO_READ, old, v->footer.data_offset, sizeof old, 0);
	if (rc < 0)
		return td_fail(err, -rc, "cannot read the header of %s: %s", image->path,
			       strerror(-rc));
	rc = vhd_relink_plan(old, to, &r, image->path, err);
	if (rc < 0)
		return rc;
	if (to->trial) {
		vhd_relink_free(&r);
		return 0;
	}
	rc = put_name(v, r.name[0].data, r.name[0].off, r.name[0].len);
	if (!rc) {
		begun = true;
		v->header = r.header; /* what vhd-redo.c writes has it from now on */
		rc = put_name(v, r.head, v->footer.data_offset, VHD_SECTOR);
	}
	for (unsigned i = 1; i < r.names && !rc; i++)
		rc = put_name(v, r.name[i].data, r.name[i].off, r.name[i].len);
	vhd_relink_free(&r);
	if (rc < 0 && begun && to->doubt)
		*to->doubt = true;
	return rc < 0 ? td_fail(err, -rc, "cannot name another parent%s in %s: %s%s",
				begun ? " durably" : "", image->path, strerror(-rc),
				begun ? "; " TD_RELINK_DOUBT : "")
		      : 0;
}

int vhd_relink(struct td_image *image, const struct td_relink *to, struct td_err *err)
{
	const struct vhd *v = image->priv;
	struct td_relink full = *to;
	char relative[VHD_PATH_MAX];
	struct td_err why = {0};
	int rc = 0;

	if (!v->diff || !v->writable || v->broken)
		return td_fail(err, EINVAL, "%s is not a differencing VHD that can be written",
			       image->path);
	if (!to->relative) {
		rc = vhd_relative_path(image->path, to->path, relative, err);
		full.relative = relative;
	}
	if (rc || to->relative)
		return rc ? rc : relink(image, &full, err);
	rc = relink(image, &full, &why);
	return rc ? td_fail(err, -rc, "%s%s", why.text,
			    rc == -EBUSY ? "; or give the images names of one length, as uuids have"
					 : "")
		  : 0;
}

void vhd_identify(struct td_image *image, struct td_relink *to)
{
	const struct vhd *v = image->priv;

	memcpy(to->uuid, v->footer.uuid, sizeof to->uuid);
	to->timestamp = v->file->st.blockdev ? 0 : vhd_time(time(NULL));
}
