/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * K14: which process a server is, so that another one at the same socket is not taken for it.  The
 * kernel says who has made the socket listen, and that process's start tells it from a later one
 * with its number.  A service manager that listens for a server says nothing of the server.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "drivers/nbd/nbd.h"
#include "lib/fiber/fiber.h"

#define START_FIELD 20 /* of /proc/PID/stat, behind the name and the space that follows it */

/* When that process began, in the clock ticks of /proc; 0: not known, or a service manager. */
static uint64_t start_of(pid_t pid)
{
	char path[64], line[1024], *name, *at;
	int fd, field = 1;
	ssize_t n;

	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, line, sizeof line - 1);
	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return 0;
	line[n] = 0;
	name = strchr(line, '(');
	at = strrchr(line, ')');
	if (!name || !at || at[1] != ' ')
		return 0;
	*at = 0;
	if (!strcmp(name + 1, "systemd"))
		return 0;
	for (at += 2; field < START_FIELD && (at = strchr(at, ' ')); at++)
		field++;
	return at ? strtoull(at, NULL, 10) : 0;
}

struct question {
	int fd;
	struct nbdc_server is;
};

static long ask_run(void *arg)
{
	struct question *q = arg;
	struct ucred c = {0};
	socklen_t len = sizeof c;

	if (getsockopt(q->fd, SOL_SOCKET, SO_PEERCRED, &c, &len) || c.pid <= 1)
		return 0; /* elsewhere: TCP, another namespace */
	q->is.start = start_of(c.pid);
	q->is.pid = q->is.start ? (uint64_t)c.pid : 0;
	return 0;
}

struct nbdc_server nbdc_server_of(struct td_io *io, int fd)
{
	struct question q = {.fd = fd};

	td_await_call(io, ask_run, &q);
	return q.is;
}

/* K17 */
int nbdc_server_check(const struct nbdc_client *n, bool same, struct td_err *err)
{
	struct td_server *is = n->image->server;
	struct nbdc_server was;

	if (!is)
		return 0;
	was = (struct nbdc_server){is->of[0], is->of[1]};
	if (n->image->same_server && !same && !(n->x.flags & NBD_FLAG_SEND_FLUSH) &&
	    !nbdc_server_same(&was, &n->server))
		return td_fail(err, ESTALE,
			       "%s: the server does not support flush, and is not known to be the "
			       "process that it was: what that one had answered may be lost",
			       n->name);
	*is = (struct td_server){{n->server.pid, n->server.start}};
	return 0;
}

bool nbdc_server_same(const struct nbdc_server *a, const struct nbdc_server *b)
{
	return a->pid && a->pid == b->pid && a->start == b->start;
}
