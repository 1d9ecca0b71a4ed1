/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The Xen transport: the ring is mapped by grant, data is copied by grant copy, one system call a
 * batch.
 *
 * Copying, not mapping, is the rule: the hypervisor checks each piece, a guest that takes a grant
 * away or dies costs that piece a status, and no page of it is in our address space but the ring's
 * own.  Persistent grants are the exception, where a frontend and its toolstack both ask for them:
 * such a page cannot be taken away while it is mapped, and its contents are data only.
 */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "td/xport.h"

#ifdef HAVE_XEN
#include <sys/mman.h>

#define __XEN_TOOLS__ 1
#include <xenevtchn.h>
#include <xengnttab.h>
#include <xen/grant_table.h>

#include "lib/fiber/call.h"
#include "tapdisk/blkif/blkif-abi.h"

#define MAX_PIECES                                                                                 \
	(BLKIF_MAX_SLOTS *                                                                         \
	 BLKIF_MAX_SEGS) /* in one call: all that a full ring without INDIRECTs can ask for */

struct xen {
	struct td_xport x;
	uint16_t domid;
	xengnttab_handle *gnt;
	xenevtchn_handle *evt;
	xenevtchn_port_or_error_t port;      /* ours, while bound; else -1 */
	xengnttab_grant_copy_segment_t *seg; /* MAX_PIECES; only what is used takes memory */
};

static struct xen *xen(struct td_xport *x)
{
	return (struct xen *)x; /* x is the first member */
}

static void *xen_map_ring(struct td_xport *x, const uint32_t *refs, unsigned n, struct td_err *err)
{
	struct xen *m = xen(x);
	uint32_t copy[1u << BLKIF_MAX_RING_ORDER]; /* the library wants it writable */
	void *ring;

	if (!n || n > sizeof(copy) / sizeof(*copy)) {
		td_fail(err, EINVAL, "a ring of %u pages: 1 to %zu are possible", n,
			sizeof(copy) / sizeof(*copy));
		return NULL;
	}
	memcpy(copy, refs, n * sizeof(*copy));
	ring = xengnttab_map_domain_grant_refs(m->gnt, n, m->domid, copy, PROT_READ | PROT_WRITE);
	if (!ring)
		td_fail(err, errno ? errno : EIO,
			"cannot map the ring of domain %u (%u pages, first grant %u): %s", m->domid,
			n, refs[0], strerror(errno));
	return ring;
}

static void xen_unmap_ring(struct td_xport *x, void *ring, unsigned n)
{
	if (xengnttab_unmap(xen(x)->gnt, ring, n))
		td_log(LOG_WARNING, "domain %u: the ring stays mapped until this process ends: %s",
		       xen(x)->domid, strerror(errno));
}

static int xen_bind(struct td_xport *x, uint32_t port, struct td_err *err)
{
	struct xen *m = xen(x);

	m->port = xenevtchn_bind_interdomain(m->evt, m->domid, port);
	if (m->port < 0) {
		int code = errno ? errno : EIO;

		m->port = -1;
		return td_fail(err, code, "cannot bind to event channel %u of domain %u: %s", port,
			       m->domid, strerror(code));
	}
	/* a wake-up without an event must not stop the loop in a read */
	fcntl(xenevtchn_fd(m->evt), F_SETFL, fcntl(xenevtchn_fd(m->evt), F_GETFL) | O_NONBLOCK);
	return xenevtchn_fd(m->evt);
}

static void xen_unbind(struct td_xport *x)
{
	struct xen *m = xen(x);

	if (m->port >= 0)
		xenevtchn_unbind(m->evt, (evtchn_port_t)m->port);
	m->port = -1;
}

static bool xen_ack(struct td_xport *x)
{
	struct xen *m = xen(x);
	xenevtchn_port_or_error_t port = xenevtchn_pending(m->evt);

	if (port < 0)
		return false;
	/* Unmasked before the ring is read: an event that comes while it is read makes the
	 * descriptor readable again. */
	xenevtchn_unmask(m->evt, (evtchn_port_t)port);
	return port == m->port;
}

static void xen_notify(struct td_xport *x)
{
	struct xen *m = xen(x);

	/* It fails for a domain that has gone, which has nobody left to wake. */
	if (m->port >= 0)
		xenevtchn_notify(m->evt, (evtchn_port_t)m->port);
}

static int16_t status_errno(int16_t status)
{
	switch (status) {
	case GNTST_okay:
		return 0;
	case GNTST_permission_denied:
		return -EACCES;
	case GNTST_bad_domain:
		return -ESRCH;
	case GNTST_no_space:
		return -ENOSPC;
	case GNTST_eagain: /* the kernel has tried again for seconds: a page that stays paged out */
		return -EAGAIN;
	default: /* a bad reference, page or offset */
		return -EFAULT;
	}
}

static void fill_segment(struct xen *m, xengnttab_grant_copy_segment_t *s, const struct td_copy *c)
{
	memset(s, 0, sizeof(*s));
	if (c->to_guest) {
		s->flags = GNTCOPY_dest_gref;
		s->source.virt = c->local;
		s->dest.foreign.ref = c->ref;
		s->dest.foreign.offset = c->off;
		s->dest.foreign.domid = m->domid;
	} else {
		s->flags = GNTCOPY_source_gref;
		s->dest.virt = c->local;
		s->source.foreign.ref = c->ref;
		s->source.foreign.offset = c->off;
		s->source.foreign.domid = m->domid;
	}
	s->len = c->len;
	s->status = GNTST_general_error; /* until the hypervisor says otherwise */
}

static void copy_some(struct xen *m, struct td_copy *c, unsigned n)
{
	unsigned k = 0;

	for (unsigned i = 0; i < n; i++) {
		c[i].err = (unsigned)c[i].off + c[i].len > TD_PAGE ? -EFAULT : 0;
		if (!c[i].err)
			fill_segment(m, &m->seg[k++], &c[i]);
	}
	if (!k)
		return;
	if (xengnttab_grant_copy(m->gnt, k, m->seg)) {
		int16_t e = (int16_t)(errno ? -errno : -EIO);

		for (unsigned i = 0; i < n; i++)
			if (!c[i].err)
				c[i].err = e;
		return;
	}
	k = 0;
	for (unsigned i = 0; i < n; i++)
		if (!c[i].err)
			c[i].err = status_errno(m->seg[k++].status);
}

static void xen_copy(struct td_xport *x, struct td_copy *c, unsigned n)
{
	for (; n > MAX_PIECES; c += MAX_PIECES, n -= MAX_PIECES)
		copy_some(xen(x), c, MAX_PIECES);
	copy_some(xen(x), c, n);
}

static void *xen_map(struct td_xport *x, uint32_t ref)
{
	return xengnttab_map_grant_ref(xen(x)->gnt, xen(x)->domid, ref, PROT_READ | PROT_WRITE);
}

static void xen_unmap(struct td_xport *x, void *page)
{
	if (xengnttab_unmap(xen(x)->gnt, page, 1))
		td_log(LOG_WARNING,
		       "domain %u: a page of its stays mapped until this process ends: %s",
		       xen(x)->domid, strerror(errno));
}

static void xen_close(struct td_xport *x)
{
	struct xen *m = xen(x);

	xen_unbind(x);
	if (m->evt)
		xenevtchn_close(m->evt);
	if (m->gnt)
		xengnttab_close(m->gnt);
	free(m->seg);
	free(m);
}

static const struct td_xport_ops xen_ops = {
	.name = "xen",
	.map_ring = xen_map_ring,
	.unmap_ring = xen_unmap_ring,
	.bind = xen_bind,
	.unbind = xen_unbind,
	.ack = xen_ack,
	.notify = xen_notify,
	.copy = xen_copy,
	.map = xen_map,
	.unmap = xen_unmap,
	.close = xen_close,
};

struct handles {
	struct xen *m;
	struct td_err *err;
};

static long open_handles(void *arg)
{
	const struct handles *h = arg;
	struct xen *m = h->m;
	struct td_err *err = h->err;

	m->seg = malloc(MAX_PIECES * sizeof(*m->seg));
	if (!m->seg)
		return td_fail(err, ENOMEM, "out of memory for a transport");
	m->gnt = xengnttab_open(NULL, 0);
	if (!m->gnt)
		return td_fail(err, errno ? errno : ENODEV,
			       "cannot open the grant device: %s; is this a Xen host with the "
			       "module xen-gntdev loaded?",
			       strerror(errno));
	m->evt = xenevtchn_open(NULL, 0);
	if (!m->evt)
		return td_fail(err, errno ? errno : ENODEV,
			       "cannot open the event channel device: %s; is this a Xen host with "
			       "the module xen-evtchn loaded?",
			       strerror(errno));
	return 0;
}

int td_xport_xen(uint16_t domid, struct td_xport **out, struct td_err *err)
{
	struct xen *m = calloc(1, sizeof(*m));
	int rc;

	if (!m)
		return td_fail(err, ENOMEM, "out of memory for a transport");
	m->x.ops = &xen_ops;
	m->domid = domid;
	m->port = -1;
	rc = (int)td_call(open_handles, &(struct handles){m, err});
	if (rc) {
		xen_close(&m->x);
		return rc;
	}
	*out = &m->x;
	return 0;
}

#else

int td_xport_xen(uint16_t domid, struct td_xport **out, struct td_err *err)
{
	return td_fail(err, ENOSYS,
		       "cannot serve domain %u: this tapdisk was built without Xen (install "
		       "libxen-dev and configure again)",
		       domid);
}

#endif
