/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Connections to other hosts, for disks that the host has named (OR7).  A child makes each, which
 * has no rights at all, and a user id of its own (B8 of tapdisk/sandbox/sandbox.h): a name
 * service's answers, which come from anybody, are not read by a process that may open every file;
 * and one that hangs is ended when the time is over.  For TLS, another child then reads the keys,
 * gives up its rights as well, and stays as the connection's relay (lib/tls/tls.h): the first one
 * never has the keys, and the tapdisk does not either.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/dial.h"
#include "lib/tls/tls.h"
#include "tapdisk/opener/opener-calls.h"
#include "tapdisk/opener/opener-inside.h"
#include "tapdisk/opener/opener-rights.h"
#include "tapdisk/opener/opener.h"

/* Beside what the connection may take: a name service that does not answer; files that do not. */
enum {
	LIMIT = (DIAL_LIMIT + 5) * 1000, /* ms */
	SECURE_LIMIT = (TLS_LIMIT + 5) * 1000,
};

struct child {
	pid_t pid;
	int from;         /* its socket */
	int limit;        /* ms */
	const char *does; /* for texts */
};

/* fd: -1 for none. */
static void send_result(int to, const struct td_err *err, int fd)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec iov = {(void *)err, sizeof *err};
	struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};

	if (fd >= 0) {
		struct cmsghdr *m = &control.align;

		mh.msg_control = &control;
		mh.msg_controllen = sizeof control;
		m->cmsg_level = SOL_SOCKET;
		m->cmsg_type = SCM_RIGHTS;
		m->cmsg_len = CMSG_LEN(sizeof fd);
		memcpy(CMSG_DATA(m), &fd, sizeof fd);
	}
	opener_send(to, &mh, MSG_NOSIGNAL);
}

static int receive_result(const struct child *c, struct td_err *err)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = {err, sizeof *err};
	struct msghdr mh = {.msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof control};
	ssize_t n = recvmsg(c->from, &mh, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	struct cmsghdr *m = n > 0 ? CMSG_FIRSTHDR(&mh) : NULL;
	int fd;

	if (m && m->cmsg_type == SCM_RIGHTS) {
		memcpy(&fd, CMSG_DATA(m), sizeof fd);
		return fd;
	}
	if (n != sizeof *err || err->code <= 0)
		return td_fail(err, EIO, "the process that %s an NBD server has ended", c->does);
	err->text[sizeof err->text - 1] = 0;
	return -err->code;
}

static uint32_t users; /* 0: those who connect keep root's id */

void opener_dials_as(uint32_t first)
{
	users = first;
}

/* Where that is not left to this service, its child goes on with root's id, as its tapdisk does. */
static void become_user(void)
{
	uint32_t id = users + (uint32_t)getpid();

	/* by the kernel's own calls: libc's would tell threads, which stayed with the parent */
	if (users && !syscall(SYS_setgroups, 0, NULL) && !syscall(SYS_setresgid, id, id, id))
		syscall(SYS_setresuid, id, id, id);
}

/* It has the address space of one that may do more, but not its rights. */
static bool drop_rights(void)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[2] = {{0}};

	become_user();
	return !syscall(SYS_capset, &h, none);
}

/* What no child has: any other descriptor of the opener's. */
static void keep_only(int to)
{
	if (to != 3 && dup3(to, 3, O_CLOEXEC) < 0)
		_exit(1);
	close_range(4, ~0u, 0);
}

static void __attribute__((noreturn)) become_dialler(const struct nbd_uri *u, int to)
{
	struct td_err err = {0};
	int fd = -EPERM;

	keep_only(to);
	prctl(PR_SET_NAME, "td-dial");
	/* the signal is set last: a change of user cancels it */
	if (drop_rights() && !prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0))
		fd = td_dial_here(u, 3, &err); /* hung up: nobody waits */
	send_result(3, &err, fd);
	_exit(0);
}

/* The relay, which outlives the opener: it ends with its connection (OP3). */
static int relay_start(struct td_tls_client *c, const struct nbd_uri *u, int wire, int plain,
		       struct td_err *err)
{
	struct ssl_ctx_st *ctx = td_tls_client_context(u, err);
	int rc;

	if (!ctx)
		return -err->code;
	if (!drop_rights())
		return td_fail(err, EPERM, "TLS: cannot give up this process's rights");
	td_tls_jail(); /* or less, on a kernel without filters: see there */
	rc = td_tls_client_start(c, wire, u, ctx, 3, err);
	return rc < 0 ? rc : td_tls_client_meet(c, plain, err);
}

static void __attribute__((noreturn)) become_relay(const struct nbd_uri *u, int wire, int to)
{
	static struct td_tls_client c;
	struct td_err err = {0};
	int sv[2];

	if ((to == 4 || wire == 3) && (to = fcntl(to, F_DUPFD_CLOEXEC, 5)) < 0)
		_exit(1);
	if (wire != 4 && dup3(wire, 4, O_CLOEXEC) < 0)
		_exit(1);
	if (to != 3 && dup3(to, 3, O_CLOEXEC) < 0)
		_exit(1);
	close_range(5, ~0u, 0);
	prctl(PR_SET_NAME, "td-tls");
	signal(SIGPIPE, SIG_IGN);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv) < 0)
		_exit(1);
	if (relay_start(&c, u, 4, sv[0], &err) < 0) {
		send_result(3, &err, -1);
		_exit(0);
	}
	send_result(3, &err, sv[1]);
	close(sv[1]);
	close(3);
	td_tls_client_run(&c, sv[0]);
	_exit(0);
}

static int await_result(const struct child *c, int cancel, struct td_err *err)
{
	struct pollfd p[2] = {{.fd = c->from, .events = POLLIN}, {.fd = cancel}};
	int n = poll(p, 2, c->limit), fd, rc = 0;

	if (n > 0 && p[0].revents)
		return receive_result(c, err);
	rc = n ? td_fail(err, ECANCELED, "nobody waits for the connection any more")
	       : td_fail(err, ETIMEDOUT,
			 "the process that %s an NBD server has not ended within %d s: a name "
			 "service, or a file system, does not answer",
			 c->does, c->limit / 1000);
	fd = (int)syscall(SYS_pidfd_open, c->pid, 0);
	if (fd >= 0) {
		syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
		close(fd);
	}
	return rc;
}

/* wire: -1, to connect; else for TLS over it. */
static int by_child(const struct nbd_uri *u, int wire, int cancel, struct td_err *err)
{
	struct child c = {.limit = wire < 0 ? LIMIT : SECURE_LIMIT,
			  .does = wire < 0 ? "looks up and connects to" : "begins TLS with"};
	int sv[2], rc;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0)
		return -errno;
	c.from = sv[0];
	c.pid = fork();
	if (!c.pid && wire < 0)
		become_dialler(u, sv[1]);
	if (!c.pid)
		become_relay(u, wire, sv[1]);
	rc = c.pid < 0 ? -errno : 0;
	close(sv[1]);
	if (!rc)
		rc = await_result(&c, cancel, err);
	close(sv[0]);
	return rc;
}

int rights_dial(const char *path, int cancel, struct td_err *err)
{
	char spec[4200];
	struct nbd_uri u;
	int rc, wire;

	nbd_title(path, spec, sizeof spec);
	if (!named_has(spec))
		return -EACCES;
	rc = nbd_uri_parse(path, &u, err);
	if (rc < 0)
		return rc;
	wire = by_child(&u, -1, cancel, err);
	if (wire < 0 || !u.tls)
		return wire;
	rc = by_child(&u, wire, cancel, err);
	close(wire);
	return rc;
}
