/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The opener's side: makes the calls that its tapdisk asks for. */
#include "tapdisk/opener/opener.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
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
#include "tapdisk/opener/opener-datagram.h"
#include "tapdisk/opener/opener-inside.h"
#include "tapdisk/opener/opener-job.h"
#include "tapdisk/opener/opener-rights.h"

/* Calls that may hang at once; those of one tapdisk's threads are fewer. */
enum { THREADS_MAX = 64, THREAD_STACK = 256 * 1024 };

static int channel;
static int idle, threads; /* atomic */

/* --- one call --- */

/* Those with a text of their own. */
static bool by_hand(const struct opener_call *c)
{
	return c->nr == OPENER_PARENT || c->nr == OPENER_BENEATH || c->nr == OPENER_DIAL;
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
	if (c && (rc >= 0 || by_hand(c)) && c->room)
		iov[1].iov_len = c->room;
	else if (c && rc > 0 && strchr(c->args, 'L'))
		iov[1].iov_len = (size_t)rc;
	opener_send(j->fds[0], &mh, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (mh.msg_control) {
		close(fd);
		send(j->fds[0], &reply, sizeof reply, MSG_NOSIGNAL | MSG_DONTWAIT);
	}
}

static bool is_open(const struct opener_call *c)
{
#ifdef SYS_open
	if (c->nr == SYS_open)
		return true;
#endif
	return c->nr == SYS_openat || c->nr == SYS_openat2;
}

/* Of a call that opens; NULL: there are none. */
static uint64_t *open_flags(const struct opener_call *c, long *args)
{
	int at = (int)(strchr(c->args, 'P') - c->args) + 1;

	if (c->args[at] != 'B')
		return (uint64_t *)&args[at];
	return args[at + 1] < (long)sizeof(uint64_t) ? NULL : (uint64_t *)args[at];
}

/* Does it make, remove or rename what it names? */
static bool changes(const struct opener_call *c, long *args)
{
	static const short looks[] = {
		SYS_newfstatat, SYS_statx,   SYS_statfs,     SYS_faccessat,
		SYS_readlinkat, SYS_connect, SYS_pidfd_open, SYS_fstat,
#ifdef SYS_faccessat2
		SYS_faccessat2,
#endif
#ifdef SYS_open
		SYS_stat,       SYS_lstat,   SYS_access,     SYS_readlink,
#endif
	};
	uint64_t *flags = is_open(c) ? open_flags(c, args) : NULL;

	if (is_open(c))
		return flags && rights_makes(*flags);
	for (size_t i = 0; i < sizeof looks / sizeof *looks; i++)
		if (looks[i] == c->nr)
			return false;
	return c->nr > 0;
}

/* The result, or 1: to be made. */
static long serve_open(struct job *j, const struct opener_call *c, long *args)
{
	uint64_t *flags = open_flags(c, args);
	int rc, fd = job_own_fd(j->full[0]);

	if (!flags)
		return -EINVAL;
	if (fd >= 0)
		return rights_reopen(fd, *flags);
	rc = rights_open(j->asked[0], j->full[0], flags, &fd);
	return rc < 0 ? rc : fd >= 0 ? fd : 1;
}

static long rename_file(struct job *j)
{
	int rc = rights_rename(j->full[0], j->full[1]);

	if (!rc && rights_is_record(j->full[1]))
		return rights_record(j->full[0], j->full[1]);
	return rc < 0 ? rc : 1;
}

static long find_parent(struct job *j, const long *args)
{
	const char *uuid = j->ask.len[1] == 16 ? j->part[1] : NULL;

	return rights_parent(j->part[0], (const unsigned char *)uuid, args[3], &j->err);
}

/* OP6 */
static long make_socket(const long *args)
{
	int type = (int)args[1] & ~(SOCK_CLOEXEC | SOCK_NONBLOCK);
	int rc = rights_socket(args[0], type, args[2]);

	return rc < 0                                     ? rc
	       : args[0] == AF_UNIX && type == SOCK_DGRAM ? datagrams_socket((int)args[1])
							  : 1;
}

/* The kernel's call, if it is to be made.  By a descriptor that the tapdisk has: the kernel looks
 * at what that may. */
static long number_of(const struct opener_call *c)
{
	return c->nr == OPENER_ALLOCATE   ? SYS_fallocate
	       : c->nr == OPENER_TRUNCATE ? SYS_ftruncate
	       : c->nr == OPENER_SEEK     ? SYS_lseek
					  : c->nr;
}

/* What the call's result is, or 1: to be made. */
static long judge(struct job *j, const struct opener_call *c, long *args)
{
	switch (c->nr) {
	case OPENER_PARENT:
		return find_parent(j, args);
	case OPENER_BENEATH:
		return rights_beneath(args[2] ? "qcow2" : "vhd", j->part[0], j->part[1], &j->err);
	case OPENER_LISTEN:
		return opener_listen(j->fds[1]);
	case OPENER_MARK:
		return rights_mark(j->fds[1], args[1], (pid_t)args[2], args[3]);
	case OPENER_DIAL:
		return rights_dial(j->part[0], j->fds[1], &j->err);
	case SYS_openat:
	case SYS_openat2:
#ifdef SYS_open
	case SYS_open:
#endif
		return serve_open(j, c, args);
#ifdef SYS_open
	case SYS_rename:
#endif
	case SYS_renameat:
	case SYS_renameat2:
		return rename_file(j);
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
	case SYS_rmdir:
#endif
	case SYS_unlinkat:
		return rights_remove(j->full[0]) ?: 1;
#ifdef SYS_open
	case SYS_mkdir:
#endif
	case SYS_mkdirat:
		return rights_directory(j->full[0]) ?: 1;
#ifdef SYS_open
	case SYS_chmod:
#endif
	case SYS_fchmodat:
	case SYS_bind:
		if (!j->paths) /* of the network: nobody is to be served there */
			return -EACCES;
		return rights_name(j->full[0]) ?: 1;
	case SYS_connect:
		if (!j->paths)
			return rights_network() ?: 1;
		return rights_connect(j->asked[0], j->full[0]) ?: 1;
	case SYS_socket:
		return make_socket(args);
	case SYS_pidfd_send_signal:
		return args[2] ? -EINVAL : rights_signal((int)args[0]) ?: 1;
	case SYS_pidfd_open:
		return rights_pid(args[0]) ?: 1;
	default:
		return 1; /* OR5 */
	}
}

static void tell_refused(const struct job *j, const struct opener_call *c)
{
	static struct td_log_limit limit;
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

	pthread_mutex_lock(&lock);
	td_log_limited(&limit, LOG_WARNING,
		       "tapdisk %d was refused %.300s (system call %d): no host has named it",
		       (int)opener_for, j->paths ? j->asked[0] : j->part[0], (int)c->nr);
	pthread_mutex_unlock(&lock);
}

static void serve_one(struct job *j)
{
	const struct opener_call *c = opener_call(j->ask.nr);
	long args[OPENER_ARGS], rc;

	j->paths = 0;
	j->dir = -1;
	j->nseals = 0;
	memset(&j->err, 0, sizeof j->err);
	rc = c ? job_prepare(j, c, args) : -ENOSYS;
	if (!rc && job_is_late(j))
		rc = -ETIMEDOUT;
	if (!rc && changes(c, args))
		rc = seal_take(j, j->paths > 0 ? place_minor(j->full[0]) : -1,
			       j->paths > 1 ? place_minor(j->full[1]) : -1);
	if (!rc && job_is_orphan(j))
		rc = -EPIPE;
	if (!rc)
		rc = judge(j, c, args);
	if (rc == 1 && job_is_orphan(j))
		rc = -EPIPE;
	if (rc == 1 && c && number_of(c) > 0) {
		rc = syscall(number_of(c), args[0], args[1], args[2], args[3], args[4], args[5]);
		if (rc < 0)
			rc = -errno;
	} else if (rc == -EACCES && c) {
		tell_refused(j, c);
	}
	seal_drop(j);
	if (j->dir >= 0)
		close(j->dir);
	/* whoever waits may close them, and expects that their locks are gone then */
	for (int i = 1; i < j->nfds; i++)
		close(j->fds[i]);
	answer_call(j, c, rc);
	close(j->fds[0]);
}

/* --- what comes --- */

/*
 * The first descriptor: one of a pair that the tapdisk has made.  What it has connected to anybody
 * else is not written to with this process's rights; and where it has sent none, fds[0] is a number
 * of an earlier call's, under which another thread may have something else by now.
 */
static bool has_reply_socket(const struct job *j)
{
	struct ucred c;
	socklen_t len = sizeof c;

	return j->nfds > 0 && !getsockopt(j->fds[0], SOL_SOCKET, SO_PEERCRED, &c, &len) &&
	       c.pid == opener_for;
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
	return at == n;
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

/* Nobody is to be answered. */
static void drop_call(const struct job *j)
{
	for (int i = 0; i < j->nfds; i++)
		close(j->fds[i]);
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
		if (has_reply_socket(&j))
			serve_one(&j);
		else
			drop_call(&j);
	}
	return arg;
}

void opener_serve(int from, pid_t for_pid)
{
	channel = from;
	threads = 1;
	signal(SIGCHLD, SIG_IGN); /* opener-dial.c's children */
	rights_init(for_pid);
	serve_calls(NULL);
	_exit(0);
}
