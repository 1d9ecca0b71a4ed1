/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * /dev/shm is everybody's to write to, so nothing there is believed: the directory must be one that
 * is ours and that nobody else may write to, and all in it goes by its descriptor.  A page is
 * allocated before it is mapped, as a full tmpfs would end us by SIGBUS.
 */
#include "tapdisk/stats/shm.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/shm-dir.h"
#include "td/log.h"

#define PAGE 4096 /* bytes of a file: what others map must not end within a page */

static int dir_fd = -1;
static unsigned files; /* in the directory */

static int give_up(const char *what, const char *name)
{
	td_log(LOG_WARNING, "no statistics for other programs: cannot %s %s: %s", what, name,
	       strerror(errno));
	return -1;
}

/* Makes the directory, or takes over what a dead process of our pid has left. */
static int dir_open(void)
{
	char path[PATH_MAX];
	struct stat st;

	if (dir_fd >= 0)
		return 0;
	if (td_shm_path(getpid(), path, sizeof path) < 0)
		return give_up("name", "their directory");
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return give_up("make", path);
	dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir_fd < 0)
		return give_up("open", path);
	if (fstat(dir_fd, &st) < 0 || st.st_uid != geteuid() || (st.st_mode & 022)) {
		errno = EPERM;
		give_up("use", path);
		close(dir_fd);
		dir_fd = -1;
		return -1;
	}
	td_shm_empty(dir_fd, getpid());
	return 0;
}

static void dir_close(void)
{
	char path[PATH_MAX];

	if (dir_fd < 0 || files)
		return;
	close(dir_fd);
	dir_fd = -1;
	if (!td_shm_path(getpid(), path, sizeof path))
		rmdir(path);
}

/* Tells rrdd of a guest's device (lib/shm-dir.h); a disk's own file is no device's. */
static void announce(const char *name)
{
	int rc = td_shm_device_make(name);

	if (rc == 0 || rc == -EINVAL)
		return;
	td_log(LOG_WARNING,
	       "XenServer's rrdd will not show the guest's disk: cannot make the directory vbd3-%s "
	       "for it beside its counters: %s",
	       name + strlen("vbd-"), strerror(-rc));
}

void shm_open_file(struct shm *s, const char *name)
{
	void *at = MAP_FAILED;
	int fd;

	s->at = NULL;
	if (dir_open() < 0)
		return;
	snprintf(s->name, sizeof s->name, "%s", name);
	fd = openat(dir_fd, s->name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0) {
		give_up("make", s->name);
		dir_close();
		return;
	}
	errno = posix_fallocate(fd, 0, PAGE);
	if (!errno)
		at = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (at == MAP_FAILED) {
		give_up("map", s->name);
		unlinkat(dir_fd, s->name, 0);
		dir_close();
		return;
	}
	s->at = at;
	s->at->version = TD_SHM_VERSION;
	files++;
	announce(s->name);
}

void shm_close_file(struct shm *s)
{
	if (!s->at)
		return;
	td_shm_device_remove(s->name, getpid());
	munmap(s->at, PAGE);
	s->at = NULL;
	unlinkat(dir_fd, s->name, 0);
	files--;
	dir_close();
}
