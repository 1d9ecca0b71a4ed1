/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The commands that make or change an image. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/vhd-util/vhd-util.h"
#include "drivers/vhd/vhd-image.h"

int vu_create(const struct vu_args *a, struct td_err *err)
{
	struct vhd_new n = {
		.path = a->val['n'], .fixed = a->val['r'] != NULL, .replace = a->val['F'] != NULL};
	int rc = vu_mib(a, 's', &n.size, err);

	if (!rc && !n.size)
		rc = td_fail(err, EINVAL, "create: a disk has at least 1 MiB");
	if (!rc)
		rc = vu_mib(a, 'S', &n.table_size, err);
	return rc ? rc : vhd_create(&n, err);
}

int vu_snapshot(const struct vu_args *a, struct td_err *err)
{
	struct vhd_new n = {.path = a->val['n'],
			    .parent = a->val['p'],
			    .parent_raw = a->val['m'] != NULL,
			    .parent_as_named = a->val['e'] != NULL,
			    .replace = a->val['F'] != NULL};
	uint64_t limit = 0;
	int rc = vu_mib(a, 'S', &n.table_size, err);

	if (!rc && a->val['l'] && *a->val['l'])
		rc = vu_number(a, 'l', 1000, &limit, err);
	n.limit = (unsigned)limit;
	return rc ? rc : vhd_create(&n, err);
}

static int set_marker(struct vhd_image *v, uint8_t value, struct td_err *err)
{
	uint8_t b[VHD_SECTOR];
	int rc;

	if (!v->has_batmap)
		return td_fail(err, EINVAL, "%s has no batmap, which the marker is part of",
			       v->path);
	v->batmap.marker = value;
	vhd_batmap_encode(&v->batmap, b);
	rc = vhd_pwrite(v, b, sizeof b, v->layout.batmap_header, err);
	return rc ? rc : vhd_sync(v, err);
}

/* A parent's fields may be set while a tapdisk has it under a child. */
int vu_set(const struct vu_args *a, struct td_err *err)
{
	const char *field = a->val['f'];
	struct vhd_image *v;
	uint64_t value;
	int rc = vu_number(a, 'v', 255, &value, err);

	if (!rc && strcmp(field, "hidden") && strcmp(field, "marker"))
		rc = td_fail(err, EINVAL, "set: there is no field '%s', only hidden and marker",
			     field);
	if (!rc)
		rc = vhd_image_open(a->val['n'], VHD_BENEATH, &v, err);
	if (rc < 0)
		return rc;
	if (!strcmp(field, "marker")) {
		rc = set_marker(v, (uint8_t)value, err);
	} else {
		v->footer.hidden = (uint8_t)value;
		rc = vhd_image_put_footer(v, err);
	}
	vhd_image_close(v);
	return rc;
}

int vu_repair(const struct vu_args *a, struct td_err *err)
{
	return vhd_repair(a->val['n'], err);
}

int vu_resize(const struct vu_args *a, struct td_err *err)
{
	uint64_t size = 0;
	int rc = vu_mib(a, 's', &size, err);

	if (!rc && !a->val['j'] == !a->val['f'])
		rc = td_fail(err, EINVAL, "resize: either -j JOURNAL or -f is needed");
	return rc ? rc : vhd_resize(a->val['n'], size, a->val['j'], err);
}

int vu_revert(const struct vu_args *a, struct td_err *err)
{
	return vhd_revert(a->val['n'], a->val['j'], err);
}

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

/* --- modify --- */

static int move_footer(struct vhd_image *v, uint64_t size, struct td_err *err)
{
	uint64_t end = vhd_image_data_end(v);
	uint8_t b[VHD_FOOTER];
	int rc;

	if (size % VHD_SECTOR || size < end + VHD_FOOTER || (v->blockdev && size > v->file_size) ||
	    (v->footer.type == VHD_FIXED && size != end + VHD_FOOTER))
		return td_fail(err, EINVAL, "%s cannot have %llu bytes: its data needs %llu%s",
			       v->path, (unsigned long long)size,
			       (unsigned long long)end + VHD_FOOTER,
			       v->blockdev ? ", and the device has less" : "");
	vhd_footer_encode(&v->footer, b);
	rc = vhd_pwrite(v, b, sizeof b, size - VHD_FOOTER, err);
	if (!rc)
		rc = vhd_sync(v, err);
	if (!rc && !v->blockdev && truncate(v->path, (off_t)size) < 0)
		rc = td_fail(err, errno, "cannot set the length of %s: %s", v->path,
			     strerror(errno));
	return rc;
}

/*
 * A parent that is in use changes only where no child of it looks: its own parent's name, which
 * those that have it open know already, and its footer.  err says who has it when it cannot be had
 * at all.
 */
static int open_for_modify(const struct vu_args *a, struct vhd_image **v, struct td_err *err)
{
	bool names = a->val['p'] && !a->val['s'] && !a->val['z'];
	int rc = vhd_image_open(a->val['n'], VHD_WRITE | (names ? VHD_KEEP_MARK : 0), v, err);

	if (rc != -EBUSY || a->val['z'])
		return rc;
	return vhd_image_open(a->val['n'], VHD_BENEATH, v, NULL) == 0 ? 0 : rc;
}

int vu_modify(const struct vu_args *a, struct td_err *err)
{
	struct td_err busy = {0};
	struct vhd_image *v;
	uint64_t size = 0;
	int rc = vu_number(a, 's', INT64_MAX, &size, err);

	if (!rc && !a->val['p'] && !a->val['s'] && !a->val['z'])
		rc = td_fail(err, EINVAL, "modify: one of -p, -s and -z is needed");
	if (rc < 0)
		return rc;
	rc = open_for_modify(a, &v, &busy);
	if (rc == -EBUSY && a->val['p'] && !a->val['s'] && !a->val['z'])
		return vu_relink(a->val['n'], a->val['p'], a->val['m'] != NULL, &busy, err);
	if (rc < 0)
		return td_fail(err, busy.code, "%s", busy.text);
	if ((*v).flags & VHD_BENEATH && a->val['p'])
		rc = vu_only_down(a->val['n'], a->val['p'], err);
	if (!rc && a->val['z'])
		rc = vhd_kill_data(v, err);
	if (!rc && a->val['p'])
		rc = vhd_reparent(v, a->val['p'], a->val['m'] != NULL, err);
	if (!rc && a->val['s'])
		rc = move_footer(v, size, err);
	vhd_image_close(v);
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
