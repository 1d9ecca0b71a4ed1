/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A VHD offline: before an image's data go into what is beneath it (W8), who else stands there?
 * Whoever has the image itself in his chain sees no difference.  Another child would see its disk
 * change under it: one that is open shows by its locks, one that is not by the uuid of its parent,
 * as far as it lies beside the parent or beside the image.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "drivers/vhd/vhd-image.h"
#include "drivers/vhd/vhd-relink.h"
#include "lib/readers.h"

static int open_ones(const struct vhd_image *v, const struct vhd_image *to, struct td_err *err)
{
	char who[128];

	if (!td_readers_beside(to->fd, to->flags & VHD_READ ? 1 : 0, v->fd,
			       v->flags & VHD_READ ? 1 : 0, who, sizeof who))
		return 0;
	return td_fail(err, EBUSY,
		       "%s is in use%s through another image than %s: the disk there would change; "
		       "close it first, or coalesce when "
		       "it is the parent of %s only",
		       to->path, who, v->path, v->path);
}

static bool is_file(const struct stat *a, int fd)
{
	struct stat b;

	return fstat(fd, &b) == 0 && a->st_dev == b.st_dev && a->st_ino == b.st_ino &&
	       a->st_rdev == b.st_rdev;
}

/* Does the file name `to' as its parent?  What cannot be read as a VHD does not. */
static bool stands_on(const char *path, const struct vhd_image *to)
{
	struct vhd_image *u;
	char parent[VHD_PATH_MAX];
	struct stat st;
	bool is = false;

	if (vhd_image_open(path, VHD_LOOK | VHD_FAST, &u, NULL) < 0)
		return false;
	if (u->footer.type == VHD_DIFF && !to->raw)
		is = !memcmp(u->header.parent_uuid, to->footer.uuid, 16);
	else if (u->footer.type == VHD_DIFF && vhd_uuid_nil(u->header.parent_uuid))
		is = vhd_image_parent_path(u, parent, NULL) == 0 && stat(parent, &st) == 0 &&
		     is_file(&st, to->fd);
	vhd_image_close(u);
	return is;
}

/* The others in the directory of `near', as it was named.  /dev and /dev/mapper have everybody's:
 * there the locks alone tell. */
static int closed_ones(const struct vhd_image *v, const struct vhd_image *to, const char *near,
		       struct td_err *err)
{
	char dir[VHD_PATH_MAX], path[VHD_PATH_MAX + 300];
	const char *slash = strrchr(near, '/');
	struct dirent *e;
	struct stat st;
	int rc = 0;
	DIR *d;

	snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - near) + 1 : 2, slash ? near : "./");
	if (!strcmp(dir, "/dev/") || !strcmp(dir, "/dev/mapper/") || !(d = opendir(dir)))
		return 0;
	while (!rc && (e = readdir(d))) {
		snprintf(path, sizeof path, "%s%s", slash ? dir : "", e->d_name);
		if (stat(path, &st) < 0 || !(S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)) ||
		    is_file(&st, v->fd) || is_file(&st, to->fd) || !stands_on(path, to))
			continue;
		rc = td_fail(err, EBUSY,
			     "%s has the parent %s too, and its disk would change: delete it or "
			     "give it another parent first, or say --force if "
			     "it is of no use any more",
			     path, to->path);
	}
	closedir(d);
	return rc;
}

int vhd_alone_beneath(const struct vhd_image *v, const struct vhd_image *to, bool force,
		      struct td_err *err)
{
	int rc = open_ones(v, to, err);

	if (!rc && !force)
		rc = closed_ones(v, to, to->path, err);
	if (!rc && !force)
		rc = closed_ones(v, to, v->path, err);
	return rc;
}

int vhd_beneath(const char *child, const char *parent, struct td_err *err)
{
	struct vhd_image *v, *to;
	int rc;

	/* a raw parent has no uuid that others could know it by: the locks alone tell */
	if (vhd_image_open(child, VHD_LOOK | VHD_FAST, &v, NULL) < 0)
		return 0;
	if (vhd_image_open(parent, VHD_LOOK | VHD_FAST, &to, NULL) < 0) {
		vhd_image_close(v);
		return 0;
	}
	rc = closed_ones(v, to, to->path, err);
	if (!rc)
		rc = closed_ones(v, to, v->path, err);
	vhd_image_close(to);
	vhd_image_close(v);
	return rc;
}
