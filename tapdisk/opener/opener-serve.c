/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The opener's side: makes the calls that its tapdisk asks for. */
#include "tapdisk/opener/opener.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "td/log.h"
#include "tapdisk/opener/opener-calls.h"
#include "tapdisk/opener/opener-rights.h"

/* Calls that may hang at once; those of one tapdisk's threads are fewer. */
enum { THREADS_MAX = 64, THREAD_STACK = 256 * 1024 };

static int channel;
static pid_t tapdisk;
static int idle, threads; /* atomic */

/* --- one call --- */

struct job {
	struct opener_ask ask;
	char part[OPENER_PARTS][OPENER_PART_MAX + 1];
	char path[OPENER_PARTS][OPENER_PART_MAX + 64]; /* the same, as this process sees it */
	char full[OPENER_PARTS][2 * PATH_MAX];         /* absolute, by its text */
	union {
		char out[OPENER_PART_MAX];
		struct td_err err;
	};
	int paths; /* of full */
	int fds[1 + OPENER_FDS], nfds;
};

/* What the tapdisk calls its own in /proc is not the opener's. */
static void translate_path(const char *path, char *out, size_t size)
{
	static const char *const own[] = {"/proc/self/", "/proc/thread-self/"};

	for (int i = 0; i < 2; i++) {
		size_t n = strlen(own[i]);

		if (!strncmp(path, own[i], n)) {
			snprintf(out, size, "/proc/%d/%s", (int)tapdisk, path + n);
			return;
		}
	}
	snprintf(out, size, "%s", path);
}

static bool by_own_fd(const char *path)
{
	char link[64];
	size_t n = (size_t)snprintf(link, sizeof link, "/proc/%d/fd/", (int)tapdisk);

	return !strncmp(path, link, n) && strchr(path + n, '/');
}

/* Is it DIR/name, the directory by one of the tapdisk's descriptors? */
static bool through_fd(const char *path, char *dir, size_t size, const char **rest)
{
	char link[64], *end;
	size_t own = (size_t)snprintf(link, sizeof link, "/proc/%d/fd/", (int)tapdisk);
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

/* The text of a path from the root on, without "." and "//".  One with ".." has no right. */
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

		if (len == 2 && !strncmp(path, "..", 2))
			return -EACCES;
		if (len && !(len == 1 && *path == '.')) {
			out[n++] = '/';
			memcpy(out + n, path, len);
			n += (ssize_t)len;
		}
		path += len + (path[len] == '/');
	}
	if (!n)
		out[n++] = '/';
	out[n] = 0;
	j->paths++;
	return 0;
}

/* A socket's name may begin in /proc/self, where the directory's is too long for it. */
static int translate_name(struct job *j, int part)
{
	struct sockaddr_un *to = (struct sockaddr_un *)j->path[part];
	const struct sockaddr_un *sa = (const struct sockaddr_un *)j->part[part];
	size_t at = offsetof(struct sockaddr_un, sun_path), n = j->ask.len[part];
	char name[sizeof sa->sun_path + 1] = "", real[sizeof name + 64];

	if (n < sizeof sa->sun_family || n > sizeof *sa || sa->sun_family != AF_UNIX)
		return -EACCES;
	memcpy(to, sa, n);
	if (n <= at || !sa->sun_path[0])
		return -EACCES; /* none, or an abstract one */
	memcpy(name, sa->sun_path, n - at);
	translate_path(name, real, sizeof real);
	if (strlen(real) >= sizeof to->sun_path)
		return -ENAMETOOLONG;
	strcpy(to->sun_path, real);
	return make_full(j, real, AT_FDCWD) < 0 ? -EACCES : (int)(at + strlen(real) + 1);
}

static int prepare(struct job *j, const struct opener_call *c, long *args)
{
	int part = 0, fd = 1, n;

	j->paths = 0;

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
			translate_path(j->part[part], j->path[part], sizeof j->path[part]);
			n = make_full(j, j->path[part],
				      i && c->args[i - 1] == 'D' ? (int)args[i - 1] : AT_FDCWD);
			if (n < 0)
				return n;
			/* a descriptor's directory is looked up once: another may get its number */
			args[i] = (long)(by_own_fd(j->path[part]) ? j->full[j->paths - 1]
								  : j->path[part]);
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

static bool nobody_waits(const struct job *j)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return j->ask.deadline &&
	       (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec >= j->ask.deadline;
}

static void answer_call(const struct job *j, const struct opener_call *c, long rc)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct opener_reply reply = {rc};
	struct iovec iov[2] = {{&reply, sizeof reply}, {(void *)j->out, 0}};
	struct msghdr mh = {.msg_iov = iov, .msg_iovlen = 2};
	int fd = (int)rc;

	if (c && rc >= 0 && c->opens) {
		struct cmsghdr *m = &control.align;

		reply.rc = 0;
		mh.msg_control = &control;
		mh.msg_controllen = sizeof control;
		m->cmsg_level = SOL_SOCKET;
		m->cmsg_type = SCM_RIGHTS;
		m->cmsg_len = CMSG_LEN(sizeof fd);
		memcpy(CMSG_DATA(m), &fd, sizeof fd);
	}
	if (c && (rc >= 0 || c->nr == OPENER_PARENT) && c->room)
		iov[1].iov_len = c->room;
	else if (c && rc > 0 && strchr(c->args, 'L'))
		iov[1].iov_len = (size_t)rc;
	opener_send(j->fds[0], &mh, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (mh.msg_control) {
		close(fd);
		send(j->fds[0], &reply, sizeof reply, MSG_NOSIGNAL | MSG_DONTWAIT);
	}
}

/* A descriptor of the tapdisk's own, by its name; -1: it is none. */
static int own_fd(const char *full)
{
	char own[64], *end;
	size_t n = (size_t)snprintf(own, sizeof own, "/proc/%d/fd/", (int)tapdisk);
	long fd;

	if (strncmp(full, own, n) || full[n] < '0' || full[n] > '9')
		return -1;
	fd = strtol(full + n, &end, 10);
	return *end ? -1 : (int)fd;
}

static long open_file(struct job *j, const struct opener_call *c, long *args)
{
	int at = (int)(strchr(c->args, 'P') - c->args) + 1;
	uint64_t *flags = c->args[at] == 'B' ? (uint64_t *)args[at] : (uint64_t *)&args[at];
	int rc, fd = own_fd(j->full[0]);

	if (c->args[at] == 'B' && args[at + 1] < (long)sizeof *flags)
		return -EINVAL;
	if (fd >= 0)
		return rights_reopen(fd, *flags);
	rc = rights_open(j->full[0], flags);
	return rc < 0 ? rc : 1;
}

/* What the call's result is, or 1: to be made. */
static long judge(struct job *j, const struct opener_call *c, long *args)
{
	switch (c->nr) {
	case OPENER_PARENT:
		memset(&j->err, 0, sizeof j->err);
		return rights_parent(j->full[0],
				     j->ask.len[1] == 16 ? (unsigned char *)j->part[1] : NULL,
				     &j->err);
	case OPENER_LISTEN:
		return opener_listen(j->fds[1]);
	case SYS_openat:
	case SYS_openat2:
#ifdef SYS_open
	case SYS_open:
#endif
		return open_file(j, c, args);
#ifdef SYS_open
	case SYS_rename:
#endif
	case SYS_renameat:
	case SYS_renameat2: {
		int rc = rights_rename(j->full[0], j->full[1]);

		if (!rc && rights_is_record(j->full[1]))
			return rights_record(j->full[0], j->full[1]);
		return rc < 0 ? rc : 1;
	}
#ifdef SYS_open
	case SYS_link:
#endif
	case SYS_linkat:
		return rights_link(j->full[0], j->full[1]) ?: 1;
#ifdef SYS_open
	case SYS_symlink:
#endif
	case SYS_symlinkat:
		return rights_symlink(j->part[0], j->full[0]) ?: 1;
#ifdef SYS_open
	case SYS_unlink:
	case SYS_mkdir:
	case SYS_rmdir:
	case SYS_chmod:
#endif
	case SYS_unlinkat:
	case SYS_mkdirat:
	case SYS_fchmodat:
	case SYS_bind:
		return rights_name(j->full[0]) ?: 1;
	case SYS_connect:
		return rights_connect(j->full[0]) ?: 1;
	default:
		return 1; /* OR5 */
	}
}

static void serve_one(struct job *j)
{
	const struct opener_call *c = opener_call(j->ask.nr);
	long args[OPENER_ARGS], rc = c ? prepare(j, c, args) : -ENOSYS;

	if (!rc && nobody_waits(j))
		rc = -ETIMEDOUT;
	if (!rc)
		rc = judge(j, c, args);
	else if (c && c->nr == OPENER_PARENT)
		memset(j->out, 0, c->room);
	if (rc == 1 && c && !(c->opens && c->nr < 0)) {
		rc = syscall(c->nr, args[0], args[1], args[2], args[3], args[4], args[5]);
		if (rc < 0)
			rc = -errno;
	}
	/* whoever waits may close them, and expects that their locks are gone then */
	for (int i = 1; i < j->nfds; i++)
		close(j->fds[i]);
	answer_call(j, c, rc);
	close(j->fds[0]);
}

/* --- what comes --- */

/* The first descriptor: one of a pair that the tapdisk has made.  What it has connected to anybody
 * else is not written to with this process's rights. */
static bool is_reply_socket(const struct job *j)
{
	struct ucred c;
	socklen_t len = sizeof c;

	return j->nfds > 0 && !getsockopt(j->fds[0], SOL_SOCKET, SO_PEERCRED, &c, &len) &&
	       c.pid == tapdisk;
}

static bool is_whole(struct job *j, const char *data, size_t n)
{
	size_t at = 0;

	for (int i = 0; i < OPENER_PARTS; i++) {
		if (j->ask.len[i] > OPENER_PART_MAX || j->ask.len[i] > n - at)
			return false;
		memcpy(j->part[i], data + at, j->ask.len[i]);
		j->part[i][j->ask.len[i]] = 0;
		at += j->ask.len[i];
	}
	return at == n && is_reply_socket(j);
}

/* False when the tapdisk is gone. */
static bool receive_call(struct job *j)
{
	static const size_t room = OPENER_PARTS * (size_t)OPENER_PART_MAX;
	char data[OPENER_PARTS * OPENER_PART_MAX];
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof j->fds)];
	} control;
	struct iovec iov[2] = {{&j->ask, sizeof j->ask}, {data, room}};
	struct msghdr mh = {.msg_iov = iov,
			    .msg_iovlen = 2,
			    .msg_control = &control,
			    .msg_controllen = sizeof control};
	ssize_t n;

	j->nfds = 0;
	do
		n = recvmsg(channel, &mh, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	for (struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&mh) : NULL; c; c = CMSG_NXTHDR(&mh, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		j->nfds = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(j->fds, CMSG_DATA(c), (size_t)j->nfds * sizeof(int));
	}
	if (n <= 0)
		return false;
	if (n < (ssize_t)sizeof j->ask || mh.msg_flags & (MSG_TRUNC | MSG_CTRUNC) ||
	    !is_whole(j, data, (size_t)n - sizeof j->ask))
		j->ask.nr = -1; /* not from our side of this */
	return true;
}

static void *serve_calls(void *arg);

static void add_thread(void)
{
	pthread_attr_t attr;
	pthread_t t;

	if (__atomic_add_fetch(&threads, 1, __ATOMIC_RELAXED) > THREADS_MAX) {
		__atomic_sub_fetch(&threads, 1, __ATOMIC_RELAXED);
		return;
	}
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, THREAD_STACK);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	if (pthread_create(&t, &attr, serve_calls, NULL))
		__atomic_sub_fetch(&threads, 1, __ATOMIC_RELAXED);
	pthread_attr_destroy(&attr);
}

/* There is always one more that listens, as each may hang in its call. */
static void *serve_calls(void *arg)
{
	struct job j;

	for (;;) {
		__atomic_add_fetch(&idle, 1, __ATOMIC_SEQ_CST);
		if (!receive_call(&j))
			_exit(0);
		if (__atomic_sub_fetch(&idle, 1, __ATOMIC_SEQ_CST) == 0)
			add_thread();
		serve_one(&j);
	}
	return arg;
}

void opener_serve(int from, pid_t for_pid)
{
	channel = from;
	tapdisk = for_pid;
	threads = 1;
	rights_init(for_pid);
	serve_calls(NULL);
	_exit(0);
}
