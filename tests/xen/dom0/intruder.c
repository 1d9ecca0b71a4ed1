/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Preloaded into a tapdisk, it plays the intruder who has taken it over: when the tapdisk listens,
 * and so is in its sandbox, it tries what $INTRUDER names, and appends to $INTRUDER_LOG what came
 * of it: "done", or "refused" and why.  After "began" alone, the process died of it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int out = -1;
static char *args[8];

static long number(int i)
{
	return args[i] ? strtol(args[i], NULL, 0) : 0;
}

static int fails(const char *what)
{
	dprintf(out, " refused: %s: %s\n", what, strerror(errno));
	return -1;
}

/* grant DOMID REF: reads a page that the domain has granted to this one. */
static int map_grant(void)
{
	struct {
		uint32_t count, pad;
		uint64_t index;
		uint32_t domid, ref;
	} m = {1, 0, 0, (uint32_t)number(1), (uint32_t)number(2)};
	int fd = open("/dev/xen/gntdev", O_RDWR | O_CLOEXEC);
	uint32_t *page;

	if (fd < 0)
		return fails("open");
	if (ioctl(fd, _IOC(_IOC_NONE, 'G', 0, sizeof m), &m))
		return fails("ioctl");
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)m.index);
	if (page == MAP_FAILED)
		return fails("mmap");
	dprintf(out, " done: %08x %08x %08x %08x\n", page[0], page[1], page[2], page[3]);
	return 0;
}

/* channel DOMID PORT [OTHER]: binds to a port of the domain, after a restriction to another. */
static int bind_channel(void)
{
	struct {
		uint32_t domid, port;
	} b = {(uint32_t)number(1), (uint32_t)number(2)};
	uint16_t only = (uint16_t)number(3);
	int fd = open("/dev/xen/evtchn", O_RDWR | O_CLOEXEC), port;

	if (fd < 0)
		return fails("open");
	if (args[3] && ioctl(fd, _IOC(_IOC_NONE, 'E', 6, 2), &only))
		return fails("restrict");
	port = ioctl(fd, _IOC(_IOC_NONE, 'E', 1, sizeof b), &b);
	if (port < 0)
		return fails("bind");
	dprintf(out, " done: port %d\n", port);
	return 0;
}

/* notify: events on all channels of this domain, whosever they are. */
static int notify_all(void)
{
	int fd = open("/dev/xen/evtchn", O_RDWR | O_CLOEXEC), sent = 0;

	if (fd < 0)
		return fails("open");
	for (uint32_t port = 1; port < 1024; port++)
		sent += ioctl(fd, _IOC(_IOC_NONE, 'E', 4, 4), &port) == 0;
	if (!sent)
		return fails("notify");
	dprintf(out, " done: %d channels\n", sent);
	return 0;
}

/* hypercall: asks the hypervisor for its version, as it might for a guest's memory. */
static int make_hypercall(void)
{
	struct {
		uint64_t op, arg[5];
	} h = {17, {0}};
	int fd = open("/dev/xen/privcmd", O_RDWR | O_CLOEXEC), v;

	if (fd < 0)
		return fails("open");
	v = ioctl(fd, _IOC(_IOC_NONE, 'P', 0, sizeof h), &h);
	if (v < 0)
		return fails("ioctl");
	dprintf(out, " done: %x\n", (unsigned)v);
	return 0;
}

/* file PATH [w [unread]] */
static int open_file(void)
{
	int fd = open(args[1], args[2] ? O_RDWR | O_CLOEXEC : O_RDONLY | O_CLOEXEC);
	char c;

	if (fd < 0 || (!args[3] && read(fd, &c, 1) != 1))
		return fails("open");
	dprintf(out, " done\n");
	return 0;
}

/* packet PATH, stream PATH: connects to a Unix socket. */
static int dial(int type)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	snprintf(sa.sun_path, sizeof sa.sun_path, "%s", args[1]);
	if (connect(fd, (struct sockaddr *)&sa, sizeof sa))
		return fails("connect");
	dprintf(out, " done\n");
	return 0;
}

/* inet: by a socket that it may have until its first disk is open, which may be one of Ceph's. */
static int dial_out(void)
{
	struct sockaddr_in sa = {.sin_family = AF_INET,
				 .sin_port = htons(9),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return fails("socket");
	if (connect(fd, (struct sockaddr *)&sa, sizeof sa))
		return fails("connect");
	dprintf(out, " done\n");
	return 0;
}

/* udp: a datagram to this host's address. */
static int send_datagram(void)
{
	struct sockaddr_in sa = {.sin_family = AF_INET,
				 .sin_port = htons(9),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return fails("socket");
	if (sendto(fd, "x", 1, 0, (struct sockaddr *)&sa, sizeof sa) < 0)
		return fails("sendto");
	dprintf(out, " done\n");
	return 0;
}

/* abstract NAME: a datagram to a socket of another process that has no file. */
static int send_by_name(void)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	snprintf(sa.sun_path + 1, sizeof sa.sun_path - 1, "%s", args[1]);
	if (sendto(fd, "x", 1, 0, (struct sockaddr *)&sa,
		   (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(args[1]))) < 0)
		return fails("sendto");
	dprintf(out, " done\n");
	return 0;
}

/* user OTHER-PID: whose is this process, and is it another one than that of the tapdisk OTHER-PID?
 */
static int tell_user(void)
{
	unsigned id[3] = {0}, other = 0;
	char path[64], line[128];
	FILE *f;

	getresuid(&id[0], &id[1], &id[2]);
	snprintf(path, sizeof path, "/proc/%ld/status", number(1));
	f = fopen(path, "re"); /* which the opener lets any tapdisk read */
	while (f && fgets(line, sizeof line, f))
		sscanf(line, "Uid: %u", &other);
	if (!f || id[0] != id[1] || id[0] != id[2] || !id[0] || id[0] == other)
		dprintf(out, " shared: %u %u %u, and %u\n", id[0], id[1], id[2], other);
	else
		dprintf(out, " its own: %u, another one's %u\n", id[0], other);
	return 0;
}

static void try_one(void)
{
	const char *what = args[0];

	for (int i = 0; args[i]; i++)
		dprintf(out, "%s ", args[i]);
	dprintf(out, "began");
	if (!strcmp(what, "grant"))
		map_grant();
	else if (!strcmp(what, "channel"))
		bind_channel();
	else if (!strcmp(what, "notify"))
		notify_all();
	else if (!strcmp(what, "hypercall"))
		make_hypercall();
	else if (!strcmp(what, "file"))
		open_file();
	else if (!strcmp(what, "packet"))
		dial(SOCK_SEQPACKET);
	else if (!strcmp(what, "stream"))
		dial(SOCK_STREAM);
	else if (!strcmp(what, "exec"))
		execl("/bin/true", "true", (char *)NULL);
	else if (!strcmp(what, "ptrace"))
		ptrace(PTRACE_ATTACH, (pid_t)number(1), 0, 0);
	else if (!strcmp(what, "user"))
		tell_user();
	else if (!strcmp(what, "inet"))
		dial_out();
	else if (!strcmp(what, "udp"))
		send_datagram();
	else if (!strcmp(what, "abstract"))
		send_by_name();
	dprintf(out, " over\n");
	_exit(0);
}

static void __attribute__((constructor)) begin(void)
{
	const char *log = getenv("INTRUDER_LOG"), *what = getenv("INTRUDER");
	char *words, *at;

	if (!log || !what)
		return;
	out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
	words = strdup(what);
	for (int i = 0; i < 7 && (at = strsep(&words, " ")); i++)
		args[i] = at;
}

int listen(int fd, int backlog)
{
	static int (*next)(int, int);

	if (out >= 0)
		try_one();
	if (!next)
		next = (int (*)(int, int))dlsym(RTLD_NEXT, "listen");
	return next(fd, backlog);
}
