/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The one place between the layers above and a driver; what a driver may rely on is asserted here,
 * on the way down and up. */
#include "td/block.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/io/file.h"

static void image_free(struct td_image *image)
{
	if (image) {
		free(image->fault);
		free(image->away);
		free(image->path);
	}
	free(image);
}

static struct td_image *image_new(const struct td_driver *driver, const char *path,
				  const struct td_how *how, struct td_io *io)
{
	struct td_image *image = calloc(1, sizeof *image + driver->priv_size);

	if (!image || !(image->path = strdup(path))) {
		free(image);
		return NULL;
	}
	image->magic = TD_IMAGE_MAGIC;
	image->driver = driver;
	image->file_flags = how->flags;
	image->key = how->key;
	image->reach = how->reach;
	image->cached = how->cached;
	image->redo = how->redo;
	image->settle =
		how->settle || !(how->flags & (TD_FILE_RDONLY | TD_FILE_PARENT | TD_FILE_LOOK));
	image->settle = image->settle && !(how->flags & TD_FILE_NOSYNC);
	image->lost = how->lost;
	image->left = how->left;
	image->mark = how->mark;
	image->died = how->died;
	image->server = how->server;
	image->same_server = how->same_server;
	image->reconnect = how->reconnect;
	image->connections = how->connections;
	image->io = io;
	image->priv = image + 1;
	return image;
}

int td_image_file(struct td_image *image, unsigned flags, struct td_file **out, struct td_err *err)
{
	return td_file_open_in(image->io, image->path, flags,
			       flags & (TD_FILE_PARENT | TD_FILE_BENEATH) ? image->reach : NULL,
			       out, err);
}

int td_image_open_how(const struct td_driver *driver, const char *path, const struct td_how *how,
		      struct td_io *io, struct td_image **out, struct td_err *err)
{
	struct td_image *image = image_new(driver, path, how, io);
	int rc = image ? driver->open(image, err) : -ENOMEM;

	if (rc < 0) {
		td_fail(err, -rc, "cannot open %s:%s: %s", driver->name, path, strerror(-rc));
		image_free(image);
		return rc;
	}
	assert(image->info.size % 512 == 0);
	image->key = NULL;
	image->lost = NULL;
	image->left = NULL;
	image->server = NULL;
	*out = image;
	return 0;
}

int td_image_settle(const struct td_driver *driver, const char *path, const struct td_how *how,
		    struct td_io *io, struct td_err *err)
{
	struct td_image *image = driver->settle ? image_new(driver, path, how, io) : NULL;
	int rc = image ? driver->settle(image, err) : driver->settle ? -ENOMEM : 0;

	if (rc < 0)
		td_fail(err, -rc, "cannot open %s:%s: %s", driver->name, path, strerror(-rc));
	image_free(image);
	return rc;
}

void td_image_close(struct td_image *image)
{
	if (!image)
		return;
	assert(image->magic == TD_IMAGE_MAGIC && !image->inflight);
	image->driver->close(image);
	image->magic = 0;
	image_free(image);
}

void td_image_fault(struct td_image *image, const char *why)
{
	assert(image->magic == TD_IMAGE_MAGIC);
	if (image->fault)
		return;
	image->fault = strdup(why);
	if (image->failed)
		image->failed(image);
}

void td_image_away(struct td_image *image, const char *why)
{
	assert(image->magic == TD_IMAGE_MAGIC);
	free(image->away);
	image->away = why ? strdup(why) : NULL;
	if (image->changed)
		image->changed(image);
}

static bool has_range(const struct td_req *req)
{
	return req->op != TD_FLUSH;
}

static bool is_change(const struct td_req *req)
{
	return req->op != TD_READ && req->op != TD_FLUSH;
}

/* The contract of submit; a breach is a bug above, never a guest's doing:
 * tapdisk/blkif/blkif-check.c has checked what guests sent. */
static void assert_request(const struct td_image *image, const struct td_req *req)
{
	assert(image->magic == TD_IMAGE_MAGIC);
	assert(req->done && req->io);
	assert(!(req->flags & ~(req->op == TD_WRITE_ZEROES ? TD_UNMAP
				: req->op == TD_WRITE      ? TD_FUA
							   : 0u)));
	if (!has_range(req)) {
		assert(!req->off && !req->len);
		return;
	}
	assert(req->len && req->off % 512 == 0 && req->len % 512 == 0);
	assert(req->off <= image->info.size && req->len <= image->info.size - req->off);
	if (req->op != TD_READ)
		assert(!(image->file_flags & (TD_FILE_RDONLY | TD_FILE_PARENT)));
	if (req->op == TD_READ || req->op == TD_WRITE)
		assert(req->iov && req->iovcnt > 0);
}

void td_submit(struct td_image *image, struct td_req *req)
{
	assert_request(image, req);
	/* a parent's may be another than the leaf's, whose reads come here on the home thread */
	if (image->file_flags & TD_FILE_PARENT)
		req->io = image->io;
	req->image = image;
	image->inflight++;
	if (image->gate && is_change(req) && image->gate->holds(image->gate, req))
		return;
	image->driver->submit(image, req);
}

void td_pass(struct td_req *req)
{
	struct td_image *image = req->image;

	assert(image && image->magic == TD_IMAGE_MAGIC);
	image->driver->submit(image, req);
}

void td_forward(struct td_req *req, struct td_image *to)
{
	assert(req->image && req->image->magic == TD_IMAGE_MAGIC);
	req->image->inflight--;
	td_submit(to, req);
}

void td_req_done(struct td_req *req, int err)
{
	struct td_image *image = req->image;

	assert(image && image->magic == TD_IMAGE_MAGIC && err <= 0);
	req->image = NULL; /* a second completion stops above */
	image->inflight--;
	if (image->gate && image->gate->passed && is_change(req))
		image->gate->passed(image->gate, req);
	if (image->watch && is_change(req))
		image->watch->changed(image->watch, req->off, req->len);
	if (req->op == TD_READ || req->op == TD_WRITE) {
		int w = req->op == TD_WRITE;

		if (err)
			image->n.fail[w]++;
		else
			image->n.hits[w] += req->len / 512;
	}
	req->done(req, err);
}

void td_req_split(struct td_req *req)
{
	req->pending = 1;
	req->err = 0;
}

static void child_done(struct td_req *child, int err)
{
	td_req_put(child->parent, err);
}

void td_req_child(struct td_req *req, struct td_req *child)
{
	memset(child, 0, sizeof *child);
	child->parent = req;
	child->io = req->io;
	child->done = child_done;
	req->pending++;
}

void td_req_put(struct td_req *req, int err)
{
	assert(req->pending);
	if (err && !req->err)
		req->err = err;
	if (--req->pending == 0)
		td_req_done(req, req->err);
}
