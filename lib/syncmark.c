/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/syncmark.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "lib/ctl-dir.h"
#include "lib/fiber/call.h"
#include "lib/keep.h"
#include "td/io.h"

#define MAGIC 0x666c7331u

struct page {
	uint32_t magic, size;
	struct td_sync_mark mark;
};

struct making {
	const char *path;
	bool failed;
	struct page *page;
};

/* Written whole before it replaces a predecessor's. */
static long make_page(void *arg)
{
	struct making *m = arg;
	char making[PATH_MAX];
	struct page *p = MAP_FAILED;
	int fd, rc;

	if (snprintf(making, sizeof making, "%s.new", m->path) >= (int)sizeof making)
		return -ENAMETOOLONG;
	fd = td_keep_new(making, sizeof *p);
	if (fd < 0)
		return fd;
	p = mmap(NULL, sizeof *p, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	rc = p == MAP_FAILED ? -errno : 0;
	close(fd);
	if (!rc) {
		p->size = sizeof *p;
		p->mark.failed = m->failed;
		__atomic_store_n(&p->magic, MAGIC, __ATOMIC_RELEASE);
		rc = rename(making, m->path) < 0 ? -errno : 0;
	}
	if (rc < 0) {
		if (p != MAP_FAILED)
			munmap(p, sizeof *p);
		unlink(making);
		return rc;
	}
	m->page = p;
	return 0;
}

struct td_sync_mark *syncmark_open(int minor, bool failed)
{
	char path[PATH_MAX];
	struct making m = {path, failed, NULL};
	int rc = td_ctl_flush_path(minor, path);

	if (!rc)
		rc = (int)td_call(make_page, &m);
	if (rc < 0)
		td_log(LOG_WARNING,
		       "minor %d: no note of its flushes: %s: one that fails while this process "
		       "dies is not known to the next",
		       minor, strerror(-rc));
	return m.page ? &m.page->mark : NULL;
}

void syncmark_close(struct td_sync_mark *m)
{
	if (m)
		munmap((char *)m - offsetof(struct page, mark), sizeof(struct page));
}

void syncmark_fail(struct td_sync_mark *m)
{
	if (m)
		__atomic_fetch_add(&m->failed, 1, __ATOMIC_RELEASE);
}

void syncmark_unlink(int minor)
{
	char path[PATH_MAX];

	if (!td_ctl_flush_path(minor, path))
		td_call_unlink(path);
}

static double seconds_since(uint64_t ns)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return ((double)t.tv_sec * 1e9 + (double)t.tv_nsec - (double)ns) / 1e9;
}

/* What is said of it, or NULL when it has not failed. */
static const char *judge(const struct td_sync_mark *m, char *text, size_t size)
{
	double age = seconds_since(m->since);

	if (m->failed)
		return "a flush to disk had failed when the last tapdisk ended";
	if (m->begun == m->ended || age < SYNCMARK_UNKNOWN_S)
		return NULL;
	snprintf(text, size,
		 "the last tapdisk ended in a flush to disk that had not come back for %.0f s: it "
		 "counts as failed",
		 age);
	return text;
}

static const char *past_failure(int minor, char *text, size_t size)
{
	char path[PATH_MAX];
	struct page was;
	ssize_t n;
	int past;

	if (td_ctl_flush_path(minor, path))
		return NULL;
	past = td_call_open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
	if (past == -ENOENT)
		return NULL;
	n = past < 0 ? -1 : read(past, &was, sizeof was);
	if (past >= 0)
		close(past);
	if (n == sizeof was && was.magic == MAGIC && was.size == sizeof was)
		return judge(&was.mark, text, size);
	snprintf(text, size,
		 "%s, the last tapdisk's note of its flushes, cannot be read: it is of another "
		 "version, or damaged, and one of them may have failed: the disk counts as failed",
		 path); /* F4 */
	return text;
}

int syncmark_past(int minor)
{
	char text[PATH_MAX + 200];
	const char *why = past_failure(minor, text, sizeof text);

	if (why)
		td_log(LOG_ERR, "minor %d: %s", minor, why);
	return why ? -EIO : 0;
}

bool syncmark_failed(int minor)
{
	char text[PATH_MAX + 200];

	return past_failure(minor, text, sizeof text);
}
