/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/dial.h"

#include <errno.h>
#include <linux/vm_sockets.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define GIVE_UP 0x7fffffff /* ms: 24 days */

int td_dial_ask = 5;

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void set(int fd, int level, int option, int value)
{
	setsockopt(fd, level, option, &value, sizeof value);
}

static void set_up_tcp(int fd)
{
	set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	set(fd, IPPROTO_TCP, TCP_KEEPIDLE, td_dial_ask);
	set(fd, IPPROTO_TCP, TCP_KEEPINTVL, td_dial_ask);
	set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, GIVE_UP);
}

/* Until the connection is made: 0 or -errno. */
static int wait_for(int fd, int cancel, int64_t until)
{
	for (;;) {
		struct pollfd p[2] = {{.fd = fd, .events = POLLOUT}, {.fd = cancel}};
		int64_t left = until - now_ms();
		int n = left > 0 ? poll(p, 2, (int)left) : 0, rc = 0;
		socklen_t len = sizeof rc;

		if (!n)
			return -ETIMEDOUT;
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0 && p[1].revents)
			return -ECANCELED;
		if (n > 0)
			return getsockopt(fd, SOL_SOCKET, SO_ERROR, &rc, &len) < 0 ? -errno : -rc;
	}
}

static int connect_to(const struct sockaddr *to, socklen_t len, int cancel, int64_t until)
{
	int fd = socket(to->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), rc = 0;

	if (fd < 0)
		return -errno;
	if (connect(fd, to, len) < 0)
		rc = errno == EINPROGRESS || errno == EINTR ? wait_for(fd, cancel, until) : -errno;
	if (rc < 0) {
		close(fd);
		return rc;
	}
	if (to->sa_family != AF_VSOCK)
		set_up_tcp(fd);
	return fd;
}

static int resolve(const struct nbd_uri *u, struct addrinfo **list, struct td_err *err)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
	char port[8];
	int rc;

	snprintf(port, sizeof port, "%u", u->port);
	rc = getaddrinfo(u->host, port, &hints, list);
	if (rc)
		return td_fail(err, rc == EAI_AGAIN ? EAGAIN : ENOENT,
			       "cannot look up the host %s of an NBD server: %s", u->host,
			       rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc));
	return 0;
}

static int dial_tcp(const struct nbd_uri *u, int cancel, struct td_err *err)
{
	int64_t until = now_ms() + DIAL_LIMIT * 1000;
	struct addrinfo *list, *a;
	int rc = resolve(u, &list, err), left = 0;

	if (rc < 0)
		return rc;
	rc = -ENOENT;
	for (a = list; a; a = a->ai_next)
		left++;
	for (a = list; a && rc < 0 && rc != -ECANCELED; a = a->ai_next, left--) {
		int64_t now = now_ms();

		rc = connect_to(a->ai_addr, a->ai_addrlen, cancel, now + (until - now) / left);
	}
	freeaddrinfo(list);
	return rc < 0 ? td_fail(err, -rc, "cannot connect to an NBD server at %s port %u: %s",
				u->host, u->port, strerror(-rc))
		      : rc;
}

static int dial_vsock(const struct nbd_uri *u, int cancel, struct td_err *err)
{
	struct sockaddr_vm to = {
		.svm_family = AF_VSOCK, .svm_cid = u->cid, .svm_port = u->vsock_port};
	int rc =
		connect_to((struct sockaddr *)&to, sizeof to, cancel, now_ms() + DIAL_LIMIT * 1000);

	return rc < 0 ? td_fail(err, -rc,
				"cannot connect to an NBD server at vsock address %u port %u: %s",
				u->cid, u->vsock_port, strerror(-rc))
		      : rc;
}

int td_dial_here(const struct nbd_uri *u, int cancel, struct td_err *err)
{
	switch (u->way) {
	case NBD_TCP:
		return dial_tcp(u, cancel, err);
	case NBD_VSOCK:
		return dial_vsock(u, cancel, err);
	default:
		return td_fail(err, EINVAL, "this NBD server is not on another host");
	}
}

static int dial_path(const char *path, int cancel, struct td_err *err)
{
	struct nbd_uri u;
	int rc = nbd_uri_parse(path, &u, err), fd;

	if (rc < 0)
		return rc;
	if (u.tls && !td_dial_tls)
		return td_fail(err, EOPNOTSUPP,
			       "%s: this program has no TLS, and nothing is sent without it", path);
	fd = td_dial_here(&u, cancel, err);
	return fd < 0 || !u.tls ? fd : td_dial_tls(fd, &u, cancel, err);
}

int td_dial_under(int fd)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof fd)];
	} control;
	char byte;
	struct iovec iov = {&byte, 1};
	struct msghdr mh = {.msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof control};
	struct cmsghdr *m;

	/* it was sent before fd was passed */
	if (recvmsg(fd, &mh, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) != 1)
		return -EPROTO;
	m = CMSG_FIRSTHDR(&mh);
	if (!m || m->cmsg_type != SCM_RIGHTS)
		return -EPROTO;
	memcpy(&fd, CMSG_DATA(m), sizeof fd);
	return fd;
}

int (*td_dial_tls)(int fd, const struct nbd_uri *u, int cancel, struct td_err *err);

int (*td_dial)(const char *path, int cancel, struct td_err *err) = dial_path;
