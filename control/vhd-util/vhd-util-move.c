/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The commands that move an image's data: fill, coalesce, copy. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/vhd-util/vhd-util.h"
#include "drivers/vhd/vhd-image.h"

/* --- with progress --- */

static bool shown;

/* On a terminal, to stderr, so that stdout has the result alone. */
static void print_progress(uint64_t done, uint64_t all)
{
	static int last = -1;
	int percent = all ? (int)(done * 100 / all) : 100;

	if (percent == last)
		return;
	last = percent;
	shown = true;
	fprintf(stderr, "\r%3d %%", percent);
	fflush(stderr);
}

static vhd_progress *progress_to(const struct vu_args *a)
{
	return isatty(STDERR_FILENO) || a->val['p'] ? print_progress : NULL;
}

static void progress_end(void)
{
	if (shown)
		fputs("\r     \r", stderr);
}

static int report_size(const struct vu_args *a, uint64_t sectors, struct td_err *err)
{
	progress_end();
	if (err->code)
		return -err->code;
	if (a->json)
		printf("{\"sectors\": %llu}\n", (unsigned long long)sectors);
	else
		printf("Coalesced %llu sectors\n", (unsigned long long)sectors);
	return 0;
}

int vu_fill(const struct vu_args *a, struct td_err *err)
{
	struct vhd_image *v;
	int rc = vhd_image_open(a->val['n'], VHD_WRITE | VHD_CHAIN, &v, err);

	if (rc < 0)
		return rc;
	rc = vhd_fill(v, isatty(STDERR_FILENO) ? print_progress : NULL, err);
	progress_end();
	vhd_image_close(v);
	return rc;
}

static int open_leaf(const struct vu_args *a, unsigned flags, struct vhd_image **v,
		     struct td_err *err)
{
	int rc = vhd_image_open(a->val['n'], VHD_READ | flags, v, err);

	if (rc < 0)
		return rc;
	if ((*v)->footer.type == VHD_DIFF || flags & VHD_CHAIN)
		return 0;
	rc = td_fail(err, EINVAL, "%s has no parent that it could be coalesced into", a->val['n']);
	vhd_image_close(*v);
	return rc;
}

static bool same_path(const char *a, const char *b)
{
	struct stat s, t;

	return stat(a, &s) == 0 && stat(b, &t) == 0 && s.st_dev == t.st_dev && s.st_ino == t.st_ino;
}

/*
 * Into the parent, or what -x and -a name.  The parent may be in use under this image: no reader of
 * the image sees the difference. What stands between the image and its ancestor goes on hiding the
 * ancestor from its own children, so it must have nothing there.
 */
static int into_ancestor(const struct vu_args *a, struct vhd_image *v, struct vhd_image **to,
			 struct td_err *err)
{
	const char *ancestor = a->val['a'];
	struct vhd_image *at = v, *next = NULL;
	bool force = a->val['F'] != NULL;
	int rc;

	for (;;) {
		char path[VHD_PATH_MAX];

		rc = vhd_image_parent_path(at, path, err);
		if (!rc && same_path(path, ancestor)) {
			rc = vhd_image_open_parent(at, VHD_BENEATH, to, err);
			if (!rc)
				rc = vhd_alone_beneath(at, *to, force, err);
			break;
		}
		if (!rc)
			rc = vhd_image_open_parent(at, VHD_READ, &next, err);
		if (!rc && (next->raw || next->footer.type != VHD_DIFF)) {
			rc = td_fail(err, ENOENT, "%s is not among the parents of %s", ancestor,
				     v->path);
			vhd_image_close(next);
		} else if (!rc && vhd_image_allocated(next)) {
			rc = td_fail(err, EOPNOTSUPP,
				     "%s is between %s and %s and has data, which would hide what "
				     "is written below it: coalesce "
				     "that first",
				     next->path, v->path, ancestor);
			vhd_image_close(next);
		} else if (!rc && (rc = vhd_alone_beneath(at, next, force, err)) < 0) {
			vhd_image_close(next);
		}
		if (rc < 0)
			break;
		if (at != v)
			vhd_image_close(at);
		at = next;
	}
	if (at != v)
		vhd_image_close(at);
	return rc;
}

static int coalesce(const struct vu_args *a, struct td_err *err)
{
	struct vhd_image *v, *to = NULL;
	uint64_t sectors = 0;
	int rc = open_leaf(a, 0, &v, err);

	if (rc < 0)
		return rc;
	if (a->val['x'])
		rc = vhd_uuid_nil(v->header.parent_uuid)
			     ? vhd_image_open_raw(a->val['x'], VHD_BENEATH, &to, err)
			     : vhd_image_open(a->val['x'], VHD_BENEATH, &to, err);
	else if (a->val['a'])
		rc = into_ancestor(a, v, &to, err);
	else
		rc = vhd_image_open_parent(v, VHD_BENEATH, &to, err);
	if (!rc && !a->val['a'])
		rc = vhd_alone_beneath(v, to, a->val['F'] != NULL, err);
	if (!rc)
		rc = vhd_coalesce(v, to, progress_to(a), &sectors, err);
	vhd_image_close(to);
	vhd_image_close(v);
	return rc ? rc : report_size(a, sectors, err);
}

/* Of v with its chain: what this tool cannot decrypt it does not copy. */
static int not_encrypted(const struct vhd_image *v, struct td_err *err)
{
	const struct vhd_image *is = vhd_image_encrypted(v);

	return is ? td_fail(err, EOPNOTSUPP,
			    "%s is encrypted, and cannot be copied without its key: read it "
			    "through a tapdisk that has it (tap-ctl "
			    "create -E)",
			    is->path)
		  : 0;
}

static int coalesce_out(const struct vu_args *a, struct td_err *err)
{
	struct vhd_new n = {.path = a->val['o']};
	struct vhd_image *v, *to = NULL;
	uint64_t sectors = 0;
	int rc = open_leaf(a, VHD_CHAIN, &v, err);

	if (rc < 0)
		return rc;
	n.size = v->size;
	rc = not_encrypted(v, err);
	if (!rc)
		rc = vhd_create(&n, err);
	if (!rc)
		rc = vhd_image_open(n.path, VHD_WRITE, &to, err);
	if (!rc)
		rc = vhd_copy(v, to, progress_to(a), &sectors, err);
	if (rc && to && !to->blockdev)
		unlink(n.path);
	vhd_image_close(to);
	vhd_image_close(v);
	return rc ? rc : report_size(a, sectors, err);
}

int vu_coalesce(const struct vu_args *a, struct td_err *err)
{
	int rc;

	if (!!a->val['a'] + !!a->val['o'] + !!a->val['x'] > 1)
		return td_fail(err, EINVAL, "coalesce: give only one of -a, -o and -x");
	rc = a->val['o'] ? coalesce_out(a, err) : coalesce(a, err);
	if (rc < 0)
		progress_end();
	return rc;
}

/* --- copy --- */

static int copy_stdout(struct vhd_image *v, struct td_err *err)
{
	enum { CHUNK = 1 << 20 };
	uint8_t *b = malloc(CHUNK);
	int rc = b ? 0 : td_fail(err, ENOMEM, "out of memory");

	for (uint64_t at = 0, n; at < v->size && !rc; at += n) {
		n = v->size - at < CHUNK ? v->size - at : CHUNK;
		rc = vhd_image_read(v, b, at, n, err);
		if (!rc)
			rc = vu_put(b, n, err);
	}
	free(b);
	return rc;
}

/* A new or emptied file has holes where the disk is zero; a device gets them written. */
static int copy_raw(struct vhd_image *v, const char *path, struct td_err *err)
{
	static uint8_t b[1 << 20];
	struct vhd_image *to;
	struct stat st;
	FILE *f = stat(path, &st) < 0 ? fopen(path, "wxe") : NULL;
	bool made = f != NULL;
	uint64_t sectors;
	int rc;

	if (f)
		fclose(f);
	else if (stat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size)
		return td_fail(err, EEXIST, "%s exists already", path);
	rc = vhd_image_open_raw(path, VHD_WRITE, &to, err);
	if (rc < 0)
		return rc;
	if (!to->blockdev && truncate(path, (off_t)v->size) < 0)
		rc = td_fail(err, errno, "cannot make %s %llu bytes long: %s", path,
			     (unsigned long long)v->size, strerror(errno));
	if (!rc && to->blockdev && to->file_size < v->size)
		rc = td_fail(err, ENOSPC, "%s has only %llu bytes, and the disk has %llu", path,
			     (unsigned long long)to->file_size, (unsigned long long)v->size);
	to->size = v->size;
	if (!rc && !to->blockdev)
		rc = vhd_copy(v, to, isatty(STDERR_FILENO) ? print_progress : NULL, &sectors, err);
	else if (!rc)
		for (uint64_t at = 0, n; at < v->size && !rc; at += n) {
			n = v->size - at < sizeof b ? v->size - at : sizeof b;
			rc = vhd_image_read(v, b, at, n, err);
			if (!rc)
				rc = vhd_pwrite(to, b, n, at, err);
		}
	if (!rc)
		rc = vhd_sync(to, err);
	progress_end();
	if (rc && made) /* half a copy is none */
		unlink(path);
	vhd_image_close(to);
	return rc;
}

int vu_copy(const struct vu_args *a, struct td_err *err)
{
	struct vhd_image *v;
	int rc;

	if (!a->val['o'] == !a->val['s'])
		return td_fail(err, EINVAL, "copy: either -o PATH or -s is needed");
	rc = vhd_image_open(a->val['n'], VHD_READ | VHD_CHAIN, &v, err);
	if (rc < 0)
		return rc;
	rc = not_encrypted(v, err);
	if (!rc)
		rc = a->val['s'] ? copy_stdout(v, err) : copy_raw(v, a->val['o'], err);
	vhd_image_close(v);
	return rc;
}
