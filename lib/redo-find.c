/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The logs of this host: is there one of an image that somebody wants to open? */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "lib/ctl-dir.h"
#include "lib/redo-inside.h"

/* dead: one whose tapdisk lives does not count; it has the image, and a reader may look at it all the same. */
static bool is_it(const char *path, int minor, uint32_t mark, const struct redo_id *id, const char *image, bool dead)
{
	struct td_redo *r = NULL;
	bool its = !redo_map(path, &r) && r->head->mark == mark && td_redo_pending(r) && redo_same(r->head, id, image);

	td_redo_free(r);
	return its && !(dead && td_ctl_marker(minor, NULL) == TD_MARKER_HELD);
}

int redo_find(uint32_t mark, const struct redo_id *id, const char *image, bool dead, char *path)
{
	DIR *dir = opendir(td_ctl_dir());
	struct dirent *e;
	int minor, found = -1;

	while (dir && found < 0 && (e = readdir(dir))) {
		if (sscanf(e->d_name, "redo%d", &minor) != 1 || minor < 0 ||
		    snprintf(path, PATH_MAX, "%s/%s", td_ctl_dir(), e->d_name) >= PATH_MAX)
			continue;
		if (is_it(path, minor, mark, id, image, dead))
			found = minor;
	}
	if (dir)
		closedir(dir);
	return found;
}
