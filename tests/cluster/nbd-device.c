/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A block device of a tapdisk's NBD socket, which outlives the tapdisk as a guest's disk does:
 * while the socket is dead, requests wait, and those that were not answered go to the next socket.
 * nbd-client cannot ask the kernel for that.
 *
 *    nbd-device on SOCKET [SECONDS]     makes /dev/nbd0 of a socket of the old style (nbd-old...)
 *    nbd-device again SOCKET            another socket for it, after the first has died
 *    nbd-device off
 *
 * SECONDS: a request that has no answer for so long is sent again, once there is another socket.
 * Without it none is.
 */
#include <endian.h>
#include <errno.h>
#include <linux/genetlink.h>
#include <linux/nbd-netlink.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define WAIT_S    3600 /* how long requests wait for another socket */
#define BLOCK     512
#define GREETING  152 /* bytes: two magic numbers, the size, the flags, 124 zeroes */
#define OLD_MAGIC UINT64_C(0x00420281861253)

struct message {
	struct nlmsghdr head;
	struct genlmsghdr genl;
	char attrs[512];
};

static void die(const char *what)
{
	fprintf(stderr, "nbd-device: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* --- the kernel's side: generic netlink --- */

static struct nlattr *put(struct message *m, unsigned type, const void *data, size_t len)
{
	struct nlattr *a = (struct nlattr *)((char *)m + NLMSG_ALIGN(m->head.nlmsg_len));

	a->nla_type = (uint16_t)type;
	a->nla_len = (uint16_t)(NLA_HDRLEN + len);
	if (len)
		memcpy((char *)a + NLA_HDRLEN, data, len);
	m->head.nlmsg_len = NLMSG_ALIGN(m->head.nlmsg_len) + NLA_ALIGN(a->nla_len);
	return a;
}

static void put32(struct message *m, unsigned type, uint32_t v)
{
	put(m, type, &v, sizeof v);
}

static void put64(struct message *m, unsigned type, uint64_t v)
{
	put(m, type, &v, sizeof v);
}

static void put_socket(struct message *m, int fd)
{
	struct nlattr *all = put(m, NBD_ATTR_SOCKETS | NLA_F_NESTED, NULL, 0);
	struct nlattr *one = put(m, NBD_SOCK_ITEM | NLA_F_NESTED, NULL, 0);
	char *end;

	put32(m, NBD_SOCK_FD, (uint32_t)fd);
	end = (char *)m + m->head.nlmsg_len;
	one->nla_len = (uint16_t)(end - (char *)one);
	all->nla_len = (uint16_t)(end - (char *)all);
}

static struct message message(unsigned family, unsigned command)
{
	return (struct message){
		.head = {.nlmsg_len = NLMSG_LENGTH(GENL_HDRLEN),
			 .nlmsg_type = (uint16_t)family,
			 .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
		.genl = {.cmd = (uint8_t)command, .version = 1},
	};
}

/* Sends it, and reads up to its acknowledgement.  The attribute `wanted' of an answer before that,
 * or 0. */
static unsigned call(int netlink, const struct message *m, unsigned wanted, const char *what)
{
	_Alignas(struct nlmsghdr) char in[8192];
	unsigned found = 0;

	if (send(netlink, m, m->head.nlmsg_len, 0) < 0)
		die(what);
	for (;;) {
		ssize_t n = recv(netlink, in, sizeof in, 0);
		struct nlmsghdr *h = (struct nlmsghdr *)in;

		if (n < 0)
			die(what);
		for (; NLMSG_OK(h, (unsigned)n); h = NLMSG_NEXT(h, n)) {
			struct nlattr *a = (struct nlattr *)((char *)NLMSG_DATA(h) + GENL_HDRLEN);
			char *end = (char *)h + h->nlmsg_len;

			if (h->nlmsg_type == NLMSG_ERROR) {
				errno = -((struct nlmsgerr *)NLMSG_DATA(h))->error;
				if (errno)
					die(what);
				return found;
			}
			for (; (char *)a + NLA_HDRLEN <= end && a->nla_len >= NLA_HDRLEN;
			     a = (struct nlattr *)((char *)a + NLA_ALIGN(a->nla_len)))
				if (wanted && a->nla_type == wanted)
					found = *(uint16_t *)((char *)a + NLA_HDRLEN);
		}
	}
}

/* --- the tapdisk's: a connection, and what it says first --- */

static int dial(const char *path, uint64_t *size, uint32_t *flags)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	char in[GREETING];
	uint64_t magic;

	strncpy(to.sun_path, path, sizeof to.sun_path - 1);
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) < 0 ||
	    recv(fd, in, sizeof in, MSG_WAITALL) != sizeof in)
		die(path);
	memcpy(&magic, in + 8, 8);
	memcpy(size, in + 16, 8);
	memcpy(flags, in + 24, 4);
	errno = EPROTO;
	if (memcmp(in, "NBDMAGIC", 8) || be64toh(magic) != OLD_MAGIC)
		die(path);
	*size = be64toh(*size);
	*flags = be32toh(*flags);
	return fd;
}

int main(int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "";
	int netlink = socket(AF_NETLINK, SOCK_RAW, NETLINK_GENERIC);
	struct message m = message(GENL_ID_CTRL, CTRL_CMD_GETFAMILY);
	uint32_t flags = 0;
	uint64_t size = 0;
	unsigned nbd;
	int fd = -1;

	if (!(!strcmp(verb, "off") && argc == 2) && !(!strcmp(verb, "again") && argc == 3) &&
	    !(!strcmp(verb, "on") && (argc == 3 || argc == 4))) {
		fprintf(stderr, "nbd-device on SOCKET [SECONDS] | again SOCKET | off\n");
		return 22;
	}
	put(&m, CTRL_ATTR_FAMILY_NAME, NBD_GENL_FAMILY_NAME, sizeof NBD_GENL_FAMILY_NAME);
	nbd = call(netlink, &m, CTRL_ATTR_FAMILY_ID, "the kernel's nbd");
	if (argc > 2)
		fd = dial(argv[2], &size, &flags);
	m = message(nbd, !strcmp(verb, "on")      ? NBD_CMD_CONNECT
			 : !strcmp(verb, "again") ? NBD_CMD_RECONFIGURE
						  : NBD_CMD_DISCONNECT);
	put32(&m, NBD_ATTR_INDEX, 0);
	if (!strcmp(verb, "on")) {
		put64(&m, NBD_ATTR_SIZE_BYTES, size);
		put64(&m, NBD_ATTR_BLOCK_SIZE_BYTES, BLOCK);
		put64(&m, NBD_ATTR_SERVER_FLAGS, flags);
		put64(&m, NBD_ATTR_DEAD_CONN_TIMEOUT, WAIT_S);
		if (argc == 4)
			put64(&m, NBD_ATTR_TIMEOUT, strtoul(argv[3], NULL, 10));
	}
	if (fd >= 0)
		put_socket(&m, fd);
	call(netlink, &m, 0, "/dev/nbd0");
	return 0;
}
