/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/keep.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int td_keep_new(const char *path, size_t bytes)
{
	int fd, rc;

	unlink(path);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	rc = -posix_fallocate(fd, 0, (off_t)bytes);
	if (!rc)
		return fd;
	unlink(path);
	close(fd);
	return rc;
}
