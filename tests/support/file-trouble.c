/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Preloaded into a tapdisk with TAPDISK_IO=threads.  FILE_TROUBLE names a link, which is all that
 * its opener lets it read; while it is there, its target says what happens:
 *
 *   die K               SIGKILL before the Kth change of a file from now on: a write of one place,
 *                       a sync, a hole
 *   read ERRNO PATH     reads of that file fail, or
 *   write ERRNO PATH    writes to it, or
 *   sync ERRNO PATH     fdatasync of it
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static void next(const char *name, void *out)
{
	void *sym = dlsym(RTLD_NEXT, name);

	memcpy(out, &sym, sizeof sym);
}

static bool is_file(int fd, const char *path)
{
	char link[64], at[PATH_MAX];
	ssize_t n;

	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	n = readlink(link, at, sizeof at - 1);
	if (n < 0)
		return false;
	at[n] = 0;
	return !strcmp(at, path);
}

/* errno of what is to fail, or 0. */
static int trouble(int fd, const char *what, bool changes)
{
	static int count;
	const char *name = getenv("FILE_TROUBLE");
	char line[PATH_MAX + 64] = "", word[16], path[PATH_MAX];
	int code;

	if (!name || readlink(name, line, sizeof line - 1) < 0)
		return 0;
	if (sscanf(line, "die %d", &code) == 1) {
		if (changes && __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST) == code)
			raise(SIGKILL);
		return 0;
	}
	return sscanf(line, "%15s %d %4095s", word, &code, path) == 3 && !strcmp(word, what) &&
			       is_file(fd, path)
		       ? code
		       : 0;
}

ssize_t pwritev2(int fd, const struct iovec *iov, int n, off_t off, int flags)
{
	ssize_t (*fn)(int, const struct iovec *, int, off_t, int);
	int code = trouble(fd, "write", true);

	next("pwritev2", &fn);
	errno = code;
	return code ? -1 : fn(fd, iov, n, off, flags);
}

ssize_t preadv(int fd, const struct iovec *iov, int n, off_t off)
{
	ssize_t (*fn)(int, const struct iovec *, int, off_t);
	int code = trouble(fd, "read", false);

	next("preadv", &fn);
	errno = code;
	return code ? -1 : fn(fd, iov, n, off);
}

int fdatasync(int fd)
{
	int (*fn)(int);
	int code = trouble(fd, "sync", true);

	next("fdatasync", &fn);
	errno = code;
	return code ? -1 : fn(fd);
}

int fallocate(int fd, int mode, off_t off, off_t len)
{
	int (*fn)(int, int, off_t, off_t);

	trouble(fd, "", true);
	next("fallocate", &fn);
	return fn(fd, mode, off, len);
}
