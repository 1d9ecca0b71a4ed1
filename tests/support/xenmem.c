/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A preload that gives a tapdisk and a tapback the grants and event channels of a guest that is a
 * process of this machine (tests/support/tdstorm.c), so that Xen's transport is tested without Xen:
 *
 *   XENMEM=D LD_PRELOAD=xenmem.so tapdisk ...
 *
 * D/DOMID.mem is the domain's memory, where grant XENMEM_REF + N is page N, as is N itself;
 * D/DOMID.PORT.kick and .call are FIFOs, for what an event channel carries to the backend and to
 * the guest: they outlive both.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <xentoollog.h>

#include <xenevtchn.h>
#include <xengnttab.h>
#define __XEN_TOOLS__ 1
#include <xen/grant_table.h>

#include "tests/support/xenmem.h"

#define PAGE 4096

/* --- a tapdisk's opener knows nothing of these files: another one, made before the sandbox --- */

static int helper = -1;

struct passing {
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov;
	struct msghdr mh;
};

static struct msghdr *message(struct passing *p, void *data, size_t len)
{
	memset(p, 0, sizeof *p);
	p->iov = (struct iovec){data, len};
	p->mh = (struct msghdr){.msg_iov = &p->iov,
				.msg_iovlen = 1,
				.msg_control = &p->control,
				.msg_controllen = sizeof p->control};
	return &p->mh;
}

static void __attribute__((noreturn)) open_for(int from)
{
	char path[512];
	struct passing p;
	ssize_t n;

	prctl(PR_SET_NAME, "xenmem");
	dup2(from, 3);
	close_range(4, ~0u, 0);
	while ((n = recv(3, path, sizeof path - 1, 0)) > 0) {
		int fd, code;

		path[n] = 0;
		fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
		code = fd < 0 ? errno : 0;
		message(&p, &code, sizeof code);
		p.control.align = (struct cmsghdr){CMSG_LEN(sizeof fd), SOL_SOCKET, SCM_RIGHTS};
		memcpy(CMSG_DATA(&p.control.align), &fd, sizeof fd);
		if (fd < 0)
			p.mh.msg_controllen = 0;
		sendmsg(3, &p.mh, MSG_NOSIGNAL);
		if (fd >= 0)
			close(fd);
	}
	_exit(0);
}

static void __attribute__((constructor)) start_helper(void)
{
	int sv[2];
	pid_t child;

	if (strcmp(program_invocation_short_name, "tapdisk") ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv))
		return;
	child = fork();
	if (!child && fork()) /* whom nobody has to wait for */
		_exit(0);
	if (!child)
		open_for(sv[1]);
	close(sv[1]);
	waitpid(child, NULL, 0);
	helper = sv[0];
}

static int open_path(const char *path)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct passing p;
	int code = EIO, fd = -1;

	if (helper < 0)
		return open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	pthread_mutex_lock(&lock);
	send(helper, path, strlen(path), MSG_NOSIGNAL);
	if (recvmsg(helper, message(&p, &code, sizeof code), MSG_CMSG_CLOEXEC) > 0 && !code)
		memcpy(&fd, CMSG_DATA(&p.control.align), sizeof fd);
	pthread_mutex_unlock(&lock);
	errno = code;
	return fd;
}

static int open_of(uint32_t domid, const char *what)
{
	const char *dir = getenv("XENMEM");
	char path[512];

	if (!dir) {
		errno = ENODEV;
		return -1;
	}
	snprintf(path, sizeof path, "%s/%u.%s", dir, domid, what);
	return open_path(path);
}

static off_t place(uint32_t ref)
{
	return (off_t)(ref % XENMEM_REF) * PAGE;
}

/* --- libxengnttab */

struct xengntdev_handle {
	int mem; /* of the one domain that it serves, once known; else -1 */
};

xengnttab_handle *xengnttab_open(xentoollog_logger *log, unsigned flags)
{
	xengnttab_handle *h = malloc(sizeof *h);

	if (h)
		h->mem = -1;
	return h;
}

int xengnttab_close(xengnttab_handle *h)
{
	if (h->mem >= 0)
		close(h->mem);
	free(h);
	return 0;
}

void *xengnttab_map_domain_grant_refs(xengnttab_handle *h, uint32_t n, uint32_t domid,
				      uint32_t *refs, int prot)
{
	int fd = open_of(domid, "mem");
	char *at = fd < 0 ? MAP_FAILED
			  : mmap(NULL, (size_t)n * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
				 0);

	for (uint32_t i = 0; at != MAP_FAILED && i < n; i++) {
		if (mmap(at + (size_t)i * PAGE, PAGE, prot, MAP_SHARED | MAP_FIXED, fd,
			 place(refs[i])) == MAP_FAILED) {
			munmap(at, (size_t)n * PAGE);
			at = MAP_FAILED;
		}
	}
	if (fd >= 0)
		close(fd);
	return at == MAP_FAILED ? NULL : at;
}

void *xengnttab_map_grant_ref(xengnttab_handle *h, uint32_t domid, uint32_t ref, int prot)
{
	return xengnttab_map_domain_grant_refs(h, 1, domid, &ref, prot);
}

int xengnttab_unmap(xengnttab_handle *h, void *start, uint32_t n)
{
	return munmap(start, (size_t)n * PAGE);
}

static int16_t copy(int mem, xengnttab_grant_copy_segment_t *s)
{
	bool to_guest = s->flags & GNTCOPY_dest_gref;
	off_t at = to_guest ? place(s->dest.foreign.ref) + s->dest.foreign.offset
			    : place(s->source.foreign.ref) + s->source.foreign.offset;
	ssize_t done = to_guest ? pwrite(mem, s->source.virt, s->len, at)
				: pread(mem, s->dest.virt, s->len, at);

	return done == (ssize_t)s->len ? GNTST_okay : GNTST_bad_gntref;
}

int xengnttab_grant_copy(xengnttab_handle *h, uint32_t n, xengnttab_grant_copy_segment_t *s)
{
	for (uint32_t i = 0; i < n; i++) {
		if (h->mem < 0)
			h->mem = open_of(s[i].flags & GNTCOPY_dest_gref ? s[i].dest.foreign.domid
									: s[i].source.foreign.domid,
					 "mem");
		if (h->mem < 0)
			return -1;
		s[i].status = copy(h->mem, &s[i]);
	}
	return 0;
}

/* --- libxenevtchn: one port a handle, which is how a transport uses it */

struct xenevtchn_handle {
	int kick, call;
};

xenevtchn_handle *xenevtchn_open(xentoollog_logger *log, unsigned flags)
{
	xenevtchn_handle *h = malloc(sizeof *h);

	if (h)
		h->kick = h->call = -1;
	return h;
}

int xenevtchn_close(xenevtchn_handle *h)
{
	if (h->kick >= 0)
		close(h->kick);
	if (h->call >= 0)
		close(h->call);
	free(h);
	return 0;
}

int xenevtchn_fd(xenevtchn_handle *h)
{
	return h->kick;
}

xenevtchn_port_or_error_t xenevtchn_bind_interdomain(xenevtchn_handle *h, uint32_t domid,
						     evtchn_port_t remote)
{
	char name[32];

	snprintf(name, sizeof name, "%u.kick", remote);
	h->kick = open_of(domid, name);
	snprintf(name, sizeof name, "%u.call", remote);
	h->call = open_of(domid, name);
	if (h->kick < 0 || h->call < 0)
		return -1;
	/* as Xen does: an event that came before anybody had bound is pending */
	return write(h->kick, &(uint64_t){1}, 8) == 8 || errno == EAGAIN ? 1 : -1;
}

int xenevtchn_unbind(xenevtchn_handle *h, evtchn_port_t port)
{
	return 0;
}

/* A full FIFO wakes its reader as well. */
int xenevtchn_notify(xenevtchn_handle *h, evtchn_port_t port)
{
	return write(h->call, &(uint64_t){1}, 8) == 8 || errno == EAGAIN ? 0 : -1;
}

xenevtchn_port_or_error_t xenevtchn_pending(xenevtchn_handle *h)
{
	uint64_t events[64];

	return read(h->kick, events, sizeof events) > 0 ? 1 : -1;
}

int xenevtchn_unmask(xenevtchn_handle *h, evtchn_port_t port)
{
	return 0;
}
