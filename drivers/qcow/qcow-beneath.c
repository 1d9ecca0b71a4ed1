/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Before an image's data go into what is beneath it while a guest runs: which other qcow2 images
 * name that as their backing file, too?  As far as they lie beside that file, or beside the image.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "drivers/qcow/qcow.h"
#include "lib/path.h"
#include "lib/sibling.h"

static bool is_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_rdev == b->st_rdev;
}

/* The name of a backing file, as the image has it; false: none, or it is no qcow2. */
static bool read_name(int fd, char name[QCOW_NAME_MAX + 1])
{
	uint8_t head[QCOW_HEADER_MIN];
	uint64_t off;
	uint32_t len;

	if (pread(fd, head, sizeof head, 0) != sizeof head || td_get_be32(head) != QCOW_MAGIC)
		return false;
	off = td_get_be64(head + QCOW_H_BACKING_OFF);
	len = td_get_be32(head + QCOW_H_BACKING_LEN);
	if (!off || off > UINT32_MAX || !len || len > QCOW_NAME_MAX)
		return false;
	name[len] = 0;
	return pread(fd, name, len, (off_t)off) == (ssize_t)len && strlen(name) == len;
}

static bool names_it(const char *path, const struct stat *parent)
{
	char name[QCOW_NAME_MAX + 1], full[TD_PATH_MAX];
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	bool has = fd >= 0 && read_name(fd, name);
	struct stat st;

	if (fd >= 0)
		close(fd);
	return has && !td_path_resolve(path, name, full, sizeof full) && stat(full, &st) == 0 &&
	       is_file(&st, parent);
}

/* The others in the directory of `near'.  /dev and /dev/mapper have everybody's: there the locks
 * alone tell. */
static int look_beside(const char *near, const struct stat *child, const struct stat *parent,
		       const char *name, struct td_err *err)
{
	int n = (int)(strrchr(near, '/') - near) + 1, rc = 0;
	char dir[TD_PATH_MAX], path[TD_PATH_MAX + 300];
	struct dirent *e;
	struct stat st;
	DIR *d;

	snprintf(dir, sizeof dir, "%.*s", n, near);
	if (!strcmp(dir, "/dev/") || !strcmp(dir, "/dev/mapper/") || !(d = opendir(dir)))
		return 0;
	while (!rc && (e = readdir(d))) {
		snprintf(path, sizeof path, "%s%s", dir, e->d_name);
		if (stat(path, &st) < 0 || !(S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)) ||
		    is_file(&st, child) || is_file(&st, parent) || !names_it(path, parent))
			continue;
		rc = td_fail(err, EBUSY,
			     "%s has the backing file %s too, and its disk would change: delete it "
			     "or give it another backing file first, or say --force if it is of no "
			     "use any more",
			     path, name);
	}
	closedir(d);
	return rc;
}

int qcow_beneath(const char *child, const char *parent, struct td_err *err)
{
	struct stat c, p;
	int rc;

	if (child[0] != '/' || parent[0] != '/' || stat(child, &c) < 0 || stat(parent, &p) < 0)
		return 0;
	rc = look_beside(parent, &c, &p, parent, err);
	return rc ? rc : look_beside(child, &c, &p, parent, err);
}
