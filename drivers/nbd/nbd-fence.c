/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * K5: the server's ends of connections whose client is gone, as the kernel shows them (sock_diag,
 * as `ss -xp' does).  A server that still works for one has not closed it.
 */
#include <errno.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "drivers/nbd/nbd.h"
#include "lib/fiber/fiber.h"
#include "lib/io/clock.h"

#define LOOK_EVERY  0.01 /* s */
#define ESTABLISHED 1    /* TCP_ESTABLISHED, which a Unix socket's state is too */

struct end {
	uint32_t peer; /* inode of the client's; 0: it is gone */
	uint8_t state;
	bool has_file;
	struct unix_diag_vfs file; /* where the server listens */
	char name[128];
	size_t name_len;
};

struct search {
	int fd;          /* our connection */
	uint32_t own;    /* its inode */
	struct end mine; /* the server's end of it */
	bool found;
	unsigned orphans;
};

static int ask_kernel(int nl)
{
	struct {
		struct nlmsghdr h;
		struct unix_diag_req r;
	} q = {.h = {.nlmsg_len = sizeof q,
		     .nlmsg_type = SOCK_DIAG_BY_FAMILY,
		     .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
	       .r = {.sdiag_family = AF_UNIX,
		     .udiag_states = 1u << ESTABLISHED,
		     .udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_VFS | UDIAG_SHOW_PEER,
		     .udiag_cookie = {UINT32_MAX, UINT32_MAX}}};
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};

	return sendto(nl, &q, sizeof q, 0, (struct sockaddr *)&kernel, sizeof kernel) < 0 ? -errno
											  : 0;
}

static void read_attribute(struct end *e, const struct nlattr *a)
{
	const void *data = (const char *)a + NLA_HDRLEN;
	size_t len = a->nla_len - NLA_HDRLEN;

	if (a->nla_type == UNIX_DIAG_PEER && len >= sizeof e->peer) {
		memcpy(&e->peer, data, sizeof e->peer);
	} else if (a->nla_type == UNIX_DIAG_VFS && len >= sizeof e->file) {
		memcpy(&e->file, data, sizeof e->file);
		e->has_file = true;
	} else if (a->nla_type == UNIX_DIAG_NAME && len <= sizeof e->name) {
		memcpy(e->name, data, len);
		e->name_len = len;
	}
}

static struct end read_end(const struct nlmsghdr *h)
{
	const struct unix_diag_msg *m = (const void *)((const char *)h + NLMSG_HDRLEN);
	size_t at = NLMSG_HDRLEN + NLMSG_ALIGN(sizeof *m);
	struct end e = {.state = m->udiag_state};

	while (at + NLA_HDRLEN <= h->nlmsg_len) {
		const struct nlattr *a = (const void *)((const char *)h + at);

		if (a->nla_len < NLA_HDRLEN || at + a->nla_len > h->nlmsg_len)
			break;
		read_attribute(&e, a);
		at += NLA_ALIGN(a->nla_len);
	}
	return e;
}

/* Two ends of one server's; a server that was started anew listens at the same name, and another
 * file. */
static bool same_server(const struct end *a, const struct end *b)
{
	return (a->name_len && a->name_len == b->name_len &&
		!memcmp(a->name, b->name, a->name_len)) ||
	       (a->has_file && b->has_file && !memcmp(&a->file, &b->file, sizeof a->file));
}

static void look_at(struct search *s, const struct end *e)
{
	if (e->state != ESTABLISHED)
		return;
	if (!s->found && e->peer == s->own) {
		s->mine = *e;
		s->found = true;
	} else if (s->found && !e->peer && same_server(e, &s->mine)) {
		s->orphans++;
	}
}

/* All connected Unix sockets of this network namespace, one after the other. */
static int dump(int nl, struct search *s)
{
	char buf[32768] __attribute__((aligned(8)));
	int rc = ask_kernel(nl);

	while (!rc) {
		ssize_t n = recv(nl, buf, sizeof buf, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EPROTO;
		for (const struct nlmsghdr *h = (void *)buf; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
			struct end e;

			if (h->nlmsg_type == NLMSG_DONE)
				return 0;
			if (h->nlmsg_type == NLMSG_ERROR)
				return -EOPNOTSUPP; /* a kernel without it */
			e = read_end(h);
			look_at(s, &e);
		}
	}
	return rc;
}

/* In a worker: NBD_FENCE_*, or the number of the dead. */
static long look_in_worker(void *arg)
{
	struct search *s = arg;
	int nl = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG),
	    rc = nl < 0 ? -errno : 0;
	struct stat st;

	if (!rc && fstat(s->fd, &st) < 0)
		rc = -errno;
	s->own = rc ? 0 : (uint32_t)st.st_ino;
	if (!rc)
		rc = dump(nl, s); /* for our own */
	s->orphans = 0;
	if (!rc && s->found)
		rc = dump(nl, s);
	if (nl >= 0)
		close(nl);
	return rc || !s->found ? NBD_FENCE_BLIND : (long)s->orphans;
}

int nbdc_fence(struct td_io *io, int fd, double patience)
{
	double until = td_clock_s() + patience;

	for (;;) {
		struct search s = {.fd = fd};
		long n = td_await_call(io, look_in_worker, &s);

		if (n <= 0)
			return n ? NBD_FENCE_BLIND : NBD_FENCE_CLEAR;
		if (td_clock_s() >= until)
			return NBD_FENCE_BUSY;
		td_fiber_wait_for(LOOK_EVERY);
	}
}
