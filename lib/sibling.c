/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/sibling.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* "nbd://host/x", "json:{...}": a word and a colon before any slash, as image tools write protocols. */
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

int td_sibling(const char *image, const char *name, const char *what, char *out, struct td_err *err)
{
	const char *slash = strrchr(image, '/');
	int dir = slash ? (int)(slash - image + 1) : 0, n;

	if (!name[0])
		return td_fail(err, EINVAL, "%s: the name of its %s is empty", image, what);
	if (has_protocol(name))
		return td_fail(err, EPERM, "%s: its %s is '%.200s': only plain file names are followed", image, what, name);
	if (climbs(name) || (name[0] == '/' && (!dir || strncmp(name, image, (size_t)dir))))
		return td_fail(err, EPERM, "%s: its %s is '%.1023s', outside of the image's directory, where nothing is opened on an image's word: "
					   "put both into one directory, and rebase the image to the name alone", image, what, name);
	n = name[0] == '/' ? snprintf(out, TD_PATH_MAX, "%s", name) : snprintf(out, TD_PATH_MAX, "%.*s%s", dir, image, name);
	if (n >= TD_PATH_MAX)
		return td_fail(err, ENAMETOOLONG, "%s: the path of its %s is longer than %d bytes", image, what, TD_PATH_MAX - 1);
	return 0;
}
