/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Minor numbers: the marker files of td/ctl.h, made and taken away. */
#include "control/tap-ctl/tap-ctl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/ctl-dir.h"
#include "lib/marker.h"

/* to be freed; NULL when there is no memory */
static char *marker_path(int minor)
{
	char *path;

	return asprintf(&path, "%s/tapdisk/tapdisk-%d", td_ctl_dir(), minor) < 0 ? NULL : path;
}

/* The text of a marker of ours into a new file, and the file's name into place: 0, -EEXIST or
 * -errno. */
static int marker_fill(int fd, const char *from, const char *path)
{
	char text[16];
	int n = snprintf(text, sizeof text, "%d\n", (int)getpid());
	ssize_t done = write(fd, text, (size_t)n);

	if (done != n)
		return done < 0 ? -errno : -ENOSPC;
	return linkat(AT_FDCWD, from, AT_FDCWD, path, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
}

/*
 * The marker has our pid in it from the first moment on; if we are killed, it is known as that of a
 * dead process.  It is made without a name or, where the file system has no such files or there is
 * no /proc, under a name that no disk has, which the next tap-ctl removes.
 */
static int marker_link(const char *path)
{
	char dir[PATH_MAX], name[PATH_MAX];
	int fd, ret;

	if (snprintf(dir, sizeof dir, "%s/tapdisk", td_ctl_dir()) >= (int)sizeof dir ||
	    snprintf(name, sizeof name, "%s/making-%d", dir, (int)getpid()) >= (int)sizeof name)
		return -ENAMETOOLONG;
	fd = open(dir, O_WRONLY | O_TMPFILE | O_CLOEXEC, 0600);
	if (fd >= 0) {
		char self[40];

		snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
		ret = marker_fill(fd, self, path);
		close(fd);
		if (ret != -ENOENT)
			return ret;
	}
	unlink(name);
	fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	ret = marker_fill(fd, name, path);
	close(fd);
	unlink(name);
	return ret;
}

static int marker_make(const char *path, bool making)
{
	int fd;

	if (making)
		return marker_link(path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

int tc_allocate(bool making, int *minor, char **path, struct td_err *err)
{
	int ret = td_ctl_mkdirs(err);

	for (int n = 0; !ret && n < TD_MINOR_MAX; n++) {
		char *p = marker_path(n);
		int rc;

		if (!p)
			return td_fail(err, ENOMEM, "out of memory");
		rc = marker_make(p, making);
		if (!rc) {
			*minor = n;
			if (path)
				*path = p;
			else
				free(p);
			return 0;
		}
		if (rc != -EEXIST)
			ret = td_fail(err, -rc, "cannot make the marker %s: %s", p, strerror(-rc));
		free(p);
	}
	return ret ? ret : td_fail(err, ENOSPC, "all %d minor numbers are in use", TD_MINOR_MAX);
}

/*
 * Removes a marker under its lock, so that no tapdisk can be taking it at the same time; with
 * `stale', only if a dead tapdisk left it.  0, -ENODEV when there is none, -EBUSY when it is held
 * (or, with stale, not a dead one's), -ENOTEMPTY when its records hold what is in no image yet, or
 * -errno.
 */
static int marker_remove(int minor, const char *path, bool stale, bool give_up)
{
	struct stat st;
	int ret = 0, fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

	if (fd < 0)
		return errno == ENOENT ? -ENODEV : -errno;
	/* the second try is for a holder that was just dying, which td_ctl_marker waits for */
	if (flock(fd, LOCK_EX | LOCK_NB) < 0 &&
	    (td_ctl_marker(minor, NULL) != TD_MARKER_STALE || flock(fd, LOCK_EX | LOCK_NB) < 0))
		ret = -EBUSY;
	else if (fstat(fd, &st) < 0)
		ret = -errno;
	else if (!st.st_nlink) /* another was quicker; a new one of that name may be there by now */
		ret = -ENODEV;
	else if (stale && !st.st_size)
		ret = -EBUSY;
	else if (tc_log_waits(minor) && !give_up)
		ret = -ENOTEMPTY;
	else if ((ret = td_marker_seal(fd, TD_MARKER_PATIENCE)) < 0)
		; /* a dead tapdisk's opener is changing one of its files */
	else {
		td_ctl_record_sweep(minor); /* while the number is still nobody else's */
		if (unlink(path) < 0)
			ret = errno == ENOENT ? -ENODEV : -errno;
	}
	close(fd);
	return ret;
}

int tc_free(int minor, bool give_up, struct td_err *err)
{
	char *path = marker_path(minor);
	/* also where its marker was attached and detached since */
	bool failed = td_ctl_marker(minor, NULL) != TD_MARKER_HELD && tc_flush_failed(minor);
	pid_t pid = 0;
	int ret;

	if (!path)
		return td_fail(err, ENOMEM, "out of memory");
	ret = tc_settle(minor, give_up, err);
	if (ret) {
		free(path);
		return ret;
	}
	ret = marker_remove(minor, path, false, give_up);
	if (ret == -EBUSY) {
		td_ctl_marker(minor, &pid);
		td_fail(err, EBUSY,
			"minor %d is held by tapdisk %d: end it with `tap-ctl destroy -p %d -m %d'",
			minor, (int)pid, (int)pid, minor);
	} else if (ret == -ENODEV) {
		td_fail(err, ENODEV, "minor %d is not allocated: there is no %s", minor, path);
	} else if (ret) {
		td_fail(err, -ret, "cannot remove the marker %s: %s", path, strerror(-ret));
	}
	free(path);
	return !ret && failed ? tc_say_failed(minor, give_up, err) : ret;
}

/* The disk is taken away; who does that is told what a close would have said. */
int tc_say_failed(int minor, bool give_up, struct td_err *err)
{
	static const char text[] =
		"a flush of its image had failed when its tapdisk died: what was "
		"written after the last good one may be lost: check its contents "
		"before it is opened again";

	if (!give_up)
		return td_fail(err, EIO, "minor %d is freed, but %s", minor, text);
	fprintf(stderr, "tap-ctl: minor %d: %s\n", minor, text);
	return 0;
}

bool tc_marker_sweep(int minor)
{
	bool swept = false;
	char *path;

	if (td_ctl_marker(minor, NULL) != TD_MARKER_STALE)
		return false;
	path = marker_path(minor);
	if (path)
		swept = marker_remove(minor, path, true, false) == 0;
	free(path);
	return swept;
}

void tc_markers(void (*fn)(int minor, void *arg), void *arg)
{
	char path[PATH_MAX], rest;
	struct dirent *de;
	int minor, maker;
	DIR *dir;

	if (snprintf(path, sizeof path, "%s/tapdisk", td_ctl_dir()) >= (int)sizeof path ||
	    !(dir = opendir(path)))
		return;
	while ((de = readdir(dir))) {
		bool tapdisk;

		if (sscanf(de->d_name, "tapdisk-%d%c", &minor, &rest) == 1 && minor >= 0)
			fn(minor, arg);
		else if (sscanf(de->d_name, "making-%d%c", &maker, &rest) == 1 &&
			 !td_ctl_running(maker, &tapdisk))
			unlinkat(dirfd(dir), de->d_name, 0);
	}
	closedir(dir);
}

int tc_cmd_allocate(const struct tc_args *a, struct td_err *err)
{
	char *path;
	int minor, ret = tc_allocate(false, &minor, &path, err);

	if (ret)
		return ret;
	ret = tc_put_line(path, err);
	if (ret)
		tc_free(minor, false, NULL);
	free(path);
	return ret;
}

int tc_cmd_free(const struct tc_args *a, struct td_err *err)
{
	return tc_free(a->minor, a->force, err);
}
