/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/marker.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "lib/ctl-dir.h"

int td_marker_open(int minor)
{
	char path[PATH_MAX];
	int fd;

	if (snprintf(path, sizeof path, "%s/tapdisk/tapdisk-%d", td_ctl_dir(), minor) >=
	    (int)sizeof path)
		return -ENAMETOOLONG;
	fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}

int td_marker_seal(int fd, int ms)
{
	struct timespec pause = {.tv_nsec = 1000 * 1000};
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	while (fcntl(fd, F_OFD_SETLK, &l) < 0) {
		if (errno != EAGAIN && errno != EACCES && errno != EINTR)
			return -errno;
		if (ms-- <= 0)
			return -EBUSY;
		nanosleep(&pause, NULL);
	}
	return 0;
}

static int read_pids(int fd, int *first, int *second)
{
	char text[40];
	ssize_t n = pread(fd, text, sizeof text - 1, 0);

	text[n > 0 ? n : 0] = 0;
	return sscanf(text, "%d %d", first, second);
}

bool td_marker_names(int fd, pid_t pid)
{
	int first, second, n = read_pids(fd, &first, &second);

	return (n > 0 && first == pid) || (n > 1 && second == pid);
}

/* It is never empty on the way: an empty one is nobody's, and may be taken. */
static int replace_text(int fd, pid_t pid, bool beside)
{
	int first, second, n = 0;
	char text[40];
	ssize_t done;

	if (beside && read_pids(fd, &first, &second) > 0)
		n = snprintf(text, sizeof text, "%d %d\n", first, (int)pid);
	else if (pid)
		n = snprintf(text, sizeof text, "%d\n", (int)pid);
	done = pwrite(fd, text, (size_t)n, 0);
	if (done != n)
		return done < 0 ? -errno : -ENOSPC;
	return ftruncate(fd, n) < 0 ? -errno : 0;
}

int td_marker_write(int held, int minor, pid_t pid, bool beside)
{
	int fd = td_marker_open(minor), rc;
	struct stat a, b;

	if (fd < 0)
		return fd == -ENOENT ? -ESTALE : fd;
	rc = td_marker_seal(fd, TD_MARKER_PATIENCE);
	if (!rc && (fstat(held, &a) < 0 || fstat(fd, &b) < 0))
		rc = -errno;
	else if (!rc && (a.st_dev != b.st_dev || a.st_ino != b.st_ino))
		rc = -ESTALE;
	if (!rc)
		rc = replace_text(fd, pid, beside);
	close(fd);
	return rc;
}
