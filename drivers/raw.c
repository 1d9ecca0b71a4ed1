/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Raw images: a file or a block device whose bytes are the disk's.  Never probed: whatever a guest
 * writes there stays data. */
#include <errno.h>
#include <string.h>

#include "drivers/drivers.h"
#include "lib/fiber/await.h"
#include "lib/fiber/fiber.h"
#include "lib/io/file.h"
#include "lib/redo.h"
#include "lib/settle.h"

struct raw {
	struct td_file *file;
};

static int check_size(const struct td_image *image, const struct td_file *f, struct td_err *err)
{
	if (!f->st.size && !f->st.blockdev)
		return td_fail(err, EINVAL,
			       "%s is empty: give it a size first (truncate -s 10G %s)",
			       image->path, image->path);
	if (!f->st.size)
		return td_fail(err, ENOMEDIUM, "%s has no medium", image->path);
	if (f->st.size % 512)
		return td_fail(err, EINVAL,
			       "%s has %llu bytes, which is not a multiple of 512: a raw disk is "
			       "made of 512-byte sectors "
			       "(truncate it to %llu)",
			       image->path, (unsigned long long)f->st.size,
			       (unsigned long long)(f->st.size + 511) / 512 * 512);
	/* a write to the last, partial block would make the file longer than the disk */
	if (f->st.size % f->st.off_align && !(f->flags & (TD_FILE_RDONLY | TD_FILE_PARENT)))
		return td_fail(err, EINVAL,
			       "%s has %llu bytes, which is not a multiple of the %u-byte blocks "
			       "that O_DIRECT needs here: "
			       "enlarge it to a multiple, or ask for cache=writethrough",
			       image->path, (unsigned long long)f->st.size, f->st.off_align);
	return 0;
}

static void fill_info(struct td_image *image, const struct td_file *f)
{
	image->info.size = f->st.size;
	image->info.physical = f->st.physical;
	image->info.block = f->st.off_align;
	image->info.discard = f->st.discard_gran && !(f->flags & TD_FILE_RDONLY);
	image->info.discard_gran = f->st.discard_gran;
}

struct mind {
	const struct td_image *image;
	struct td_err *err;
};

static long mind(void *arg)
{
	struct mind *m = arg;

	return td_redo_mind(m->image->path, m->image->file_flags & TD_FILE_SHARED, m->err);
}

/* Written to as it is, it must not be an image that a log of changes waits for (G8 of lib/redo.h).
 */
static int mind_log(struct td_image *image, struct td_err *err)
{
	struct mind m = {image, err};

	return image->file_flags & (TD_FILE_RDONLY | TD_FILE_PARENT)
		       ? 0
		       : (int)td_await_call(image->io, mind, &m);
}

static int raw_open(struct td_image *image, struct td_err *err)
{
	struct raw *r = image->priv;
	int rc;

	if (image->key && image->key->len && !(image->file_flags & TD_FILE_PARENT))
		return td_fail(err, EINVAL,
			       "%s is raw, and so not encrypted, though a key was given",
			       image->path);
	rc = td_image_file(image, image->file_flags | TD_FILE_MAY_SHARE, &r->file, err);
	if (rc < 0)
		return rc;
	rc = check_size(image, r->file, err);
	if (!rc)
		rc = mind_log(image, err);
	if (!rc)
		rc = td_settle(image, r->file, err);
	if (rc < 0) {
		td_file_close(r->file);
		return rc;
	}
	fill_info(image, r->file);
	return 0;
}

static void raw_close(struct td_image *image)
{
	struct raw *r = image->priv;

	td_file_close(r->file);
}

/* A disk may grow under a guest; one that has shrunk keeps its size, and what lies beyond the end
 * fails. */
static int raw_resize(struct td_image *image, struct td_err *err)
{
	struct raw *r = image->priv;
	uint64_t size;
	int rc = td_file_size(r->file, &size);

	if (rc < 0)
		return td_fail(err, -rc, "cannot read the size of %s: %s", image->path,
			       strerror(-rc));
	if (size < image->info.size)
		return td_fail(err, EINVAL, "%s has shrunk from %llu to %llu bytes under its guest",
			       image->path, (unsigned long long)image->info.size,
			       (unsigned long long)size);
	size -= size % (r->file->st.off_align > 512 ? r->file->st.off_align : 512);
	if (size <= image->info.size)
		return 0;
	image->info.size = size;
	return 1;
}

static int raw_extents(struct td_image *image, uint64_t off, uint64_t len, struct td_extent *out,
		       int max)
{
	struct raw *r = image->priv;

	return td_file_extents(r->file, off, len, out, max);
}

static bool raw_map(struct td_image *image, uint64_t off, uint64_t len, struct td_map *out)
{
	struct raw *r = image->priv;

	*out = (struct td_map){.len = UINT64_MAX, .file = r->file, .whole = true};
	return true;
}

static void raw_done(struct td_iop *op, int err)
{
	td_req_done(op->data, err);
}

/* DISCARD is a hint: of a device only whole blocks are discarded, and where the store cannot, it is
 * ignored. */
static void discard_done(struct td_iop *op, int err)
{
	td_req_done(op->data, err == -EOPNOTSUPP ? 0 : err);
}

static bool discard_range(const struct td_file *f, struct td_req *req)
{
	uint64_t unit = f->st.logical, from = (req->off + unit - 1) / unit * unit,
		 to = (req->off + req->len) / unit * unit;

	req->iop.off = from;
	req->iop.len = to > from ? to - from : 0;
	return to > from;
}

/* A device asked to keep its space writes zeroes itself, no faster than we would; what is not whole
 * blocks it refuses. */
static bool zeroes_op(const struct td_file *f, const struct td_req *req, struct td_iop *op)
{
	op->op = req->flags & TD_UNMAP ? TD_IO_PUNCH : TD_IO_ZERO;
	return !f->st.blockdev ||
	       (op->op == TD_IO_PUNCH && (req->off | req->len) % f->st.logical == 0);
}

static void raw_submit(struct td_image *image, struct td_req *req)
{
	struct raw *r = image->priv;
	struct td_iop *op = &req->iop;

	op->file = r->file;
	op->flags = req->flags & TD_FUA ? TD_IO_DSYNC : 0;
	op->off = req->off;
	op->len = req->len;
	op->iov = req->iov;
	op->iovcnt = req->iovcnt;
	op->done = raw_done;
	op->data = req;
	switch (req->op) {
	case TD_READ:
		op->op = TD_IO_READ;
		break;
	case TD_WRITE:
		op->op = TD_IO_WRITE;
		break;
	case TD_FLUSH:
		op->op = TD_IO_SYNC;
		break;
	case TD_DISCARD:
		op->op = r->file->st.blockdev ? TD_IO_DISCARD : TD_IO_PUNCH;
		op->done = discard_done;
		if (!discard_range(r->file, req)) {
			td_req_done(req, 0);
			return;
		}
		break;
	case TD_WRITE_ZEROES:
		if (!zeroes_op(r->file, req, op)) {
			td_req_done(req, -EOPNOTSUPP);
			return;
		}
		break;
	}
	td_file_io(req->io, op);
}

const struct td_driver td_driver_raw = {
	.name = "aio",
	.alias = "raw",
	.type = 0,
	.priv_size = sizeof(struct raw),
	.open = raw_open,
	.close = raw_close,
	.submit = raw_submit,
	.resize = raw_resize,
	.extents = raw_extents,
	.map = raw_map,
};
