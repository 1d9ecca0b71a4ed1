/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The qcow2 driver: which way a request takes, and what lies below an image.
 *
 * A read or write of what is mapped in memory goes to the file at once, as does a flush when no
 * metadata waits.  All else goes to fibers, of which there are QCOW_FIBERS at most; they are kept.
 */
#include <errno.h>
#include <stdio.h>

#include "drivers/drivers.h"
#include "drivers/qcow/qcow.h"
#include "lib/fiber/fiber.h"
#include "lib/sibling.h"

/* --- fibers --- */

static int change_image(struct qcow *q, struct td_req *req)
{
	int rc = q->broken;

	if (!rc)
		rc = req->op == TD_WRITE ? qcow_write(q, req) : qcow_discard(q, req);
	while (!rc && td_redo_missed(q->image->redo)) /* the log had no room: it is answered when it
							 is in the file */
		rc = qcow_flush(q);
	if (!rc && (req->flags & TD_FUA))
		rc = qcow_flush(q);
	return rc;
}

static void process(struct qcow *q, struct td_req *req)
{
	switch (req->op) {
	case TD_READ:
		qcow_read(q, req);
		break;
	case TD_FLUSH:
		td_req_done(req, qcow_flush(q));
		break;
	default:
		td_req_done(req, change_image(q, req));
		if (td_redo_crowded(q->image->redo) && !q->wb_lock.held && !q->broken)
			/* before the log is full, and requests have to wait for it */
			qcow_flush(q);
	}
}

static void fiber(void *arg)
{
	struct qcow *q = arg;

	while (!q->closing) {
		struct td_list *l = td_list_pop(&q->slow);

		if (l) {
			process(q, td_entry(l, struct td_req, link));
			continue;
		}
		td_cond_wait(&q->work);
	}
	q->nfibers--;
	td_cond_wake(&q->idle);
}

static void to_fiber(struct qcow *q, struct td_req *req)
{
	td_list_add(&q->slow, &req->link);
	/* one for each: a fiber that has been woken for another request is not counted on */
	if (td_cond_wake_one(&q->work) || q->nfibers == QCOW_FIBERS)
		return;
	q->nfibers++;
	if (td_fiber_start(q->io->loop, fiber, q) == 0)
		return;
	q->nfibers--;
	if (q->nfibers) /* one of them takes it */
		return;
	td_list_del(&req->link);
	td_req_done(req, -ENOMEM);
}

static void sync_done(struct td_iop *op, int err)
{
	struct td_req *req = op->data;
	struct qcow *q = req->image->priv;

	if (err)
		qcow_sync_failed(q, err);
	td_req_done(req, err);
}

static void submit(struct td_image *image, struct td_req *req)
{
	struct qcow *q = image->priv;

	if (req->op == TD_READ && qcow_read_fast(q, req))
		return;
	if (q->nbitmaps && req->len && req->op != TD_READ)
		qcow_bitmaps_mark(q, req->off, req->len);
	if (req->op == TD_WRITE && qcow_write_fast(q, req))
		return;
	if (req->op != TD_READ && q->broken) {
		td_req_done(req, q->broken);
	} else if (req->op == TD_FLUSH && qcow_clean(q) && !q->external) {
		req->iop = (struct td_iop){
			.op = TD_IO_SYNC, .file = q->file, .done = sync_done, .data = req};
		td_file_io(req->io, &req->iop);
	} else {
		to_fiber(q, req);
	}
}

/* --- what lies below --- */

/* The type names that a backing file's format stands for. */
static const struct {
	const char *format, *type;
} formats[] = {{"raw", "aio"},   {"file", "aio"}, {"host_device", "aio"}, {"qcow2", "qcow2"},
	       {"qcow", "qcow"}, {"vpc", "vhd"},  {"vhd", "vhd"}};

const char *qcow_backing_type(const char *format)
{
	for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
		if (!strcmp(format, formats[i].format))
			return formats[i].type;
	return NULL;
}

/*
 * Version 1 has no room for a format.  What does not look like qcow is raw.  What does may be one,
 * or a raw disk whose guest has written such a header to read other files of the host, and nobody
 * can tell.  But one that names no other file shows its own bytes alone, whoever has written it,
 * and is taken for what it looks like.
 */
static const char *look_at_backing_v1(const uint8_t *first, size_t len)
{
	uint32_t magic = td_get_be32(first), version = td_get_be32(first + 4);
	bool alone = !td_get_be64(first + 8); /* no backing file */

	if (len < 8 || magic != QCOW_MAGIC)
		return "aio";
	if (version == 1 && alone)
		return "qcow";
	if (version == 2 && alone)
		return "qcow2";
	if (version == 3 && alone && len >= 80 && !(td_get_be64(first + 72) & QCOW_INCOMPAT_DATA))
		return "qcow2";
	return NULL;
}

static int backing_v1(struct td_image *image, const char *path, char *spec, struct td_err *err)
{
	struct td_file *f;
	uint8_t first[QCOW_SECTOR];
	unsigned flags = image->file_flags & TD_FILE_DIRECT;
	struct td_io *io = image->io;
	const char *type;
	int rc;

	td_file_cached(path, image->cached, &flags, &io);
	rc = td_file_open_in(io, path, flags | TD_FILE_LOOK | TD_FILE_RDONLY, image->reach, &f,
			     err);
	if (rc)
		return rc;
	rc = td_file_rw(f, TD_IO_READ, first, 0, sizeof first, TD_IO_EOF_ZERO);
	type = look_at_backing_v1(first,
				  f->st.size < sizeof first ? (size_t)f->st.size : sizeof first);
	td_file_close(f);
	if (rc)
		return td_fail(err, -rc, "cannot read %s: %s", path, strerror(-rc));
	if (!type)
		return td_fail(err, EINVAL,
			       "%s cannot record what format its backing file %s has, which looks "
			       "like a qcow that stands on another "
			       "file, and may be a raw disk that pretends to: make a qcow2 of it "
			       "with `qemu-img convert'",
			       image->path, path);
	snprintf(spec, TD_SPEC_MAX, "%s:%s", type, path);
	return 1;
}

static int qcow_backing(struct td_image *image, char *spec, struct td_err *err)
{
	struct qcow *q = image->priv;
	char path[TD_PATH_MAX];
	int rc;

	if (!q->h.backing[0])
		return 0;
	rc = td_sibling(image->path, q->h.backing, "backing file", image->reach, path, err);
	if (rc)
		return rc;
	if (q->v1)
		return backing_v1(image, path, spec, err);
	if (!q->h.backing_format[0])
		return td_fail(err, EINVAL,
			       "%s does not say what format its backing file has, and a raw disk "
			       "could pretend to be any: record it with "
			       "`qemu-img rebase -u -b %s -F FORMAT %s'",
			       image->path, q->h.backing, image->path);
	if (qcow_backing_type(q->h.backing_format)) {
		snprintf(spec, TD_SPEC_MAX, "%s:%s", qcow_backing_type(q->h.backing_format), path);
		return 1;
	}
	return td_fail(
		err, ENOTSUP,
		"%s: its backing file has the format '%s': raw, qcow2, qcow and vpc are known",
		image->path, q->h.backing_format);
}

static unsigned extent_flags(enum qcow_kind kind)
{
	return kind == QCOW_RUN_NONE   ? TD_EXTENT_PARENT
	       : kind == QCOW_RUN_ZERO ? TD_EXTENT_ZERO | TD_EXTENT_HOLE
				       : 0;
}

static int qcow_extents(struct td_image *image, uint64_t off, uint64_t len, struct td_extent *out,
			int max)
{
	struct qcow *q = image->priv;
	uint64_t end = off + len;
	struct qcow_run run;
	int n = 0;

	for (uint64_t at = off; at < end; at += run.len) {
		int rc = qcow_map_wait(q, at, end - at, &run);

		if (rc < 0)
			return n ? n : rc;
		if (n && out[n - 1].flags == extent_flags(run.kind))
			out[n - 1].len += run.len;
		else if (n == max)
			break;
		else
			out[n++] = (struct td_extent){at, run.len, extent_flags(run.kind)};
	}
	return n;
}

/* Version 1 is what is called so. */
#define DRIVER(word, ...)                                                                          \
	{                                                                                          \
		.name = word, .type = 6, .priv_size = sizeof(struct qcow), .redo = true,           \
		.open = qcow_open, .settle = qcow_settle, .close = qcow_close, .submit = submit,   \
		.backing = qcow_backing, .extents = qcow_extents, .map = qcow_tell_map,            \
		__VA_ARGS__                                                                        \
	}

const struct td_driver td_driver_qcow2 = DRIVER("qcow2", .relink = qcow_relink, .grow = qcow_grow,
						.beneath = qcow_beneath),
		       td_driver_qcow = DRIVER("qcow", );
