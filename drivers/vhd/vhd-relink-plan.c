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
 * RL4 An image on a block device, or with a mark whose log is not on this host, may be another
 *     host's, whose locks are not seen here: vhd-util changes it in this way, or not at all.
 */
#include "drivers/vhd/vhd-relink.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/bytes.h"

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
		       "%s is in use, so that only the bytes of its parent's name can change, and "
		       "the new name (%s) does not fit there (%s): pause the disk first (tap-ctl "
		       "pause)",
		       path, to->relative, strerror(-rc));
}

void vhd_relink_free(struct vhd_relink *r)
{
	while (r->names)
		free(r->name[--r->names].data);
}
