/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "drivers/qcow/qcow-image.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "drivers/drivers.h"
#include "drivers/qcow/qcow.h"
#include "lib/fiber/await.h"
#include "lib/fiber/fiber.h"
#include "lib/path.h"
#include "lib/sibling.h"

/* --- header alone --- */

static int read_header(struct td_file *f, struct qcow_header *h, struct td_err *err)
{
	uint64_t have = f->st.size;
	uint8_t *buf;
	int rc;

	if (posix_memalign((void **)&buf, 4096, 2u << 20))
		return -ENOMEM;
	rc = td_file_rw(f, TD_IO_READ, buf, 0, 512, TD_IO_EOF_ZERO);
	if (!rc)
		rc = qcow_header_decode(buf, have < 512 ? have : 512, f->path, h, err);
	if (!rc)
		rc = td_file_rw(f, TD_IO_READ, buf, 0, qcow_cluster(h), TD_IO_EOF_ZERO);
	if (!rc)
		rc = qcow_extensions_decode(buf, have < qcow_cluster(h) ? have : qcow_cluster(h),
					    f->path, h, err);
	if (!rc)
		rc = qcow_tables_check(h, have, f->path, err);
	free(buf);
	return rc ? td_fail(err, -rc, "cannot read the header of %s: %s", f->path, strerror(-rc))
		  : 0;
}

static int open_header(const char *path, unsigned flags, struct td_io *io, struct td_file **f,
		       struct qcow_header *h, struct td_err *err)
{
	int rc = td_file_open(io, path, flags, f, err);

	if (rc)
		return rc;
	rc = read_header(*f, h, err);
	if (rc)
		td_file_close(*f);
	return rc;
}

/* What cannot be read or is not known is left out. */
static void look_at_luks(struct td_file *f, struct qcow_info *info)
{
	struct td_err none = {0};
	uint8_t buf[LUKS_HEADER];

	if (info->h.luks_len >= sizeof buf &&
	    !td_file_rw(f, TD_IO_READ, buf, info->h.luks_off, sizeof buf, TD_IO_EOF_ZERO))
		info->has_luks = !luks_decode(buf, info->h.luks_len, f->path, &info->luks, &none);
}

int qcow_image_info(const char *path, struct qcow_info *info, struct td_io *io, struct td_err *err)
{
	struct td_file *f;
	uint64_t end;
	int rc = open_header(path, TD_FILE_RDONLY | TD_FILE_LOOK, io, &f, &info->h, err);

	if (rc)
		return rc;
	info->file_size = f->st.size;
	if (info->h.crypt == QCOW_LUKS)
		look_at_luks(f, info);
	rc = qcow_snapshots(f, &info->h, &info->snapshots, &end, err);
	td_file_close(f);
	return rc;
}

static int remove_mark(struct td_file *f, struct qcow_header *h, struct td_err *err)
{
	uint8_t b[QCOW_SECTOR];
	int rc = td_file_rw(f, TD_IO_READ, b, 0, sizeof b, 0);

	h->autoclear &= UINT32_MAX;
	td_put_be64(b + QCOW_H_AUTOCLEAR, h->autoclear);
	if (!rc)
		rc = td_file_rw(f, TD_IO_WRITE, b, 0, sizeof b, 0);
	if (!rc)
		rc = td_file_rw(f, TD_IO_SYNC, NULL, 0, 0, 0);
	return rc ? td_fail(err, -rc, "cannot write the header of %s: %s", f->path, strerror(-rc))
		  : 0;
}

int qcow_image_check(const char *path, struct qcow_check *c, struct td_io *io, struct td_err *err)
{
	struct qcow_header h;
	struct td_file *f;
	bool fix = c->fix_leaks || c->fix_errors;
	int rc =
		fix ? td_image_settle(&td_driver_qcow2, path, &(struct td_how){.flags = 0}, io, err)
		    : 0;

	if (!rc)
		rc = open_header(path, fix ? 0 : TD_FILE_RDONLY, io, &f, &h, err);
	if (rc)
		return rc;
	/* a log that waits elsewhere is not of what comes of this */
	if (fix && h.version == 3 && QCOW_MARK(h.autoclear))
		rc = remove_mark(f, &h, err);
	if (!rc)
		rc = qcow_check(f, &h, c, err);
	td_file_close(f);
	return rc;
}

/* --- chains --- */

#define DEPTH_MAX 64

static struct td_reach tool_reach;
static const struct td_reach *parent_reach; /* NULL: the directory of each image */

void qcow_parent_dirs(const char *dirs)
{
	tool_reach.dirs = dirs;
	parent_reach = dirs ? &tool_reach : NULL;
}

static void close_chain(struct td_image *image)
{
	while (image) {
		struct td_image *below = image->backing;

		td_image_close(image);
		image = below;
	}
}

static bool is_encrypted(const struct td_driver *d, const char *path, struct td_io *io)
{
	struct td_err none = {0};
	struct qcow_header h;
	struct td_file *f;

	if (strcmp(d->name, "qcow2") ||
	    open_header(path, TD_FILE_LOOK | TD_FILE_RDONLY, io, &f, &h, &none))
		return false; /* or it cannot be opened, and that is said when it is */
	td_file_close(f);
	return h.crypt;
}

/* leaf, with flags `below' what it stands on, and as ordinary parents what stands under that. */
static int open_chain(const char *spec, unsigned flags, unsigned below, const struct td_key *key,
		      struct td_io *io, struct td_image **leaf, struct td_err *err)
{
	char next[TD_SPEC_MAX];
	struct td_how how = {.key = key, .reach = parent_reach};
	struct td_image **at = leaf;
	int rc, depth = 0;

	*leaf = NULL;
	snprintf(next, sizeof next, "%s", spec);
	do {
		const char *path;
		const struct td_driver *d = td_driver_parse(next, &path, err);

		if (depth == 1 && !below && d && !is_encrypted(d, path, io))
			how.key = NULL; /* it is for the leaf; one that is written is asked for in
					   vain otherwise */
		how.flags = !depth ? flags : depth == 1 ? below : TD_FILE_PARENT | TD_FILE_RDONLY;
		rc = d ? td_image_open_how(d, path, &how, io, at, err) : -err->code;
		if (rc)
			break;
		rc = d->backing ? d->backing(*at, next, err) : 0;
		at = &(*at)->backing;
		if (rc > 0 && ++depth == DEPTH_MAX)
			rc = td_fail(err, ELOOP, "%s: more than %d images stand under it: a loop?",
				     spec, DEPTH_MAX);
	} while (rc > 0);
	if (rc < 0) {
		close_chain(*leaf);
		*leaf = NULL;
	}
	return rc;
}

static int open_qcow(const char *path, unsigned flags, unsigned below, const struct td_key *key,
		     struct td_io *io, struct td_image **leaf, struct td_err *err)
{
	char spec[TD_SPEC_MAX];

	snprintf(spec, sizeof spec, "qcow2:%s", path);
	return open_chain(spec, flags, below, key, io, leaf, err);
}

int qcow_image_below(const char *path, const char *format, const struct td_key *key, uint64_t *size,
		     bool *encrypted, struct td_io *io, struct td_err *err)
{
	static const unsigned flags = TD_FILE_PARENT | TD_FILE_RDONLY;
	struct td_err why = {0};
	struct td_image *below;
	char spec[TD_SPEC_MAX], here[TD_SPEC_MAX], full[TD_PATH_MAX];
	int rc;

	if (!qcow_backing_type(format))
		return td_fail(err, EINVAL,
			       "a backing file of the format '%.100s' is not known here: raw, "
			       "qcow2, qcow and vpc are",
			       format);
	/* a whole path, as a tapdisk has it: names in images are judged by that */
	if (!getcwd(here, sizeof here - 1))
		return td_fail(err, errno, "cannot tell the current directory: %s",
			       strerror(errno));
	strcat(here, "/");
	if (td_path_resolve(here, path, full, sizeof full))
		return td_fail(err, ENAMETOOLONG, "the path of %s is too long", path);
	snprintf(spec, sizeof spec, "%s:%s", qcow_backing_type(format), full);
	rc = open_chain(spec, flags, flags, NULL, io, &below, &why);
	*encrypted = rc == -ENOKEY;
	if (*encrypted && key->len)
		rc = open_chain(spec, flags, flags, key, io, &below, err);
	if (rc)
		return td_fail(err, -rc, "%s", why.text);
	*size = below->info.size;
	close_chain(below);
	return 0;
}

static int request(struct td_image *image, enum td_op op, unsigned flags, void *buf, uint64_t off,
		   uint64_t len)
{
	struct iovec iov = {buf, len};

	return td_await_request(image, image->io, op, flags, off, len, buf ? &iov : NULL,
				buf != NULL);
}

/* --- resize --- */

/* The header's fields, in one write. */
static int write_size(struct qcow *q, uint64_t size)
{
	td_put_be64(q->first + QCOW_H_SIZE, size);
	td_put_be32(q->first + QCOW_H_L1_SIZE, q->l1.n);
	td_put_be64(q->first + QCOW_H_L1_OFF, q->l1.off);
	q->h.size = size;
	q->image->info.size = size;
	return qcow_header_write(q);
}

/* A longer L1 table: a copy, durable before the header names it. */
static int grow_l1(struct qcow *q, uint32_t n, uint64_t size)
{
	uint64_t bytes = td_round_up((uint64_t)n * 8, qcow_csize(q)), first = 0,
		 old = q->l1.off >> q->cbits;
	uint64_t old_n = ((uint64_t)q->l1.n * 8 + qcow_csize(q) - 1) >> q->cbits;
	struct qcow_table t;
	uint8_t *buf;
	int rc = qcow_table_init(&t, n, 0);

	if (rc || posix_memalign((void **)&buf, 4096, bytes))
		return -ENOMEM;
	rc = qcow_alloc_row(q, bytes >> q->cbits, &first);
	if (!rc)
		rc = qcow_flush_refs(q); /* counted before the header names it */
	memset(buf, 0, bytes);
	t.off = first << q->cbits;
	for (uint32_t i = 0; i < q->l1.n; i++) {
		t.entry[i] = q->l1.entry[i];
		td_put_be64(buf + 8 * (size_t)i, t.entry[i]);
	}
	if (!rc)
		rc = td_file_rw(q->file, TD_IO_WRITE, buf, t.off, bytes, 0);
	if (!rc)
		rc = qcow_sync(q->file);
	free(buf);
	if (rc) {
		qcow_table_fini(&t);
		return rc;
	}
	qcow_table_fini(&q->l1);
	q->l1 = t;
	rc = write_size(q, size);
	if (!rc)
		qcow_release(q, old, old_n);
	return rc;
}

static int grow_image(struct td_image *image, uint64_t size)
{
	struct qcow *q = image->priv;
	uint64_t was = image->info.size, n = qcow_l1_needed(&q->h, size),
		 below = image->backing ? image->backing->info.size : 0;
	int rc;

	if (n > QCOW_L1_MAX / 8)
		return -EFBIG;
	rc = n > q->l1.n ? grow_l1(q, (uint32_t)n, size) : write_size(q, size);
	/* a backing file that is longer than the image was must not show in the new part */
	if (!rc && below > was)
		rc = request(image, TD_WRITE_ZEROES, TD_UNMAP, NULL, was,
			     (below < size ? below : size) - was);
	if (!rc && q->external && (q->h.autoclear & QCOW_AUTOCLEAR_RAW))
		rc = td_file_rw(q->data, TD_IO_WRITE, (void *)(uintptr_t)qcow_zeroes,
				size - QCOW_SECTOR, QCOW_SECTOR, 0);
	return rc ? rc : qcow_flush(q);
}

static int shrink_to(struct td_image *image, uint64_t size)
{
	struct qcow *q = image->priv;
	uint64_t was = image->info.size;
	int rc = request(image, TD_DISCARD, 0, NULL, size, was - size);

	if (!rc)
		rc = qcow_flush(q);
	return rc ? rc : write_size(q, size);
}

int qcow_image_resize(const char *path, uint64_t size, bool shrink, const struct td_key *key,
		      struct td_io *io, struct td_err *err)
{
	struct td_image *image;
	int rc;

	if (!size || size % QCOW_SECTOR)
		return td_fail(err, EINVAL,
			       "%s: %llu bytes cannot be: a disk's size is a multiple of 512", path,
			       (unsigned long long)size);
	rc = open_qcow(path, 0, TD_FILE_PARENT | TD_FILE_RDONLY, key, io, &image, err);
	if (rc)
		return rc;
	if (((struct qcow *)image->priv)->h.nsnapshots)
		rc = td_fail(
			err, ENOTSUP,
			"%s has internal snapshots: its size stays as it is while they are there",
			path);
	else if (((struct qcow *)image->priv)->h.nbitmaps)
		rc = td_fail(err, ENOTSUP,
			     "%s has dirty bitmaps, which do not fit another size: remove them "
			     "with `qemu-img bitmap --remove'",
			     path);
	else if (size > image->info.size)
		rc = grow_image(image, size);
	else if (size < image->info.size && !shrink)
		rc = td_fail(err, EINVAL,
			     "%s has %llu bytes: making it smaller destroys what lies beyond; say "
			     "--shrink if that is meant",
			     path, (unsigned long long)image->info.size);
	else if (size < image->info.size)
		rc = shrink_to(image, size);
	close_chain(image);
	return rc ? td_fail(err, -rc, "cannot resize %s: %s", path, strerror(-rc)) : 0;
}

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
		rc = request(c->below, TD_WRITE_ZEROES, TD_UNMAP, NULL, e->off, e->len);
	if ((e->flags & TD_EXTENT_ZERO) && rc != -EOPNOTSUPP)
		return rc;
	rc = 0;
	for (uint64_t at = e->off, n; !rc && at < e->off + e->len; at += n) {
		n = e->off + e->len - at < CHUNK ? e->off + e->len - at : CHUNK;
		rc = request(c->top, TD_READ, 0, c->buf, at, n);
		if (!rc)
			rc = request(c->below, TD_WRITE, 0, c->buf, at, n);
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
	return rc ? rc : request(c->below, TD_FLUSH, 0, NULL, 0, 0);
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
		rc = grow_image(b, size);
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
	rc = request(top, TD_DISCARD, 0, NULL, 0, size);
	return rc ? rc : qcow_flush(q);
}

int qcow_image_commit(const char *path, bool keep, const struct td_key *key,
		      void (*progress)(void *data, uint64_t done, uint64_t all), void *data,
		      struct td_io *io, struct td_err *err)
{
	struct commit c = {.progress = progress, .data = data};
	int rc = open_qcow(path, 0, 0, key, io, &c.top, err);

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
	close_chain(c.top);
	return rc ? td_fail(err, -rc, "cannot commit %s: %s", path, strerror(-rc)) : 0;
}

/* --- map --- */

struct walk {
	int (*each)(void *data, const struct qcow_extent *e);
	void *data;
};

static int map_range(struct walk *w, struct td_image *image, unsigned depth, uint64_t off,
		     uint64_t len);

static int map_qcow(struct walk *w, struct td_image *image, unsigned depth, uint64_t off,
		    uint64_t len)
{
	struct qcow *q = image->priv;
	struct qcow_run run;
	int rc = 0;

	for (uint64_t at = off; !rc && at < off + len; at += run.len) {
		struct qcow_extent e = {
			.off = at, .depth = depth, .present = true, .file = q->data->path};

		rc = qcow_map_wait(q, at, off + len - at, &run);
		if (rc)
			break;
		if (run.kind == QCOW_RUN_NONE && image->backing) {
			rc = map_range(w, image->backing, depth + 1, at, run.len);
			continue;
		}
		e.len = run.len;
		e.zero = run.kind == QCOW_RUN_ZERO || run.kind == QCOW_RUN_NONE;
		e.present = run.kind != QCOW_RUN_NONE;
		e.data = !e.zero;
		e.zipped = run.kind == QCOW_RUN_ZIP;
		e.has_host = run.kind == QCOW_RUN_DATA;
		e.host = run.host;
		rc = w->each(w->data, &e);
	}
	return rc;
}

static int map_other(struct walk *w, struct td_image *image, unsigned depth, uint64_t off,
		     uint64_t len)
{
	int rc = 0;

	for (uint64_t at = off; !rc && at < off + len;) {
		struct qcow_extent e = {
			.off = at, .depth = depth, .present = true, .file = image->path};
		struct td_extent x = {at, off + len - at, 0};

		if (image->driver->extents &&
		    image->driver->extents(image, at, off + len - at, &x, 1) < 1)
			x = (struct td_extent){at, off + len - at, 0};
		if (x.flags & TD_EXTENT_PARENT && image->backing) {
			rc = map_range(w, image->backing, depth + 1, at, x.len);
		} else {
			e.len = x.len;
			e.zero = x.flags & (TD_EXTENT_ZERO | TD_EXTENT_PARENT);
			e.data = !(x.flags & (TD_EXTENT_HOLE | TD_EXTENT_PARENT));
			e.has_host = !strcmp(image->driver->name, "aio");
			e.host = at;
			rc = w->each(w->data, &e);
		}
		at += x.len;
	}
	return rc;
}

static int map_range(struct walk *w, struct td_image *image, unsigned depth, uint64_t off,
		     uint64_t len)
{
	uint64_t inside = off < image->info.size ? image->info.size - off : 0;
	int rc = 0;

	if (inside > len)
		inside = len;
	if (inside)
		rc = (!strcmp(image->driver->name, "qcow2") ? map_qcow : map_other)(w, image, depth,
										    off, inside);
	if (!rc && inside < len) {
		struct qcow_extent e = {
			.off = off + inside, .len = len - inside, .depth = depth, .zero = true};

		rc = w->each(w->data, &e);
	}
	return rc;
}

int qcow_image_map(const char *path, int (*each)(void *data, const struct qcow_extent *e),
		   void *data, const struct td_key *key, struct td_io *io, struct td_err *err)
{
	struct walk w = {each, data};
	struct td_image *image;
	int rc = open_qcow(path, TD_FILE_RDONLY, TD_FILE_PARENT | TD_FILE_RDONLY, key, io, &image,
			   err);

	if (rc)
		return rc;
	rc = map_range(&w, image, 0, 0, image->info.size);
	if (!rc)
		rc = each(data, NULL);
	close_chain(image);
	return rc ? td_fail(err, -rc, "cannot map %s: %s", path, strerror(-rc)) : 0;
}
