/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/ctl-dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* How often, 10 ms apart, the lock of a killed process is looked at: it may take that long to let
 * go. */
#define CTL_ENDING_LOOKS 200

const char *td_ctl_dir(void)
{
	const char *dir = getenv(TD_CTL_DIR_ENV);

	return dir && *dir ? dir : TD_CTL_DIR;
}

static int ctl_mkdir(const char *path, struct td_err *err)
{
	struct stat st;

	if (!mkdir(path, 0700))
		return 0;
	if (errno != EEXIST)
		return td_fail(err, errno, "cannot make the control directory %s: %s", path,
			       strerror(errno));
	if (!stat(path, &st) && !S_ISDIR(st.st_mode))
		return td_fail(err, ENOTDIR,
			       "%s is in the way of the control directory: it is not a directory",
			       path);
	return 0;
}

int td_ctl_mkdirs(struct td_err *err)
{
	char path[PATH_MAX];
	int ret = ctl_mkdir(td_ctl_dir(), err);

	if (ret)
		return ret;
	if (snprintf(path, sizeof path, "%s/tapdisk", td_ctl_dir()) >= (int)sizeof path)
		return td_fail(err, ENAMETOOLONG, "the control directory's name is too long");
	return ctl_mkdir(path, err);
}

/* What /proc says of pid: whether it runs (a zombie does not), and whether `like' is in its name.
 */
static bool ctl_running_as(pid_t pid, const char *like, bool *is)
{
	char path[64], line[256], *name, *end;
	ssize_t n;
	int fd;

	*is = false;
	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, line, sizeof line - 1);
	close(fd);
	if (n <= 0)
		return false;
	line[n] = 0;
	name = strchr(line, '(');
	end = strrchr(line, ')');
	if (!name || !end || end[1] != ' ')
		return true;
	*end = 0;
	*is = strstr(name, like) != NULL;
	return end[2] != 'Z' && end[2] != 'X';
}

bool td_ctl_running(pid_t pid, bool *tapdisk)
{
	return ctl_running_as(pid, "tapdisk", tapdisk);
}

/* Is `name' PREFIX<pid>, or with a minor PREFIX<pid>.<minor>? */
static bool ctl_name_is(const char *name, const char *prefix, pid_t pid, bool minor)
{
	char want[64];
	int n = snprintf(want, sizeof want, "%s%d%s", prefix, (int)pid, minor ? "." : "");

	if (!minor)
		return !strcmp(name, want);
	return !strncmp(name, want, (size_t)n) && name[n] &&
	       name[n + strspn(name + n, "0123456789")] == 0;
}

static const char *const ctl_of_a_disk[] = {"nbd",       "nbd-old",       "nbd-ro",
					    "nbdserver", "nbdserver-new", "nbdexport"};

void td_ctl_unlink_sockets(pid_t pid)
{
	DIR *dir = opendir(td_ctl_dir());
	struct dirent *e;

	while (dir && (e = readdir(dir))) {
		bool its = ctl_name_is(e->d_name, "ctl", pid, false) ||
			   ctl_name_is(e->d_name, "nbdclient", pid, false);

		for (size_t i = 0; i < sizeof ctl_of_a_disk / sizeof *ctl_of_a_disk; i++)
			its |= ctl_name_is(e->d_name, ctl_of_a_disk[i], pid, true);
		if (its)
			unlinkat(dirfd(dir), e->d_name, 0);
		else if (ctl_name_is(e->d_name, ".root.", pid,
				     false)) /* tapdisk/sandbox/sandbox.c */
			unlinkat(dirfd(dir), e->d_name, AT_REMOVEDIR);
	}
	if (dir)
		closedir(dir);
}

/*
 * Is the marker locked?  A process that is being killed counts as dead while its last threads, and
 * with them the lock, are still on their way out; that takes a moment, for which this waits.
 */
static bool ctl_marker_locked(int fd, pid_t pid)
{
	struct timespec pause = {.tv_nsec = 10 * 1000 * 1000};
	int looks = 0;
	bool tapdisk;

	while (flock(fd, LOCK_SH | LOCK_NB) < 0 && (errno == EWOULDBLOCK || errno == EINTR)) {
		if (pid <= 0 || td_ctl_running(pid, &tapdisk) || looks++ == CTL_ENDING_LOOKS)
			return true;
		nanosleep(&pause, NULL);
	}
	return false;
}

int td_ctl_ring_path(int minor, unsigned domid, unsigned devid, unsigned queue, char *path)
{
	return snprintf(path, PATH_MAX, "%s/ring%d.%u.%u.%u", td_ctl_dir(), minor, domid, devid,
			queue) < PATH_MAX
		       ? 0
		       : -ENAMETOOLONG;
}

/* Calls fn, if there is one, with each record's name; true if there was any. */
static bool ctl_each_ring(int minor, void (*fn)(int dir, const char *name))
{
	DIR *dir = opendir(td_ctl_dir());
	unsigned domid, devid, queue;
	struct dirent *de;
	bool any = false;
	char rest;
	int m;

	if (!dir)
		return false;
	while ((de = readdir(dir)))
		if (sscanf(de->d_name, "ring%d.%u.%u.%u%c", &m, &domid, &devid, &queue, &rest) ==
			    4 &&
		    m == minor) {
			any = true;
			if (fn)
				fn(dirfd(dir), de->d_name);
		}
	closedir(dir);
	return any;
}

bool td_ctl_ring_any(int minor)
{
	return ctl_each_ring(minor, NULL);
}

static void ctl_ring_remove(int dir, const char *name)
{
	unlinkat(dir, name, 0);
}

/* A minor's file in the control directory. */
static int path_of(const char *what, int minor, char *path)
{
	return snprintf(path, PATH_MAX, "%s/%s%d", td_ctl_dir(), what, minor) < PATH_MAX
		       ? 0
		       : -ENAMETOOLONG;
}

int td_ctl_disk_path(int minor, char *path)
{
	return path_of("disk", minor, path);
}

int td_ctl_flush_path(int minor, char *path)
{
	return path_of("flush", minor, path);
}

int td_ctl_redo_path(int minor, char *path)
{
	return path_of("redo", minor, path);
}

int td_ctl_left_path(int minor, char *path)
{
	return path_of("left", minor, path);
}

int td_ctl_full_path(int minor, char *path)
{
	const char *env = getenv(TD_CTL_DIR_ENV), *dir = env && *env ? env : "/run";

	return snprintf(path, PATH_MAX, "%s/tapdisk-enospc%d", dir, minor) < PATH_MAX
		       ? 0
		       : -ENAMETOOLONG;
}

void td_ctl_move(pid_t from, pid_t to, int minor)
{
	char name[PATH_MAX], target[64];

	for (size_t i = 0; i < sizeof ctl_of_a_disk / sizeof *ctl_of_a_disk; i++) {
		snprintf(target, sizeof target, "%s%d.%d", ctl_of_a_disk[i], (int)to, minor);
		if (snprintf(name, sizeof name, "%s/%s%d.%d", td_ctl_dir(), ctl_of_a_disk[i],
			     (int)from, minor) < (int)sizeof name &&
		    symlink(target, name) < 0)
			td_log(LOG_WARNING, "cannot make %s: %s", name, strerror(errno));
	}
}

pid_t td_ctl_moved(pid_t from, int minor)
{
	char name[PATH_MAX], target[64], rest;
	bool tapdisk;
	pid_t pid = 0;

	for (int hops = 0; hops < 1000; hops++, from = pid) {
		ssize_t n = snprintf(name, sizeof name, "%s/nbd%d.%d", td_ctl_dir(), (int)from,
				     minor) < (int)sizeof name
				    ? readlink(name, target, sizeof target - 1)
				    : -1;

		if (n < 0)
			return pid && td_ctl_running(pid, &tapdisk) && tapdisk ? pid : 0;
		target[n] = 0;
		if (sscanf(target, "nbd%d.%d%c", &pid, &(int){0}, &rest) != 2)
			return 0;
	}
	return 0;
}

static void ctl_unlink_notes(int minor)
{
	DIR *dir = opendir(td_ctl_dir());
	struct dirent *e;
	char end[24];
	struct stat st;

	snprintf(end, sizeof end, ".%d", minor);
	while (dir && (e = readdir(dir))) {
		size_t n = strlen(e->d_name), m = strlen(end);

		if (!strncmp(e->d_name, "nbd", 3) && n > m && !strcmp(e->d_name + n - m, end) &&
		    !fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) &&
		    S_ISLNK(st.st_mode))
			unlinkat(dirfd(dir), e->d_name, 0);
	}
	if (dir)
		closedir(dir);
}

void td_ctl_record_sweep(int minor)
{
	char path[PATH_MAX];

	ctl_unlink_notes(minor);
	ctl_each_ring(minor, ctl_ring_remove);
	if (!td_ctl_disk_path(minor, path))
		unlink(path);
	if (!td_ctl_flush_path(minor, path))
		unlink(path);
	if (!td_ctl_redo_path(minor, path))
		unlink(path);
	if (!td_ctl_left_path(minor, path))
		unlink(path);
	if (!td_ctl_full_path(minor, path))
		unlink(path);
}

enum td_marker td_ctl_marker(int minor, pid_t *pid)
{
	char path[PATH_MAX], text[24];
	enum td_marker what;
	pid_t holder;
	ssize_t n;
	bool making;
	int fd;

	if (pid)
		*pid = 0;
	if (snprintf(path, sizeof path, "%s/tapdisk/tapdisk-%d", td_ctl_dir(), minor) >=
	    (int)sizeof path)
		return TD_MARKER_NONE;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return TD_MARKER_NONE;
	n = read(fd, text, sizeof text - 1);
	if (n <= 0) {
		/* The lock is not tried here: a look at an allocated marker must not get in the way
		 * of an attach. */
		what = TD_MARKER_FREE;
	} else {
		text[n] = 0;
		holder = (pid_t)atoi(text);
		if (pid)
			*pid = holder;
		if (ctl_running_as(holder, "tap-ctl", &making) && making)
			what = TD_MARKER_FREE; /* create is about to attach it: nor is its lock
						  tried */
		else
			what = ctl_marker_locked(fd, holder) ? TD_MARKER_HELD : TD_MARKER_STALE;
	}
	close(fd);
	return what;
}
