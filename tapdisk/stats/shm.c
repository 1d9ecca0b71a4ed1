/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * /dev/shm is everybody's to write to, so nothing there is believed: the directory must be one that
 * is ours and that nobody else may write to, and all in it goes by its descriptor.  A page is
 * allocated before it is mapped, as a full tmpfs would end us by SIGBUS.
 *
 * The directory is open from the first file to the last.  Files are made and removed in the threads
 * of td_call(), one at a time.
 */
#include "tapdisk/stats/shm.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/fiber/call.h"
#include "lib/shm-dir.h"
#include "td/log.h"

#define PAGE 4096 /* bytes of a file: what others map must not end within a page */

static pthread_mutex_t files_lock = PTHREAD_MUTEX_INITIALIZER; /* over both */
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
	if (fstat(dir_fd, &st) < 0 || (st.st_uid && st.st_uid != geteuid()) || (st.st_mode & 022)) {
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

static void make_file(struct shm *s)
{
	void *at = MAP_FAILED;
	int fd;

	if (dir_open() < 0)
		return;
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

static long make_run(void *arg)
{
	pthread_mutex_lock(&files_lock);
	make_file(arg);
	pthread_mutex_unlock(&files_lock);
	return 0;
}

static long remove_run(void *arg)
{
	const struct shm *s = arg;

	pthread_mutex_lock(&files_lock);
	td_shm_device_remove(s->name, getpid());
	munmap(s->at, PAGE);
	unlinkat(dir_fd, s->name, 0);
	files--;
	dir_close();
	pthread_mutex_unlock(&files_lock);
	return 0;
}

void shm_open_file(struct shm *s, const char *name)
{
	struct shm made = {.at = NULL};

	snprintf(made.name, sizeof made.name, "%s", name);
	*s = made;
	td_call(make_run, &made);
	*s = made;
}

void shm_close_file(struct shm *s)
{
	struct shm gone = *s;

	s->at = NULL; /* nobody publishes there meanwhile */
	if (gone.at)
		td_call(remove_run, &gone);
}
