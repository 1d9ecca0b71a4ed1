/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The disk that is exported: is it still that one, and which tapdisk has it? */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "control/tap-ctl/tap-ctl-export.h"
#include "lib/ctl-dir.h"
#include "lib/pass-fd.h"

int export_disk_open(struct exported *e, struct td_err *err)
{
	char path[PATH_MAX];

	snprintf(path, sizeof path, "%s/tapdisk/tapdisk-%d", td_ctl_dir(), e->minor);
	e->marker = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (e->marker < 0)
		return td_fail(err, errno, "there is no disk of minor %d: %s: %s", e->minor, path,
			       strerror(errno));
	return 0;
}

bool export_disk_gone(const struct exported *e)
{
	struct stat st;

	return fstat(e->marker, &st) < 0 || !st.st_nlink;
}

/* The tapdisk that has it; 0: none has. */
static int owner_of(const struct exported *e)
{
	char text[24];
	ssize_t n = pread(e->marker, text, sizeof text - 1, 0);
	int pid = 0;

	text[n > 0 ? n : 0] = 0;
	return sscanf(text, "%d", &pid) == 1 ? pid : 0;
}

/* Through the directory's descriptor, as a socket's address has less room than a path. */
static int connect_in_dir(int fd, const char *name)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int dir = open(td_ctl_dir(), O_PATH | O_DIRECTORY | O_CLOEXEC), rc = 0;

	if (dir < 0)
		return -errno;
	snprintf(sa.sun_path, sizeof sa.sun_path, "/proc/self/fd/%d/%s", dir, name);
	if (connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0)
		rc = -errno;
	close(dir);
	return rc;
}

/* X4: a message that is never empty. */
static int send_client(const struct exported *e, int to, int fd)
{
	char words[40];
	int len = snprintf(words, sizeof words, "%s %s", e->read_only ? "read-only" : "",
			   e->clients == 1 ? "alone" : "");

	return td_pass_fd(to, fd, words, (size_t)len);
}

int export_disk_give(const struct exported *e, int fd)
{
	int pid = owner_of(e), to, rc;
	char name[64];

	if (export_disk_gone(e))
		return -ENODEV;
	if (!pid)
		return -EAGAIN;
	to = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (to < 0)
		return -errno;
	snprintf(name, sizeof name, "nbdexport%d.%d", pid, e->minor);
	rc = connect_in_dir(to, name);
	/* a tapdisk removes its sockets before the marker goes, and so before another gets it */
	if (!rc && export_disk_gone(e))
		rc = -ENODEV;
	if (!rc)
		rc = send_client(e, to, fd);
	close(to);
	return rc;
}
