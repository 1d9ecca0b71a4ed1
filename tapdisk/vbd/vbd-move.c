/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A disk goes to another process while its guest runs.  This works like recovery after a crash,
 * except that the image was closed cleanly: the records say what a successor needs, and a process
 * that takes its disk back is its own successor.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/fiber/fiber.h"
#include "lib/io/clock.h"
#include "lib/syncmark.h"
#include "tapdisk/vbd/record.h"
#include "tapdisk/vbd/vbd-inside.h"

/* s that the store has for what it was given, before the disk stays where it is */
#define SETTLE 5
/* s for the flush before that, while its guest runs */
#define AHEAD 60

static struct vbd_ring *entry(struct td_list *l)
{
	return td_entry(l, struct vbd_ring, link);
}

static void close_fds(struct vbd_ring *r)
{
	while (r->nfds > 0)
		close(r->fds[--r->nfds]);
}

/* --- a flush while the guest still runs, so that little is left for the pause --- */

static void on_flushed(struct td_req *req, int err)
{
	struct vbd *v = td_entry(req, struct vbd, ahead);

	v->ahead_runs = v->ahead_left = false;
	if (v->waiter)
		td_fiber_wake(v->waiter);
}

/* Nobody knows when a flush will be over, and whether there will be one. */
static bool is_stuck(const struct vbd *v)
{
	return v->cache.out_of_space || v->leaf->away;
}

static bool flushed_ahead(const struct vbd *v)
{
	return !v->ahead_runs || is_stuck(v);
}

/* One that does not end is left behind: vbd_settle() says whether the disk can go nevertheless. */
static void flush_ahead(struct vbd *v)
{
	if (v->ahead_runs || is_stuck(v) || !cache_dirty(&v->cache))
		return;
	v->ahead = (struct td_req){.op = TD_FLUSH, .done = on_flushed};
	v->ahead_runs = true;
	cache_submit(&v->cache, &v->ahead);
	vbd_wait_until(v, flushed_ahead, td_clock_s() + AHEAD);
	if (!v->ahead_runs)
		return;
	v->ahead_left = true;
	cache_cancel(&v->cache, -ECANCELED);
}

/* --- giving --- */

static int share_rings(struct vbd *v, struct td_err *err)
{
	td_list_each (l, &v->rings) {
		struct vbd_ring *r = entry(l);

		r->nfds = blkif_share(r->blkif, r->fds);
		if (r->nfds < 0)
			return td_fail(err, -r->nfds, "minor %d: cannot share its ring: %s",
				       v->minor, strerror(-r->nfds));
	}
	return 0;
}

static void leave_rings(struct vbd *v)
{
	struct td_list *l;

	while ((l = td_list_pop(&v->rings))) {
		struct vbd_ring *r = entry(l);

		v->leaving = r->blkif;
		cache_forget(&v->cache);
		v->leaving = NULL;
		r->p = *blkif_params(r->blkif);
		vbd_ring_close(r, blkif_leave);
		td_list_add(&v->given, &r->link);
	}
}

/* Locked. */
static int give(struct vbd *v, double *began, struct td_err *err)
{
	const char *broken = vbd_broken_ring(v);
	struct td_err flush = {0};
	int rc = 0;

	if (v->moved || !v->spec || v->marker < 0)
		return td_fail(err, EBUSY,
			       "minor %d is not open: the program that attached it knows this "
			       "tapdisk by its pid",
			       v->minor);
	if (broken)
		return td_fail(err, EBUSY,
			       "minor %d: a guest has broken its ring (%s): detach that one first",
			       v->minor, broken);
	if (v->leaf)
		flush_ahead(v);
	rc = share_rings(v, err);
	*began = td_clock_s();
	if (!rc && v->leaf) {
		rc = vbd_settle(v, *began + SETTLE, true, &flush);
		if (v->leaf)
			return td_fail(err, -rc, "%s", flush.text);
		v->state = VBD_PAUSED;
		v->going = true;
		rc = 0; /* a flush that failed goes with the disk */
	}
	if (!rc) {
		leave_rings(v);
		record_settle(v);
	}
	return rc;
}

int vbd_give(struct vbd *v, double *began, struct td_err *err)
{
	int rc;

	assert(v->magic == VBD_MAGIC);
	vbd_lock_alone(v, true);
	v->going = false;
	rc = give(v, began, err);
	v->giving = !rc;
	if (!rc)
		return 0; /* the lock stays */
	td_list_each (l, &v->rings)
		close_fds(entry(l));
	vbd_job_resume(v);
	vbd_unlock(v);
	return rc;
}

void vbd_taken(struct vbd *v, pid_t to)
{
	struct td_list *l;

	assert(v->magic == VBD_MAGIC);
	while ((l = td_list_pop(&v->given))) {
		close_fds(entry(l));
		free(entry(l));
	}
	free(v->spec);
	v->spec = NULL;
	vbd_job_forget(v);
	explicit_bzero(&v->opt.key, sizeof v->opt.key);
	stats_close(&v->stats);
	syncmark_close(v->syncs);
	v->syncs = NULL;
	close(v->marker);
	v->marker = -1;
	v->moved = to;
	v->giving = false;
	vbd_unlock(v);
}

void vbd_stay(struct vbd *v)
{
	assert(v->magic == VBD_MAGIC);
	if (!v->giving)
		return;
	vbd_lock(v);
	vbd_unlock(v);
}

/* --- taking back --- */

static int take_back_ring(struct vbd *v, const struct vbd_ring *was, struct td_err *err)
{
	bool mem = was->nfds == TD_XPORT_FDS;
	struct td_xport *x;
	int rc;

	rc = mem ? td_xport_mem(was->fds[0], was->fds[1], was->fds[2], &x, err)
		 : td_xport_xen(was->p.domid, &x, err);
	if (rc < 0)
		return rc;
	rc = vbd_connect_locked(v, x, was->transport, &was->p, true, err);
	if (rc < 0)
		x->ops->close(x);
	return rc;
}

/*
 * As the other has left it, which was its only user since: it may have been paused there, or have
 * another image, and its flush may have failed.  The other may also have died before it wrote any
 * of that.
 */
static int go_on(struct vbd *v, struct td_err *err)
{
	struct vbd_recorded was = {.opt = v->opt,
				   .past = {.paused = !v->going,
					    .sticky = v->cache.sticky,
					    .mirror_failed = v->mirror_failed,
					    .redirected = v->redirected,
					    .mirror_server = v->mirror_server}};
	int rc = 0;

	memcpy(was.past.born, v->born, sizeof v->born);
	was.past.beneath = v->beneath;
	record_read(v->minor, &was);
	if (!was.past.sticky)
		was.past.sticky = syncmark_past(v->minor);
	if (was.spec) { /* also when it cannot be opened: an unpause must not open the one of before
			 */
		free(v->spec);
		v->spec = was.spec;
		v->opt = was.opt;
	}
	v->cache.sticky = was.past.sticky;
	v->mirror_failed = was.past.mirror_failed;
	v->mirror_server = was.past.mirror_server;
	v->redirected = was.past.redirected;
	if (was.spec)
		vbd_job_inherit(v, &was.past.job);
	v->past = &was.past;
	if (was.past.paused)
		vbd_mark_syncs(v, was.past.sticky);
	else
		rc = vbd_start(v, v->spec, &v->opt, false, err);
	v->past = NULL;
	vbd_job_resume(v);
	return rc;
}

void vbd_take_back(struct vbd *v)
{
	struct td_err err = {0};
	struct td_list *l;

	assert(v->magic == VBD_MAGIC);
	if (go_on(v, &err) < 0) {
		td_log(LOG_ERR, "minor %d: cannot go on: %s", v->minor, err.text);
		v->state |= TD_STATE_RESUME_FAILED;
	}
	while ((l = td_list_pop(&v->given))) {
		err.code = 0;
		if (take_back_ring(v, entry(l), &err) < 0)
			td_log(LOG_ERR, "minor %d: cannot take the ring of domain %u back: %s",
			       v->minor, entry(l)->p.domid, err.text);
		free(entry(l));
	}
	record_write(v);
	v->giving = false;
	vbd_unlock(v);
	v->changed(v);
}
