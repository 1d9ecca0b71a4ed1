/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A disk is brought to rest, with all flushed; and its images are closed. */
#include <errno.h>
#include <string.h>

#include "lib/redo.h"
#include "tapdisk/chain.h"
#include "tapdisk/vbd/vbd-inside.h"

static bool image_idle(const struct vbd *v)
{
	return cache_image_idle(&v->cache) && !leaf_cache_busy(v->kept);
}

/* And its server is there for the flush that follows. */
static bool may_flush(const struct vbd *v)
{
	return image_idle(v) && !(v->leaf->away && cache_dirty(&v->cache));
}

void vbd_go_on(struct vbd *v)
{
	cache_resume(&v->cache);
	vbd_run_rings(v);
	nbd_run(v->nbd);
}

/* CB5: whoever is told of success marks the log as consistent. */
static int sync_changed(struct vbd *v, bool keep, struct td_err *err)
{
	struct td_err why = {0};
	int rc = changed_sync(v->changes, &why);

	return !rc ? 0
		   : td_fail(err, -rc, "minor %d: %s; %s", v->minor, why.text,
			     keep ? "the disk stays open; try again"
				  : "do not rely on it: back up the whole disk");
}

int vbd_rest(struct vbd *v, double until, bool keep, struct td_err *err)
{
	struct td_err why = {0};
	int rc = 0, bad;

	vbd_hold_rings(v);
	nbd_hold(v->nbd);
	cache_quiesce(&v->cache);
	if (v->ahead_left)
		cache_cancel(&v->cache, -ECANCELED);
	if (!vbd_wait_until(v, may_flush, until)) {
		vbd_go_on(v);
		if (v->leaf->away)
			return td_fail(err, ETIMEDOUT, "minor %d: %s: %s; the disk stays open%s",
				       v->minor, v->spec, v->leaf->away,
				       keep ? ", and waits for it; closing it with -f gives up "
					      "what is not flushed"
					    : "");
		return td_fail(
			err, ETIMEDOUT,
			"minor %d: %u requests to %s are still under way; the disk stays open",
			v->minor, v->cache.at_image + v->cache.flush_running, v->spec);
	}
	if (cache_dirty(&v->cache)) {
		cache_flush(&v->cache);
		if (!vbd_wait_until(v, image_idle, until)) {
			vbd_go_on(v);
			return td_fail(
				err, ETIMEDOUT,
				"minor %d: the last flush of %s is still under way; the disk "
				"stays open",
				v->minor, v->spec);
		}
		if (v->cache.sticky)
			rc = td_fail(err, -v->cache.sticky,
				     "minor %d: the last flush of %s failed (%s): check the disk's "
				     "contents",
				     v->minor, v->spec, strerror(-v->cache.sticky));
		else if (cache_dirty(&v->cache))
			rc = td_fail(err, ENOSPC,
				     "minor %d: there is no space for the metadata of %s: %s",
				     v->minor, v->spec,
				     keep ? "the disk stays open; make room, and try again"
					  : "what was not flushed is lost");
	}
	if (rc == -ENOSPC && keep && !v->cache.sticky) {
		vbd_go_on(v);
		return rc;
	}
	bad = sync_changed(v, keep, &why);
	if (bad < 0)
		td_log(LOG_ERR, "%s", why.text);
	if (bad < 0 && keep) {
		vbd_go_on(v);
		return td_fail(err, -bad, "%s", why.text);
	}
	return rc || !bad ? rc : td_fail(err, -bad, "%s", why.text);
}

static uint64_t failed_syncs(const struct vbd *v)
{
	return v->syncs ? __atomic_load_n(&v->syncs->failed, __ATOMIC_ACQUIRE) : 0;
}

/* A sync that the driver made as it closed the image has failed: the next open's would find nothing
 * any more. */
static int failed_at_close(struct vbd *v, struct td_err *err)
{
	if (!v->cache.sticky) {
		__atomic_store_n(&v->cache.sticky, -EIO, __ATOMIC_RELEASE);
		v->cache.changed(&v->cache);
	}
	return td_fail(err, EIO,
		       "minor %d: a sync of %s failed as it was closed: what was written after the "
		       "last good one may be lost: check the disk's contents",
		       v->minor, v->spec);
}

int vbd_shut(struct vbd *v, int rc, struct td_err *err)
{
	struct td_image *leaf = v->leaf, *copy = v->copy;
	struct mirror *mirror = v->mirror;
	uint64_t failed = failed_syncs(v), torn = v->copy_syncs.failed;

	/* closing waits, and others look at the disk meanwhile */
	v->leaf = v->copy = NULL;
	v->mirror = NULL;
	vbd_listen_to(NULL, leaf);
	stall_watch(&v->stall, 0);
	peers_stop(&v->peers);
	cache_detach(&v->cache);
	v->kept = NULL;
	vbd_mirror_close(mirror, copy);
	if (v->copy_syncs.failed != torn)
		vbd_mirror_torn(v);
	chain_close(leaf);
	if (failed_syncs(v) != failed && !rc)
		rc = failed_at_close(v, err);
	changed_close(v->changes);
	v->changes = NULL;
	v->log_waits = td_redo_pending(v->redo);
	td_redo_free(v->redo);
	v->redo = NULL;
	return rc;
}

int vbd_settle(struct vbd *v, double until, bool keep, struct td_err *err)
{
	int rc = vbd_rest(v, until, keep, err);

	return v->cache.quiesced ? vbd_shut(v, rc, err) : rc;
}
