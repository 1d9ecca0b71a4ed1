/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An open image's size (RB10).  Whoever changes the image tells all that watch it, and librbd tells
 * us: the owner of the image looks at the size then, as it does when `tap-ctl resize' asks.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "drivers/rbd/rbd.h"

/* On a thread of librbd's. */
static void on_update(void *arg)
{
	struct rbdc_handle *h = arg;
	const uint64_t one = 1;

	__atomic_store_n(&h->updated, true, __ATOMIC_RELEASE);
	if (write(h->events, &one, sizeof one) < 0 && errno != EAGAIN)
		td_log(LOG_ERR, "rbd: an eventfd: %s", strerror(errno));
}

/* One that is opened read-only has no watch of its own, and hears nothing. */
int rbdc_size_watch(struct rbdc_handle *h, const char *name, struct td_err *err)
{
	int rc = rbdc_lib->rbd_update_watch(h->rbd, &h->watch, on_update, h);

	if (rc < 0)
		return td_fail(err, -rc, "rbd:%s: cannot watch it: %s", name, strerror(-rc));
	h->watched = true;
	return 0;
}

void rbdc_size_heard(struct rbdc_client *c)
{
	if (!__atomic_load_n(&c->h->updated, __ATOMIC_RELAXED) ||
	    !__atomic_exchange_n(&c->h->updated, false, __ATOMIC_ACQUIRE))
		return;
	rbdc_extents_forget(c);
	if (c->image->resized)
		c->image->resized(c->image);
}

static int ask_size(void *arg)
{
	struct rbdc_question *q = arg;

	return rbdc_lib->rbd_get_size(q->h->rbd, &q->size);
}

static int get_size(struct rbdc_client *c, uint64_t *size, struct td_err *err)
{
	struct rbdc_question *q = rbdc_question_new(c->h);
	int rc;

	if (!q)
		return td_fail(err, ENOMEM, "out of memory");
	rc = rbdc_call(c->loop, ask_size, rbdc_question_free, q, RBDC_OPEN_WAIT);
	if (rc == -EINPROGRESS)
		return td_fail(err, ETIMEDOUT, "rbd:%s: the cluster does not answer within %d s",
			       c->image->path, RBDC_OPEN_WAIT);
	*size = q->size / 512 * 512;
	rbdc_question_free(q); /* the image has the handle too: nothing is closed */
	return rc < 0 ? td_fail(err, -rc, "rbd:%s: cannot read its size: %s", c->image->path,
				strerror(-rc))
		      : 0;
}

static int has_shrunk(struct rbdc_client *c, struct td_err *err)
{
	char why[200];

	snprintf(why, sizeof why,
		 "the image was shrunk from %llu to %llu bytes under its guest: what was behind "
		 "that is lost, and requests there fail",
		 (unsigned long long)c->image->info.size, (unsigned long long)c->now);
	td_image_fault(c->image, why);
	return td_fail(err, EINVAL, "rbd:%s: %s", c->image->path, why);
}

int rbdc_resize(struct td_image *image, struct td_err *err)
{
	struct rbdc_client *c = image->priv;
	uint64_t size = 0;
	int rc = get_size(c, &size, err);

	if (rc < 0)
		return rc;
	c->now = size;
	if (size < image->info.size)
		return has_shrunk(c, err);
	if (size == image->info.size)
		return 0;
	image->info.size = size;
	return 1;
}
