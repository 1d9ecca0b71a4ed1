/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The tapdisk's side: a call that was caught, sent to the opener. */
#include "tapdisk/opener/opener.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "lib/dial.h"
#include "lib/io/reach.h"
#include "td/block.h"
#include "tapdisk/opener/opener-calls.h"
#include "tapdisk/opener/opener-datagram.h"

unsigned opener_patience = OPENER_PATIENCE;

static int channel = -1;
static pid_t pid;
static bool dead, isolates;
static __thread bool serving;

void opener_serving(void)
{
	serving = true;
}

pid_t opener_pid(void)
{
	return pid;
}

bool opener_isolates(void)
{
	return isolates;
}

int opener_channel(void)
{
	return channel;
}

bool opener_is_dead(void)
{
	return __atomic_load_n(&dead, __ATOMIC_RELAXED);
}

/* --- one call; runs in a signal's handler, on whatever stack its caller has --- */

struct asked {
	struct opener_ask ask;
	struct iovec iov[1 + OPENER_PARTS];
	int parts;
	int fds[1 + OPENER_FDS], nfds;
	void *out;
	size_t room;
};

static int add_part(struct asked *a, const void *data, size_t len)
{
	a->ask.len[a->parts] = (uint32_t)len;
	a->iov[++a->parts] = (struct iovec){(void *)data, len};
	return 0;
}

static int add_path(struct asked *a, const char *path)
{
	size_t n = path ? strnlen(path, PATH_MAX) : 0;

	if (!path)
		return -EFAULT;
	return n < PATH_MAX ? add_part(a, path, n) : -ENAMETOOLONG;
}

static int add_bytes(struct asked *a, const void *data, long len)
{
	if (len < 0 || len > OPENER_PART_MAX)
		return -EINVAL;
	return data || !len ? add_part(a, data, (size_t)len) : -EFAULT;
}

static int put_arg(struct asked *a, const struct opener_call *c, int i, const long *args)
{
	switch (c->args[i]) {
	case 'D':
		if ((int)args[i] == AT_FDCWD) {
			a->ask.arg[i] = AT_FDCWD;
			return 0;
		}
		/* fall through */
	case 'F':
		a->fds[a->nfds++] = (int)args[i];
		/* now, before its number is given to one of ours */
		return fcntl((int)args[i], F_GETFD) < 0 ? -EBADF : 0;
	case 'P':
	case 'T':
		return add_path(a, (const char *)args[i]);
	case 'B':
		return add_bytes(a, (const void *)args[i], args[i + 1]);
	case 'S':
	case 'L':
		a->out = (void *)args[i];
		a->room = c->args[i] == 'S' ? c->room : (size_t)args[i + 1];
		return 0;
	default:
		a->ask.arg[i] = args[i];
		return 0;
	}
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* Until fd is ready, or the patience is over.  0 or -errno. */
static int wait_for(int fd, short events, uint64_t deadline)
{
	for (;;) {
		struct pollfd p = {.fd = fd, .events = events};
		uint64_t t = deadline ? now_ns() : 0;
		struct timespec left = {(time_t)((deadline - t) / 1000000000),
					(long)((deadline - t) % 1000000000)};
		int n;

		if (deadline && t >= deadline)
			return -ETIMEDOUT;
		n = ppoll(&p, 1, deadline ? &left : NULL, NULL);
		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
	}
}

int opener_lost(void)
{
	__atomic_store_n(&dead, true, __ATOMIC_RELAXED);
	return -EIO;
}

static int send_ask(struct asked *a, int reply_to)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof a->fds)];
	} control = {0};
	struct msghdr mh = {.msg_iov = a->iov,
			    .msg_iovlen = (size_t)a->parts + 1,
			    .msg_control = &control,
			    .msg_controllen = CMSG_SPACE((unsigned)a->nfds * sizeof(int))};
	struct cmsghdr *c = CMSG_FIRSTHDR(&mh);
	ssize_t n;
	int rc;

	a->fds[0] = reply_to;
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN((unsigned)a->nfds * sizeof(int));
	memcpy(CMSG_DATA(c), a->fds, (unsigned)a->nfds * sizeof(int));
	while ((n = opener_send(channel, &mh, MSG_NOSIGNAL | MSG_DONTWAIT)) < 0) {
		if (errno == EPIPE || errno == ECONNRESET)
			return opener_lost();
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		rc = errno == EAGAIN ? wait_for(channel, POLLOUT, a->ask.deadline) : 0;
		if (rc < 0)
			return rc;
	}
	return 0;
}

static long receive_reply(struct asked *a, const struct opener_call *call, int from, bool cloexec)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct opener_reply reply;
	struct iovec iov[2] = {{&reply, sizeof reply}, {a->out, a->room}};
	struct msghdr mh = {.msg_iov = iov,
			    .msg_iovlen = a->out ? 2 : 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof control};
	struct cmsghdr *c;
	ssize_t n;
	int rc = wait_for(from, POLLIN, a->ask.deadline), fd;

	if (rc < 0)
		return rc;
	do
		n = recvmsg(from, &mh, cloexec ? MSG_CMSG_CLOEXEC : 0);
	while (n < 0 && errno == EINTR);
	if (n < (ssize_t)sizeof reply)
		return opener_lost();
	c = CMSG_FIRSTHDR(&mh);
	if (reply.rc < 0 || !call->opens)
		return (long)reply.rc;
	if (!c || c->cmsg_type != SCM_RIGHTS || mh.msg_flags & MSG_CTRUNC)
		return -EMFILE; /* the kernel passes none beyond the limit */
	memcpy(&fd, CMSG_DATA(c), sizeof fd);
	/* its end: the opener has the file open no more, and a lock is ours alone */
	while (recv(from, &reply, sizeof reply, 0) < 0 && errno == EINTR)
		;
	return fd;
}

static bool wants_cloexec(const struct opener_call *c, const long *args)
{
	for (int i = 0; c->args[i]; i++)
		if (c->args[i] == 'P') /* the flags follow, or point there */
			return (c->args[i + 1] == 'B' ? *(const long *)args[i + 1] : args[i + 1]) &
			       O_CLOEXEC;
	return true;
}

static long ask_opener(const struct opener_call *c, const long *args)
{
	struct asked a = {.ask = {.nr = c->nr}, .nfds = 1};
	int sv[2], rc = 0;
	long out;

	if (opener_is_dead())
		return -EIO;
	a.iov[0] = (struct iovec){&a.ask, sizeof a.ask};
	a.ask.deadline = serving ? now_ns() + opener_patience * 1000000ull : 0;
	for (int i = 0; c->args[i] && !rc; i++)
		rc = put_arg(&a, c, i, args);
	if (rc < 0)
		return rc;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0)
		return -errno;
	rc = send_ask(&a, sv[1]);
	close(sv[1]);
	out = rc < 0 ? rc : receive_reply(&a, c, sv[0], c->opens && wants_cloexec(c, args));
	close(sv[0]);
	return out;
}

/* Made here, unless the file system answers its own user alone, as FUSE does. */
static long look_at_file(long fd, long out)
{
	const long args[] = {fd, out};

	if (!syscall(SYS_fstat, fd, out, OPENER_FSTAT_HERE))
		return 0;
	return errno == EACCES ? ask_opener(opener_call(SYS_fstat), args) : -errno;
}

int opener_allocate(int fd, int mode, uint64_t off, uint64_t len)
{
	const long args[] = {fd, mode, (long)off, (long)len};

	return (int)ask_opener(opener_call(OPENER_ALLOCATE), args);
}

int opener_truncate(int fd, uint64_t size)
{
	const long args[] = {fd, (long)size};

	return (int)ask_opener(opener_call(OPENER_TRUNCATE), args);
}

int64_t opener_seek(int fd, uint64_t off, int whence)
{
	const long args[] = {fd, (long)off, whence};

	return ask_opener(opener_call(OPENER_SEEK), args);
}

int opener_take_listener(int fd)
{
	const long args[] = {fd};

	return channel < 0 ? -ENOSYS : (int)ask_opener(opener_call(OPENER_LISTEN), args);
}

int opener_mark(int held, int minor, pid_t to, bool beside)
{
	const long args[] = {held, minor, to, beside};

	return channel < 0 ? -ENOSYS : (int)ask_opener(opener_call(OPENER_MARK), args);
}

static int told(struct td_err *err, const struct td_err *why, long rc, const char *path)
{
	return why->code ? td_fail(err, why->code, "%s", why->text)
			 : td_fail(err, (int)-rc, "cannot open %s: %s", path, strerror((int)-rc));
}

static int dial(const char *path, int cancel, struct td_err *err)
{
	struct td_err why = {0};
	const long args[] = {(long)path, cancel, (long)&why};
	long fd = ask_opener(opener_call(OPENER_DIAL), args);

	return fd >= 0 ? (int)fd : told(err, &why, fd, path);
}

static int find_parent(const char *path, const unsigned char *uuid, bool write, struct td_err *err)
{
	struct td_err why = {0};
	const long args[] = {(long)path, (long)(uuid ?: (const unsigned char *)""), uuid ? 16 : 0,
			     write, (long)&why};
	long fd = ask_opener(opener_call(OPENER_PARENT), args);

	return fd >= 0 ? (int)fd : told(err, &why, fd, path);
}

int opener_beneath(const struct td_driver *d, const char *child, const char *parent,
		   struct td_err *err)
{
	struct td_err why = {0};
	const long args[] = {(long)child, (long)parent, !strcmp(d->name, "qcow2"), (long)&why};
	long rc;

	if (!d->beneath || channel < 0)
		return d->beneath ? d->beneath(child, parent, err) : 0;
	rc = ask_opener(opener_call(OPENER_BENEATH), args);
	return rc < 0 ? told(err, &why, rc, child) : 0;
}

bool opener_catches(long nr)
{
	return nr == SYS_rt_sigprocmask || opener_call(nr);
}

/*
 * Libraries block all signals in threads of their own (librados does), and the kernel ends a
 * process in which SIGSYS is raised while it is blocked.  So it is never blocked: the mask is
 * changed here, by what the handler returns to.
 */
static long change_mask(ucontext_t *u, const long *args)
{
	uint64_t *mask = (uint64_t *)&u->uc_sigmask, was = *mask, set;

	if (args[3] != sizeof set)
		return -EINVAL;
	if (args[1]) {
		memcpy(&set, (const void *)args[1], sizeof set);
		if (args[0] == SIG_BLOCK)
			set |= was;
		else if (args[0] == SIG_UNBLOCK)
			set = was & ~set;
		else if (args[0] != SIG_SETMASK)
			return -EINVAL;
		*mask = set & ~(UINT64_C(1) << (SIGSYS - 1));
	}
	if (args[2])
		memcpy((void *)args[2], &was, sizeof was);
	return 0;
}

static long catch_call(long nr, ucontext_t *u, const long *args)
{
	const struct opener_call *c = opener_call(nr);

	if (nr == SYS_rt_sigprocmask)
		return change_mask(u, args);
	if (nr == SYS_fstat)
		return look_at_file(args[0], args[1]);
	if (nr == SYS_newfstatat && args[3] & AT_EMPTY_PATH && !*(const char *)args[1])
		return look_at_file(args[0], args[2]);
	return c ? ask_opener(c, args) : -ENOSYS;
}

#if defined __x86_64__ || defined __aarch64__
static void on_call(int sig, siginfo_t *info, void *context)
{
	ucontext_t *u = context;
	int was = errno;
#ifdef __x86_64__
	greg_t *r = u->uc_mcontext.gregs;
	const long args[] = {r[REG_RDI], r[REG_RSI], r[REG_RDX], r[REG_R10], r[REG_R8], r[REG_R9]};

	r[REG_RAX] = catch_call(info->si_syscall, u, args);
#else
	unsigned long long *r = u->uc_mcontext.regs;
	const long args[] = {(long)r[0], (long)r[1], (long)r[2],
			     (long)r[3], (long)r[4], (long)r[5]};

	r[0] = (unsigned long long)catch_call(info->si_syscall, u, args);
#endif
	errno = was;
}
#else
static void on_call(int sig, siginfo_t *info, void *context)
{
}
#endif

/* --- the start --- */

struct born {
	pid_t pid;
	bool isolates;
};

static void __attribute__((noreturn))
become_opener(int end, pid_t for_pid, bool (*restrict_it)(void), bool (*isolate)(void))
{
	struct born self;

	/* by either name: whoever counts tapdisks, or ends one, does not mean this one */
	prctl(PR_SET_NAME, "td-opener");
	strncpy(program_invocation_name, "opener", strlen(program_invocation_name));
	/* it ends with its tapdisk, and by nothing that is sent to both */
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGQUIT, SIG_IGN);
	td_log_socket("/dev/log"); /* one of its own */
	td_log_open("td-opener", TD_LOG_NO_STDERR);
	/* above all tap-ctl's socket, which tells it of the tapdisk's death */
	if (end != 3 && dup3(end, 3, O_CLOEXEC) < 0)
		_exit(1);
	if (close_range(4, ~0u, 0) < 0)
		_exit(1);
	self = (struct born){getpid(), datagrams_start(isolate, restrict_it)};
	if (!restrict_it())
		_exit(1);
	if (send(3, &self, sizeof self, MSG_NOSIGNAL) != sizeof self)
		_exit(1);
	opener_serve(3, for_pid);
}

/* It is a grandchild, whose end nobody is told of: the tapdisk has no child to wait for. */
static int start_process(int end, bool (*restrict_it)(void), bool (*isolate)(void))
{
	pid_t self = getpid(), child = fork();
	int status;

	if (child < 0)
		return -errno;
	if (!child) {
		pid_t opener = fork();

		if (!opener)
			become_opener(end, self, restrict_it, isolate);
		_exit(opener < 0);
	}
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return status ? -EAGAIN : 0;
}

int opener_start(bool (*restrict_it)(void), bool (*isolate)(void))
{
	struct born born = {0};
	struct sigaction sa = {.sa_sigaction = on_call, .sa_flags = SA_SIGINFO | SA_RESTART};
	int sv[2], rc;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0)
		return -errno;
	rc = start_process(sv[1], restrict_it, isolate);
	close(sv[1]);
	if (!rc && recv(sv[0], &born, sizeof born, 0) != sizeof born)
		rc = -ECHILD;
	if (!rc && sigaction(SIGSYS, &sa, NULL) < 0)
		rc = -errno;
	if (rc < 0) {
		close(sv[0]);
		return rc;
	}
	pid = born.pid;
	isolates = born.isolates;
	channel = sv[0];
	td_reach_find = find_parent;
	td_dial = dial;
	return 0;
}
