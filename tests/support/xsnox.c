/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A preload under which Xen's own xenstored (seen with 4.17 and 4.20) runs on a machine without
 * Xen, so that tests of the xenstore side need no mock:
 *
 *   XENSTORED_RUNDIR=D XENSTORED_ROOTDIR=D LD_PRELOAD=xsnox.so xenstored --no-fork --pid-file D/pid
 *
 * Clients set XENSTORED_RUNDIR=D and are domain 0.  What xenstored asks of the hypervisor is
 * answered here: every domain exists, a domain's ring is a page of its own that nobody else sees,
 * and no event ever comes.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <xenctrl.h>
#include <xenevtchn.h>
#include <xengnttab.h>

#define RING 4096 /* bytes: one Xen page */

static char handle[64]; /* what all handles point to */
static int events = -1; /* never readable */

/* --- libxenctrl */

xc_interface *xc_interface_open(xentoollog_logger *log, xentoollog_logger *dombuild, unsigned flags)
{
	return (xc_interface *)(void *)handle;
}

int xc_interface_close(xc_interface *xc)
{
	return 0;
}

#ifdef HAVE_XC_DOMINFO_T /* until 4.17 */
int xc_domain_getinfo(xc_interface *xc, uint32_t first, unsigned max, xc_dominfo_t *info)
{
	memset(info, 0, sizeof *info);
	info->domid = first;
	return 1;
}
#else
int xc_domain_getinfo_single(xc_interface *xc, uint32_t domid, xc_domaininfo_t *info)
{
	memset(info, 0, sizeof *info);
	info->domain = (domid_t)domid;
	return 0;
}
#endif

int xc_domain_getinfolist(xc_interface *xc, uint32_t first, unsigned max, xc_domaininfo_t *info)
{
	memset(info, 0, sizeof *info);
	info->domain = (domid_t)first;
	return 1;
}

/* --- libxengnttab */

xengnttab_handle *xengnttab_open(xentoollog_logger *log, unsigned flags)
{
	return (xengnttab_handle *)(void *)handle;
}

int xengnttab_close(xengnttab_handle *h)
{
	return 0;
}

int xengnttab_set_max_grants(xengnttab_handle *h, uint32_t n)
{
	return 0;
}

void *xengnttab_map_grant_ref(xengnttab_handle *h, uint32_t domid, uint32_t ref, int prot)
{
	void *page = mmap(NULL, RING, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return page == MAP_FAILED ? NULL : page;
}

int xengnttab_unmap(xengnttab_handle *h, void *start, uint32_t n)
{
	return munmap(start, (size_t)n * RING);
}

/* --- libxenevtchn */

xenevtchn_handle *xenevtchn_open(xentoollog_logger *log, unsigned flags)
{
	if (events < 0)
		events = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	return (xenevtchn_handle *)(void *)handle;
}

xenevtchn_handle *xenevtchn_fdopen(xentoollog_logger *log, int fd, unsigned flags)
{
	return xenevtchn_open(log, flags);
}

int xenevtchn_close(xenevtchn_handle *h)
{
	return 0;
}

int xenevtchn_fd(xenevtchn_handle *h)
{
	return events;
}

static int new_port(void)
{
	static int last = 9;

	return ++last;
}

xenevtchn_port_or_error_t xenevtchn_bind_virq(xenevtchn_handle *h, unsigned virq)
{
	return new_port();
}

xenevtchn_port_or_error_t xenevtchn_bind_interdomain(xenevtchn_handle *h, uint32_t domid,
						     evtchn_port_t remote)
{
	return new_port();
}

int xenevtchn_bind(xenevtchn_handle *h, evtchn_port_t port); /* newer than Debian's header */
int xenevtchn_bind(xenevtchn_handle *h, evtchn_port_t port)
{
	return 0;
}

int xenevtchn_unbind(xenevtchn_handle *h, evtchn_port_t port)
{
	return 0;
}

int xenevtchn_notify(xenevtchn_handle *h, evtchn_port_t port)
{
	return 0;
}

xenevtchn_port_or_error_t xenevtchn_pending(xenevtchn_handle *h)
{
	return -1;
}

int xenevtchn_unmask(xenevtchn_handle *h, evtchn_port_t port)
{
	return 0;
}

/* --- the kernel's files about dom0's own ring: a port number, and a page to map */

static int stand_in(const char *path)
{
	int fd = -1;

	if (!strcmp(path, "/proc/xen/xsd_port")) {
		fd = memfd_create("xsd_port", MFD_CLOEXEC);
		if (fd >= 0 && (write(fd, "1", 1) != 1 || lseek(fd, 0, SEEK_SET)))
			_exit(99);
	} else if (!strcmp(path, "/proc/xen/xsd_kva") || !strcmp(path, "/dev/xen/xenbus")) {
		fd = memfd_create("xsd_kva", MFD_CLOEXEC);
		if (fd >= 0 && ftruncate(fd, RING))
			_exit(99);
	}
	return fd;
}

typedef int open_fn(const char *path, int flags, ...);

static int open_by(const char *name, const char *path, int flags, mode_t mode)
{
	open_fn *real;
	int fd = stand_in(path);

	if (fd >= 0)
		return fd;
	*(void **)&real = dlsym(RTLD_NEXT, name);
	return real(path, flags, mode);
}

#undef open
#undef open64

int open(const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, mode_t) : 0;
	va_end(ap);
	return open_by("open", path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, mode_t) : 0;
	va_end(ap);
	return open_by("open64", path, flags, mode);
}
