/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* connect and disconnect: a guest's rings, as a message asks for them. */
#include <errno.h>
#include <string.h>

#include "tapdisk/ctl/ctl-ops.h"

static int get_refs(const json_t *ring, struct blkif_params *p, struct td_err *err)
{
	const json_t *refs = json_object_get(ring, "refs"), *r;
	size_t n = json_array_size(refs), i;

	if (!n || n > (1 << BLKIF_MAX_RING_ORDER) || (n & (n - 1)))
		return td_fail(err, EINVAL, "a ring has 1, 2, 4, 8 or 16 pages, not %zu", n);
	json_array_foreach (refs, i, r) {
		if (!json_is_integer(r) || json_integer_value(r) < 0 ||
		    json_integer_value(r) > UINT32_MAX)
			return td_fail(err, EINVAL, "ring page %zu has no proper grant reference",
				       i);
		p->refs[i] = (uint32_t)json_integer_value(r);
	}
	p->pages = (unsigned)n;
	return 0;
}

static int get_polling(const json_t *req, struct blkif_params *p, struct td_err *err)
{
	json_int_t us = blkif_polling ? BLKIF_POLLING_UNSAID : 0, idle = BLKIF_POLLING_IDLE;

	if (json_object_get(req, "polling-duration") &&
	    ctl_get_int(req, "polling-duration", 0, BLKIF_POLLING_MAX, &us, err) < 0)
		return -EINVAL;
	if (json_object_get(req, "polling-idle-threshold") &&
	    ctl_get_int(req, "polling-idle-threshold", 0, 100, &idle, err) < 0)
		return -EINVAL;
	p->polling_us = (uint32_t)us;
	p->polling_idle = (uint32_t)idle;
	p->persistent = json_is_true(json_object_get(req, "persistent"));
	return 0;
}

/* What all rings of a device have alike. */
static int get_device(const json_t *req, struct blkif_params *p, struct td_err *err)
{
	const char *abi = json_string_value(json_object_get(req, "abi"));
	json_int_t v;

	memset(p, 0, sizeof *p); /* compared as a whole, with its padding */
	if (ctl_get_int(req, "domid", 0, 0x7fff, &v, err) < 0)
		return -EINVAL;
	p->domid = (uint16_t)v;
	if (ctl_get_int(req, "devid", 0, INT32_MAX, &v, err) < 0)
		return -EINVAL;
	p->devid = (uint32_t)v;
	if (get_polling(req, p, err) < 0)
		return -EINVAL;
	if (abi && blkif_abi_find(abi) < 0)
		return td_fail(err, EINVAL, "unknown ring ABI '%.40s': native, x86_64 or x86_32",
			       abi);
	p->abi = abi ? (enum blkif_abi)blkif_abi_find(abi) : BLKIF_NATIVE;
	return 0;
}

/* One of its rings. */
static int get_ring(const json_t *ring, unsigned queue, struct blkif_params *p, struct td_err *err)
{
	json_int_t port;

	if (ctl_get_int(ring, "port", 0, INT32_MAX, &port, err) < 0 || get_refs(ring, p, err) < 0)
		return -EINVAL;
	p->port = (uint32_t)port;
	p->queue = queue;
	return 0;
}

/* The device's rings, into p[BLKIF_MAX_QUEUES]: their number, or -errno. */
static int get_rings(const json_t *req, struct blkif_params *p, struct td_err *err)
{
	const json_t *queues = json_object_get(req, "queues");
	size_t n = queues ? json_array_size(queues) : 1;
	struct blkif_params device;

	if (!n || n > BLKIF_MAX_QUEUES)
		return td_fail(err, EINVAL, "a device has 1 to %d rings, not %zu", BLKIF_MAX_QUEUES,
			       n);
	if (get_device(req, &device, err) < 0)
		return -EINVAL;
	for (size_t i = 0; i < n; i++) {
		p[i] = device;
		if (get_ring(queues ? json_array_get(queues, i) : req, (unsigned)i, &p[i], err) < 0)
			return -EINVAL;
		if (p[i].pages != p[0].pages)
			return td_fail(err, EINVAL,
				       "the rings of a device are of one size, not %u and %u pages",
				       p[0].pages, p[i].pages);
	}
	return (int)n;
}

/* A way to a ring.  fds: what is left of the message's descriptors, n of them. */
static int reach(const char **transport, unsigned domid, int *fds, int n, struct td_xport **x,
		 struct td_err *err)
{
	int rc;

	if (!*transport || !strcmp(*transport, "xen")) {
		*transport = "xen";
		return td_xport_xen((uint16_t)domid, x, err);
	}
	if (strcmp(*transport, "mem") != 0 || n < TD_XPORT_FDS)
		return td_fail(err, EINVAL,
			       "transport '%.40s': xen, or mem with three descriptors a ring",
			       *transport);
	*transport = "mem";
	rc = td_xport_mem(fds[0], fds[1], fds[2], x, err);
	for (int i = 0; i < TD_XPORT_FDS; i++)
		fds[i] = -1; /* taken over */
	return rc;
}

int ctl_op_connect(struct ctl_call *call, struct vbd *v, json_t *answer, struct td_err *err)
{
	const char *transport = json_string_value(json_object_get(call->req, "transport"));
	struct blkif_params p[BLKIF_MAX_QUEUES];
	struct td_xport *x[BLKIF_MAX_QUEUES];
	int n = get_rings(call->req, p, err), i, rc = 0;
	unsigned how = 0;

	if (n < 0)
		return n;
	v->users++; /* it stays while devices are opened */
	for (i = 0; i < n && !rc; i++)
		rc = reach(&transport, p->domid, call->fds + i * TD_XPORT_FDS,
			   call->nfds - i * TD_XPORT_FDS, &x[i], err);
	v->users--;
	while (rc && --i > 0)
		x[i - 1]->ops->close(x[i - 1]);
	how |= json_is_true(json_object_get(call->req, "beside")) ? VBD_BESIDE : 0;
	how |= json_is_true(json_object_get(call->req, "take-over")) ? VBD_TAKE_OVER : 0;
	return rc < 0 ? rc : vbd_connect(v, x, (unsigned)n, transport, p, how, err);
}

int ctl_adopt_ring(struct ctl_call *call, struct vbd *v, const json_t *ring, int *used,
		   struct td_err *err)
{
	const char *transport = json_string_value(json_object_get(ring, "transport"));
	struct blkif_params p;
	struct td_xport *x;
	json_int_t queue;
	int rc = get_device(ring, &p, err);

	if (!rc)
		rc = ctl_get_int(ring, "queue", 0, BLKIF_MAX_QUEUES - 1, &queue, err);
	if (!rc)
		rc = get_ring(ring, (unsigned)queue, &p, err);
	if (!rc)
		rc = reach(&transport, p.domid, call->fds + *used, call->nfds - *used, &x, err);
	if (rc < 0)
		return rc;
	*used += strcmp(transport, "mem") ? 0 : TD_XPORT_FDS;
	return vbd_connect(v, &x, 1, transport, &p, VBD_BESIDE | VBD_TAKE_OVER, err);
}

int ctl_op_disconnect(struct ctl_call *call, struct vbd *v, json_t *answer, struct td_err *err)
{
	json_int_t domid, devid;

	if (ctl_get_int(call->req, "domid", 0, 0x7fff, &domid, err) < 0 ||
	    ctl_get_int(call->req, "devid", 0, INT32_MAX, &devid, err) < 0)
		return -EINVAL;
	return vbd_disconnect(v, (unsigned)domid, (unsigned)devid, err);
}
