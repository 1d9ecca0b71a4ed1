/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/io/reach.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

int (*td_reach_find)(const char *path, const unsigned char *uuid, bool write, struct td_err *err);

#define FOUND (O_PATH | O_CLOEXEC)

/* --- where --- */

/* The directory of a path, to be freed; "" for one in the root. */
static char *dir_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? strndup(path, (size_t)(slash - path)) : NULL;
}

/*
 * Of a volume's node, /dev/dm-N: the device mapper's name for its group, "/dev/mapper/VG-", to be
 * freed.  A hyphen in a group's name is doubled there.
 */
static char *lvm_group(dev_t dev)
{
	char path[64], name[300], *end, *out = NULL;
	FILE *f;

	snprintf(path, sizeof path, "/sys/dev/block/%u:%u/dm/name", major(dev), minor(dev));
	f = fopen(path, "re");
	if (f && fgets(name, sizeof name, f)) {
		for (end = name; *end && (*end != '-' || end[1] == '-'); end += *end == '-' ? 2 : 1)
			;
		if (*end == '-' && asprintf(&out, "/dev/mapper/%.*s-", (int)(end - name), name) < 0)
			out = NULL;
	}
	if (f)
		fclose(f);
	return out;
}

int td_reach_init(struct td_reach *r, const char *path, const char *dirs, const char *parents)
{
	struct stat st;
	char *real;

	*r = (struct td_reach){.dirs = dirs && *dirs ? dirs : NULL,
			       .parents = parents && *parents ? parents : NULL,
			       .uid = -1};
	if (*path != '/')
		return 0;
	r->own = dir_of(path);
	if (!r->own)
		return -ENOMEM;
	if (stat(path, &st) < 0)
		return 0; /* opening it says why */
	r->uid = st.st_uid;
	if (S_ISBLK(st.st_mode)) {
		/* /dev, where its node is, is nobody's directory */
		r->real = lvm_group(st.st_rdev);
		return 0;
	}
	real = realpath(path, NULL);
	r->real = real ? dir_of(real) : NULL;
	free(real);
	return 0;
}

void td_reach_fini(struct td_reach *r)
{
	free(r->own);
	free(r->real);
	r->own = r->real = NULL;
}

/* What remains of path below dir, which may have colons in it; NULL: it is not there. */
static const char *below(const char *path, const char *dir, size_t n)
{
	while (n && dir[n - 1] == '/')
		n--;
	return !strncmp(path, dir, n) && path[n] == '/' ? path + n + 1 : NULL;
}

static bool is_group(const char *real)
{
	return real && *real && real[strlen(real) - 1] == '-' && !strncmp(real, "/dev/mapper/", 12);
}

/*
 * Calls fn with each directory that files may be in, until it returns something else than -ENOENT,
 * which is what it returns then.  The paths that `parents' names are among them: whoever names an
 * image means it.
 */
static int each_dir(const struct td_reach *r, int (*fn)(const char *dir, size_t n, void *arg),
		    void *arg)
{
	const char *lists[] = {r->dirs, r->parents};
	int rc = -ENOENT;

	if (r->own)
		rc = fn(r->own, strlen(r->own), arg);
	if (rc == -ENOENT && r->real)
		rc = is_group(r->real) ? fn("/dev/mapper", 11, arg)
				       : fn(r->real, strlen(r->real), arg);
	for (int i = 0; i < 2; i++)
		for (const char *p = lists[i]; rc == -ENOENT && p && *p;
		     p += strcspn(p, ":"), p += *p == ':')
			if (*p == '/')
				rc = fn(p, strcspn(p, ":"), arg);
	return rc;
}

static int is_below(const char *dir, size_t n, void *arg)
{
	const char *path = arg;

	return below(path, dir, n) || (strlen(path) == n && !strncmp(path, dir, n)) ? 0 : -ENOENT;
}

bool td_reach_has(const struct td_reach *r, const char *path)
{
	if (is_group(r->real) && strncmp(path, r->real, strlen(r->real)) &&
	    below(path, "/dev/mapper", 11)) {
		struct td_reach other = *r; /* another group's: unless the host has named it */

		other.real = NULL;
		return !each_dir(&other, is_below, (void *)path);
	}
	return !each_dir(r, is_below, (void *)path);
}

/* --- the way there --- */

int td_reach_walk(int dir, const char *name)
{
	int fd = fcntl(dir, F_DUPFD_CLOEXEC, 0), next;
	struct stat st;

	while (fd >= 0 && *name) {
		size_t n = strcspn(name, "/");
		char part[NAME_MAX + 1];

		if (n > NAME_MAX || (n == 2 && name[0] == '.' && name[1] == '.')) {
			close(fd);
			return n > NAME_MAX ? -ENAMETOOLONG : -EXDEV;
		}
		memcpy(part, name, n);
		part[n] = 0;
		name += n + (name[n] == '/');
		next = n ? openat(fd, part, FOUND | O_NOFOLLOW) : fcntl(fd, F_DUPFD_CLOEXEC, 0);
		if (next < 0) {
			next = -errno;
		} else if (fstat(next, &st) < 0 || S_ISLNK(st.st_mode)) {
			close(next);
			next = -ELOOP; /* wherever it leads: whoever called looks at its end */
		}
		close(fd);
		fd = next;
	}
	return fd;
}

static int find_from(int dir, const char *name, bool links)
{
	struct open_how how = {.flags = FOUND,
			       .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS |
					  (links ? 0 : RESOLVE_NO_SYMLINKS)};
	long fd = syscall(SYS_openat2, dir, name, &how, sizeof how);

	if (fd < 0 && errno == ENOSYS)
		return td_reach_walk(dir, name);
	return fd < 0 ? -errno : (int)fd;
}

struct way {
	const char *path;
	bool links;
	bool real; /* the directories' names without links */
};

static int try_dir(const char *dir, size_t n, void *arg)
{
	struct way *w = arg;
	char name[PATH_MAX], real[PATH_MAX];
	const char *rest;
	int at, fd;

	if (n >= sizeof name)
		return -ENOENT;
	snprintf(name, sizeof name, "%.*s", (int)n, dir);
	if (w->real && !realpath(*name ? name : "/", real))
		return -ENOENT;
	if (w->real)
		strcpy(name, real);
	if (!strcmp(w->path, name)) { /* a list may name an image itself */
		fd = open(name, FOUND | (w->real ? O_NOFOLLOW : 0));
		return fd < 0 ? -errno : fd;
	}
	rest = below(w->path, name, strlen(name));
	if (!rest)
		return -ENOENT;
	at = open(*name ? name : "/", FOUND | O_DIRECTORY);
	if (at < 0)
		return -errno;
	fd = find_from(at, rest, w->links);
	close(at);
	return fd;
}

/* In /dev links are the host's own; what they lead to is a device there. */
static int find_device(const char *path)
{
	int at = open("/dev", FOUND | O_DIRECTORY), fd;
	struct stat st;

	if (at < 0)
		return -errno;
	fd = find_from(at, path + 5, true);
	close(at);
	if (fd >= 0 && (fstat(fd, &st) < 0 || !S_ISBLK(st.st_mode))) {
		close(fd);
		fd = -EXDEV;
	}
	return fd;
}

int td_reach_open(const struct td_reach *r, const char *path, struct td_err *err)
{
	struct way w = {.path = path, .links = true};
	char real[PATH_MAX];
	int fd = td_reach_has(r, path) ? each_dir(r, try_dir, &w) : -EACCES;

	if ((fd == -EXDEV || fd == -ELOOP) && !strncmp(path, "/dev/", 5))
		fd = find_device(path);
	else if ((fd == -EXDEV || fd == -ELOOP) && realpath(path, real)) {
		w = (struct way){.path = real, .real = true};
		fd = each_dir(r, try_dir, &w);
		if (fd == -ENOENT)
			fd = -EXDEV;
	}
	if (fd == -EACCES && !td_reach_has(r, path))
		return td_fail(err, EACCES,
			       "%s is in no directory where parents are allowed: move it, or name "
			       "its directory in tapdisk.conf with "
			       "parent-dirs",
			       path);
	if (fd == -EXDEV || fd == -ELOOP)
		return td_fail(err, EACCES,
			       "%s is, or lies behind, a link that leads out of the directories "
			       "that parents may be in: name where it "
			       "leads in tapdisk.conf with parent-dirs",
			       path);
	return fd < 0 ? td_fail(err, -fd, "cannot open %s: %s", path, strerror(-fd)) : fd;
}

/* --- which --- */

static bool is_word(const char *p, size_t n, const char *word)
{
	return n == strlen(word) && !strncmp(p, word, n);
}

bool td_reach_parents_valid(const char *parents)
{
	if (!strcmp(parents, "no"))
		return true;
	for (const char *p = parents;; p++) {
		size_t n = strcspn(p, ":");

		if (!is_word(p, n, "frozen") && !is_word(p, n, "same-uid") && *p != '/')
			return false;
		p += n;
		if (!*p)
			return true;
	}
}

static bool device_is_read_only(dev_t dev)
{
	char path[64];
	FILE *f;
	int c;

	snprintf(path, sizeof path, "/sys/dev/block/%u:%u/ro", major(dev), minor(dev));
	f = fopen(path, "re");
	c = f ? fgetc(f) : '0';
	if (f)
		fclose(f);
	return c == '1';
}

static bool is_frozen(const struct stat *st)
{
	return S_ISBLK(st->st_mode) ? device_is_read_only(st->st_rdev)
				    : !(st->st_mode & (S_IWUSR | S_IWGRP | S_IWOTH));
}

int td_reach_freeze(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || is_frozen(&st))
		return 0;
	return chmod(path, st.st_mode & 07777 & ~(mode_t)(S_IWUSR | S_IWGRP | S_IWOTH)) < 0 ? -errno
											    : 0;
}

int td_reach_may(const struct td_reach *r, int fd, const char *path, struct td_err *err)
{
	const char *parents = r->parents ? r->parents : "frozen";
	struct stat st;

	if (!strcmp(parents, "no"))
		return td_fail(
			err, EACCES,
			"%s is not opened: parents = no in tapdisk.conf says that no image has one",
			path);
	if (fstat(fd, &st) < 0)
		return td_fail(err, errno, "cannot stat %s: %s", path, strerror(errno));
	for (const char *p = parents; *p; p += *p == ':') {
		size_t n = strcspn(p, ":");

		if ((is_word(p, n, "frozen") && (r->known || is_frozen(&st))) ||
		    (is_word(p, n, "same-uid") && r->uid == (long)st.st_uid) ||
		    (*p == '/' && is_below(p, n, (void *)path) == 0))
			return 0;
		p += n;
	}
	return td_fail(
		err, EACCES,
		"%s is not opened as a parent: it may be somebody's disk, and tapdisk.conf has "
		"parents = %s; if it is a parent, "
		"make it read-only (chmod a-w, or lvchange -p r for a volume), or name it there",
		path, parents);
}
