/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The commands that make or change an image. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/vhd-util/vhd-util.h"
#include "drivers/vhd/vhd-image.h"

int vu_create(const struct vu_args *a, struct td_err *err)
{
	struct vhd_new n = {
		.path = a->val['n'], .fixed = a->val['r'] != NULL, .replace = a->val['F'] != NULL};
	int rc = vu_mib(a, 's', &n.size, err);

	if (!rc && !n.size)
		rc = td_fail(err, EINVAL, "create: a disk has at least 1 MiB");
	if (!rc)
		rc = vu_mib(a, 'S', &n.table_size, err);
	return rc ? rc : vhd_create(&n, err);
}

int vu_snapshot(const struct vu_args *a, struct td_err *err)
{
	struct vhd_new n = {.path = a->val['n'],
			    .parent = a->val['p'],
			    .parent_raw = a->val['m'] != NULL,
			    .parent_as_named = a->val['e'] != NULL,
			    .replace = a->val['F'] != NULL};
	uint64_t limit = 0;
	int rc = vu_mib(a, 'S', &n.table_size, err);

	if (!rc && a->val['l'] && *a->val['l'])
		rc = vu_number(a, 'l', 1000, &limit, err);
	n.limit = (unsigned)limit;
	/* a host's cache, which is in use for as long as any guest is: only what its parents hold
	 * is written to it, so that who stands on it sees no change */
	n.parent_in_use = n.parent_as_named && !n.parent_raw && vu_only_caches(n.parent);
	return rc ? rc : vhd_create(&n, err);
}

static int set_marker(struct vhd_image *v, uint8_t value, struct td_err *err)
{
	uint8_t b[VHD_SECTOR];
	int rc;

	if (!v->has_batmap)
		return td_fail(err, EINVAL, "%s has no batmap, which the marker is part of",
			       v->path);
	v->batmap.marker = value;
	vhd_batmap_encode(&v->batmap, b);
	rc = vhd_pwrite(v, b, sizeof b, v->layout.batmap_header, err);
	return rc ? rc : vhd_sync(v, err);
}

/* A parent's fields may be set while a tapdisk has it under a child. */
int vu_set(const struct vu_args *a, struct td_err *err)
{
	const char *field = a->val['f'];
	struct vhd_image *v;
	uint64_t value;
	int rc = vu_number(a, 'v', 255, &value, err);

	if (!rc && strcmp(field, "hidden") && strcmp(field, "marker"))
		rc = td_fail(err, EINVAL, "set: there is no field '%s', only hidden and marker",
			     field);
	if (!rc)
		rc = vhd_image_open(a->val['n'], VHD_BENEATH, &v, err);
	if (rc < 0)
		return rc;
	if (!strcmp(field, "marker")) {
		rc = set_marker(v, (uint8_t)value, err);
	} else {
		v->footer.hidden = (uint8_t)value;
		rc = vhd_image_put_footer(v, err);
	}
	vhd_image_close(v);
	return rc;
}

int vu_repair(const struct vu_args *a, struct td_err *err)
{
	return vhd_repair(a->val['n'], err);
}

int vu_resize(const struct vu_args *a, struct td_err *err)
{
	uint64_t size = 0;
	int rc = vu_mib(a, 's', &size, err);

	if (!rc && !a->val['j'] == !a->val['f'])
		rc = td_fail(err, EINVAL, "resize: either -j JOURNAL or -f is needed");
	return rc ? rc : vhd_resize(a->val['n'], size, a->val['j'], err);
}

int vu_revert(const struct vu_args *a, struct td_err *err)
{
	return vhd_revert(a->val['n'], a->val['j'], err);
}

static int move_footer(struct vhd_image *v, uint64_t size, struct td_err *err)
{
	uint64_t end = vhd_image_data_end(v);
	uint8_t b[VHD_FOOTER];
	int rc;

	if (size % VHD_SECTOR || size < end + VHD_FOOTER || (v->blockdev && size > v->file_size) ||
	    (v->footer.type == VHD_FIXED && size != end + VHD_FOOTER))
		return td_fail(err, EINVAL, "%s cannot have %llu bytes: its data needs %llu%s",
			       v->path, (unsigned long long)size,
			       (unsigned long long)end + VHD_FOOTER,
			       v->blockdev ? ", and the device has less" : "");
	vhd_footer_encode(&v->footer, b);
	rc = vhd_pwrite(v, b, sizeof b, size - VHD_FOOTER, err);
	if (!rc)
		rc = vhd_sync(v, err);
	if (!rc && !v->blockdev && truncate(v->path, (off_t)size) < 0)
		rc = td_fail(err, errno, "cannot set the length of %s: %s", v->path,
			     strerror(errno));
	return rc;
}

/*
 * A parent that is in use changes only where its children do not look: the name of its own parent,
 * which they have read already, and its footer.  When it cannot be opened at all, err names its
 * user.
 */
static int open_for_modify(const struct vu_args *a, struct vhd_image **v, struct td_err *err)
{
	bool names = a->val['p'] && !a->val['s'] && !a->val['z'];
	int rc = vhd_image_open(a->val['n'], VHD_WRITE | (names ? VHD_KEEP_MARK : 0), v, err);

	if (rc != -EBUSY || a->val['z'])
		return rc;
	return vhd_image_open(a->val['n'], VHD_BENEATH, v, NULL) == 0 ? 0 : rc;
}

int vu_modify(const struct vu_args *a, struct td_err *err)
{
	struct td_err busy = {0};
	struct vhd_image *v;
	uint64_t size = 0;
	int rc = vu_number(a, 's', INT64_MAX, &size, err);

	if (!rc && !a->val['p'] && !a->val['s'] && !a->val['z'])
		rc = td_fail(err, EINVAL, "modify: one of -p, -s and -z is needed");
	if (rc < 0)
		return rc;
	rc = open_for_modify(a, &v, &busy);
	if (rc == -EBUSY && a->val['p'] && !a->val['s'] && !a->val['z'])
		return vu_relink(a->val['n'], a->val['p'], a->val['m'] != NULL, &busy, err);
	if (rc < 0)
		return td_fail(err, busy.code, "%s", busy.text);
	if ((*v).flags & VHD_BENEATH && a->val['p'])
		rc = vu_only_down(a->val['n'], a->val['p'], err);
	if (!rc && a->val['z'])
		rc = vhd_kill_data(v, err);
	if (!rc && a->val['p'])
		rc = vhd_reparent(v, a->val['p'], a->val['m'] != NULL, err);
	if (!rc && a->val['s'])
		rc = move_footer(v, size, err);
	vhd_image_close(v);
	return rc;
}
