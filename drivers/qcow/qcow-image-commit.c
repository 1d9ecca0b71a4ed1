/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A qcow2 that no guest uses: its data written into the image below it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/qcow/qcow-image-inside.h"
#include "drivers/qcow/qcow-image.h"

/* --- commit --- */

#define CHUNK (2u << 20)

struct commit {
	struct td_image *top, *below;
	uint8_t *buf;
	void (*progress)(void *data, uint64_t done, uint64_t all);
	void *data;
};

static int copy_extent(struct commit *c, const struct td_extent *e)
{
	int rc = 0;

	if (e->flags & TD_EXTENT_PARENT)
		return 0;
	if (e->flags & TD_EXTENT_ZERO)
		rc = qcow_image_request(c->below, TD_WRITE_ZEROES, TD_UNMAP, NULL, e->off, e->len);
	if ((e->flags & TD_EXTENT_ZERO) && rc != -EOPNOTSUPP)
		return rc;
	rc = 0;
	for (uint64_t at = e->off, n; !rc && at < e->off + e->len; at += n) {
		n = e->off + e->len - at < CHUNK ? e->off + e->len - at : CHUNK;
		rc = qcow_image_request(c->top, TD_READ, 0, c->buf, at, n);
		if (!rc)
			rc = qcow_image_request(c->below, TD_WRITE, 0, c->buf, at, n);
	}
	return rc;
}

static int copy_all(struct commit *c)
{
	uint64_t size = c->top->info.size;
	int rc = 0;

	for (uint64_t at = 0; !rc && at < size;) {
		struct td_extent e;
		/* so that progress shows */
		uint64_t n = size - at < (64u << 20) ? size - at : 64u << 20;

		rc = c->top->driver->extents(c->top, at, n, &e, 1);
		if (rc < 0)
			return rc;
		rc = copy_extent(c, &e);
		at += e.len;
		if (c->progress)
			c->progress(c->data, at, size);
	}
	return rc ? rc : qcow_image_request(c->below, TD_FLUSH, 0, NULL, 0, 0);
}

/* An image that is larger than what is below: that one grows first. */
static int fit_below(struct td_image *top, struct td_err *err)
{
	struct td_image *b = top->backing;
	uint64_t size = top->info.size;
	int rc;

	if (b->info.size >= size)
		return 0;
	if (!strcmp(b->driver->name, "qcow2"))
		rc = qcow_image_grow(b, size);
	else
		rc = -ENOTSUP;
	return rc ? td_fail(err, -rc,
			    "%s has %llu bytes, and its backing file %s only %llu: enlarge that "
			    "first",
			    top->path, (unsigned long long)size, b->path,
			    (unsigned long long)b->info.size)
		  : 0;
}

/* Nothing is left in the image: what is below shows everywhere. */
static int empty(struct td_image *top)
{
	struct qcow *q = top->priv;
	uint64_t size = td_round_up(top->info.size, 512);
	int rc;

	q->forget = true;
	rc = qcow_image_request(top, TD_DISCARD, 0, NULL, 0, size);
	return rc ? rc : qcow_flush(q);
}

int qcow_image_commit(const char *path, bool keep, const struct td_key *key,
		      void (*progress)(void *data, uint64_t done, uint64_t all), void *data,
		      struct td_io *io, struct td_err *err)
{
	struct commit c = {.progress = progress, .data = data};
	int rc = qcow_chain_open(path, 0, 0, key, io, &c.top, err);

	if (rc)
		return rc;
	c.below = c.top->backing;
	if (!c.below)
		rc = td_fail(err, EINVAL, "%s has no backing file: there is nothing to commit to",
			     path);
	if (!rc && posix_memalign((void **)&c.buf, 4096, CHUNK))
		rc = -ENOMEM;
	if (!rc)
		rc = fit_below(c.top, err);
	if (!rc)
		rc = copy_all(&c);
	if (!rc && !keep)
		rc = empty(c.top);
	free(c.buf);
	qcow_chain_close(c.top);
	return rc ? td_fail(err, -rc, "cannot commit %s: %s", path, strerror(-rc)) : 0;
}
