/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A disk's live commit, as a job (LC1-LC9 of tapdisk/commit.h).
 *
 *   begin    P is opened for writing, and becomes N's parent
 *   copy     on a fiber of its own, beside all operations of the disk
 *   end      under the disk's lock: P is opened anew as a parent, A names P, and N is closed, while
 *            guests go on; or, N being the leaf, the disk comes to rest and goes on with P
 *
 * Operations that close the images stop the job before they take the lock (vbd_lock_alone): it ends
 * as cancelled, except where the disk goes to another process, which begins it again.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/fiber/await.h"
#include "lib/fiber/fiber.h"
#include "tapdisk/cache/lane.h"
#include "tapdisk/vbd/record.h"
#include "tapdisk/vbd/vbd-commit.h"

#define LOOK 0.05 /* s between looks at what is waited for */

/* --- what is told of it --- */

const struct vbd_job_was *vbd_job_now(struct vbd *v)
{
	struct vbd_job *j = v->job;

	if (!j)
		return NULL;
	if (j->active && j->from && j->is.state == VBD_JOB_RUNNING)
		j->is.done = j->is.all - commit_left(&j->copy);
	return &j->is;
}

static void forget(struct vbd *v)
{
	if (!v->job)
		return;
	assert(!v->job->active);
	free(v->job);
	v->job = NULL;
}

bool vbd_job_busy(const struct vbd *v)
{
	return v->job && v->job->active;
}

void vbd_job_forget(struct vbd *v)
{
	forget(v);
}

void vbd_job_tell(struct vbd_job *j, enum vbd_job_state state, int err, const char *text)
{
	j->is.state = state;
	j->is.err = err;
	snprintf(j->is.text, sizeof j->is.text, "%.250s", text ? text : "");
}

int vbd_commit_query(struct vbd *v, struct vbd_job_told *out, struct td_err *err)
{
	struct vbd_job *j = v->job;

	*out = (struct vbd_job_told){"undefined", 0, 0};
	if (!v->spec)
		return td_fail(err, ENODEV, "minor %d is not open", v->minor);
	if (!j)
		return 0;
	vbd_job_now(v);
	*out = (struct vbd_job_told){"running", j->is.done, j->is.all};
	switch (j->is.state) {
	case VBD_JOB_FAILED:
		return td_fail(err, -j->is.err, "the commit of %s has failed: %s.  %s", j->is.node,
			       j->is.text,
			       j->is.lost ? "Remove no image of the chain before the disk is "
					    "closed and they are checked"
					  : "The chain is as it was");
	case VBD_JOB_CONCLUDED:
		if (j->active) { /* P may not open as the leaf yet, and then N is needed (LC6) */
			*out = (struct vbd_job_told){"pending", j->is.all, j->is.all};
			return 0;
		}
		*out = (struct vbd_job_told){"concluded", j->is.all, j->is.all};
		forget(v); /* told once */
		record_write(v);
		return 0;
	case VBD_JOB_RUNNING:
		break;
	}
	if (j->copy.stop)
		out->status = "aborting";
	else if (j->complete)
		out->status = "pending";
	else if (j->ready)
		out->status = "ready";
	if (j->ready && !j->complete) {
		j->complete = true; /* this very query completes it */
		j->copy.rate = 0;   /* and it comes to its end, whatever is written meanwhile */
		j->copy.asked = NULL;
		commit_wake(&j->copy);
	}
	return 0;
}

/* --- it is stopped --- */

static void stop_job(struct vbd *v, bool suspend)
{
	v->users++;
	while (v->job && v->job->active) {
		v->job->suspend = suspend;
		commit_stop(&v->job->copy);
		td_fiber_wait_for(LOOK);
	}
	v->users--;
}

int vbd_commit_cancel(struct vbd *v, bool wait, struct td_err *err)
{
	if (!v->spec)
		return td_fail(err, ENODEV, "minor %d is not open", v->minor);
	if (v->job && v->job->active)
		commit_stop(&v->job->copy);
	else if (v->job && v->job->is.state == VBD_JOB_FAILED && !v->job->is.lost)
		forget(v); /* it was told, or is not of interest */
	if (wait)
		stop_job(v, false);
	return 0;
}

void vbd_lock_alone(struct vbd *v, bool suspend)
{
	for (;;) {
		stop_job(v, suspend);
		vbd_lock(v);
		if (!v->job || !v->job->active)
			return;
		vbd_unlock(v);
	}
}

/* --- its fiber --- */

/* Of a leaf: until it is asked to end, and little is left. */
static int follow_leaf(struct vbd_job *j, struct td_err *err)
{
	struct commit *c = &j->copy;
	int rc = 0;

	while (!rc && !(j->complete && commit_is_near(c))) {
		rc = commit_again(c, false, err);
		if (!rc && commit_is_near(c))
			j->ready = true;
		if (!rc && !(j->complete && commit_is_near(c)) && !commit_sleep(c, LOOK))
			rc = -ECANCELED;
	}
	/* once more, so that the disk rests for a moment only */
	return rc ? rc : commit_again(c, false, err);
}

static void end(struct vbd *v, struct vbd_job *j, int rc, struct td_err *err)
{
	if (!rc && j->copy.stop)
		rc = -ECANCELED;
	if (!rc)
		rc = j->above ? vbd_commit_take_out(v, j, err) : vbd_commit_turn_over(v, j, err);
	if (j->from)
		commit_fini(&j->copy);
	v->cache.alone = false;
	lanes_update(&v->cache);
	if (rc == -ECANCELED && j->suspend) {
		int bad = td_await_request(j->to, j->to->io, TD_FLUSH, 0, 0, 0, NULL, 0);

		/* the chain is about to be closed; the record says that it runs */
		if (j->above && !bad)
			j->is.at = j->copy.at;
		if (!vbd_lost_data(bad))
			return;
		rc = td_fail(err, -bad, "cannot make %s durable: %s", j->to->path, strerror(-bad));
	}
	if (rc) {
		vbd_job_tell(j, VBD_JOB_FAILED, rc,
			     rc == -ECANCELED ? "it was cancelled" : err->text);
		if (j->from)
			vbd_commit_put_back(v, j);
		j->is.lost |= j->from && j->from->backing == j->to && j->to->fault;
		record_write(v);
	}
	if (rc)
		td_log(rc == -ECANCELED ? LOG_NOTICE : LOG_ERR,
		       "minor %d: the commit of %s into %s has ended: %s", v->minor, j->is.node,
		       j->is.base, j->is.text);
	else
		td_log(LOG_NOTICE,
		       "minor %d: %s is committed into %s, and not in the chain any more", v->minor,
		       j->is.node, j->is.base);
}

static void run(void *arg)
{
	struct vbd_job *j = arg;
	struct vbd *v = j->vbd;
	struct td_err err = {0};
	int rc;

	v->users++;
	rc = commit_copy(&j->copy, &err);
	if (!rc && !j->above)
		rc = follow_leaf(j, &err);
	vbd_lock(v);
	vbd_job_now(v);
	end(v, j, rc, &err);
	j->active = false;
	vbd_unlock(v);
	v->users--;
	v->changed(v);
}

/* --- it begins --- */

static uint64_t on_asked(void *owner)
{
	const struct vbd *v = ((struct vbd_job *)owner)->vbd;
	struct lane_count n = lanes_count(&v->cache);

	return v->cache.n.reads + v->cache.n.writes + n.requests[0] + n.requests[1];
}

static void on_saved(void *owner)
{
	struct vbd_job *j = owner;

	if (j->above)
		j->is.at = j->copy.at;
	record_write(j->vbd);
}

/* P is open for writing, and may be N's parent from now on. */
static int start_copy(struct vbd *v, struct vbd_job *j, struct td_err *err)
{
	int rc;

	j->copy = (struct commit){.from = j->from,
				  .to = j->to,
				  .rate = j->is.rate,
				  .at = j->above ? j->is.at : 0,
				  .asked = on_asked,
				  .saved = on_saved,
				  .owner = j};
	rc = commit_init(&j->copy, !j->above);
	if (rc) {
		td_image_close(j->to);
		return td_fail(err, -rc, "out of memory for a commit");
	}
	v->cache.alone = !j->above; /* LC5 */
	lanes_update(&v->cache);
	while (!j->above && !lanes_closed(&v->cache))
		td_fiber_wait_for(0.002);
	vbd_commit_put_in(v, j);
	rc = vbd_commit_check_claimed(v, j, err);
	if (!rc) {
		j->active = true;
		rc = td_fiber_start(v->queue->loop, run, j);
		if (rc)
			td_fail(err, -rc, "out of memory for a commit");
	}
	if (!rc)
		return 0;
	j->active = v->cache.alone = false;
	lanes_update(&v->cache);
	commit_fini(&j->copy);
	vbd_commit_put_back(v, j);
	return rc;
}

/* Locked. */
static int begin_job(struct vbd *v, struct vbd_job *j, struct td_image *n, struct td_err *err)
{
	int rc;

	j->vbd = v;
	j->from = n;
	j->above = vbd_commit_above(v, n);
	snprintf(j->is.node, sizeof j->is.node, "%s", n->path);
	snprintf(j->is.base, sizeof j->is.base, "%s:%s", n->backing->driver->name,
		 n->backing->path);
	j->is.all = n->info.size;
	vbd_job_tell(j, VBD_JOB_RUNNING, 0, NULL);
	rc = vbd_commit_open_base(v, j, err);
	return rc ? rc : start_copy(v, j, err);
}

static int begin_new(struct vbd *v, const struct vbd_commit *c, struct td_err *err)
{
	struct vbd_job *j;
	struct td_image *n;
	int rc = vbd_commit_check_disk(v, c->image, err);

	if (rc)
		return rc;
	n = vbd_commit_find(v, c->image);
	vbd_commit_put_back_left(v, n);
	rc = vbd_commit_check_images(v, n, c->image, err);
	if (!rc)
		rc = vbd_commit_check_beneath(v, n, !c->force, err);
	if (rc)
		return rc;
	j = calloc(1, sizeof *j);
	if (!j)
		return td_fail(err, ENOMEM, "out of memory for a commit");
	j->is.rate = c->rate;
	rc = begin_job(v, j, n, err);
	if (rc && !j->is.lost) {
		free(j);
		return rc;
	}
	forget(v);
	v->job = j;
	if (rc)
		vbd_job_tell(j, VBD_JOB_FAILED, rc, err->text);
	record_write(v);
	if (rc)
		return rc;
	td_log(LOG_NOTICE, "minor %d: %s is being committed into %s", v->minor, j->is.node,
	       j->is.base);
	return 0;
}

int vbd_commit(struct vbd *v, const struct vbd_commit *c, struct td_err *err)
{
	int rc;

	assert(v->magic == VBD_MAGIC);
	vbd_lock(v);
	rc = begin_new(v, c, err);
	vbd_unlock(v);
	if (rc && rc != -ENODEV && rc != -EOPNOTSUPP && rc != -EINVAL) {
		/* what clients know: 19, 95, or 22 for all else */
		err->code = EINVAL;
		rc = -EINVAL;
	}
	return rc;
}

/* --- in another process --- */

/* P, which another image may name in another way than N did. */
static bool has_base(struct vbd *v, const char *spec)
{
	const char *colon = strchr(spec, ':');

	return colon && vbd_commit_find(v, colon + 1);
}

void vbd_job_resume(struct vbd *v)
{
	struct vbd_job *j = v->job;
	struct td_err err = {0};
	struct td_image *n;
	int rc;

	if (!j || j->active || j->is.state != VBD_JOB_RUNNING)
		return;
	if (!v->leaf) { /* nobody would begin it again (LC6) */
		vbd_job_tell(j, VBD_JOB_FAILED, -ECANCELED, "its disk is paused");
		record_write(v);
		return;
	}
	n = vbd_commit_find(v, j->is.node);
	if (!n && has_base(v, j->is.base)) {
		vbd_job_tell(j, VBD_JOB_CONCLUDED, 0, NULL); /* it died after LC4's step */
	} else {
		j->suspend = j->ready = j->complete = false;
		vbd_commit_put_back_left(v, n);
		rc = vbd_commit_check_disk(v, j->is.node, &err);
		if (!rc)
			rc = vbd_commit_check_images(v, n, j->is.node, &err);
		if (!rc)
			rc = vbd_commit_check_beneath(v, n, false, &err);
		if (!rc)
			rc = begin_job(v, j, n, &err);
		if (rc)
			vbd_job_tell(j, VBD_JOB_FAILED, rc, err.text);
		td_log(rc ? LOG_ERR : LOG_NOTICE, "minor %d: the commit of %s %s%s", v->minor,
		       j->is.node, rc ? "cannot go on: " : "goes on", rc ? err.text : "");
	}
	record_write(v);
}

void vbd_job_inherit(struct vbd *v, const struct vbd_job_was *was)
{
	struct vbd_job *j;

	if (v->job && v->job->active)
		return;
	forget(v);
	if (!was->node[0])
		return;
	j = calloc(1, sizeof *j);
	if (!j) {
		td_log(LOG_ERR, "minor %d: out of memory for its commit", v->minor);
		return;
	}
	j->vbd = v;
	j->is = *was;
	v->job = j;
}
