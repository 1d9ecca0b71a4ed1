/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A VHD offline: its parent's names written, for a new image and for one that gets another parent.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "drivers/vhd/vhd-image.h"
#include "drivers/vhd/vhd-relink.h"
#include "lib/bytes.h"
#include "lib/io/reach.h"

static const uint32_t our_codes[] = {VHD_LOC_MACX, VHD_LOC_W2KU, VHD_LOC_W2RU};

/* How to get from the child's file to the parent's, both absolute. */
int vhd_relative_path(const char *child, const char *parent, char out[VHD_PATH_MAX],
		      struct td_err *err)
{
	size_t same = 0, n;

	for (size_t i = 0; child[i] && child[i] == parent[i]; i++)
		if (child[i] == '/')
			same = i + 1;
	n = (size_t)snprintf(out, VHD_PATH_MAX, "./");
	for (const char *p = child + same; (p = strchr(p, '/')) && n < VHD_PATH_MAX - 4; p++)
		n += (size_t)snprintf(out + n, VHD_PATH_MAX - n, "../");
	if (n + strlen(parent + same) >= VHD_PATH_MAX - 4)
		return td_fail(err, ENAMETOOLONG, "the way from %s to %s is too long", child,
			       parent);
	strcpy(out + n, parent + same);
	return 0;
}

/* The name that goes into the header: the last component, since a whole path may not fit. */
static int header_name(struct vhd_header *h, const char *parent, struct td_err *err)
{
	const char *base = strrchr(parent, '/') ? strrchr(parent, '/') + 1 : parent;
	int rc = vhd_name_encode(base, h->parent_name);

	if (rc < 0)
		return td_fail(err, -rc, "the parent's name '%s' cannot be stored in a VHD: %s",
			       base, strerror(-rc));
	return 0;
}

/* Bytes of the locators' data for this path, all three the same number: three sectors, unless it is
 * long. */
int vhd_locators_need(const char *relative, uint32_t *space, struct td_err *err)
{
	uint8_t *data = malloc(VHD_LOC_MAX);
	int max = 0, rc = data ? 0 : td_fail(err, ENOMEM, "out of memory");

	for (int i = 0; i < 3 && !rc; i++) {
		int n = vhd_locator_encode(our_codes[i], relative, data);

		if (n < 0)
			rc = td_fail(err, -n,
				     "the parent's path '%s' cannot be stored in a VHD: %s",
				     relative, strerror(-n));
		max = n > max ? n : max;
	}
	free(data);
	*space = (uint32_t)td_round_up((uint64_t)max, VHD_SECTOR);
	return rc;
}

int vhd_write_locators(struct vhd_image *v, struct vhd_header *h, uint64_t at, uint32_t space,
		       const char *relative, struct td_err *err)
{
	uint8_t *data = calloc(1, VHD_LOC_MAX);
	int rc = data ? 0 : td_fail(err, ENOMEM, "out of memory");

	memset(h->loc, 0, sizeof h->loc);
	for (int i = 0; i < 3 && !rc; i++) {
		memset(data, 0, VHD_LOC_MAX);
		h->loc[i] = (struct vhd_locator){
			.code = our_codes[i], .space = space, .off = at + (uint64_t)i * space};
		h->loc[i].len = (uint32_t)vhd_locator_encode(our_codes[i], relative, data);
		rc = vhd_pwrite(v, data, space, h->loc[i].off, err);
	}
	free(data);
	return rc;
}

static int parent_time(const char *path, uint32_t *timestamp, struct td_err *err)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return td_fail(err, errno, "cannot stat %s: %s", path, strerror(errno));
	*timestamp = S_ISBLK(st.st_mode) ? 0 : vhd_time(st.st_mtime);
	return 0;
}

int vhd_name_parent(struct vhd_header *h, const struct vhd_image *parent, struct td_err *err)
{
	int rc = header_name(h, parent->path, err);

	if (!rc)
		rc = parent_time(parent->path, &h->parent_timestamp, err);
	memset(h->parent_uuid, 0, 16);
	if (!parent->raw)
		memcpy(h->parent_uuid, parent->footer.uuid, 16);
	return rc;
}

/* --- another parent --- */

/* The first `len' bytes that nothing uses, nor `mine' (which may be NULL); a device's end is not
 * looked at. */
static uint64_t gap(const struct vhd_image *v, uint64_t len, const struct vhd_extent *mine)
{
	uint64_t end = vhd_image_data_end(v), span = v->layout.bitmap_bytes + v->layout.block_size,
		 at = VHD_FOOTER;
	bool moved = true;

	while (moved && at < end) {
		moved = false;
		for (unsigned i = 0; i < v->layout.metas; i++)
			if (at < v->layout.meta[i].to && v->layout.meta[i].from < at + len) {
				at = td_round_up(v->layout.meta[i].to, VHD_SECTOR);
				moved = true;
			}
		if (mine && at < mine->to && mine->from < at + len) {
			at = mine->to;
			moved = true;
		}
		for (uint32_t i = 0; i < v->layout.blocks; i++)
			if (v->bat[i] != VHD_UNUSED &&
			    at < (uint64_t)v->bat[i] * VHD_SECTOR + span &&
			    (uint64_t)v->bat[i] * VHD_SECTOR < at + len)
				return mine && mine->to > end ? mine->to
							      : end; /* only what lies before the
									blocks is worth a search */
	}
	return mine && at >= end && mine->to > at ? mine->to : at;
}

static int room(const struct vhd_image *v, uint64_t end, struct td_err *err)
{
	if (v->blockdev && end + VHD_FOOTER > v->file_size)
		return td_fail(err, ENOSPC,
			       "%s is full: %llu bytes more are needed to name another parent",
			       v->path, (unsigned long long)(end + VHD_FOOTER - v->file_size));
	return 0;
}

static int put_header(struct vhd_image *v, const struct vhd_header *h, uint64_t at,
		      struct td_err *err)
{
	uint8_t b[VHD_HEADER];
	int rc;

	vhd_header_encode(h, b);
	rc = vhd_pwrite(v, b, sizeof b, at, err);
	return rc ? rc : vhd_sync(v, err);
}

static int point_to_header(struct vhd_image *v, uint64_t at, struct td_err *err)
{
	uint8_t b[VHD_FOOTER];
	int rc;

	v->footer.data_offset = at;
	vhd_footer_encode(&v->footer, b);
	rc = vhd_pwrite(v, b, sizeof b, 0, err);
	return rc ? rc : vhd_sync(v, err);
}

/*
 * The header takes 1,024 bytes, and a power cut could leave half of it; but others look for it at
 * 512 alone.  So the new one is written to another place, the footer's copy at 0, one sector, is
 * made to point there, and then, with the new one in the old place too, back again.  The new names
 * stand beside the old ones until then.
 */
static int replace_header(struct vhd_image *v, struct vhd_header *h, const char *relative,
			  struct td_err *err)
{
	uint64_t home = v->footer.data_offset, names, spare;
	struct vhd_extent mine;
	uint32_t space;
	int rc = vhd_locators_need(relative, &space, err);

	if (rc < 0)
		return rc;
	names = gap(v, 3ull * space, NULL);
	mine = (struct vhd_extent){names, names + 3ull * space, "new names"};
	spare = gap(v, VHD_HEADER, &mine);
	rc = room(v, mine.to > spare + VHD_HEADER ? mine.to : spare + VHD_HEADER, err);
	v->state = VHD_FOOTERS_LAST_LOST;
	if (!rc)
		rc = vhd_write_locators(v, h, names, space, relative, err);
	if (!rc)
		rc = put_header(v, h, spare, err);
	if (!rc)
		rc = point_to_header(v, spare, err);
	if (!rc)
		rc = put_header(v, h, home, err);
	if (!rc)
		rc = point_to_header(v, home, err);
	if (rc < 0)
		return rc;
	v->header = *h;
	/* the footer at the end is written behind */
	return vhd_layout(&v->footer, h, v->file_size, &v->layout, v->path, err);
}

static int put_synced(struct vhd_image *v, const void *data, uint64_t len, uint64_t at,
		      struct td_err *err)
{
	int rc = vhd_pwrite(v, data, len, at, err);

	return rc ? rc : vhd_sync(v, err);
}

/* RL1-RL4: nothing but the names' own bytes changes. */
static int in_place(struct vhd_image *v, const struct td_relink *to, struct td_err *err)
{
	uint8_t old[VHD_HEADER];
	struct vhd_relink r;
	int rc = vhd_pread(v, old, sizeof old, v->footer.data_offset, err);

	if (!rc)
		rc = vhd_relink_plan(old, to, &r, v->path, err);
	if (rc < 0)
		return rc;
	rc = put_synced(v, r.name[0].data, r.name[0].len, r.name[0].off, err);
	if (!rc)
		rc = put_synced(v, r.head, VHD_SECTOR, v->footer.data_offset, err);
	for (unsigned i = 1; i < r.names && !rc; i++)
		rc = put_synced(v, r.name[i].data, r.name[i].len, r.name[i].off, err);
	if (!rc)
		v->header = r.header;
	vhd_relink_free(&r);
	return rc;
}

/* 1: not to be done in place, and allowed to be done otherwise. */
static int try_in_place(struct vhd_image *v, const struct vhd_image *parent,
			const struct vhd_header *h, const char *relative, struct td_err *err)
{
	const char *slash = strrchr(parent->path, '/');
	struct td_relink to = {.relative = relative,
			       .name = slash ? slash + 1 : parent->path,
			       .timestamp = h->parent_timestamp,
			       .raw = parent->raw};
	struct td_err why = {0};
	int rc;

	if (!v->blockdev && !v->header.reserved)
		return 1;
	memcpy(to.uuid, h->parent_uuid, sizeof to.uuid);
	rc = v->footer.type == VHD_DIFF ? in_place(v, &to, &why) : -EBUSY;
	if (rc != -EBUSY)
		return rc ? td_fail(err, why.code, "%s", why.text) : 0;
	if (!v->header.reserved)
		return 1;
	return td_fail(err, EBUSY,
		       "%s bears the mark of a tapdisk that has it open, on another host or before "
		       "a restart of this one, and its parent's new name (%s) does not fit in the "
		       "place of the old one: pause the disk there (tap-ctl pause); if nobody has "
		       "it open, run vhd-util repair -n %s first",
		       v->path, relative, v->path);
}

static int reparent(struct vhd_image *v, const struct vhd_image *parent, struct td_err *err)
{
	char here[VHD_PATH_MAX], relative[VHD_PATH_MAX];
	struct vhd_header h = v->header;
	int rc = vhd_canonical(v->path, here, err);

	if (!rc)
		rc = vhd_relative_path(here, parent->path, relative, err);
	if (!rc)
		rc = vhd_name_parent(&h, parent, err);
	if (!rc)
		rc = try_in_place(v, parent, &h, relative, err);
	if (rc <= 0)
		return rc;
	v->footer.type = VHD_DIFF;
	rc = replace_header(v, &h, relative, err);
	if (!rc && v->has_batmap)
		vhd_layout_batmap(&v->layout, &v->batmap);
	return rc ? rc : vhd_image_put_last(v, err);
}

int vhd_reparent(struct vhd_image *v, const char *parent, bool raw, struct td_err *err)
{
	struct vhd_image *p;
	char path[VHD_PATH_MAX];
	int rc;

	if (v->footer.type == VHD_FIXED)
		return td_fail(err, EINVAL, "%s is a fixed disk, which cannot have a parent",
			       v->path);
	rc = vhd_canonical(parent, path, err);
	if (!rc)
		rc = raw ? vhd_image_open_raw(path, VHD_READ, &p, err)
			 : vhd_image_open(path, VHD_READ | VHD_FAST, &p, err);
	if (rc < 0)
		return rc;
	rc = reparent(v, p, err);
	if (!rc && raw)
		td_reach_freeze(p->path);
	vhd_image_close(p);
	return rc;
}
