/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opens and closes an image of a Ceph cluster. */
#include "drivers/rbd/rbd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "drivers/drivers.h"
#include "lib/io/clock.h"
#include "lib/settle.h"

/* Three calls, each on a thread that may be left behind: so it has all of its own. */
struct opening {
	struct rbdc_spec spec;
	char *name; /* for texts */
	unsigned flags;
	char dead[RBDC_DEAD][RBDC_ADDR];
	struct td_key key;
	struct rbdc_handle *h;
	struct td_err err;
};

static bool may_cache(unsigned flags)
{
	return !(flags & TD_FILE_DIRECT);
}

static bool is_read(unsigned flags)
{
	return flags & (TD_FILE_RDONLY | TD_FILE_PARENT);
}

/* --- on a thread that may wait --- */

static void free_opening(void *arg)
{
	struct opening *o = arg;

	rbdc_handle_put(o->h);
	rbdc_spec_free(&o->spec);
	explicit_bzero(&o->key, sizeof o->key);
	free(o->name);
	free(o);
}

static int run_free_opening(void *arg)
{
	free_opening(arg);
	return 0;
}

static int run_put_handle(void *arg)
{
	rbdc_handle_put(arg);
	return 0;
}

static void undo_nothing(void *arg)
{
}

static int connect_cluster(void *arg)
{
	struct opening *o = arg;

	if (!rbdc_lib_open(&o->err))
		return -o->err.code;
	return rbdc_cluster_get(&o->spec, may_cache(o->flags), &o->h->cluster, &o->err);
}

static int open_pool(struct opening *o)
{
	int rc = rbdc_lib->rados_ioctx_create(o->h->cluster->rados, o->spec.pool, &o->h->pool);

	if (rc < 0) {
		o->h->pool = NULL;
		return td_fail(&o->err, -rc, "rbd:%s: cannot open the pool '%s': %s", o->name,
			       o->spec.pool, strerror(-rc));
	}
	rbdc_lib->rados_ioctx_set_namespace(o->h->pool, o->spec.ns);
	return 0;
}

static int open_rbd(struct opening *o)
{
	int rc = is_read(o->flags)
			 ? rbdc_lib->rbd_open_read_only(o->h->pool, o->spec.image, &o->h->rbd,
							o->spec.snap)
			 : rbdc_lib->rbd_open(o->h->pool, o->spec.image, &o->h->rbd, NULL);

	if (rc >= 0)
		return 0;
	o->h->rbd = NULL;
	if (rc == -ENOENT)
		return td_fail(&o->err, ENOENT, "rbd:%s: the pool '%s'%s%s has no image '%s'%s%s",
			       o->name, o->spec.pool, *o->spec.ns ? ", namespace " : "", o->spec.ns,
			       o->spec.image, o->spec.snap ? " with the snapshot " : "",
			       o->spec.snap ? o->spec.snap : "");
	if (rc == -EPERM || rc == -EACCES)
		return td_fail(&o->err, -rc,
			       "rbd:%s: client.%s has no right to open it: its caps should be "
			       "`profile rbd' for the monitors and for the pool",
			       o->name, o->spec.id ? o->spec.id : "admin");
	return td_fail(&o->err, -rc, "rbd:%s: cannot open the image: %s", o->name, strerror(-rc));
}

static int look_at_size(struct opening *o)
{
	rbd_image_info_t info = {0};
	int rc = rbdc_lib->rbd_get_size(o->h->rbd, &o->h->size);

	if (rc >= 0)
		rc = rbdc_lib->rbd_stat(o->h->rbd, &info, sizeof info);
	o->h->object = info.obj_size;
	if (rc < 0 || !o->h->object)
		return td_fail(&o->err, -rc, "rbd:%s: cannot read its size: %s", o->name,
			       strerror(-rc));
	if (!o->h->size || o->h->size % 512)
		return td_fail(&o->err, EINVAL,
			       "rbd:%s has %llu bytes, which is no multiple of 512: a disk is made "
			       "of 512-byte sectors (rbd resize)",
			       o->name, (unsigned long long)o->h->size);
	return 0;
}

static int listen_to(struct opening *o)
{
	int rc;

	o->h->events = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	rc = o->h->events < 0 ? -errno
			      : rbdc_lib->rbd_set_image_notification(o->h->rbd, o->h->events,
								     EVENT_TYPE_EVENTFD);
	return rc < 0 ? td_fail(&o->err, -rc, "rbd:%s: cannot hear of completions: %s", o->name,
				strerror(-rc))
		      : 0;
}

static int open_image(void *arg)
{
	struct opening *o = arg;
	int rc = open_pool(o);

	if (!rc)
		rc = open_rbd(o);
	if (!rc)
		rc = rbdc_cache_check(o->h, o->name, may_cache(o->flags), &o->err);
	if (!rc && !is_read(o->flags))
		rc = rbdc_fence(o->h, o->name, o->dead, &o->err);
	return rc;
}

static int take_image(void *arg)
{
	struct opening *o = arg;
	int rc = is_read(o->flags) ? 0 : rbdc_lock(o->h, o->name, &o->err);

	if (!rc && is_read(o->flags) && !o->spec.snap)
		rc = rbdc_no_writer(o->h, o->name, &o->err);
	/* under the lock: */
	if (!rc && o->key.len)
		rc = rbdc_unlock(o->h, o->name, &o->key, &o->err);
	if (!rc)
		rc = listen_to(o);
	if (!rc && !is_read(o->flags)) /* before the size, so that no change is missed */
		rc = rbdc_size_watch(o->h, o->name, &o->err);
	return rc ? rc : look_at_size(o);
}

/* --- on a fiber --- */

static struct opening *new_opening(const struct td_image *image)
{
	struct opening *o = calloc(1, sizeof *o);

	if (!o)
		return NULL;
	o->name = strdup(image->path);
	o->h = calloc(1, sizeof *o->h);
	if (!o->name || !o->h) {
		free(o->h);
		free(o->name);
		free(o);
		return NULL;
	}
	o->h->events = -1;
	o->h->users = 1;
	o->flags = image->file_flags;
	if (image->key)
		o->key = *image->key;
	return o;
}

/* Frees o unless it is the thread's; its text is the caller's then. */
static int step(struct rbdc_client *c, struct opening **o, int (*fn)(void *arg), double until,
		const char *what, struct td_err *err)
{
	int rc = rbdc_call(c->loop, fn, free_opening, *o, until - td_clock_s());

	if (rc == -EINPROGRESS) {
		*o = NULL;
		return td_fail(err, ETIMEDOUT,
			       "rbd:%s: the cluster does not %s within %d s: see `ceph -s'",
			       c->image->path, what, RBDC_OPEN_WAIT);
	}
	if (rc == -EAGAIN && !(*o)->err.code)
		return td_fail(err, EAGAIN, "rbd:%s: no thread can be made", c->image->path);
	if (rc < 0)
		td_fail(err, -rc, "%s", (*o)->err.text);
	return rc;
}

static int open_left(struct rbdc_client *c, struct rbdc_left *was, struct td_err *err)
{
	struct td_image *image = c->image;
	int rc = rbdc_left_open(&c->left, &c->own, image, image->lost, was, err);

	if (!rc && !image->died) /* whoever closed it has seen to that */
		memset(was->clients, 0, sizeof was->clients);
	return rc;
}

static int connect_image(struct rbdc_client *c, struct opening **o, struct td_err *err)
{
	double until = td_clock_s() + RBDC_OPEN_WAIT;
	struct rbdc_left was;
	int rc = open_left(c, &was, err);

	if (!rc) {
		memcpy((*o)->dead, was.clients, sizeof was.clients);
		rc = step(c, o, connect_cluster, until, "answer", err);
	}
	if (!rc)
		rc = step(c, o, open_image, until, "open the image", err);
	if (!rc) /* what died is fenced, or was closed */
		rbdc_left_fenced(c->left, NULL);
	if (!rc && !is_read(c->image->file_flags) && /* RB6 */
	    rbdc_left_client(c->left, (*o)->h->cluster->addr) < 0)
		rc = td_fail(err, EMFILE, "rbd:%s: too many clients are noted", c->image->path);
	if (!rc)
		rc = step(c, o, take_image, until, "give the image's lock", err);
	if (rc < 0 || is_read(c->image->file_flags))
		return rc;
	/* RB7; what is in the cluster is durable, so that there is nothing to settle */
	if (c->image->died && !c->nosync && rbdc_left_doubt(&was)) {
		td_log(LOG_ERR, "rbd:%s: the tapdisk that had it has died, and with it went %s",
		       c->image->path,
		       was.failed ? "a flush that had failed"
				  : "writes that were acknowledged and not flushed");
		rc = td_settled(c->image, c->image->path, -EIO, err);
	}
	if (!rc)
		rbdc_left_settled(c->left);
	return rc;
}

/* Without a thread it stays open until the process ends. */
static void give_up(struct rbdc_client *c, struct opening *o)
{
	if (o && !o->h->cluster)
		free_opening(o);
	else if (o)
		rbdc_call(c->loop, run_free_opening, undo_nothing, o, RBDC_CLOSE_WAIT);
	rbdc_left_close(&c->left, &c->own);
}

static int client_open(struct td_image *image, struct td_err *err)
{
	struct rbdc_client *c = image->priv;
	struct opening *o = new_opening(image);
	int rc;

	if (!o)
		return td_fail(err, ENOMEM, "out of memory");
	c->image = image;
	c->loop = image->io->loop;
	c->nosync = image->file_flags & TD_FILE_NOSYNC;
	c->left = &c->own;
	rc = rbdc_spec_parse(image->path, &o->spec, err);
	if (!rc && o->spec.snap && !is_read(image->file_flags))
		rc = td_fail(err, EROFS, "rbd:%s is a snapshot: open it read-only (-R)",
			     image->path);
	if (!rc)
		rc = connect_image(c, &o, err);
	if (rc < 0) {
		give_up(c, o);
		return rc;
	}
	c->h = o->h;
	c->alone = !is_read(image->file_flags) || o->spec.snap;
	o->h = NULL;
	free_opening(o);
	c->now = c->h->size;
	image->info.size = c->h->size;
	image->info.physical = 4096;
	image->info.discard = !is_read(image->file_flags);
	image->info.discard_gran = c->h->discard ? c->h->discard : 4096;
	rbdc_io_start(c);
	return 0;
}

static void client_close(struct td_image *image)
{
	struct rbdc_client *c = image->priv;
	int rc;

	rbdc_io_stop(c);
	rbdc_extents_forget(c);
	rc = rbdc_call(c->loop, run_put_handle, undo_nothing, c->h, RBDC_CLOSE_WAIT);
	if (rc < 0)
		td_log(LOG_ERR,
		       "rbd:%s is not closed yet, as the cluster does not answer: it is in use "
		       "until it does, or until this process ends",
		       image->path);
	rbdc_left_close(&c->left, &c->own);
}

const struct td_driver td_driver_rbd = {
	.name = "rbd",
	.type = 16,
	.priv_size = sizeof(struct rbdc_client),
	.remote = true,
	.open = client_open,
	.close = client_close,
	.submit = rbdc_submit,
	.resize = rbdc_resize,
	.extents = rbdc_extents,
};
