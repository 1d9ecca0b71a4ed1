/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Preloaded: a tapdisk that breaks its promise, for tests of what judges it.  $FALSE_SYNC says how:
 *
 *   none     fdatasync returns 0 and asks the kernel for nothing
 *   early    each write is preceded by the fdatasync, and the FLUSH that follows returns 0 without
 *            one: as many fdatasyncs as FLUSHes
 *   fails    fdatasync asks for the descriptor -1, and returns 0
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int how(const char *word)
{
	const char *said = getenv("FALSE_SYNC");

	return said && !strcmp(said, word);
}

int fdatasync(int fd)
{
	if (how("fails"))
		syscall(SYS_fdatasync, -1);
	return how("none") || how("early") || how("fails") ? 0 : (int)syscall(SYS_fdatasync, fd);
}

ssize_t pwritev2(int fd, const struct iovec *iov, int n, off_t at, int flags)
{
	if (how("early"))
		syscall(SYS_fdatasync, fd);
	/* the offset in two halves, as the call takes it */
	return syscall(SYS_pwritev2, fd, iov, n, at, 0, flags);
}
