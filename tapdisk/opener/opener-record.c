/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How a disk is open, for a successor, which believes it (OR4). */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tapdisk/opener/opener-inside.h"
#include "tapdisk/opener/opener-rights.h"

enum { RECORD_MAX = 64 * 1024 };

bool rights_is_record(const char *to)
{
	return place_is_record(to);
}

/* A disk that stands on its parent after a commit of the leaf. */
static void name_after_commit(const json_t *record)
{
	const char *spec = json_string_value(json_object_get(record, "args"));
	const char *colon = spec ? strchr(spec, ':') : NULL;

	if (colon && named_commits() && seen_is_path(colon + 1))
		named_add(colon + 1, true, true);
}

static json_t *read_record(const char *from, char *text, size_t *len)
{
	int fd = open(from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	ssize_t n = fd >= 0 ? read(fd, text, RECORD_MAX) : -1;

	if (fd >= 0)
		close(fd);
	*len = n > 0 ? (size_t)n : 0;
	return n > 0 && n < RECORD_MAX ? json_loadb(text, (size_t)n, 0, NULL) : NULL;
}

/* The tapdisk still has the file that it has written open, so that another one gets the name. */
static int write_beside(const char *to, const char *text, size_t len)
{
	char made[PATH_MAX + 8];
	int fd, rc;

	snprintf(made, sizeof made, "%s.made", to);
	unlink(made);
	fd = open(made, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	rc = write(fd, text, len) != (ssize_t)len ? -ENOSPC : 0;
	close(fd);
	if (!rc && rename(made, to) < 0)
		rc = -errno;
	if (rc < 0)
		unlink(made);
	return rc;
}

int rights_record(const char *from, const char *to)
{
	char *text = malloc(RECORD_MAX);
	size_t len = 0;
	json_t *record = text ? read_record(from, text, &len) : NULL;
	int rc = -EACCES;

	if (record)
		name_after_commit(record);
	if (record && named_covers(record))
		rc = write_beside(to, text, len);
	json_decref(record);
	free(text);
	if (!rc)
		unlink(from);
	return rc;
}
