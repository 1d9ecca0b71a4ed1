/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The rings of a disk: who may come, and how one is let go. */
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "lib/ctl-dir.h"
#include "lib/fiber/fiber.h"
#include "lib/io/clock.h"
#include "tapdisk/cache/lane.h"
#include "tapdisk/vbd/vbd-inside.h"

#define LEAVE_QUIET 0.1 /* s without a request, after which a leaving guest has no more */
#define LEAVE_LIMIT 2   /* s in which a leaving guest gets its last answers */

static struct blkif *ring_of(struct td_list *l)
{
	return td_entry(l, struct vbd_ring, link)->blkif;
}

struct in_thread {
	void (*fn)(struct blkif *b);
	struct blkif *blkif;
};

static void run_in_thread(void *arg)
{
	const struct in_thread *t = arg;

	t->fn(t->blkif);
}

/* What is to be done in the ring's thread; on a fiber. */
static void in_thread(const struct vbd_ring *r, void (*fn)(struct blkif *b))
{
	struct in_thread t = {fn, r->blkif};

	if (r->lane)
		lane_call(r->lane, run_in_thread, &t);
	else
		fn(r->blkif);
}

void vbd_ring_close(struct vbd_ring *r, void (*end)(struct blkif *b))
{
	in_thread(r, blkif_stop);
	lane_free(r->lane);
	r->lane = NULL;
	end(r->blkif);
	r->blkif = NULL;
}

struct blkif *vbd_ring(const struct vbd *v)
{
	assert(v->magic == VBD_MAGIC);
	return td_list_empty(&v->rings) ? NULL : ring_of(v->rings.next);
}

void vbd_hold_rings(struct vbd *v)
{
	td_list_each (l, &v->rings)
		in_thread(td_entry(l, struct vbd_ring, link), blkif_hold);
}

void vbd_run_rings(struct vbd *v)
{
	td_list_each (l, &v->rings)
		in_thread(td_entry(l, struct vbd_ring, link), blkif_run);
}

bool vbd_any_live_ring(const struct vbd *v)
{
	td_list_each (l, &v->rings)
		if (!blkif_is_broken(ring_of(l)))
			return true;
	return false;
}

const char *vbd_broken_ring(const struct vbd *v)
{
	td_list_each (l, &v->rings)
		if (blkif_is_broken(ring_of(l)))
			return blkif_why(ring_of(l));
	return NULL;
}

static bool leaving_idle(const struct vbd *v)
{
	return !blkif_inflight(v->leaving);
}

/*
 * Serves a leaving ring until it is quiet.  Linux's blkfront lets go of a disk in use with requests
 * in the ring, pushes those that wait behind them as the answers come, and its thread for all
 * devices hangs for good on one that never gets an answer: so no request that is in the ring may be
 * left, and after the last answer the guest is given a moment.
 */
static void see_off(struct vbd *v, struct vbd_ring *r)
{
	struct blkif_stats n, last = blkif_stats(r->blkif);
	double until = td_clock_s() + LEAVE_LIMIT;

	in_thread(r, blkif_run); /* if it was held */
	for (;;) {
		in_thread(r, blkif_look);
		if (v->cache.quiesced || v->cache.out_of_space)
			cache_cancel(&v->cache, -EIO);
		n = blkif_stats(r->blkif);
		if (leaving_idle(v) && n.taken == last.taken && n.answered == last.answered)
			return;
		last = n;
		if (td_clock_s() >= until) /* or a guest that goes on for ever would */
			return;
		td_fiber_wait_for(LEAVE_QUIET);
	}
}

/* Answers all that is in a ring and lets go of it: for a guest that leaves, or is made to. */
static void drop_ring(struct vbd *v, struct vbd_ring *r)
{
	v->leaving = r->blkif;
	see_off(v, r);
	in_thread(r, blkif_hold);
	if (v->cache.quiesced || v->cache.out_of_space)
		cache_cancel(&v->cache, -EIO);
	in_thread(r, blkif_watch_idle);
	vbd_wait_until(v, leaving_idle, 0);
	v->leaving = NULL;
	td_list_del(&r->link); /* nobody looks at it while it is closed */
	vbd_ring_close(r, blkif_disconnect);
	free(r);
}

void vbd_drop_rings(struct vbd *v)
{
	while (!td_list_empty(&v->rings))
		drop_ring(v, td_entry(v->rings.prev, struct vbd_ring, link));
}

/* A device's last ring. */
static struct vbd_ring *find_ring(const struct vbd *v, unsigned domid, unsigned devid)
{
	struct vbd_ring *last = NULL;

	td_list_each (l, &v->rings)
		if (blkif_params(ring_of(l))->domid == domid &&
		    blkif_params(ring_of(l))->devid == devid)
			last = td_entry(l, struct vbd_ring, link);
	return last;
}

static bool has_queue(const struct vbd *v, const struct blkif_params *p)
{
	td_list_each (l, &v->rings) {
		const struct blkif_params *q = blkif_params(ring_of(l));

		if (q->domid == p->domid && q->devid == p->devid && q->queue == p->queue)
			return true;
	}
	return false;
}

/* May this device connect, or (p->queue is not 0) an already connected device add a ring, which
 * comes from the process that had them all? */
static int check_connect(const struct vbd *v, const struct blkif_params *p, bool beside,
			 struct td_err *err)
{
	const struct blkif_params *other = vbd_ring(v) ? blkif_params(vbd_ring(v)) : NULL;

	if (!v->spec)
		return td_fail(err, ENODEV,
			       "minor %d has no image: open it before a guest is connected",
			       v->minor);
	if (p->queue && has_queue(v, p)) /* the record of what is in flight there would be lost */
		return td_fail(err, EBUSY, "minor %d: domain %u has queue %u of device %u already",
			       v->minor, p->domid, p->queue, p->devid);
	if (find_ring(v, p->domid, p->devid) && !p->queue)
		return td_fail(err, EBUSY,
			       "minor %d: domain %u has it as device %u already, in another way",
			       v->minor, p->domid, p->devid);
	if (other && !beside && !v->opt.read_only)
		return td_fail(err, EBUSY,
			       "minor %d: domain %u has it as device %u, and a second machine may "
			       "not write it too",
			       v->minor, other->domid, other->devid);
	return 0;
}

/* One of a device's rings, held, at the end of `to'. */
static int add_ring(struct vbd *v, struct td_xport *x, const char *transport,
		    const struct blkif_params *p, bool take_over, struct td_list *to,
		    struct td_err *err)
{
	char path[PATH_MAX];
	struct blkif_keep keep = {.path = path, .take_over = take_over};
	bool record = v->marker >= 0; /* without a number of its own, nobody would find it */
	struct vbd_ring *r = calloc(1, sizeof *r);
	struct queue *q = queue_for_ring(v->queue, p->queue);
	int rc = !r       ? -ENOMEM
		 : record ? td_ctl_ring_path(v->minor, p->domid, p->devid, p->queue, path)
			  : 0;

	if (rc < 0)
		rc = td_fail(err, -rc, "cannot make the record of a ring: %s", strerror(-rc));
	else if (q != v->queue && !(r->lane = lane_new(&v->cache, v->queue, q)))
		rc = td_fail(err, ENOMEM, "out of memory for a ring");
	else
		rc = blkif_connect(q->loop, x, p, record ? &keep : NULL, &v->disk, r->lane,
				   &r->blkif, err);
	if (rc < 0) {
		if (r)
			lane_free(r->lane);
		free(r);
		return rc;
	}
	r->transport = transport;
	td_list_add(to, &r->link);
	return 0;
}

int vbd_connect_locked(struct vbd *v, struct td_xport *x, const char *transport,
		       const struct blkif_params *p, bool take_over, struct td_err *err)
{
	int rc = add_ring(v, x, transport, p, take_over, &v->rings, err);

	if (!rc && v->leaf)
		vbd_run_rings(v);
	return rc;
}

/* All of a device's rings or none; what is taken of x is NULL after.  They run together: none
 * before all are there. */
static int connect_locked(struct vbd *v, struct td_xport **x, unsigned n, const char *transport,
			  const struct blkif_params *p, bool take_over, struct td_err *err)
{
	struct td_list made;
	int rc = 0;

	td_list_init(&made);
	for (unsigned i = 0; i < n && !rc; i++) {
		rc = add_ring(v, x[i], transport, &p[i], take_over, &made, err);
		if (!rc)
			x[i] = NULL;
	}
	while (!td_list_empty(&made)) {
		struct vbd_ring *r = td_entry(made.next, struct vbd_ring, link);

		td_list_del(&r->link);
		if (!rc) {
			td_list_add(&v->rings, &r->link);
			continue;
		}
		vbd_ring_close(r, blkif_abandon);
		free(r);
	}
	if (rc < 0)
		return rc;
	td_log_limited(&v->disk.limit, LOG_INFO,
		       "minor %d: connected to domain %u, device %u: %u %s of %u pages, %s",
		       v->minor, p->domid, p->devid, n, n == 1 ? "ring" : "rings", p->pages,
		       blkif_abi_name(p->abi));
	if (v->leaf)
		vbd_run_rings(v);
	return 0;
}

/* Are they those rings, as they are?  One over shared memory never is: its descriptors are new. */
static bool same_rings(const struct vbd *v, const char *transport, const struct blkif_params *p,
		       unsigned n)
{
	unsigned same = 0, had = 0;

	td_list_each (l, &v->rings) {
		const struct vbd_ring *r = td_entry(l, struct vbd_ring, link);
		const struct blkif_params *q = blkif_params(r->blkif);

		if (q->domid != p->domid || q->devid != p->devid)
			continue;
		had++;
		same += q->queue < n && !blkif_is_broken(r->blkif) && !strcmp(transport, "xen") &&
			!strcmp(r->transport, "xen") &&
			!memcmp(q, &p[q->queue], offsetof(struct blkif_params, polling_us));
	}
	return had == n && same == n;
}

int vbd_connect(struct vbd *v, struct td_xport **x, unsigned n, const char *transport,
		const struct blkif_params *p, unsigned how, struct td_err *err)
{
	bool there;
	int rc = 0;

	assert(v->magic == VBD_MAGIC);
	vbd_lock(v);
	there = same_rings(v, transport, p, n);
	if (!there)
		rc = check_connect(v, p, how & VBD_BESIDE, err);
	if (!there && !rc)
		rc = connect_locked(v, x, n, transport, p, how & VBD_TAKE_OVER, err);
	for (unsigned i = 0; i < n; i++)
		if (x[i])
			x[i]->ops->close(x[i]);
	vbd_unlock(v);
	if (!there && !rc)
		v->changed(v);
	return rc;
}

int vbd_disconnect(struct vbd *v, unsigned domid, unsigned devid, struct td_err *err)
{
	struct vbd_ring *r;
	unsigned n = 0;
	int rc = 0;

	assert(v->magic == VBD_MAGIC);
	vbd_lock(v);
	for (; (r = find_ring(v, domid, devid)); n++)
		drop_ring(v, r);
	if (n) {
		td_log_limited(&v->disk.limit, LOG_INFO,
			       "minor %d: disconnected from domain %u, device %u", v->minor, domid,
			       devid);
	} else if (v->moved) {
		rc = td_fail(err, ENODEV, "minor %d is tapdisk %d's now", v->minor, (int)v->moved);
	} else if (vbd_ring(v)) {
		rc = td_fail(err, ENOENT,
			     "minor %d is connected to domain %u, device %u, not to domain %u, "
			     "device %u",
			     v->minor, blkif_params(vbd_ring(v))->domid,
			     blkif_params(vbd_ring(v))->devid, domid, devid);
	}
	vbd_unlock(v);
	v->changed(v);
	return rc;
}
