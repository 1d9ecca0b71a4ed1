/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/shm-dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/ctl-dir.h"

static const char *shm_base(void)
{
	const char *dir = getenv(TD_CTL_DIR_ENV);

	return dir && *dir ? dir : "/dev/shm";
}

int td_shm_path(pid_t pid, char *path, size_t size)
{
	int n = snprintf(path, size, "%s/td3-%d", shm_base(), (int)pid);

	if (n < 0 || (size_t)n >= size) {
		errno = ENAMETOOLONG;
		return -ENAMETOOLONG;
	}
	return 0;
}

void td_shm_empty(int fd)
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
			unlinkat(fd, de->d_name, 0);
	closedir(dir);
}

static void shm_remove(pid_t pid)
{
	char path[PATH_MAX];
	struct stat st;
	bool tapdisk;
	int fd;

	/* a process of that pid that is no tapdisk has come after it */
	if (td_shm_path(pid, path, sizeof path) < 0 || (td_ctl_running(pid, &tapdisk) && tapdisk))
		return;
	/* /dev/shm is everybody's: what is not ours may be a trap */
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return;
	if (!fstat(fd, &st) && st.st_uid == geteuid()) {
		td_shm_empty(fd);
		rmdir(path);
	}
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
