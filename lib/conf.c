/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/conf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The file that somebody has named, or NULL. */
static const char *named(void)
{
	const char *p = getenv(TD_CONF_ENV);

	return p && *p ? p : NULL;
}

const char *td_conf_path(void)
{
	const char *p = named();

	return p ? p : SYSCONFDIR "/tapdisk/tapdisk.conf";
}

/* A tapdisk reads it on the thread that serves: O_NONBLOCK, since a FIFO without a writer would
 * hold it up. */
static FILE *conf_open(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	FILE *f = fd < 0 ? NULL : fdopen(fd, "r");

	if (fd >= 0 && !f)
		close(fd);
	return f;
}

char *td_conf_trim(char *s)
{
	char *end;

	s += strspn(s, " \t");
	end = s + strlen(s);
	while (end > s && strchr(" \t\r\n", end[-1]))
		end--;
	*end = 0;
	return s;
}

static int one_line(char *line, int (*set)(const char *, const char *, void *, struct td_err *),
		    void *arg, struct td_err *why)
{
	char *key, *eq;

	line[strcspn(line, "#")] = 0;
	key = td_conf_trim(line);
	if (!*key)
		return 0;
	eq = strchr(key, '=');
	if (!eq)
		return td_fail(why, EINVAL, "'%.100s' is not of the form key = value", key);
	*eq = 0;
	return set(td_conf_trim(key), td_conf_trim(eq + 1), arg, why);
}

int td_conf_read(int (*set)(const char *key, const char *value, void *arg, struct td_err *err),
		 void *arg, struct td_err *err)
{
	const char *path = td_conf_path();
	FILE *f = conf_open(path);
	char line[1024];
	int rc = 0;

	if (!f && errno == ENOENT && !named())
		return 0;
	if (!f)
		return td_fail(err, errno, "cannot read %s%s: %s", path,
			       named() ? ", which " TD_CONF_ENV " names" : "", strerror(errno));
	for (int n = 1; !rc && fgets(line, sizeof line, f); n++) {
		struct td_err why;

		why.code = 0;
		why.text[0] = 0;
		/* its rest would be taken for a line of its own */
		if (strlen(line) == sizeof line - 1 && line[sizeof line - 2] != '\n')
			rc = td_fail(&why, EINVAL, "the line is too long: at most %zu characters",
				     sizeof line - 2);
		else
			rc = one_line(line, set, arg, &why);
		if (rc < 0)
			td_fail(err, -rc, "%s, line %d: %.1000s", path, n, why.text);
	}
	if (!rc && ferror(f))
		rc = td_fail(err, EIO, "cannot read %s", path);
	fclose(f);
	return rc;
}
