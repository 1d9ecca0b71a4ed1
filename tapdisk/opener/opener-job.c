/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Names and arguments of a call, from the tapdisk's view to the opener's. */
#include "tapdisk/opener/opener-job.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "tapdisk/opener/opener-inside.h"

/* What the tapdisk calls its own in /proc is not the opener's. */
static void translate_path(const char *path, char *out, size_t size)
{
	static const char *const own[] = {"/proc/self/", "/proc/thread-self/"};

	for (int i = 0; i < 2; i++) {
		size_t n = strlen(own[i]);

		if (!strncmp(path, own[i], n)) {
			snprintf(out, size, "/proc/%d/%s", (int)opener_for, path + n);
			return;
		}
	}
	snprintf(out, size, "%s", path);
}

static bool by_own_fd(const char *path)
{
	char link[64];
	size_t n = (size_t)snprintf(link, sizeof link, "/proc/%d/fd/", (int)opener_for);

	return !strncmp(path, link, n) && strchr(path + n, '/');
}

/* Is it DIR/name, the directory by one of the tapdisk's descriptors? */
static bool through_fd(const char *path, char *dir, size_t size, const char **rest)
{
	char link[64], *end;
	size_t own = (size_t)snprintf(link, sizeof link, "/proc/%d/fd/", (int)opener_for);
	long n;
	ssize_t len;

	if (strncmp(path, link, own))
		return false;
	n = strtol(path + own, &end, 10);
	if (*end != '/' || n < 0)
		return false;
	snprintf(link + own, sizeof link - own, "%ld", n);
	len = readlink(link, dir, size - 1);
	dir[len > 0 ? len : 0] = 0;
	*rest = end + 1;
	return len > 0;
}

/* The text of a path from the root on, without "." and "//"; "" of one with "..". */
static int make_full(struct job *j, const char *path, int dir)
{
	char *out = j->full[j->paths], link[40];
	ssize_t n = 0;

	if (through_fd(path, out, PATH_MAX, &path)) {
		if (*out != '/')
			return -EACCES;
		n = (ssize_t)strlen(out);
	}
	if (!n && *path != '/') {
		snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
		n = readlink(dir == AT_FDCWD ? "/proc/self/cwd" : link, out, PATH_MAX - 1);
		if (n < 0 || *out != '/')
			return -EACCES;
	}
	while (n && out[n - 1] == '/')
		n--;
	while (*path) {
		size_t len = strcspn(path, "/");

		if (len == 2 && !strncmp(path, "..", 2)) {
			n = 0;
			break;
		}
		if ((size_t)n + len + 2 > sizeof j->full[0])
			return -ENAMETOOLONG;
		if (len && !(len == 1 && *path == '.')) {
			out[n++] = '/';
			memcpy(out + n, path, len);
			n += (ssize_t)len;
		}
		path += len + (path[len] == '/');
	}
	if (!n && !*path)
		out[n++] = '/';
	out[n] = 0;
	j->paths++;
	return 0;
}

static bool is_network(const struct job *j, int part)
{
	const struct sockaddr *sa = (const struct sockaddr *)j->part[part];
	size_t n = j->ask.len[part];

	return (n == sizeof(struct sockaddr_in) && sa->sa_family == AF_INET) ||
	       (n == sizeof(struct sockaddr_in6) && sa->sa_family == AF_INET6);
}

/*
 * A socket's name may begin in /proc/self, where the directory's is too long for it.  What is
 * judged is what is bound: by a descriptor of the directory that is this process's own.
 */
static int translate_name(struct job *j, int part)
{
	struct sockaddr_un *to = (struct sockaddr_un *)j->path[part];
	const struct sockaddr_un *sa = (const struct sockaddr_un *)j->part[part];
	size_t at = offsetof(struct sockaddr_un, sun_path), n = j->ask.len[part];
	char name[sizeof sa->sun_path + 1] = "", real[sizeof name + 64];
	char *full = j->full[j->paths], *slash;

	if (is_network(j, part)) {
		memcpy(to, sa, n);
		return (int)n;
	}
	if (n <= at || n > sizeof *sa || sa->sun_family != AF_UNIX || !sa->sun_path[0])
		return -EACCES; /* none, or an abstract one */
	memcpy(name, sa->sun_path, n - at);
	translate_path(name, real, sizeof real);
	if (make_full(j, real, AT_FDCWD) < 0 || !*full)
		return -EACCES;
	j->asked[j->paths - 1] = full;
	slash = strrchr(full, '/');
	*slash = 0;
	j->dir = open(*full ? full : "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	*slash = '/';
	if (j->dir < 0)
		return -errno;
	to->sun_family = AF_UNIX;
	n = (size_t)snprintf(to->sun_path, sizeof to->sun_path, "/proc/self/fd/%d%s", j->dir,
			     slash);
	return n < sizeof to->sun_path ? (int)(at + n + 1) : -ENAMETOOLONG;
}

static int add_path(struct job *j, int part, int dir, long *arg)
{
	int rc;

	translate_path(j->part[part], j->path[part], sizeof j->path[part]);
	rc = make_full(j, j->path[part], dir);
	if (rc < 0)
		return rc;
	j->asked[j->paths - 1] =
		*j->path[part] == '/' || dir == AT_FDCWD ? j->path[part] : j->full[j->paths - 1];
	/* a descriptor's directory is looked up once: another may get its number */
	*arg = (long)(by_own_fd(j->path[part]) && *j->full[j->paths - 1] ? j->full[j->paths - 1]
									 : j->path[part]);
	return 0;
}

int job_prepare(struct job *j, const struct opener_call *c, long *args)
{
	int part = 0, fd = 1, n;

	for (int i = 0; i < OPENER_ARGS; i++)
		args[i] = (long)j->ask.arg[i];
	for (int i = 0; c->args[i]; i++)
		switch (c->args[i]) {
		case 'D':
			if (args[i] == AT_FDCWD)
				break;
			/* fall through */
		case 'F':
			if (fd >= j->nfds)
				return -EBADMSG;
			args[i] = j->fds[fd++];
			break;
		case 'P':
			n = add_path(j, part,
				     i && c->args[i - 1] == 'D' ? (int)args[i - 1] : AT_FDCWD,
				     &args[i]);
			if (n < 0)
				return n;
			part++;
			break;
		case 'T':
			args[i] = (long)j->part[part++];
			break;
		case 'B':
			args[i] = (long)j->part[part];
			args[i + 1] = j->ask.len[part];
			if (c->nr != SYS_connect && c->nr != SYS_bind) {
				part++;
				break;
			}
			n = translate_name(j, part);
			if (n < 0)
				return n;
			args[i] = (long)j->path[part++];
			args[i + 1] = n;
			break;
		case 'S':
			args[i] = (long)j->out;
			break;
		case 'L':
			args[i] = (long)j->out;
			if (args[i + 1] < 0 || args[i + 1] > OPENER_PART_MAX)
				args[i + 1] = OPENER_PART_MAX;
			break;
		}
	return 0;
}

int job_own_fd(const char *full)
{
	char own[64], *end;
	size_t n = (size_t)snprintf(own, sizeof own, "/proc/%d/fd/", (int)opener_for);
	long fd;

	if (strncmp(full, own, n) || full[n] < '0' || full[n] > '9')
		return -1;
	fd = strtol(full + n, &end, 10);
	return *end ? -1 : (int)fd;
}

bool job_is_late(const struct job *j)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return j->ask.deadline &&
	       (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec >= j->ask.deadline;
}

bool job_is_orphan(const struct job *j)
{
	struct pollfd p = {.fd = j->nfds ? j->fds[0] : -1};

	return poll(&p, 1, 0) > 0 && p.revents;
}
