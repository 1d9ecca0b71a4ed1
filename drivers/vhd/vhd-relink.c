/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Another parent for an image that is being written: what changes stays in its place, as whoever
 * looks for free room in the file does not know what the writer is about to allocate.
 *
 * RL1 The header takes two sectors, and a power cut could leave one of each.  So only the first
 *     changes: uuid, time, name, checksum.  The entries of the locators stand in the second, so a
 *     new name gets the length of the old one, by slashes, or is refused.
 * RL2 One locator names the new parent before the header does, durably, and another the old one
 *     until then: at each moment a name leads to the parent whose uuid the header has.  A raw
 *     parent has no uuid, and the first name that is tried counts: then that one changes first, or
 *     else last.
 * RL3 The log's mark stays, as the log builds on the block table alone (lib/redo.h).
 */
#include "drivers/vhd/vhd-relink.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/vhd/vhd.h"
#include "lib/bytes.h"
#include "lib/fiber/fiber.h"

/* In the order in which the driver tries them. */
static const uint32_t codes[] = {VHD_LOC_W2RU, VHD_LOC_W2KU, VHD_LOC_MACX};

/* The name in the locator's notation, as long as what is there; or -ENAMETOOLONG. */
static int fit(const struct vhd_locator *loc, const char *relative, uint8_t data[VHD_LOC_MAX])
{
	char path[VHD_PATH_MAX];

	for (size_t pad = 0; strlen(relative) + pad < sizeof path; pad++) {
		int n;

		memcpy(path, "./", 2);
		memset(path + 2, '/', pad);
		strcpy(path + 2 + pad, relative + 2);
		memset(data, 0, VHD_LOC_MAX);
		n = vhd_locator_encode(loc->code, path, data);
		if (n < 0 || (uint32_t)n >= loc->len)
			return n < 0 ? n : (uint32_t)n == loc->len ? 0 : -ENAMETOOLONG;
	}
	return -ENAMETOOLONG;
}

static int add(struct vhd_relink *r, const struct vhd_locator *loc, const char *relative)
{
	uint64_t bytes = td_round_up(loc->len, VHD_SECTOR);
	uint8_t *data;
	int rc;

	if (!loc->len || loc->off % VHD_SECTOR || bytes > vhd_locator_space(loc) ||
	    bytes > VHD_LOC_MAX)
		return -EINVAL;
	data = malloc(VHD_LOC_MAX);
	if (!data)
		return -ENOMEM;
	rc = fit(loc, relative, data);
	if (rc < 0) {
		free(data);
		return rc;
	}
	r->name[r->names++] =
		(struct vhd_relink_name){.off = loc->off, .len = (uint32_t)bytes, .data = data};
	return 0;
}

/* All names of ours; the one that has to be there before the header comes first (RL2). */
static int add_names(struct vhd_relink *r, const struct vhd_header *h, const struct td_relink *to)
{
	int rc = 0;

	for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
		for (int k = 0; k < VHD_LOCATORS && !rc; k++)
			if (h->loc[k].code == codes[i])
				rc = add(r, &h->loc[k], to->relative);
	if (!rc && !to->raw && r->names) {
		struct vhd_relink_name last = r->name[r->names - 1];

		r->name[r->names - 1] = r->name[0];
		r->name[0] = last;
	}
	return rc ? rc : r->names < 2 ? -ENOENT : 0;
}

int vhd_relink_plan(const uint8_t old[VHD_HEADER], const struct td_relink *to, struct vhd_relink *r,
		    const char *path, struct td_err *err)
{
	int rc = vhd_header_decode(old, &r->header, path, err);

	r->names = 0;
	if (rc < 0)
		return rc;
	if (strncmp(to->relative, "./", 2))
		return td_fail(err, EINVAL, "%s: '%.100s' is no relative path", path, to->relative);
	rc = add_names(r, &r->header, to);
	if (!rc)
		rc = vhd_name_encode(to->name, r->header.parent_name);
	memcpy(r->header.parent_uuid, to->uuid, 16);
	r->header.parent_timestamp = to->timestamp;
	vhd_header_encode(&r->header, r->head);
	if (!rc && memcmp(r->head + VHD_SECTOR, old + VHD_SECTOR, VHD_HEADER - VHD_SECTOR))
		rc = -ENAMETOOLONG;
	if (!rc)
		return 0;
	vhd_relink_free(r);
	return td_fail(err, EBUSY,
		       "%s is in use, and its parent's new name (%s) does not fit in the place of "
		       "the old one, which is all that can change meanwhile (%s): pause the disk "
		       "first (tap-ctl pause)",
		       path, to->relative, strerror(-rc));
}

void vhd_relink_free(struct vhd_relink *r)
{
	while (r->names)
		free(r->name[--r->names].data);
}

static int put(struct vhd *v, const void *data, uint64_t off, uint32_t len)
{
	struct td_iop sync = {.op = TD_IO_SYNC, .file = v->file};
	int rc = td_file_rw(v->file, TD_IO_WRITE, (void *)data, off, len, 0);

	return rc ? rc : td_await_file(v->image->io, &sync);
}

int vhd_relink(struct td_image *image, const struct td_relink *to, struct td_err *err)
{
	struct vhd *v = image->priv;
	uint8_t old[VHD_HEADER];
	struct vhd_relink r;
	int rc;

	if (!v->diff || !v->writable || v->broken)
		return td_fail(err, EINVAL, "%s is not a differencing VHD that can be written",
			       image->path);
	rc = td_file_rw(v->file, TD_IO_READ, old, v->footer.data_offset, sizeof old, 0);
	if (rc < 0)
		return td_fail(err, -rc, "cannot read the header of %s: %s", image->path,
			       strerror(-rc));
	rc = vhd_relink_plan(old, to, &r, image->path, err);
	if (rc < 0)
		return rc;
	rc = put(v, r.name[0].data, r.name[0].off, r.name[0].len);
	if (!rc) {
		v->header = r.header; /* what vhd-redo.c writes has it from now on */
		rc = put(v, r.head, v->footer.data_offset, VHD_SECTOR);
	}
	for (unsigned i = 1; i < r.names && !rc; i++)
		rc = put(v, r.name[i].data, r.name[i].off, r.name[i].len);
	vhd_relink_free(&r);
	return rc < 0 ? td_fail(err, -rc, "cannot name another parent in %s: %s", image->path,
				strerror(-rc))
		      : 0;
}
