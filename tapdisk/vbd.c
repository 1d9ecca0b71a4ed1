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
 *   PAUSED        -        quiesced      held                       0x2a (and 0x200 after an unpause that failed)
 *
 * open, pause, unpause, close, connect and disconnect are operations: they wait on a fiber, and one runs at a time.  From OPEN to the
 * others the way is the same (vbd_settle): hold the ring, quiesce the cache layer, wait until the image has nothing left, flush, close.
 * No request fails on that way: what is not answered stays in the ring or in the cache layer until there is an image again.
 *
 * Beside these, two conditions of the cache layer show in the state: NO_SPACE and FAILED (a flush that failed).
 */
#include "tapdisk/vbd.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "drivers/drivers.h"
#include "lib/ctl-client.h"
#include "lib/fiber.h"
#include "lib/redo.h"
#include "tapdisk/chain.h"
#include "tapdisk/lane.h"
#include "tapdisk/record.h"
#include "tapdisk/syncmark.h"
#include "tapdisk/vbd-inside.h"
#include "td/ctl.h"

#define DETACH_WAIT   5 /* s that a close waits for the guest to let go */

/* --- one operation at a time ---------------------------------------------------------------------------------------- */

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
		td_fiber_wake(td_entry(l, struct locker, link)->fiber); /* the lock goes over to it */
	else
		v->locked = false;
}

static void wake(struct vbd *v)
{
	if (v->waiter)
		td_fiber_wake(v->waiter);
}

/* Waits until `ready' holds; false when the time is over.  deadline: of ev_time(), 0: none. */
bool vbd_wait_until(struct vbd *v, bool (*ready)(const struct vbd *v), double deadline)
{
	v->waiter = td_fiber_self();
	while (!ready(v)) {
		if (!deadline)
			td_fiber_wait();
		else if (ev_time() >= deadline || !td_fiber_wait_for(deadline - ev_time()))
			break;
	}
	v->waiter = NULL;
	return ready(v);
}

static bool image_idle(const struct vbd *v)
{
	return cache_image_idle(&v->cache);
}

static bool nbd_idle(const struct vbd *v)
{
	return !nbd_inflight(v->nbd);
}

static double deadline(int timeout)
{
	return timeout > 0 ? ev_time() + timeout : 0;
}

/* --- what the layers tell us ---------------------------------------------------------------------------------------- */

static void on_stall(struct stall *s)
{
	struct vbd *v = td_entry(s, struct vbd, stall);

	v->changed(v);
}

static void on_cache_changed(struct cache *c)
{
	struct vbd *v = c->owner;

	if (c->sticky && !v->sticky_recorded) {
		record_write(v);
		syncmark_recorded();
	}
	v->sticky_recorded = c->sticky;
	v->changed(v);
}

static bool on_cache_leaves(const struct cache *c, const struct td_req *req)
{
	const struct vbd *v = c->owner;

	return v->all_leave || (v->leaving && blkif_owns(v->leaving, req)) || (v->nbd_leaving && nbd_owns(v->nbd, req));
}

static void on_cache_idle(struct cache *c)
{
	wake(c->owner);
}

static void on_ring_idle(void *owner)
{
	wake(owner);
}

static void on_ring_broken(void *owner, const char *why)
{
	struct vbd *v = owner;

	v->changed(v);
}

/* An image of the chain was found to be corrupt. */
static void on_fault(struct td_image *image)
{
	struct vbd *v = image->owner;

	lanes_update(&v->cache);
	v->changed(v);
}

static const char *fault_of(const struct vbd *v)
{
	for (const struct td_image *i = v->leaf; i; i = i->backing)
		if (i->fault)
			return i->fault;
	return NULL;
}

bool vbd_busy(const struct vbd *v)
{
	return v->spec || !td_list_empty(&v->rings) || v->locked || v->users;
}

unsigned vbd_state(const struct vbd *v)
{
	return v->state | (v->cache.out_of_space ? TD_STATE_NO_SPACE : 0) | (v->cache.sticky || fault_of(v) ? TD_STATE_FAILED : 0);
}

const char *vbd_reason(const struct vbd *v)
{
	if (fault_of(v)) /* which is why flushes fail */
		return fault_of(v);
	if (v->cache.sticky)
		return "a flush to disk failed: writes and flushes fail until the disk is closed and opened again";
	if (v->cache.out_of_space)
		return "no space: writes are held until there is space again";
	if (v->stall.stalled)
		return "the store does not answer: its requests wait";
	return vbd_broken_ring(v);
}

/* --- images --------------------------------------------------------------------------------------------------------- */

static unsigned file_flags(const struct vbd_options *o)
{
	return o->mode->file_flags | (o->read_only ? TD_FILE_RDONLY : 0) | (o->shared ? TD_FILE_SHARED : 0);
}

static void tell_nbd(struct vbd *v)
{
	v->nbd_disk.name = v->spec;
	v->nbd_disk.size = v->leaf->info.size;
	v->nbd_disk.preferred = v->leaf->info.physical;
	v->nbd_disk.read_only = v->opt.read_only;
	v->nbd_disk.trim = v->leaf->info.discard;
}

/* Guests without NBD go on without its sockets; who needs them hears it from the log, and from its own connect(). */
static void start_nbd(struct vbd *v, bool fresh)
{
	struct td_err err = {0};

	tell_nbd(v);
	if (v->nbd && fresh && nbd_listen(v->nbd, &err) < 0)
		td_log(LOG_ERR, "minor %d: no NBD server: %s", v->minor, err.text);
	nbd_run(v->nbd);
}

/* The log for an image of that driver; one whose disk has no record has no successor either. */
static struct td_redo *open_redo(struct vbd *v, const struct td_driver *d, const struct vbd_options *o)
{
	char path[PATH_MAX];

	if (!d->redo || o->read_only || o->key.len || v->marker < 0 || td_ctl_redo_path(v->minor, path))
		return NULL;
	return v->successor ? td_redo_adopt(path) : td_redo_new(path);
}

/* Opens spec and lets requests through.  fresh: not after a pause. */
int vbd_start(struct vbd *v, const char *spec, const struct vbd_options *o, bool fresh, struct td_err *err)
{
	const struct td_driver *d;
	struct td_image *leaf;
	struct td_redo *redo;
	struct td_io *io;
	const char *path;
	bool shrunk;
	char *copy;
	int rc;

	d = td_driver_parse(spec, &path, err);
	if (!d)
		return -err->code;
	rc = options_check(o, d->name, err);
	if (!rc)
		rc = queue_engine(v->queue, o->io, o->mode->file_flags & TD_FILE_DIRECT, &io, err);
	if (rc < 0)
		return rc;
	redo = open_redo(v, d, o);
	rc = chain_open(spec, &(struct td_how){.flags = file_flags(o), .key = &o->key, .dirs = o->parent_dirs, .redo = redo}, io, &leaf, err);
	if (rc < 0) {
		td_redo_free(redo);
		return rc;
	}
	shrunk = leaf->info.size / 512 < v->disk.sectors;
	/* a CD may be taken out; of a disk, what was written is lost */
	if ((vbd_ring(v) || nbd_clients(v->nbd)) && shrunk && !o->read_only) {
		rc = td_fail(err, EINVAL, "%s has %llu sectors, the guest knows %llu: a disk in use cannot shrink", spec,
			     (unsigned long long)leaf->info.size / 512, (unsigned long long)v->disk.sectors);
		goto fail;
	}
	if (leaf->info.size % options_sector(o)) {
		rc = td_fail(err, EINVAL, "%s has %llu bytes, which is not a multiple of sector-size=%u: enlarge it, or leave the option out", spec,
			     (unsigned long long)leaf->info.size, options_sector(o));
		goto fail;
	}
	copy = strdup(spec);
	if (!copy) {
		rc = td_fail(err, ENOMEM, "out of memory for %s", spec);
		goto fail;
	}
	free(v->spec); /* which spec may be */
	v->spec = copy;
	v->opt = *o;
	v->leaf = leaf;
	v->redo = redo;
	for (struct td_image *i = leaf; i; i = i->backing) {
		i->owner = v;
		i->failed = on_fault;
	}
	v->cache.report_enospc = o->report_enospc;
	v->disk.sectors = leaf->info.size / 512;
	v->disk.read_only = o->read_only;
	v->disk.discard = leaf->info.discard && !o->read_only;
	v->state = 0;
	if (fresh)
		stats_open(&v->stats, v->minor);
	cache_attach(&v->cache, o->mode, leaf, io, fresh);
	if (shrunk && !fresh) {
		v->all_leave = true; /* their places were checked against the old size */
		cache_cancel(&v->cache, -EIO);
		v->all_leave = false;
	}
	cache_resume(&v->cache);
	vbd_run_rings(v);
	start_nbd(v, fresh);
	stall_watch(&v->stall, o->request_timeout);
	td_log(LOG_INFO, "minor %d: %s is open: %llu sectors, cache=%s%s%s: %s", v->minor, copy, (unsigned long long)v->disk.sectors,
	       o->mode->name, o->read_only ? ", read-only" : "", o->shared ? ", shared" : "", o->mode->promise);
	return 0;
fail:
	chain_close(leaf);
	td_redo_free(redo);
	return rc;
}

static void go_on(struct vbd *v)
{
	cache_resume(&v->cache);
	vbd_run_rings(v);
	nbd_run(v->nbd);
}

/* Brings a running disk to rest and closes its images; -ETIMEDOUT, and with `keep' -ENOSPC: it goes on instead. */
int vbd_settle(struct vbd *v, double until, bool keep, struct td_err *err)
{
	struct td_image *leaf = v->leaf;
	int rc = 0;

	vbd_hold_rings(v);
	nbd_hold(v->nbd);
	cache_quiesce(&v->cache);
	if (!vbd_wait_until(v, image_idle, until)) {
		go_on(v);
		return td_fail(err, ETIMEDOUT, "minor %d: %u requests are still with %s; it goes on", v->minor, v->cache.at_image, v->spec);
	}
	if (cache_dirty(&v->cache)) {
		cache_flush(&v->cache);
		vbd_wait_until(v, image_idle, 0);
		if (v->cache.sticky)
			rc = td_fail(err, -v->cache.sticky, "minor %d: the last flush of %s failed (%s): check the disk's contents", v->minor,
				     v->spec, strerror(-v->cache.sticky));
		else if (cache_dirty(&v->cache))
			rc = td_fail(err, ENOSPC, "minor %d: there is no space for the metadata of %s: %s", v->minor, v->spec,
				     keep ? "it goes on; make room, and try again" : "what was not flushed is lost");
	}
	if (rc == -ENOSPC && keep && !v->cache.sticky) {
		go_on(v);
		return rc;
	}
	v->leaf = NULL;
	for (struct td_image *i = leaf; i; i = i->backing)
		i->failed = NULL;
	stall_watch(&v->stall, 0);
	cache_detach(&v->cache);
	chain_close(leaf);
	td_redo_free(v->redo);
	v->redo = NULL;
	return rc;
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

/* --- operations ----------------------------------------------------------------------------------------------------- */

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
	cache_init(&v->cache, q->loop, v);
	stall_init(&v->stall, q->loop, &v->cache, on_stall);
	v->cache.changed = on_cache_changed;
	v->cache.idle = on_cache_idle;
	v->cache.leaves = on_cache_leaves;
	v->disk = (struct blkif_disk){.cache = &v->cache, .stats = &v->stats, .owner = v, .broken = on_ring_broken, .idle = on_ring_idle};
	v->nbd_disk = (struct nbd_disk){.cache = &v->cache, .stats = &v->stats, .owner = v, .idle = on_ring_idle};
	return v;
}

void vbd_free(struct vbd *v)
{
	assert(v->magic == VBD_MAGIC && td_list_empty(&v->rings) && !v->leaf && !v->locked);
	nbd_free(v->nbd);
	cache_fini(&v->cache);
	/* empty again: allocated, and nobody's */
	if (v->marker >= 0 && ftruncate(v->marker, 0) < 0)
		td_log(LOG_WARNING, "minor %d: cannot empty its marker: %s", v->minor, strerror(errno));
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

	vbd_lock(v);
	if (v->spec)
		rc = td_fail(err, EALREADY, "minor %d is open already, with %s", v->minor, v->spec);
	else
		rc = vbd_start(v, spec, o, true, err);
	if (!rc)
		record_write(v);
	vbd_unlock(v);
	if (!rc)
		v->changed(v);
	return rc;
}

static int close_locked(struct vbd *v, bool force, double until, struct td_err *err)
{
	int rc = 0;

	if (vbd_ring(v) && !force)
		return td_fail(err, EBUSY, "minor %d: domain %u uses it as device %u: detach it there first, or force (-f)", v->minor,
			       blkif_params(vbd_ring(v))->domid, blkif_params(vbd_ring(v))->devid);
	if (v->leaf)
		rc = vbd_settle(v, until, false, err);
	if (v->leaf)
		return rc; /* it goes on */
	vbd_drop_rings(v);
	if (v->nbd)
		drop_nbd(v);
	stats_close(&v->stats);
	free(v->spec);
	explicit_bzero(&v->opt.key, sizeof v->opt.key);
	v->spec = NULL;
	record_remove(v);
	v->state = TD_STATE_CLOSED;
	v->cache.sticky = 0;
	return rc;
}

/* Paused, without having been open. */
static int start_paused(struct vbd *v, const char *spec, const struct vbd_options *o, uint64_t sectors, struct td_err *err)
{
	struct td_err why = {0};

	v->spec = strdup(spec);
	if (!v->spec)
		return td_fail(err, ENOMEM, "out of memory for %s", spec);
	v->opt = *o;
	v->disk.sectors = sectors;
	v->disk.read_only = o->read_only;
	v->state = VBD_PAUSED;
	stats_open(&v->stats, v->minor);
	v->nbd_disk.name = v->spec;
	v->nbd_disk.size = sectors * 512;
	v->nbd_disk.read_only = o->read_only;
	if (v->nbd && nbd_listen(v->nbd, &why) < 0)
		td_log(LOG_ERR, "minor %d: no NBD server: %s", v->minor, why.text);
	return 0;
}

static int start_again(struct vbd *v, const char *spec, const struct vbd_options *o, struct td_err *err)
{
	int rc;

	v->successor = true;
	rc = vbd_start(v, spec, o, true, err);
	v->successor = false;
	return rc;
}

int vbd_reopen(struct vbd *v, const char *spec, const struct vbd_options *o, const struct vbd_past *past, struct td_err *err)
{
	int rc, unknown = v->marker >= 0 ? syncmark_past(v->minor) : 0;

	vbd_lock(v);
	if (v->spec)
		rc = td_fail(err, EALREADY, "minor %d is open already, with %s", v->minor, v->spec);
	else
		rc = past->paused ? start_paused(v, spec, o, past->sectors, err) : start_again(v, spec, o, err);
	if (!rc) {
		/* what was lost is lost: whoever opens the disk anew says that it has been checked */
		v->cache.sticky = past->sticky ? past->sticky : unknown;
		v->sticky_recorded = v->cache.sticky;
		record_write(v);
	}
	vbd_unlock(v);
	if (!rc)
		v->changed(v);
	return rc;
}

int vbd_close(struct vbd *v, bool force, int timeout, struct td_err *err)
{
	double until = deadline(timeout);
	int rc;

	vbd_lock(v);
	if (!v->spec) {
		rc = td_fail(err, ENODEV, "minor %d is not open", v->minor);
	} else {
		/* a guest that is just leaving may need a moment; its disconnect must come in */
		if (!force && vbd_any_live_ring(v)) {
			vbd_unlock(v);
			v->users++;
			for (int i = 0; vbd_ring(v) && i < (timeout > 0 ? timeout : DETACH_WAIT) * 10; i++)
				td_fiber_wait_for(0.1);
			v->users--;
			vbd_lock(v);
		}
		rc = v->spec ? close_locked(v, force, until, err) : 0; /* or another close was faster */
	}
	vbd_unlock(v);
	v->changed(v);
	return rc;
}

int vbd_pause(struct vbd *v, int timeout, struct td_err *err)
{
	int rc = 0;

	vbd_lock(v);
	if (!v->spec) {
		rc = td_fail(err, ENODEV, "minor %d is not open: there is nothing to pause", v->minor);
	} else if (v->leaf) {
		v->state |= TD_STATE_PAUSE_REQUESTED;
		rc = vbd_settle(v, deadline(timeout), true, err);
		v->state = v->leaf ? 0 : VBD_PAUSED;
		/* a flush that failed does not undo the pause; it shows in the state and stays with the disk */
		if (!v->leaf) {
			rc = 0;
			record_write(v);
		}
	}
	vbd_unlock(v);
	v->changed(v);
	return rc;
}

int vbd_unpause(struct vbd *v, const char *spec, const struct vbd_options *o, struct td_err *err)
{
	struct vbd_options opt;
	int rc = 0;

	vbd_lock(v);
	opt = o ? *o : v->opt;
	opt.read_only = v->opt.read_only;
	opt.key = v->opt.key;
	memcpy(opt.name, v->opt.name, sizeof opt.name);
	if (!v->spec) {
		rc = td_fail(err, ENODEV, "minor %d is not open: there is nothing to resume", v->minor);
	} else if (!v->leaf && vbd_ring(v) && opt.mode->advertise_flush && !v->opt.mode->advertise_flush) {
		/* it does not flush, since it was told that it need not */
		rc = td_fail(err, EBUSY, "minor %d: domain %u was told under cache=%s that there is no cache, which cache=%s is: detach the disk "
			     "there first", v->minor, blkif_params(vbd_ring(v))->domid, v->opt.mode->name, opt.mode->name);
		v->state |= TD_STATE_RESUME_FAILED;
	} else if (!v->leaf && vbd_ring(v) && options_sector(&opt) != options_sector(&v->opt)) {
		rc = td_fail(err, EBUSY, "minor %d: domain %u was told of sectors of %u bytes: detach the disk there first", v->minor,
			     blkif_params(vbd_ring(v))->domid, options_sector(&v->opt));
		v->state |= TD_STATE_RESUME_FAILED;
	} else if (!v->leaf) {
		rc = vbd_start(v, spec ? spec : v->spec, &opt, false, err);
		if (rc < 0)
			v->state |= TD_STATE_RESUME_FAILED;
		else
			record_write(v);
	} else if ((spec && strcmp(spec, v->spec)) || !options_equal(&opt, &v->opt)) {
		rc = td_fail(err, EBUSY, "minor %d is not paused: pause it before its image or its options are changed", v->minor);
	}
	vbd_unlock(v);
	v->changed(v);
	return rc;
}

int vbd_resize(struct vbd *v, struct td_err *err)
{
	int rc = 0;

	vbd_lock(v);
	if (!v->leaf)
		rc = td_fail(err, ENODEV, "minor %d is not open, or paused", v->minor);
	else if (v->leaf->driver->resize)
		rc = v->leaf->driver->resize(v->leaf, err);
	if (rc > 0) {
		__atomic_store_n(&v->disk.sectors, v->leaf->info.size / options_sector(&v->opt) * (options_sector(&v->opt) / 512),
				 __ATOMIC_RELEASE);
		tell_nbd(v);
	}
	vbd_unlock(v);
	if (rc > 0) {
		td_log(LOG_INFO, "minor %d: %s has %llu sectors now", v->minor, v->spec, (unsigned long long)v->disk.sectors);
		v->changed(v);
	}
	return rc < 0 ? rc : 0;
}
