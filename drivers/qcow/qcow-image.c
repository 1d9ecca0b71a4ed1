/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "drivers/qcow/qcow-image.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "drivers/drivers.h"
#include "drivers/qcow/qcow-image-inside.h"
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

void qcow_chain_close(struct td_image *image)
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
		qcow_chain_close(*leaf);
		*leaf = NULL;
	}
	return rc;
}

int qcow_chain_open(const char *path, unsigned flags, unsigned below, const struct td_key *key,
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
	qcow_chain_close(below);
	return 0;
}

int qcow_image_request(struct td_image *image, enum td_op op, unsigned flags, void *buf,
		       uint64_t off, uint64_t len)
{
	struct iovec iov = {buf, len};

	return td_await_request(image, image->io, op, flags, off, len, buf ? &iov : NULL,
				buf != NULL);
}
