/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tapdisk/vbd/syncmark.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "lib/ctl-dir.h"
#include "td/io.h"

#define MAGIC 0x666c7331u

struct page {
	uint32_t magic, size;
	struct td_sync_mark mark;
};

static int fd = -1;
static struct page *page;

/* A file without a name, which each disk gives it one. */
static int make(void)
{
	void *p;
	int rc;

	fd = open(td_ctl_dir(), O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	rc = -posix_fallocate(fd, 0, sizeof *page); /* a full tmpfs would be a SIGBUS later */
	p = rc ? MAP_FAILED : mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED) {
		rc = rc ? rc : -errno;
		close(fd);
		fd = -1;
		return rc;
	}
	page = p;
	page->size = sizeof *page;
	td_io_mark_syncs(&page->mark);
	__atomic_store_n(&page->magic, MAGIC, __ATOMIC_RELEASE);
	return 0;
}

static bool is_ours(const char *path)
{
	struct stat a, b;

	return !stat(path, &a) && !fstat(fd, &b) && a.st_ino == b.st_ino && a.st_dev == b.st_dev;
}

void syncmark_link(int minor)
{
	char path[PATH_MAX], self[40];
	int rc = page ? 0 : make();

	if (!rc)
		rc = td_ctl_flush_path(minor, path);
	if (!rc && is_ours(path))
		return;
	if (!rc) {
		unlink(path);
		snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
		rc = linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
	}
	if (rc < 0)
		td_log(LOG_WARNING, "minor %d: no note of its flushes: %s: one that fails while this process dies is not known to the next", minor,
		       strerror(-rc));
}

void syncmark_unlink(int minor)
{
	char path[PATH_MAX];

	if (!td_ctl_flush_path(minor, path))
		unlink(path);
}

static double seconds_since(uint64_t ns)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return ((double)t.tv_sec * 1e9 + (double)t.tv_nsec - (double)ns) / 1e9;
}

static int judge(int minor, const struct td_sync_mark *m)
{
	double age = seconds_since(m->since);

	if (m->failed) {
		td_log(LOG_ERR, "minor %d: a flush to disk had failed when the last tapdisk ended", minor);
		return -EIO;
	}
	if (m->begun != m->ended && age >= SYNCMARK_UNKNOWN_S) {
		td_log(LOG_ERR, "minor %d: the last tapdisk ended in a flush to disk that had not come back for %.0f s: it counts as failed",
		       minor, age);
		return -EIO;
	}
	return 0;
}

int syncmark_past(int minor)
{
	char path[PATH_MAX];
	struct page was;
	ssize_t n;
	int past;

	if (td_ctl_flush_path(minor, path))
		return 0;
	past = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (past < 0)
		return 0;
	n = read(past, &was, sizeof was);
	close(past);
	if (n == sizeof was && was.magic == MAGIC && was.size == sizeof was && !is_ours(path))
		return judge(minor, &was.mark);
	return 0;
}

void syncmark_recorded(void)
{
	if (page && page->mark.failed)
		__atomic_store_n(&page->mark.failed, page->mark.failed - 1, __ATOMIC_RELEASE);
}
