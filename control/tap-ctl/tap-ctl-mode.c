/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* mode: words for a disk whose toolstack has none; kept in a file of the host's configuration. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/tap-ctl/tap-ctl.h"
#include "lib/disk-words.h"
#include "lib/output.h"

#define DIR_MAX (PATH_MAX - 64) /* bytes of a directory's path, so that names in it fit */

/* Of those that mean a disk alone, and may stand in a file. */
static const struct {
	const char *key, *values; /* with a blank around each; NULL: a number; "#": also one */
} known[] = {
	{"cache", " none writethrough writeback directsync unsafe "},
	{"unsafe", " yes no "},
	{"shared", " yes no "},
	{"two-primaries", " yes no "},
	{"parents-cache", " yes no "},
	{"on-enospc", " pause report "},
	{"sector-size", " 512 4096 "},
	{"request-timeout", NULL},
	{"reconnect-limit", "# no "},
	{"connections", NULL},
	{"limit", " none "},
	{"limit-iops", NULL},
	{"limit-iops-read", NULL},
	{"limit-iops-write", NULL},
	{"limit-bytes", NULL},
	{"limit-bytes-read", NULL},
	{"limit-bytes-write", NULL},
	{"limit-burst", NULL},
};

/* With a unit, as limits have one. */
static bool is_number(const char *v)
{
	size_t n = strspn(v, "0123456789");

	return n && (!v[n] || (strchr("KMGT", v[n]) && !v[n + 1]));
}

static bool fits(const char *values, const char *v)
{
	char value[64];

	if ((!values || *values == '#') && is_number(v))
		return true;
	snprintf(value, sizeof value, " %.60s ", v);
	return values && strstr(values, value) && !strchr(v, ' ') && *v;
}

static int check(const char *word, struct td_err *err)
{
	const char *eq = strchr(word, '=');
	char keys[400] = "";

	for (size_t i = 0; eq && i < sizeof known / sizeof *known; i++) {
		const char *values = known[i].values;

		if (strlen(known[i].key) != (size_t)(eq - word) ||
		    strncmp(known[i].key, word, (size_t)(eq - word)))
			continue;
		if (fits(values, eq + 1))
			return 0;
		return td_fail(err, EINVAL, "%.100s: the values are%s%s", word,
			       !values          ? " numbers"
			       : *values == '#' ? " numbers and"
						: "",
			       !values ? "" : values + (*values == '#'));
	}
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		snprintf(keys + strlen(keys), sizeof keys - strlen(keys), "%s%s", i ? ", " : "",
			 known[i].key);
	return td_fail(err, EINVAL, "'%.100s': a disk's file takes key=value with the keys %s",
		       word, keys);
}

static bool has_word(const json_t *words, const char *word)
{
	const json_t *w;
	size_t i;

	json_array_foreach (words, i, w)
		if (!strcmp(json_string_value(w) ?: "", word))
			return true;
	return false;
}

/* The image's absolute name, to be freed: below /dev as it is, since what it leads to is another
 * after the next boot; else what it leads to. */
static char *image_name(const char *args)
{
	const char *colon = strchr(args, ':'), *slash = strchr(args, '/');
	const char *path = colon && (!slash || colon < slash) ? colon + 1 : args;
	char *abs = tc_absolute(path), *real;

	if (!abs || !strncmp(abs, "/dev/", 5))
		return abs;
	real = realpath(abs, NULL);
	if (!real)
		return abs;
	free(abs);
	return real;
}

static int file_of(const char *image, char dir[DIR_MAX], char file[PATH_MAX], struct td_err *err)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325); /* FNV-1a: a name of any length is a short one */

	for (const char *c = image; *c; c++)
		h = (h ^ (unsigned char)*c) * UINT64_C(0x100000001b3);
	if (td_disks_dir(TD_DISKS_ADMIN, dir, DIR_MAX))
		return td_fail(err, ENAMETOOLONG, "the directory's name is too long");
	snprintf(file, PATH_MAX, "%.*s/%016llx.conf", DIR_MAX, dir, (unsigned long long)h);
	return 0;
}

/* Durable when done. */
static int put_file(const char *dir, const char *file, const char *image, const json_t *words,
		    struct td_err *err)
{
	char beside[PATH_MAX + 8];
	const json_t *w;
	bool ok;
	size_t i;
	int fd;
	FILE *f;

	if (mkdir(dir, 0755) < 0 && errno != EEXIST)
		return td_fail(err, errno, "cannot make %s: %s", dir, strerror(errno));
	snprintf(beside, sizeof beside, "%s.new", file);
	f = fopen(beside, "we");
	if (!f)
		return td_fail(err, errno, "cannot write %s: %s", beside, strerror(errno));
	fprintf(f, "# made by tap-ctl mode\n[%s]\n", image);
	json_array_foreach (words, i, w)
		fprintf(f, "%s\n", json_string_value(w));
	ok = !fflush(f) && !fsync(fileno(f));
	ok = !fclose(f) && ok && !rename(beside, file);
	if (!ok) {
		int e = errno;

		unlink(beside);
		return td_fail(err, e, "cannot write %s: %s", file, strerror(e));
	}
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ok = fd >= 0 && !fsync(fd);
	if (fd >= 0)
		close(fd);
	return ok ? 0 : td_fail(err, errno, "cannot sync %s: %s", dir, strerror(errno));
}

static void show_one(const char *image, const char *words, void *arg)
{
	bool gap = true;

	td_output_text(stdout, image);
	for (putchar(':'); *words; words++) {
		if (gap)
			putchar(' ');
		gap = *words == '\n';
		if (!gap)
			putchar(*words);
	}
	putchar('\n');
}

static int show_dir(int which, struct td_err *err)
{
	char dir[PATH_MAX], file[PATH_MAX + 300];
	struct dirent *e;
	int rc = 0;
	DIR *d;

	if (td_disks_dir(which, dir, sizeof dir) || !(d = opendir(dir)))
		return 0;
	while (!rc && (e = readdir(d))) {
		const char *dot = strrchr(e->d_name, '.');

		if (!dot || strcmp(dot, ".conf"))
			continue;
		snprintf(file, sizeof file, "%s/%s", dir, e->d_name);
		rc = td_disks_read(file, show_one, NULL, err);
	}
	closedir(d);
	return rc;
}

int tc_cmd_mode(const struct tc_args *a, struct td_err *err)
{
	char dir[DIR_MAX], file[PATH_MAX], *image;
	const json_t *w;
	size_t i;
	int rc = 0;

	if (!a->args && !a->clear && !json_array_size(a->options)) {
		for (int d = 0; !rc && d < TD_DISKS_DIRS; d++)
			rc = show_dir(d, err);
		return rc ? rc : td_output_end(err);
	}
	if (!a->args || a->clear == (json_array_size(a->options) > 0))
		return td_fail(err, EINVAL,
			       "say the image, and words or --clear: -a PATH -o cache=MODE");
	json_array_foreach (a->options, i, w)
		if (check(json_string_value(w) ?: "", err))
			return -EINVAL;
	if (has_word(a->options, "cache=unsafe") && !has_word(a->options, "unsafe=yes"))
		return td_fail(err, EINVAL,
			       "cache=unsafe loses data at a power cut: say unsafe=yes as well if "
			       "that is what you want");
	image = image_name(a->args);
	if (!image)
		return td_fail(err, errno, "cannot tell the path of '%.200s': %s", a->args,
			       strerror(errno));
	if (strchr(image, '\n'))
		rc = td_fail(err, EINVAL, "the path has a line feed in it");
	if (!rc)
		rc = file_of(image, dir, file, err);
	if (!rc && !a->clear)
		rc = put_file(dir, file, image, a->options, err);
	else if (!rc && unlink(file) < 0)
		rc = td_fail(err, errno, "no keys are set for %s: %s", image, strerror(errno));
	free(image);
	return rc;
}
