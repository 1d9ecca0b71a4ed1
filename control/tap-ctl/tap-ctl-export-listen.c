/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where an export listens, and X1. */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/tap-ctl/tap-ctl-export.h"

/* A client whose host is gone is let go after about that long, in s: others may wait for its
 * place. */
enum { ASK_AFTER = 10, ASK_TIMES = 3, GONE_AFTER = ASK_AFTER * (ASK_TIMES + 1) };

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	struct sockaddr_storage room;
};

static bool is_loopback(const union address *a)
{
	const struct in6_addr *v6 = &a->v6.sin6_addr;

	if (a->any.sa_family == AF_INET)
		return ntohl(a->v4.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
	if (a->any.sa_family != AF_INET6)
		return false;
	return IN6_IS_ADDR_LOOPBACK(v6) ||
	       (IN6_IS_ADDR_V4MAPPED(v6) && v6->s6_addr[12] == IN_LOOPBACKNET);
}

static void put_address(const union address *a, char *out, size_t size)
{
	char host[INET6_ADDRSTRLEN + 20] = "?", port[8] = "?"; /* and a link's name */

	getnameinfo(&a->any, sizeof *a, host, sizeof host, port, sizeof port,
		    NI_NUMERICHOST | NI_NUMERICSERV);
	snprintf(out, size, a->any.sa_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

/* ADDRESS, [ADDRESS] or nothing; then :PORT or nothing. */
static int split(const char *where, char *host, size_t room, char *port, size_t port_room)
{
	const char *colon = strrchr(where, ':'), *end;
	size_t len;

	if (*where == '[') {
		end = strchr(++where, ']');
		if (!end || (end[1] && end[1] != ':'))
			return -EINVAL;
		colon = end[1] ? end + 1 : NULL;
	} else {
		if (colon && memchr(where, ':', (size_t)(colon - where)))
			return -EINVAL; /* of IPv6, where a port could be a part of it */
		end = colon ? colon : where + strlen(where);
	}
	len = (size_t)(end - where);
	if (len >= room || (colon && strlen(colon + 1) >= port_room))
		return -EINVAL;
	if (len)
		snprintf(host, room, "%.*s", (int)len, where);
	if (colon && (!colon[1] || colon[1 + strspn(colon + 1, "0123456789")]))
		return -EINVAL;
	if (colon)
		strcpy(port, colon + 1);
	return 0;
}

static int listen_at(const struct addrinfo *a)
{
	int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1,
	    off = 0;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (a->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
	if (bind(fd, a->ai_addr, a->ai_addrlen) < 0 || listen(fd, 64) < 0) {
		int rc = -errno;

		close(fd);
		return rc;
	}
	return fd;
}

/* X1, of an address that a connection can come to. */
static int check_plain(const union address *a, const char *text, struct td_err *err)
{
	if (is_loopback(a))
		return 0;
	return td_fail(err, EPERM,
		       "export: whoever reaches %s could use the disk, as there is no TLS: give "
		       "--tls-certificates or --tls-psk-file, or listen at 127.0.0.1, or say "
		       "--plain",
		       text);
}

static int first_of(const struct addrinfo *list, bool any, struct td_err *err)
{
	char text[100];
	int fd = -ENOENT;

	for (; list && fd < 0; list = list->ai_next) {
		put_address((const union address *)list->ai_addr, text, sizeof text);
		if (!any && check_plain((const union address *)list->ai_addr, text, err) < 0)
			return -err->code;
		fd = listen_at(list);
	}
	return fd < 0 ? td_fail(err, -fd, "export: cannot listen at %s: %s", text, strerror(-fd))
		      : fd;
}

int export_listen(const char *where, bool tls, bool plain, char *uri, size_t size,
		  struct td_err *err)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list;
	char host[256] = "127.0.0.1", port[8], text[100];
	union address at = {0};
	socklen_t len = sizeof at;
	int rc, fd;

	snprintf(port, sizeof port, "%d", NBD_PORT);
	if (where && split(where, host, sizeof host, port, sizeof port) < 0)
		return td_fail(err, EINVAL,
			       "export: -l takes ADDRESS:PORT, [IPv6 ADDRESS]:PORT or *:PORT, not "
			       "'%s'",
			       where);
	rc = getaddrinfo(!strcmp(host, "*") ? NULL : host, port, &hints, &list);
	if (rc)
		return td_fail(err, rc == EAI_AGAIN ? EAGAIN : ENOENT,
			       "export: cannot look up the address '%s': %s", host,
			       rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc));
	fd = first_of(list, tls || plain, err);
	freeaddrinfo(list);
	if (fd < 0)
		return fd;
	getsockname(fd, &at.any, &len);
	put_address(&at, text, sizeof text);
	snprintf(uri, size, "%s://%s/", tls ? "nbds" : "nbd", text);
	return fd;
}

int export_accept(int listener, char *peer)
{
	static const int on = 1, after = ASK_AFTER, times = ASK_TIMES, gone = GONE_AFTER * 1000;
	union address from = {0};
	socklen_t len = sizeof from;
	int fd = accept4(listener, &from.any, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return -errno;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &after, sizeof after);
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &after, sizeof after);
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &times, sizeof times);
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &gone, sizeof gone);
	put_address(&from, peer, EXPORT_PEER);
	return fd;
}
