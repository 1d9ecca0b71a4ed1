/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The memory transport: guest memory is a memfd, an event channel is an eventfd each way, a grant
 * reference is a page number. The frontend is as little trusted as a guest: what it hands over is
 * checked, and it can hurt only itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/fiber/call.h"
#include "td/xport.h"

struct mem {
	struct td_xport x;
	int kick, call;
	char *base; /* the whole memfd */
	size_t bytes;
	int memfd; /* for ring mappings of their own */
};

static struct mem *mem(struct td_xport *x)
{
	return (struct mem *)x; /* x is the first member */
}

static bool valid(const struct mem *m, uint32_t ref)
{
	return (uint64_t)ref * TD_PAGE + TD_PAGE <= m->bytes;
}

static void *mem_map_ring(struct td_xport *x, const uint32_t *refs, unsigned n, struct td_err *err)
{
	struct mem *m = mem(x);
	char *ring;

	for (unsigned i = 0; i < n; i++) {
		if (!valid(m, refs[i])) {
			td_fail(err, EINVAL,
				"ring page %u of the frontend (page %u) lies outside its memory of "
				"%zu bytes",
				i, refs[i], m->bytes);
			return NULL;
		}
	}
	/* A reservation first, so that each page can be put in its place: the frontend's pages need
	 * not be neighbours. */
	ring = mmap(NULL, (size_t)n * TD_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (ring == MAP_FAILED) {
		td_fail(err, errno, "no address space for a ring of %u pages: %s", n,
			strerror(errno));
		return NULL;
	}
	for (unsigned i = 0; i < n; i++) {
		if (mmap(ring + (size_t)i * TD_PAGE, TD_PAGE, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_FIXED, m->memfd,
			 (off_t)refs[i] * TD_PAGE) == MAP_FAILED) {
			td_fail(err, errno, "cannot map ring page %u of the frontend: %s", i,
				strerror(errno));
			munmap(ring, (size_t)n * TD_PAGE);
			return NULL;
		}
	}
	return ring;
}

static void mem_unmap_ring(struct td_xport *x, void *ring, unsigned n)
{
	munmap(ring, (size_t)n * TD_PAGE);
}

static int mem_bind(struct td_xport *x, uint32_t port, struct td_err *err)
{
	return mem(x)->kick; /* the descriptor is the channel; there is no port */
}

static void mem_unbind(struct td_xport *x)
{
}

static bool mem_ack(struct td_xport *x)
{
	uint64_t n;

	return read(mem(x)->kick, &n, sizeof(n)) == sizeof(n);
}

static void mem_notify(struct td_xport *x)
{
	uint64_t one = 1;

	/* A counter that is full (EAGAIN) has an event waiting already; there is nobody to tell of
	 * any other failure. */
	if (write(mem(x)->call, &one, sizeof(one)) < 0)
		return;
}

static void mem_copy(struct td_xport *x, struct td_copy *c, unsigned n)
{
	struct mem *m = mem(x);

	for (unsigned i = 0; i < n; i++) {
		char *page;

		if (!valid(m, c[i].ref) || (unsigned)c[i].off + c[i].len > TD_PAGE) {
			c[i].err = -EFAULT;
			continue;
		}
		page = m->base + (size_t)c[i].ref * TD_PAGE + c[i].off;
		if (c[i].to_guest)
			memcpy(page, c[i].local, c[i].len);
		else
			memcpy(c[i].local, page, c[i].len);
		c[i].err = 0;
	}
}

static int mem_share(struct td_xport *x, int fds[TD_XPORT_FDS])
{
	const int mine[TD_XPORT_FDS] = {mem(x)->memfd, mem(x)->kick, mem(x)->call};

	for (int i = 0; i < TD_XPORT_FDS; i++) {
		fds[i] = fcntl(mine[i], F_DUPFD_CLOEXEC, 0);
		if (fds[i] < 0) {
			int code = errno;

			while (i--)
				close(fds[i]);
			return -code;
		}
	}
	return TD_XPORT_FDS;
}

/* It is there already. */
static void *mem_map(struct td_xport *x, uint32_t ref)
{
	return valid(mem(x), ref) ? mem(x)->base + (size_t)ref * TD_PAGE : NULL;
}

static void mem_unmap(struct td_xport *x, void *page)
{
}

static void mem_close(struct td_xport *x)
{
	struct mem *m = mem(x);

	if (m->base)
		munmap(m->base, m->bytes);
	close(m->memfd);
	close(m->kick);
	close(m->call);
	free(m);
}

static const struct td_xport_ops mem_ops = {
	.name = "mem",
	.map_ring = mem_map_ring,
	.unmap_ring = mem_unmap_ring,
	.bind = mem_bind,
	.unbind = mem_unbind,
	.ack = mem_ack,
	.notify = mem_notify,
	.copy = mem_copy,
	.map = mem_map,
	.unmap = mem_unmap,
	.share = mem_share,
	.close = mem_close,
};

struct link {
	int fd;
	char target[64];
};

static long read_link(void *arg)
{
	struct link *l = arg;
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", l->fd);
	return readlink(path, l->target, sizeof(l->target) - 1);
}

/* The loop must never wait in a read or a write of the frontend's descriptors; only an eventfd
 * keeps the promises made here. */
static int check_eventfd(int fd, const char *what, struct td_err *err)
{
	struct link link = {.fd = fd};
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || td_call(read_link, &link) < 0)
		return td_fail(err, EBADF, "the memory transport's %s descriptor is not open",
			       what);
	if (strcmp(link.target, "anon_inode:[eventfd]"))
		return td_fail(err, EINVAL,
			       "the memory transport's %s descriptor is not an eventfd (%s)", what,
			       link.target);
	if (fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return td_fail(err, errno,
			       "cannot make the memory transport's %s descriptor non-blocking: %s",
			       what, strerror(errno));
	return 0;
}

static int map_memory(struct mem *m, struct td_err *err)
{
	struct stat st;
	int seals = fcntl(m->memfd, F_GET_SEALS);

	/* Without the seal the other side could cut the file off under the mapping: a SIGBUS here.
	 */
	if (seals < 0 || !(seals & F_SEAL_SHRINK))
		return td_fail(err, EPERM,
			       "the memory transport's memfd is not sealed against shrinking: add "
			       "F_SEAL_SHRINK to it first");
	if (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))
		return td_fail(err, EPERM,
			       "the memory transport's memfd is sealed against writing: responses "
			       "could not be written");
	if (fstat(m->memfd, &st) < 0)
		return td_fail(err, errno, "cannot look at the memory transport's memfd: %s",
			       strerror(errno));
	if (st.st_size < (off_t)TD_PAGE)
		return td_fail(err, EINVAL,
			       "the memory transport's memfd has %lld bytes: less than one page",
			       (long long)st.st_size);
	m->bytes = (size_t)st.st_size & ~(size_t)(TD_PAGE - 1);
	m->base = mmap(NULL, m->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, m->memfd, 0);
	if (m->base == MAP_FAILED) {
		m->base = NULL;
		return td_fail(err, errno, "cannot map the memory transport's memfd: %s",
			       strerror(errno));
	}
	return 0;
}

int td_xport_mem(int memfd, int kick, int call, struct td_xport **out, struct td_err *err)
{
	struct mem *m = calloc(1, sizeof(*m));
	int rc;

	if (!m) {
		close(memfd);
		close(kick);
		close(call);
		return td_fail(err, ENOMEM, "out of memory for a transport");
	}
	*m = (struct mem){.x = {&mem_ops}, .memfd = memfd, .kick = kick, .call = call};
	rc = check_eventfd(kick, "kick", err);
	if (!rc)
		rc = check_eventfd(call, "call", err);
	if (!rc)
		rc = map_memory(m, err);
	if (rc) {
		mem_close(&m->x);
		return rc;
	}
	*out = &m->x;
	return 0;
}
