/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/disk-words.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/conf.h"

int td_disks_dir(int which, char *out, size_t size)
{
	static const char *const built_in[] = {"/run/tapdisk/disks.d",
					       SYSCONFDIR "/tapdisk/disks.d"};
	const char *env = getenv(TD_DISKS_ENV), *colon = env ? strchr(env, ':') : NULL;
	int n;

	if (!env || !*env)
		n = snprintf(out, size, "%s", built_in[which]);
	else if (which == TD_DISKS_RUN)
		n = snprintf(out, size, "%.*s", colon ? (int)(colon - env) : (int)strlen(env), env);
	else
		n = snprintf(out, size, "%s", colon ? colon + 1 : env);
	return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

bool td_disks_any(void)
{
	char dir[PATH_MAX];

	for (int i = 0; i < TD_DISKS_DIRS; i++)
		if (!td_disks_dir(i, dir, sizeof dir) && !access(dir, F_OK))
			return true;
	return false;
}

/* --- a file --- */

static int add_word(char *words, char *line, const char *file, int n, struct td_err *err)
{
	char *eq = strchr(line, '=');
	size_t at = strlen(words);
	int len;

	if (!eq || eq == line)
		return td_fail(err, EINVAL, "%s, line %d: '%.100s' is not of the form key = value",
			       file, n, line);
	*eq = 0;
	len = snprintf(words + at, TD_DISK_WORDS - at, "%s=%s\n", td_conf_trim(line),
		       td_conf_trim(eq + 1));
	if (len < 0 || (size_t)len >= TD_DISK_WORDS - at)
		return td_fail(err, EINVAL, "%s, line %d: too many words for one image", file, n);
	return 0;
}

int td_disks_read(const char *file, void (*fn)(const char *image, const char *words, void *arg),
		  void *arg, struct td_err *err)
{
	int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), rc = 0;
	FILE *f = fd < 0 ? NULL : fdopen(fd, "r");
	char line[PATH_MAX + 8], image[PATH_MAX] = "", words[TD_DISK_WORDS] = "", *s, *end;

	if (!f) {
		rc = td_fail(err, errno, "cannot read %s: %s", file, strerror(errno));
		if (fd >= 0)
			close(fd);
		return rc;
	}
	for (int n = 1; !rc && fgets(line, sizeof line, f); n++) {
		if (!strchr(line, '\n') && !feof(f)) {
			rc = td_fail(err, EINVAL, "%s, line %d: the line is too long", file, n);
			break;
		}
		s = td_conf_trim(line);
		if (*s != '[') {
			s[strcspn(s, "#")] = 0;
			s = td_conf_trim(s);
			if (*s && !*image)
				rc = td_fail(err, EINVAL, "%s, line %d: no [/path] stands above it",
					     file, n);
			else if (*s)
				rc = add_word(words, s, file, n, err);
			continue;
		}
		end = strrchr(s, ']');
		if (!end || end[1] || s[1] != '/' || end - s > PATH_MAX) {
			rc = td_fail(err, EINVAL,
				     "%s, line %d: '%.100s' is not of the form [/path]", file, n,
				     s);
			continue;
		}
		*end = 0;
		if (*image)
			fn(image, words, arg);
		snprintf(image, sizeof image, "%s", s + 1);
		words[0] = 0;
	}
	if (!rc && ferror(f))
		rc = td_fail(err, EIO, "cannot read %s", file);
	fclose(f);
	if (!rc && *image)
		fn(image, words, arg);
	return rc;
}

/* --- an image among them --- */

struct wanted {
	const char *path;
	char real[PATH_MAX]; /* "": there is none */
	dev_t device;        /* of a block device below /dev, else 0 */
	const char *file;    /* that is being read */
	char *words, *in;    /* the answer, and its file */
	bool found, differ;
	char other[PATH_MAX];
};

static dev_t device_of(const char *path)
{
	struct stat st;

	return !strncmp(path, "/dev/", 5) && !stat(path, &st) && S_ISBLK(st.st_mode) ? st.st_rdev
										     : 0;
}

static void compare(const char *image, const char *words, void *arg)
{
	struct wanted *w = arg;

	if (strcmp(image, w->path) && strcmp(image, w->real) &&
	    !(w->device && device_of(image) == w->device))
		return;
	if (w->found && strcmp(words, w->words)) {
		w->differ = true;
		snprintf(w->other, sizeof w->other, "%s", w->file);
		return;
	}
	w->found = true;
	strcpy(w->words, words);
	strcpy(w->in, w->file);
}

static int look_in(const char *dir, struct wanted *w, struct td_err *err)
{
	char file[PATH_MAX];
	DIR *d = opendir(dir);
	struct dirent *e;
	int rc = 0, n;

	if (!d)
		return errno == ENOENT ? 0
				       : td_fail(err, errno, "cannot look into %s: %s", dir,
						 strerror(errno));
	while (!rc && (e = readdir(d))) {
		const char *dot = strrchr(e->d_name, '.');

		n = snprintf(file, sizeof file, "%s/%s", dir, e->d_name);
		if (e->d_name[0] == '.' || !dot || strcmp(dot, ".conf") || (size_t)n >= sizeof file)
			continue;
		w->file = file;
		rc = td_disks_read(file, compare, w, err);
		if (rc == -ENOENT) /* it has just been taken away */
			rc = 0;
	}
	closedir(d);
	if (!rc && w->differ)
		rc = td_fail(err, EINVAL,
			     "%s and %s say different things of %s: take one of them away, or give "
			     "the disk words of its own",
			     w->in, w->other, w->path);
	return rc;
}

int td_disk_words(const char *path, char words[TD_DISK_WORDS], char *file, struct td_err *err)
{
	struct wanted w = {.path = path, .words = words, .in = file};
	char dir[PATH_MAX];
	int rc = 0;

	words[0] = file[0] = 0;
	if (path[0] != '/' || !td_disks_any())
		return 0;
	if (!realpath(path, w.real))
		w.real[0] = 0;
	w.device = device_of(path);
	for (int i = 0; !rc && !w.found && i < TD_DISKS_DIRS; i++) {
		rc = td_disks_dir(i, dir, sizeof dir);
		if (!rc)
			rc = look_in(dir, &w, err);
	}
	return rc;
}
