/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How a live commit changes the chain: P opened for writing and put under N; and, when all is
 * copied, N taken out, or the disk turned over to P. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/fiber/await.h"
#include "lib/fiber/fiber.h"
#include "lib/io/clock.h"
#include "lib/io/file.h"
#include "tapdisk/chain.h"
#include "tapdisk/opener/opener.h"
#include "tapdisk/vbd/record.h"
#include "tapdisk/vbd/vbd-commit.h"

#define SETTLE 30 /* s that a leaf's requests have to end */

struct td_image *vbd_commit_above(const struct vbd *v, const struct td_image *image)
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
struct td_image *vbd_commit_find(struct vbd *v, const char *name)
{
	for (struct td_image *i = v->leaf; i; i = i->backing)
		if (is_name(i, name))
			return i;
	for (struct td_image *i = v->leaf; i; i = i->backing)
		if (td_await_call(v->cache.io, same_run, &(struct same){i->path, name}))
			return i;
	return NULL;
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
		rc = open_again(v, a, vbd_commit_above(v, a), TD_FILE_BENEATH, &open, err);
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
int vbd_commit_open_base(struct vbd *v, struct vbd_job *j, struct td_err *err)
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

/* P, open for writing, is N's parent from now on (LC2). */
void vbd_commit_put_in(struct vbd *v, struct vbd_job *j)
{
	struct td_image *was = j->from->backing;

	take_counts(j->to, was);
	put_in(v, j->from, j->to, was->backing);
	close_idle(was);
}

/* --- it ends --- */

/* P is a parent as before; or, where it cannot be opened anew, stays open as it is (LC6). */
void vbd_commit_put_back(struct vbd *v, struct vbd_job *j)
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
void vbd_commit_put_back_left(struct vbd *v, struct td_image *n)
{
	if (n && n->backing && (n->backing->file_flags & TD_FILE_BENEATH))
		vbd_commit_put_back(v, &(struct vbd_job){.from = n, .to = n->backing});
}

/* N leaves the chain while guests go on. */
int vbd_commit_take_out(struct vbd *v, struct vbd_job *j, struct td_err *err)
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
	vbd_job_tell(j, VBD_JOB_CONCLUDED, 0, NULL);
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
	opt.data_file[0] = 0;                        /* it was named for another image */
	vbd_job_tell(j, VBD_JOB_CONCLUDED, 0, NULL); /* the record with the new image says so */
	if (!rc)
		rc = vbd_start(v, j->is.base, &opt, false, err);
	if (rc) {
		opt = v->opt;
		vbd_job_tell(j, VBD_JOB_FAILED, rc, err->text);
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

int vbd_commit_turn_over(struct vbd *v, struct vbd_job *j, struct td_err *err)
{
	int rc;

	if (opener_is_dead()) /* neither image could be opened again */
		return td_fail(err, EIO, "the opener of files has died: %s stays as it is",
			       v->spec);
	rc = vbd_rest(v, td_clock_s() + SETTLE, true, err);
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
