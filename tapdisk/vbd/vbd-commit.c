/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A disk's live commit: which image, whether it may be, and how the chain changes when all is
 * copied (LC1-LC8 of tapdisk/commit.h).
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
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/fiber/await.h"
#include "lib/fiber/fiber.h"
#include "lib/io/file.h"
#include "lib/readers.h"
#include "tapdisk/cache/lane.h"
#include "tapdisk/chain.h"
#include "tapdisk/commit.h"
#include "tapdisk/opener/opener.h"
#include "tapdisk/vbd/record.h"
#include "tapdisk/vbd/vbd-inside.h"

#define NEAR   (16u << 20) /* bytes that may be left for the time in which the disk is at rest */
#define LOOK   0.05        /* s between looks at what is waited for */
#define SETTLE 30          /* s that a leaf's requests have to end */

struct vbd_job {
	struct vbd *vbd;
	struct vbd_job_was is; /* what is told and recorded of it */
	struct commit copy;
	struct td_image *from, *to, *above; /* N; P open for writing; A, NULL: N is the leaf */
	bool active;                        /* its fiber is there */
	bool ready, complete;               /* of a leaf: little is left; and it was asked to end */
	bool suspend;                       /* stopped, and another process begins it again */
};

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

static void tell(struct vbd_job *j, enum vbd_job_state state, int err, const char *text)
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

/* --- may it be? --- */

static struct td_image *above_of(const struct vbd *v, const struct td_image *image)
{
	struct td_image *a = v->leaf == image ? NULL : v->leaf;

	while (a && a->backing != image)
		a = a->backing;
	return a;
}

static bool is_name(const struct td_image *i, const char *name)
{
	size_t n = strlen(i->driver->name);

	return !strcmp(i->path, name) || (!strncmp(name, i->driver->name, n) && name[n] == ':' &&
					  !strcmp(i->path, name + n + 1));
}

struct same {
	const char *a, *b;
};

static long same_run(void *arg)
{
	const struct same *s = arg;
	struct stat a, b;

	return stat(s->a, &a) == 0 && stat(s->b, &b) == 0 && a.st_dev == b.st_dev &&
	       a.st_ino == b.st_ino && a.st_rdev == b.st_rdev;
}

/* By its name; else by its file. */
static struct td_image *find_node(struct vbd *v, const char *name)
{
	for (struct td_image *i = v->leaf; i; i = i->backing)
		if (is_name(i, name))
			return i;
	for (struct td_image *i = v->leaf; i; i = i->backing)
		if (td_await_call(v->cache.io, same_run, &(struct same){i->path, name}))
			return i;
	return NULL;
}

static int check_disk(struct vbd *v, const char *name, struct td_err *err)
{
	if (!v->spec || !v->leaf)
		return td_fail(err, ENODEV, "minor %d is not open, or paused", v->minor);
	if (!v->leaf->driver->relink)
		return td_fail(err, EOPNOTSUPP,
			       "%s: a live commit is of chains whose leaf is a VHD or a qcow2",
			       v->spec);
	if (v->job && v->job->active)
		return td_fail(err, EINVAL,
			       "minor %d: the commit of %s is under way: wait for its end (tap-ctl "
			       "query), or cancel it",
			       v->minor, v->job->is.node);
	if (v->opt.read_only || v->opt.shared)
		return td_fail(err, EINVAL, "minor %d is open %s: its chain cannot change",
			       v->minor, v->opt.read_only ? "read-only" : "with shared=yes");
	if (v->kept || v->opt.parent_disk > 0)
		return td_fail(
			err, EINVAL,
			"minor %d stands on another disk, or caches what is beneath it in its "
			"leaf: its chain cannot change",
			v->minor);
	if (v->mirror)
		return td_fail(
			err, EINVAL,
			"minor %d is mirrored to %s: end that first (pause, unpause -2 null)",
			v->minor, v->opt.mirror);
	if (v->cache.sticky)
		return td_fail(err, EINVAL,
			       "minor %d: a flush of %s has failed: close it, and check it first",
			       v->minor, v->spec);
	if (v->job && v->job->is.lost)
		return td_fail(
			err, EINVAL,
			"minor %d: a sync of %s, or of what names it, has failed in the commit "
			"of %s, so that what is read there may be in no store: close the disk, "
			"and check the chain first",
			v->minor, v->job->is.base, v->job->is.node);
	return name ? 0 : td_fail(err, EINVAL, "'image' is missing");
}

static bool takes_writes(const struct td_driver *d)
{
	return d->relink || !strcmp(d->name, "aio");
}

static int check_images(struct vbd *v, const struct td_image *n, const char *name,
			struct td_err *err)
{
	const struct td_image *p = n ? n->backing : NULL;

	if (!n)
		return td_fail(err, EINVAL, "%s is no image of the chain of minor %d (%s)", name,
			       v->minor, v->spec);
	if (!p)
		return td_fail(err, EINVAL, "%s has no parent that it could be committed into",
			       n->path);
	if (!takes_writes(p->driver))
		return td_fail(err, EINVAL, "%s:%s cannot be written as a parent", p->driver->name,
			       p->path);
	if (n == v->leaf && p->info.size > n->info.size)
		return td_fail(err, EINVAL,
			       "%s has %llu bytes, and its parent %s has %llu: the guest's disk "
			       "would grow; resize the leaf first",
			       n->path, (unsigned long long)n->info.size, p->path,
			       (unsigned long long)p->info.size);
	if (n->info.decrypts && !p->info.decrypts)
		return td_fail(err, EINVAL,
			       "%s is encrypted, and its parent %s is not: a commit would lay its "
			       "data open",
			       n->path, p->path);
	return 0;
}

/* LC7 */
struct beneath {
	const struct td_image *n, *p;
	bool leaf, files;
	struct td_err *err;
};

/* Besides this disk.  Who comes by N would read what he knows of P's places, which change. */
static bool others_read(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	bool is = fd >= 0 && td_readers(fd) > 1;

	if (fd >= 0)
		close(fd);
	return is;
}

static long beneath_run(void *arg)
{
	const struct beneath *b = arg;
	const char *path = others_read(b->p->path)               ? b->p->path
			   : !b->leaf && others_read(b->n->path) ? b->n->path
								 : NULL;

	if (path)
		return td_fail(b->err, EBUSY,
			       "%s is in use by another disk too, which would change, or read what "
			       "is being moved: close that one first (lsof %s)",
			       path, path);
	return b->files ? opener_beneath(b->n->driver, b->n->path, b->p->path, b->err) : 0;
}

static int check_beneath(struct vbd *v, const struct td_image *n, bool files, struct td_err *err)
{
	struct beneath b = {n, n->backing, n == v->leaf, files, err};

	return (int)td_await_call(v->cache.io, beneath_run, &b);
}

/* Once more, when nobody else can come: P is claimed, and what the chain had open of it is closed.
 * This sees another host's locks too, where the file system does. */
static long claimed_run(void *arg)
{
	const struct beneath *b = arg;
	int fd = open(b->p->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	int rc = 0;

	if (fd < 0 && errno == ENOENT)
		return 0; /* it has just been renamed, and this host's readers were looked for */
	if (fd < 0)
		return td_fail(b->err, errno, "cannot open %s: %s", b->p->path, strerror(errno));
	if (td_file_read_by_others(fd))
		rc = td_fail(b->err, EBUSY,
			     "%s is in use by another disk too, which would change, on this host "
			     "or on another that shares the file: close that one first",
			     b->p->path);
	close(fd);
	return rc;
}

static int check_claimed(struct vbd *v, const struct vbd_job *j, struct td_err *err)
{
	struct beneath b = {j->from, j->to, !j->above, false, err};

	return (int)td_await_call(v->cache.io, claimed_run, &b);
}

/* --- images --- */

static int open_again(struct vbd *v, const struct td_image *image, const struct td_image *child,
		      unsigned lock, struct td_image **out, struct td_err *err)
{
	const struct vbd_options *o = &v->opt;
	struct td_how how = vbd_how(o);
	int rc = 0;

	how.mark = v->syncs;
	if (o->parents_cache)
		rc = queue_engine(v->queue, o->io, false, &how.cached, err);
	return rc ? rc : chain_open_again(image, child, lock, v->spec, &how, v->cache.io, out, err);
}

/* Nothing of the chain leads to it any more: when what it has begun is over, it is closed. */
static void close_idle(struct td_image *image)
{
	while (image->inflight)
		td_fiber_wait_for(0.002);
	td_image_close(image);
}

static void put_in(struct vbd *v, struct td_image *above, struct td_image *image,
		   struct td_image *below)
{
	image->backing = below;
	above->backing = image;
	vbd_listen_to(v, v->leaf);
}

/* A parent's counters go on. */
static void take_counts(struct td_image *to, const struct td_image *from)
{
	to->n = from->n;
}

static struct td_relink names_of(const struct td_image *p)
{
	const char *slash = strrchr(p->path, '/');
	struct td_relink to = {.path = p->path,
			       .name = slash ? slash + 1 : p->path,
			       .type = p->driver->name,
			       .raw = !strcmp(p->driver->name, "aio")};

	return to;
}

/* A names P, which is p here (LC4); trial: could it? */
static int name_base(struct vbd *v, struct vbd_job *j, struct td_image *p, bool trial,
		     struct td_err *err)
{
	struct td_image *a = j->above, *open = a;
	struct td_relink to = names_of(p);
	bool doubt = false;
	int rc = 0;

	to.trial = trial;
	to.doubt = &doubt;
	if (p->driver->identify)
		p->driver->identify(p, &to);
	if (a != v->leaf)
		rc = open_again(v, a, above_of(v, a), TD_FILE_BENEATH, &open, err);
	if (!rc)
		rc = a->driver->relink(open, &to, err);
	j->is.lost |= doubt || (rc && !trial && open->fault);
	if (open != a)
		td_image_close(open);
	return rc;
}

/* P as large as N, when nobody uses it yet. */
static int fit_base(struct vbd_job *j, struct td_err *err)
{
	struct td_image *p = j->to, *n = j->from;
	bool shows = n->backing->backing && n->backing->backing->info.size > p->info.size;

	if (p->info.size >= n->info.size)
		return 0;
	if (p->driver->grow && !shows)
		return p->driver->grow(p, n->info.size, err);
	return td_fail(err, EINVAL,
		       "%s has %llu bytes, and its parent %s only %llu: enlarge that one first",
		       n->path, (unsigned long long)n->info.size, p->path,
		       (unsigned long long)p->info.size);
}

/* --- it ends --- */

/* P is a parent as before; or, where it cannot be opened anew, stays open as it is (LC6). */
static void put_back(struct vbd *v, struct vbd_job *j)
{
	struct td_image *fresh = NULL, *to = j->to;
	struct td_err err = {0};

	if (td_await_request(to, to->io, TD_FLUSH, 0, 0, 0, NULL, 0) == 0 &&
	    !open_again(v, to, j->from, TD_FILE_CLAIM, &fresh, &err)) {
		take_counts(fresh, to);
		put_in(v, j->from, fresh, to->backing);
		close_idle(to);
		return;
	}
	td_log(LOG_ERR,
	       "minor %d: %s stays open for writing until the disk is paused or closed%s%s",
	       v->minor, to->path, err.text[0] ? ": " : "", err.text);
}

/* What a job has left so, or one that was stopped for another process and goes on in this one. */
static void put_back_left(struct vbd *v, struct td_image *n)
{
	if (n && n->backing && (n->backing->file_flags & TD_FILE_BENEATH))
		put_back(v, &(struct vbd_job){.from = n, .to = n->backing});
}

/* N leaves the chain while guests go on. */
static int take_out(struct vbd *v, struct vbd_job *j, struct td_err *err)
{
	struct td_image *fresh = NULL, *from = j->from, *to = j->to;
	int rc = open_again(v, to, from, TD_FILE_CLAIM, &fresh, err);

	if (!rc)
		rc = name_base(v, j, fresh, false, err);
	if (rc && fresh)
		td_image_close(fresh);
	if (rc)
		return rc;
	commit_fini(&j->copy);
	take_counts(fresh, to);
	put_in(v, j->above, fresh, to->backing);
	j->is.done = j->is.all;
	j->from = j->to = NULL; /* nobody looks at them any more */
	close_idle(from);
	close_idle(to);
	tell(j, VBD_JOB_CONCLUDED, 0, NULL);
	record_write(v);
	return 0;
}

/* The leaf is closed; P is to be the leaf.  If it cannot, N is again. */
static int go_on_below(struct vbd *v, struct vbd_job *j, struct td_err *err)
{
	struct vbd_options opt = v->opt;
	char *leaf = strdup(v->spec);
	struct td_err again = {0};
	int rc;

	if (!leaf)
		rc = td_fail(err, ENOMEM, "out of memory for %s", j->is.base);
	else
		rc = 0;
	opt.data_file[0] = 0;                /* it was named for another image */
	tell(j, VBD_JOB_CONCLUDED, 0, NULL); /* the record with the new image says so */
	if (!rc)
		rc = vbd_start(v, j->is.base, &opt, false, err);
	if (rc) {
		opt = v->opt;
		tell(j, VBD_JOB_FAILED, rc, err->text);
		if (vbd_start(v, leaf ? leaf : v->spec, &opt, false, &again) < 0) {
			td_log(LOG_ERR, "minor %d: cannot go on: %s", v->minor, again.text);
			v->state |= VBD_PAUSED | TD_STATE_RESUME_FAILED;
			record_write(v);
		}
	}
	free(leaf);
	explicit_bzero(&opt.key, sizeof opt.key);
	return rc;
}

static int turn_over(struct vbd *v, struct vbd_job *j, struct td_err *err)
{
	int rc;

	if (opener_is_dead()) /* neither image could be opened again */
		return td_fail(err, EIO, "the opener of files has died: %s stays as it is",
			       v->spec);
	rc = vbd_rest(v, ev_time() + SETTLE, true, err);
	if (rc < 0 && !v->cache.quiesced)
		return rc; /* it went on */
	if (!rc)
		rc = commit_again(&j->copy, true, err);
	if (rc < 0) {
		vbd_go_on(v);
		return rc;
	}
	commit_fini(&j->copy);
	j->from = j->to = NULL; /* they are closed with the chain */
	rc = vbd_shut(v, 0, err);
	if (rc < 0)
		td_log(LOG_ERR, "minor %d: %s", v->minor, err->text);
	v->state = VBD_PAUSED;
	return go_on_below(v, j, err);
}

/* --- its fiber --- */

/* Of a leaf: until it is asked to end, and little is left. */
static int follow_leaf(struct vbd_job *j, struct td_err *err)
{
	struct commit *c = &j->copy;
	int rc = 0;

	while (!rc && !(j->complete && commit_left(c) <= NEAR)) {
		rc = commit_again(c, false, err);
		if (!rc && commit_left(c) <= NEAR)
			j->ready = true;
		if (!rc && !(j->complete && commit_left(c) <= NEAR) && !commit_sleep(c, LOOK))
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
		rc = j->above ? take_out(v, j, err) : turn_over(v, j, err);
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
		tell(j, VBD_JOB_FAILED, rc, rc == -ECANCELED ? "it was cancelled" : err->text);
		if (j->from)
			put_back(v, j);
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
	struct td_image *was = j->from->backing;
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
	take_counts(j->to, was);
	put_in(v, j->from, j->to, was->backing);
	close_idle(was);
	rc = check_claimed(v, j, err);
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
	put_back(v, j);
	return rc;
}

static int open_base(struct vbd *v, struct vbd_job *j, struct td_err *err)
{
	struct td_image *p = j->from->backing;
	int rc = open_again(v, p, j->from, TD_FILE_BENEATH | TD_FILE_CLAIM, &j->to, err);

	if (rc)
		return rc;
	rc = fit_base(j, err);
	if (!rc && j->from->info.decrypts && !j->to->info.decrypts)
		rc = td_fail(err, EINVAL, "%s is not encrypted", p->path);
	if (!rc && j->above)
		rc = name_base(v, j, j->to, true, err);
	j->is.lost |= rc && j->to->fault;
	if (rc)
		td_image_close(j->to);
	return rc;
}

/* Locked. */
static int begin_job(struct vbd *v, struct vbd_job *j, struct td_image *n, struct td_err *err)
{
	int rc;

	j->vbd = v;
	j->from = n;
	j->above = above_of(v, n);
	snprintf(j->is.node, sizeof j->is.node, "%s", n->path);
	snprintf(j->is.base, sizeof j->is.base, "%s:%s", n->backing->driver->name,
		 n->backing->path);
	j->is.all = n->info.size;
	tell(j, VBD_JOB_RUNNING, 0, NULL);
	rc = open_base(v, j, err);
	return rc ? rc : start_copy(v, j, err);
}

static int begin_new(struct vbd *v, const struct vbd_commit *c, struct td_err *err)
{
	struct vbd_job *j;
	struct td_image *n;
	int rc = check_disk(v, c->image, err);

	if (rc)
		return rc;
	n = find_node(v, c->image);
	put_back_left(v, n);
	rc = check_images(v, n, c->image, err);
	if (!rc)
		rc = check_beneath(v, n, !c->force, err);
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
		tell(j, VBD_JOB_FAILED, rc, err->text);
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

	return colon && find_node(v, colon + 1);
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
		tell(j, VBD_JOB_FAILED, -ECANCELED, "its disk is paused");
		record_write(v);
		return;
	}
	n = find_node(v, j->is.node);
	if (!n && has_base(v, j->is.base)) {
		tell(j, VBD_JOB_CONCLUDED, 0, NULL); /* it died after LC4's step */
	} else {
		j->suspend = j->ready = j->complete = false;
		put_back_left(v, n);
		rc = check_disk(v, j->is.node, &err);
		if (!rc)
			rc = check_images(v, n, j->is.node, &err);
		if (!rc)
			rc = check_beneath(v, n, false, &err);
		if (!rc)
			rc = begin_job(v, j, n, &err);
		if (rc)
			tell(j, VBD_JOB_FAILED, rc, err.text);
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
