/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/sibling.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "lib/path.h"

/* "nbd://host/x", "json:{...}": a word and a colon before any slash, as image tools write
 * protocols. */
static bool has_protocol(const char *name)
{
	size_t n = strcspn(name, ":/");

	return name[n] == ':';
}

static bool climbs(const char *name)
{
	for (const char *p = name; (p = strstr(p, "..")); p += 2)
		if ((p == name || p[-1] == '/') && (!p[2] || p[2] == '/'))
			return true;
	return false;
}

/* Below the directory of an image that is named from the process's own directory: for tools. */
static bool plain(const char *name)
{
	return name[0] != '/' && !climbs(name);
}

static bool within(const char *image, const char *out, const struct td_reach *reach)
{
	const char *slash = strrchr(image, '/');
	size_t n = (size_t)(slash - image);

	return reach ? td_reach_has(reach, out) : !strncmp(out, image, n) && out[n] == '/';
}

int td_sibling(const char *image, const char *name, const char *what, const struct td_reach *reach,
	       char *out, struct td_err *err)
{
	const char *slash = strrchr(image, '/');
	int rc, n;

	if (!name[0])
		return td_fail(err, EINVAL, "%s: the name of its %s is empty", image, what);
	if (has_protocol(name))
		return td_fail(err, EPERM,
			       "%s: its %s is '%.200s': only plain file names are followed, as "
			       "an image must not make this host connect to anything; a disk of "
			       "this host can be put beneath it (parent-disk)",
			       image, what, name);
	if (image[0] == '/') {
		rc = td_path_resolve(image, name, out, TD_PATH_MAX);
	} else {
		n = snprintf(out, TD_PATH_MAX, "%.*s%s", slash ? (int)(slash - image + 1) : 0,
			     image, name);
		rc = n < TD_PATH_MAX ? 0 : -ENAMETOOLONG;
	}
	if (rc)
		return td_fail(err, -rc, "%s: the path of its %s is longer than %d bytes", image,
			       what, TD_PATH_MAX - 1);
	if (image[0] == '/' ? !within(image, out, reach) : !plain(name))
		return td_fail(err, EPERM,
			       "%s: its %s is '%.1023s', and nothing is opened there on an image's "
			       "word: move it into the image's directory "
			       "and rebase the image, or name its directory in tapdisk.conf with "
			       "parent-dirs",
			       image, what, name);
	return 0;
}
