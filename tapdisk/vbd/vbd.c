/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A disk's life.
 *
 *   vbd_new > CLOSED --open--> OPEN --pause--> PAUSED --unpause--> OPEN
 *               ^                |  \--close--\    \--close--\
 *               +----------------+-------------+--------------+      CLOSED > vbd_free
 *
 *   state         images   cache layer   rings, if there are any    shown
 *   CLOSED        -        quiesced      -                          0x2
 *   OPEN          open     running       running                    0
 *   PAUSED        -        quiesced      held                       0x2a (and 0x200 after an
 *                                                                   unpause that failed)
 *
 * open, pause, unpause, close, connect and disconnect are operations: they wait on a fiber, and one
 * runs at a time.  From OPEN to the others the way is the same (vbd_settle): hold the ring, quiesce
 * the cache layer, wait until the image has nothing left, flush, close. No request fails on that
 * way: what is not answered stays in the ring or in the cache layer until there is an image again.
 *
 * Beside these, NO_SPACE and FAILED (a flush that failed, an image found corrupt) show in the state
 * (vbd-state.c).
 *
 * One thing: opening starts the rings, a ring that breaks changes the disk's state, and each of
 * them waits for the disk's lock, which is here.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/fiber/fiber.h"
#include "lib/io/clock.h"
#include "lib/syncmark.h"
#include "tapdisk/opener/opener.h"
#include "tapdisk/vbd/record.h"
#include "tapdisk/vbd/settle.h"
#include "tapdisk/vbd/vbd-inside.h"

#define DETACH_WAIT 5 /* s that a close waits for the guest to let go */

/* --- one operation at a time --- */

struct locker {
	struct td_list link;
	struct td_fiber *fiber;
};

void vbd_lock(struct vbd *v)
{
	struct locker me = {.fiber = td_fiber_self()};

	if (v->locked) {
		td_list_add(&v->lockers, &me.link);
		while (!td_list_empty(&me.link))
			td_fiber_wait();
	}
	v->locked = true;
}

void vbd_unlock(struct vbd *v)
{
	struct td_list *l = td_list_pop(&v->lockers);

	if (l)
		/* the lock goes over to it */
		td_fiber_wake(td_entry(l, struct locker, link)->fiber);
	else
		v->locked = false;
}

bool vbd_wait_until(struct vbd *v, bool (*ready)(const struct vbd *v), double deadline)
{
	v->waiter = td_fiber_self();
	while (!ready(v)) {
		if (!deadline)
			td_fiber_wait();
		else if (td_clock_s() >= deadline || !td_fiber_wait_for(deadline - td_clock_s()))
			break;
	}
	v->waiter = NULL;
	return ready(v);
}

static bool nbd_idle(const struct vbd *v)
{
	return !nbd_inflight(v->nbd);
}

static double deadline(int timeout)
{
	return timeout > 0 ? td_clock_s() + timeout : 0;
}

bool vbd_busy(const struct vbd *v)
{
	assert(v->magic == VBD_MAGIC);
	return v->spec || !td_list_empty(&v->rings) || v->locked || v->users;
}

/* NBD's clients hear the end of what can still be done, an error for the rest, and are let go. */
static void drop_nbd(struct vbd *v)
{
	v->nbd_leaving = true;
	cache_cancel(&v->cache, -ESHUTDOWN);
	nbd_cancel(v->nbd);
	vbd_wait_until(v, nbd_idle, 0);
	v->nbd_leaving = false;
	nbd_close(v->nbd);
}

/* --- operations --- */

struct vbd *vbd_new(struct queue *q, int minor, int marker, void (*changed)(struct vbd *v))
{
	struct vbd *v = calloc(1, sizeof *v);

	if (!v)
		return NULL;
	v->magic = VBD_MAGIC;
	v->minor = minor;
	v->marker = marker;
	v->queue = q;
	v->state = TD_STATE_CLOSED;
	v->changed = changed;
	td_list_init(&v->stats.sources);
	td_list_init(&v->link);
	td_list_init(&v->lockers);
	td_list_init(&v->rings);
	td_list_init(&v->given);
	td_lock_init(&v->recording);
	cache_init(&v->cache, q->loop, v);
	vbd_listen(v);
	return v;
}

void vbd_free(struct vbd *v)
{
	assert(v->magic == VBD_MAGIC && td_list_empty(&v->rings) && !v->leaf && !v->locked);
	nbd_free(v->nbd);
	cache_fini(&v->cache);
	syncmark_close(v->syncs);
	if (v->marker >= 0)
		close(v->marker);
	td_list_del(&v->link);
	free(v->spec);
	v->magic = 0;
	free(v);
}

int vbd_open(struct vbd *v, const char *spec, const struct vbd_options *o, struct td_err *err)
{
	int rc;

	assert(v->magic == VBD_MAGIC);
	vbd_lock(v);
	if (v->spec)
		rc = td_fail(err, EALREADY, "minor %d is open already, with %s", v->minor, v->spec);
	else
		rc = vbd_start(v, spec, o, true, err);
	if (rc < 0 && !v->spec) {
		syncmark_close(v->syncs);
		v->syncs = NULL;
		if (v->marker >= 0)
			syncmark_unlink(v->minor);
	}
	vbd_unlock(v);
	if (!rc)
		v->changed(v);
	return rc;
}

/*
 * The image is closed, and the log holds acknowledged changes: an unpause has failed, or the image
 * could not take all.  The disk stays until they are in the image, unless they are given up
 * (force).
 */
static int put_log(struct vbd *v, bool force, struct td_err *err)
{
	struct td_err why = {0};
	int rc = settle(v->queue, v->minor, v->spec, &v->opt, true, &why);

	if (!rc || force) {
		if (rc < 0)
			td_log(LOG_ERR, "minor %d: acknowledged changes of %s are lost: %s",
			       v->minor, v->spec, why.text);
		v->log_waits = false;
		return 0;
	}
	v->state |= VBD_PAUSED;
	record_write(v);
	return td_fail(err, -rc,
		       "minor %d: acknowledged changes cannot be written to %s: %s.  The disk "
		       "stays, paused; closing it with -f gives them up",
		       v->minor, v->spec, why.text);
}

static int close_locked(struct vbd *v, bool force, double until, struct td_err *err)
{
	int rc = 0;

	if (vbd_ring(v) && !force)
		return td_fail(err, EBUSY,
			       "minor %d: domain %u uses it as device %u: detach it from that "
			       "guest first (xl block-detach, tap-vbd detach), or force (-f)",
			       v->minor, blkif_params(vbd_ring(v))->domid,
			       blkif_params(vbd_ring(v))->devid);
	if (v->leaf)
		rc = vbd_settle(v, until, !force, err);
	if (v->leaf)
		return rc; /* it goes on */
	/* 0 says that all that was answered is in the image.  The guest has been told of a flush
	 * that failed; whoever closes the disk, and then copies or moves its image, has not. */
	if (!rc && vbd_lost_data(v->cache.sticky))
		rc = td_fail(err, -v->cache.sticky,
			     "minor %d is closed, but a flush of %s had failed (%s): what was "
			     "written after the last good one may be lost: check its contents "
			     "before it is opened again",
			     v->minor, v->spec, strerror(-v->cache.sticky));
	if (v->redirected && vbd_mirror_part(&v->opt) == MIRROR_READ)
		v->log_waits = false; /* the copy has it all (MI10 of tapdisk/mirror/mirror.h) */
	if (v->log_waits && vbd_lost_data(v->cache.sticky)) /* G9 of lib/redo.h */
		td_log(LOG_ERR,
		       "minor %d: a flush of %s had failed: what was written after the last good "
		       "one is lost",
		       v->minor, v->spec);
	else if (v->log_waits && put_log(v, force, err) < 0)
		return -err->code;
	vbd_drop_rings(v);
	if (v->nbd)
		drop_nbd(v);
	stats_close(&v->stats);
	vbd_mirror_forget(v->opt.mirror);
	v->opt.mirror[0] = 0;
	v->mirror_failed = v->redirected = false;
	free(v->spec);
	explicit_bzero(&v->opt.key, sizeof v->opt.key);
	v->spec = NULL;
	vbd_job_forget(v);
	record_remove(v);
	syncmark_close(v->syncs);
	v->syncs = NULL;
	v->state = TD_STATE_CLOSED;
	v->cache.sticky = 0;
	return rc;
}

/* Paused, without having been open. */
static int start_paused(struct vbd *v, const char *spec, const struct vbd_options *o,
			const struct vbd_past *past, struct td_err *err)
{
	uint64_t sectors = past->sectors;
	struct td_err why = {0};

	v->spec = strdup(spec);
	if (!v->spec)
		return td_fail(err, ENOMEM, "out of memory for %s", spec);
	v->opt = *o;
	limit_set(&v->disk.rates, &o->limit, td_clock_now());
	v->disk.sectors = sectors;
	v->disk.read_only = o->read_only;
	v->state = VBD_PAUSED;
	v->cache.sticky = past->sticky;
	v->sticky_recorded = v->cache.sticky;
	v->log_waits = past->log;
	v->mirror_failed = past->mirror_failed;
	v->mirror_server = past->mirror_server;
	v->redirected = past->redirected;
	vbd_identify(v, past);
	vbd_mark_syncs(v, past->sticky);
	record_write(v);
	stats_open(&v->stats, v->minor);
	v->nbd_disk.name = v->spec;
	v->nbd_disk.size = sectors * 512;
	v->nbd_disk.read_only = o->read_only;
	if (v->nbd && nbd_listen(v->nbd, &why) < 0)
		td_log(LOG_ERR, "minor %d: no NBD server: %s", v->minor, why.text);
	return 0;
}

int vbd_reopen(struct vbd *v, const char *spec, const struct vbd_options *o,
	       const struct vbd_past *past, struct td_err *err)
{
	struct vbd_past was = *past;
	int rc;

	assert(v->magic == VBD_MAGIC);
	vbd_lock(v);
	if (!was.sticky && v->marker >= 0)
		was.sticky = syncmark_past(v->minor);
	v->past = &was;
	if (v->spec) {
		rc = td_fail(err, EALREADY, "minor %d is open already, with %s", v->minor, v->spec);
	} else {
		vbd_job_inherit(v, &was.job); /* the record that is written has it */
		rc = was.paused ? start_paused(v, spec, o, &was, err)
				: vbd_start(v, spec, o, true, err);
	}
	v->past = NULL;
	if (!rc)
		vbd_job_resume(v);
	vbd_unlock(v);
	if (!rc)
		v->changed(v);
	return rc;
}

int vbd_close(struct vbd *v, bool force, int timeout, struct td_err *err)
{
	double until = deadline(timeout);
	int rc;

	assert(v->magic == VBD_MAGIC);
	if (force && v->leaf && v->leaf->away && v->leaf->driver->abandon)
		v->leaf->driver->abandon(v->leaf, "it was closed by force while its server was "
						  "away");
	vbd_lock_alone(v, false);
	if (!v->spec) {
		rc = td_fail(err, ENODEV, "minor %d is not open", v->minor);
	} else {
		/* a guest that is just leaving may need a moment; its disconnect must come in */
		if (!force && vbd_any_live_ring(v)) {
			vbd_unlock(v);
			v->users++;
			for (int i = 0;
			     vbd_ring(v) && i < (timeout > 0 ? timeout : DETACH_WAIT) * 10; i++)
				td_fiber_wait_for(0.1);
			v->users--;
			vbd_lock_alone(v, false);
		}
		/* or another close was faster */
		rc = v->spec ? close_locked(v, force, until, err) : 0;
	}
	vbd_unlock(v);
	v->changed(v);
	return rc;
}

/*
 * Whoever pauses a disk works on its image, and copies, moves or merges what is there: success says
 * that all that was answered is in it.  Where a sync has failed, the disk goes on as one that has
 * failed, since a caller that is told of a failure does not unpause it.
 */
static int pause_open(struct vbd *v, double until, struct td_err *err)
{
	struct td_err why = {0};
	int rc = vbd_rest(v, until, true, err);

	if (!v->cache.quiesced)
		return rc; /* it went on */
	if (!rc && vbd_lost_data(v->cache.sticky))
		rc = td_fail(err, -v->cache.sticky,
			     "minor %d is not paused: a flush of %s had failed (%s): what was "
			     "written after the last good one may be lost: close the disk, and "
			     "check its contents",
			     v->minor, v->spec, strerror(-v->cache.sticky));
	if (rc < 0) {
		vbd_go_on(v);
		return rc;
	}
	rc = vbd_shut(v, 0, err);
	v->state = VBD_PAUSED;
	if (!rc && (rc = record_renew(v)) < 0)
		td_fail(err, -rc,
			"minor %d is not paused: its record can neither be written nor removed "
			"(%s), so that a successor would open %s",
			v->minor, strerror(-rc), v->spec);
	if (rc < 0 && vbd_start(v, v->spec, &v->opt, false, &why) < 0) {
		td_log(LOG_ERR, "minor %d: cannot go on: %s", v->minor, why.text);
		v->state |= TD_STATE_RESUME_FAILED;
	}
	return rc;
}

int vbd_pause(struct vbd *v, int timeout, struct td_err *err)
{
	int rc = 0;

	assert(v->magic == VBD_MAGIC);
	vbd_lock_alone(v, false);
	if (!v->spec) {
		rc = td_fail(err, ENODEV, "minor %d is not open: there is nothing to pause",
			     v->minor);
	} else if (v->leaf && opener_is_dead()) {
		/* a successor would not know that it is paused */
		rc = td_fail(err, EIO,
			     "minor %d cannot be paused: the opener of files has died, so that it "
			     "could not be unpaused; kill tapdisk %d, and tapback or `tap-ctl "
			     "revive' starts one with another",
			     v->minor, (int)getpid());
	} else if (v->leaf) {
		v->state |= TD_STATE_PAUSE_REQUESTED;
		rc = pause_open(v, deadline(timeout), err);
		if (v->leaf)
			v->state = 0;
		else if (rc < 0)
			record_write(v);
	}
	vbd_unlock(v);
	v->changed(v);
	return rc;
}

/* Would the disk hold something else, without a copy that is a part of it, or with one?  A standby
 * that has nothing yet may go and come. */
static bool parts_with(const struct vbd *v, const char *spec, const struct vbd_options *o)
{
	bool same = !strcmp(v->opt.mirror, o->mirror) && v->opt.standby == o->standby &&
		    v->opt.parent_disk == o->parent_disk;

	if (v->redirected)
		return !same || (spec && strcmp(spec, v->spec));
	return !same && ((options_is_joined(&v->opt) && !v->opt.standby) ||
			 (options_is_joined(o) && !o->standby));
}

int vbd_unpause(struct vbd *v, const char *spec, const struct vbd_options *o, struct td_err *err)
{
	struct vbd_options opt;
	int rc = 0;

	assert(v->magic == VBD_MAGIC);
	vbd_lock(v);
	opt = o ? *o : v->opt;
	opt.read_only = v->opt.read_only;
	opt.key = v->opt.key;
	memcpy(opt.name, v->opt.name, sizeof opt.name);
	if (!o && spec && v->spec && strcmp(spec, v->spec))
		opt.data_file[0] = 0; /* it was named for another image */
	if (!o && !v->leaf)
		opt.changed[0] = 0;
	if (!o)
		opt.mirror_said = false;
	if (!v->spec) {
		rc = td_fail(err, ENODEV, "minor %d is not open: there is nothing to resume",
			     v->minor);
	} else if (!v->leaf && vbd_ring(v) && opt.mode->advertise_flush &&
		   !v->opt.mode->advertise_flush) {
		/* it does not flush, since it was told that it need not */
		rc = td_fail(err, EBUSY,
			     "minor %d: domain %u was told with cache=%s that there is no cache, "
			     "but cache=%s has one: detach the disk "
			     "there first",
			     v->minor, blkif_params(vbd_ring(v))->domid, v->opt.mode->name,
			     opt.mode->name);
		v->state |= TD_STATE_RESUME_FAILED;
	} else if (!v->leaf && parts_with(v, spec, &opt)) {
		rc = td_fail(err, EBUSY,
			     "minor %d: a secondary that is a part of it is another, without which "
			     "it would hold something else: close the disk first",
			     v->minor);
		v->state |= TD_STATE_RESUME_FAILED;
	} else if (!v->leaf && vbd_ring(v) && options_sector(&opt) != options_sector(&v->opt)) {
		rc = td_fail(
			err, EBUSY,
			"minor %d: domain %u uses sectors of %u bytes: detach the disk there first",
			v->minor, blkif_params(vbd_ring(v))->domid, options_sector(&v->opt));
		v->state |= TD_STATE_RESUME_FAILED;
	} else if (!v->leaf) {
		rc = vbd_start(v, spec ? spec : v->spec, &opt, false, err);
		if (rc < 0)
			v->state |= TD_STATE_RESUME_FAILED;
	} else if ((spec && strcmp(spec, v->spec)) || !options_equal(&opt, &v->opt)) {
		rc = td_fail(err, EBUSY,
			     "minor %d is not paused: pause it before its image or its options are "
			     "changed",
			     v->minor);
	}
	vbd_unlock(v);
	v->changed(v);
	return rc;
}

/* It is there, and no commit changes it. */
static int check_chain(struct vbd *v, struct td_err *err)
{
	if (!v->leaf)
		return td_fail(err, ENODEV, "minor %d is not open, or paused", v->minor);
	if (vbd_job_busy(v))
		return td_fail(err, EBUSY,
			       "minor %d: a commit of its chain is under way: wait for its end",
			       v->minor);
	return 0;
}

int vbd_resize(struct vbd *v, struct td_err *err)
{
	int rc;

	assert(v->magic == VBD_MAGIC);
	vbd_lock(v);
	rc = check_chain(v, err);
	if (!rc && mirror_part(v->mirror))
		rc = td_fail(
			err, EBUSY,
			"minor %d: its secondary %s is a part of it: close the disk, and enlarge "
			"both",
			v->minor, v->opt.mirror);
	if (!rc && v->leaf->driver->resize)
		rc = v->leaf->driver->resize(v->leaf, err);
	if (rc > 0) {
		mirror_resized(v->mirror);
		__atomic_store_n(&v->disk.sectors,
				 v->leaf->info.size / options_sector(&v->opt) *
					 (options_sector(&v->opt) / 512),
				 __ATOMIC_RELEASE);
		vbd_tell_nbd(v);
	}
	vbd_unlock(v);
	if (rc > 0) {
		td_log(LOG_INFO, "minor %d: %s has %llu sectors now", v->minor, v->spec,
		       (unsigned long long)v->disk.sectors);
		v->changed(v);
	}
	return rc < 0 ? rc : 0;
}

int vbd_limit(struct vbd *v, const struct limit_rates *r, struct td_err *err)
{
	struct limit_rates was;
	int rc = 0;

	vbd_lock(v);
	was = v->opt.limit;
	if (!v->spec) {
		rc = td_fail(err, ENODEV, "minor %d is not open: there is nothing to limit",
			     v->minor);
	} else {
		v->opt.limit = *r;
		rc = record_write(v);
		if (rc < 0) {
			v->opt.limit = was;
			td_fail(err, -rc,
				"minor %d: its record cannot be written (%s), so that a successor "
				"would not know of other limits",
				v->minor, strerror(-rc));
		} else {
			limit_set(&v->disk.rates, r, td_clock_now());
		}
	}
	vbd_unlock(v);
	return rc;
}

int vbd_relink(struct vbd *v, const char *file, const struct td_relink *to, struct td_err *err)
{
	int rc;

	assert(v->magic == VBD_MAGIC);
	vbd_lock(v);
	rc = check_chain(v, err);
	if (!rc && strcmp(v->file, file))
		rc = td_fail(err, ESTALE, "minor %d has another image by now", v->minor);
	else if (!rc && !v->leaf->driver->relink)
		rc = td_fail(err, EOPNOTSUPP, "%s: only a VHD gets another parent while it is open",
			     v->spec);
	else if (!rc)
		rc = v->leaf->driver->relink(v->leaf, to, err);
	vbd_unlock(v);
	if (!rc)
		td_log(LOG_NOTICE, "minor %d: the next open of %s takes %s as its parent", v->minor,
		       v->spec, to->relative);
	return rc;
}
