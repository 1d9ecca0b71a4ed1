/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An image is merged into its backing file.  Before that: who else stands there?  An open overlay
 * keeps the backing file's lock; a closed one is found by the name that it has of its backing
 * file, as far as it lies beside that file or beside the image.
 */
#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/td-qcow/td-qcow.h"
#include "lib/sibling.h"

static bool same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_rdev == b->st_rdev;
}

/* The path of the backing file of the image at path; false: it has none, or is no qcow2. */
static bool backing_of(struct td_qcow *t, const char *path, char out[TD_PATH_MAX])
{
	struct qcow_info info = {.snapshots = NULL};
	struct td_err err = {0};
	bool has = qcow_image_info(path, &info, t->io, &err) == 0 && info.h.backing[0] &&
		   td_sibling(path, info.h.backing, "", &(struct td_reach){.dirs = "/"}, out,
			      NULL) == 0;

	free(info.snapshots);
	return has;
}

struct stand {
	const char *below; /* the backing file's path */
	struct stat image, backing;
};

static bool stands_on(struct td_qcow *t, const char *path, const struct stand *s)
{
	char below[TD_PATH_MAX];
	struct stat st;

	if (stat(path, &st) < 0 || !(S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)) ||
	    same_file(&st, &s->image) || same_file(&st, &s->backing))
		return false;
	return backing_of(t, path, below) && stat(below, &st) == 0 && same_file(&st, &s->backing);
}

/* The others in the directory of `near', an absolute path.  /dev and /dev/mapper have everybody's:
 * there the locks alone tell. */
static int closed_ones(struct td_qcow *t, const struct stand *s, const char *near)
{
	const char *slash = strrchr(near, '/');
	char dir[TD_PATH_MAX], path[TD_PATH_MAX + 300];
	struct dirent *e;
	int rc = 0;
	DIR *d;

	snprintf(dir, sizeof dir, "%.*s", (int)(slash - near) + 1, near);
	if (!strcmp(dir, "/dev/") || !strcmp(dir, "/dev/mapper/") || !(d = opendir(dir)))
		return 0;
	while (!rc && (e = readdir(d))) {
		snprintf(path, sizeof path, "%s%s", dir, e->d_name);
		if (stands_on(t, path, s))
			rc = td_fail(
				t->err, EBUSY,
				"%s has the backing file %s too, and its disk would change: delete "
				"it or give it another "
				"backing file first, or say --force if it is of no use any more",
				path, s->below);
	}
	closedir(d);
	return rc;
}

static int alone_beneath(struct td_qcow *t, const char *path)
{
	char below[TD_PATH_MAX], *whole = realpath(path, NULL);
	struct stand s = {.below = below};
	int rc = 0; /* where nothing can be seen the merge itself says what is wrong */

	if (whole && backing_of(t, whole, below) && stat(whole, &s.image) == 0 &&
	    stat(below, &s.backing) == 0) {
		rc = closed_ones(t, &s, below);
		if (!rc)
			rc = closed_ones(t, &s, whole);
	}
	free(whole);
	return rc;
}

static void print_progress(void *data, uint64_t done, uint64_t all)
{
	fprintf(stderr, "\r%6.2f%%", 100.0 * (double)done / (double)all);
	if (done == all)
		fputc('\n', stderr);
}

int td_qcow_commit(struct td_qcow *t)
{
	static const struct option longs[] = {{"force", no_argument, NULL, 'f'},
					      {NULL, 0, NULL, 0}};
	bool keep = false, force = false, show = isatty(STDERR_FILENO);
	const char *path;
	int o, rc;

	while ((o = getopt_long(t->argc, t->argv, "kdpf", longs, NULL)) != -1) {
		if (o == '?')
			return td_qcow_usage(t);
		keep |= o == 'k' || o == 'd'; /* -d: as qemu-img calls it */
		show |= o == 'p';
		force |= o == 'f';
	}
	if (t->argc - optind != 1)
		return td_qcow_usage(t);
	path = t->argv[optind];
	rc = force ? 0 : alone_beneath(t, path);
	if (!rc)
		rc = qcow_image_commit(path, keep, &t->key, show ? print_progress : NULL, NULL,
				       t->io, t->err);
	return -rc;
}
