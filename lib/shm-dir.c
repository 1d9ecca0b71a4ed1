/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/shm-dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/ctl-dir.h"

static const char *shm_base(void)
{
	const char *dir = getenv(TD_CTL_DIR_ENV);

	return dir && *dir ? dir : "/dev/shm";
}

static int shm_path(char *path, size_t size, const char *prefix, const char *name)
{
	int n = snprintf(path, size, "%s/%s%s", shm_base(), prefix, name);

	if (n < 0 || (size_t)n >= size) {
		errno = ENAMETOOLONG;
		return -ENAMETOOLONG;
	}
	return 0;
}

int td_shm_path(pid_t pid, char *path, size_t size)
{
	char number[16];

	snprintf(number, sizeof number, "%d", (int)pid);
	return shm_path(path, size, "td3-", number);
}

/* /dev/shm is everybody's: what is not ours may be a trap.  A descriptor, or -errno. */
static int open_ours(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return -errno;
	if (!fstat(fd, &st) && (!st.st_uid || st.st_uid == geteuid()) && !(st.st_mode & 022))
		return fd;
	close(fd);
	return -EPERM;
}

static void each_file(int fd, void (*fn)(int fd, const char *name, pid_t pid), pid_t pid)
{
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *de;

	if (!dir) {
		if (copy >= 0)
			close(copy);
		return;
	}
	while ((de = readdir(dir)))
		if (de->d_type != DT_DIR)
			fn(fd, de->d_name, pid);
	closedir(dir);
}

/* --- devices --- */

#define DEVICE_TRIES 100 /* each fails only where another process has just changed something */

static bool is_device(const char *name)
{
	unsigned domid, devid;
	char rest;

	return sscanf(name, "vbd-%u-%u%c", &domid, &devid, &rest) == 2;
}

static int device_path(const char *name, char *path, size_t size)
{
	return is_device(name) ? shm_path(path, size, "vbd3-", name + 4) : -EINVAL;
}

static void remove_file(int fd, const char *name, pid_t pid)
{
	unlinkat(fd, name, 0);
}

/* What another process has left.  0 or -errno. */
static int device_clear(const char *path)
{
	int fd = open_ours(path);

	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	each_file(fd, remove_file, 0);
	close(fd);
	return rmdir(path) < 0 && errno != ENOENT ? -errno : 0;
}

/* -ENOENT: it has been removed meanwhile, as one that is nobody's. */
static int device_sign(const char *path)
{
	int fd = open_ours(path), file;
	char owner[16];

	if (fd < 0)
		return fd;
	snprintf(owner, sizeof owner, "%d", (int)getpid());
	file = openat(fd, owner, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	close(fd);
	if (file < 0)
		return -errno;
	close(file);
	return 0;
}

int td_shm_device_make(const char *name)
{
	char path[PATH_MAX];
	int rc = device_path(name, path, sizeof path);

	for (int i = 0; !rc && i < DEVICE_TRIES; i++) {
		if (!mkdir(path, 0700))
			rc = device_sign(path);
		else
			rc = errno == EEXIST ? device_clear(path) ?: -EAGAIN : -errno;
		if (!rc)
			return 0;
		if (rc == -ENOENT || rc == -EAGAIN || rc == -ENOTEMPTY)
			rc = 0;
	}
	return rc ? rc : -EBUSY;
}

void td_shm_device_remove(const char *name, pid_t pid)
{
	char path[PATH_MAX], owner[16];
	int fd;

	if (device_path(name, path, sizeof path) < 0 || (fd = open_ours(path)) < 0)
		return;
	snprintf(owner, sizeof owner, "%d", (int)pid);
	unlinkat(fd, owner, 0);
	close(fd);
	rmdir(path); /* not while another's name is there */
}

/* --- a process's directory --- */

static void remove_counters(int fd, const char *name, pid_t pid)
{
	td_shm_device_remove(name, pid); /* first: as long as it is there, the file is */
	unlinkat(fd, name, 0);
}

void td_shm_empty(int fd, pid_t pid)
{
	each_file(fd, remove_counters, pid);
}

static void shm_remove(pid_t pid)
{
	char path[PATH_MAX];
	bool tapdisk;
	int fd;

	/* a process of that pid that is no tapdisk has come after it */
	if (td_shm_path(pid, path, sizeof path) < 0 || (td_ctl_running(pid, &tapdisk) && tapdisk))
		return;
	fd = open_ours(path);
	if (fd < 0)
		return;
	td_shm_empty(fd, pid);
	rmdir(path);
	close(fd);
}

void td_shm_sweep(pid_t pid)
{
	struct dirent *de;
	char rest;
	DIR *dir;

	if (pid > 0) {
		shm_remove(pid);
		return;
	}
	dir = opendir(shm_base());
	if (!dir)
		return;
	while ((de = readdir(dir)))
		if (sscanf(de->d_name, "td3-%d%c", &pid, &rest) == 1 && pid > 0)
			shm_remove(pid);
	closedir(dir);
}
