/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "drivers/vhd/vhd-check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "drivers/vhd/vhd-image.h"

struct check {
	unsigned flags;
	vhd_finding *say;
	void *arg;
	struct vhd_stats *stats;
	struct td_err *err;
	int rc; /* of this image */
};

static void report_fault(struct check *c, bool fatal, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void report_fault(struct check *c, bool fatal, const char *fmt, ...)
{
	char text[TD_ERR_TEXT];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	c->say(text, fatal, c->arg);
	if (fatal)
		c->rc = td_fail(c->err, EINVAL, "%s", text);
}

static void check_footers(struct check *c, const struct vhd_image *v)
{
	if (v->old_footer)
		report_fault(c, false,
			     "%s: the footer at its end has 511 bytes, as Virtual PC wrote it "
			     "before 2004; "
			     "vhd-util repair gives it 512",
			     v->path);
	if (v->state == VHD_FOOTERS_FIRST_LOST)
		report_fault(c, true,
			     "%s: the copy of the footer at its start is bad; vhd-util repair "
			     "restores it",
			     v->path);
	if (v->state == VHD_FOOTERS_LAST_LOST && !(c->flags & VHD_CHECK_NO_LAST))
		report_fault(c, true,
			     "%s: the footer at its end is missing or differs from the copy at its "
			     "start: "
			     "it was not closed; vhd-util "
			     "repair "
			     "restores it",
			     v->path);
}

/* The block that reaches into the footer or beyond the file: those that meet each other or metadata
 * are refused by the open. */
static void check_end(struct check *c, const struct vhd_image *v)
{
	uint32_t i = v->short_block;
	struct td_err what = {0};
	uint64_t end;

	if (i == VHD_UNUSED)
		return;
	end = (uint64_t)v->bat[i] * VHD_SECTOR + v->layout.bitmap_bytes + v->layout.block_size;
	if (v->lost) {
		vhd_lost_text(&v->layout, i, v->lost, v->lost_from, v->limit, v->path, &what);
		report_fault(c, true, "%s", what.text);
	} else if (v->state == VHD_FOOTERS_GOOD || v->blockdev) {
		report_fault(c, true,
			     "%s: block %u (bytes %llu to %llu) reaches over the footer at the end "
			     "(byte "
			     "%llu); nothing of it is lost, and "
			     "vhd-util repair gives it its whole length",
			     v->path, i, (unsigned long long)v->bat[i] * VHD_SECTOR,
			     (unsigned long long)end, (unsigned long long)v->limit);
	}
}

static bool bitmap_full(const struct vhd_image *v, uint64_t *set)
{
	uint64_t n = 0, run;
	bool on;

	for (uint64_t s = 0; s < v->layout.block_sectors; s += run) {
		run = vhd_bits_run(v->bitmap, s, v->layout.block_sectors, &on);
		n += on ? run : 0;
	}
	*set = n;
	return n == v->layout.block_sectors;
}

static void check_bitmaps(struct check *c, struct vhd_image *v)
{
	struct vhd_stats *s = c->stats;
	bool map = v->map_good;
	unsigned wrong = 0;

	if (v->has_batmap && !map)
		report_fault(
			c, true,
			"%s: the checksum of its batmap is wrong; vhd-util repair makes it new",
			v->path);
	*s = (struct vhd_stats){.blocks = v->layout.blocks};
	v->map_good = false; /* the bitmaps themselves are wanted */
	v->bitmap_block = VHD_UNUSED;
	for (uint32_t i = 0; i < v->layout.blocks; i++) {
		bool all, says = map && vhd_bit(v->map, i);
		uint64_t set = 0;

		if (v->bat[i] == VHD_UNUSED && !says)
			continue;
		if (vhd_image_bitmap(v, i, c->err) < 0) {
			report_fault(c, true, "%s: the bitmap of block %u cannot be read", v->path,
				     i);
			break;
		}
		all = bitmap_full(v, &set);
		s->allocated += v->bat[i] != VHD_UNUSED;
		s->full += all;
		s->sectors += set;
		if (says && !all && wrong++ < 10)
			report_fault(
				c, true,
				"%s: the batmap says that block %u is whole, %s; vhd-util repair "
				"makes it new",
				v->path, i,
				v->bat[i] == VHD_UNUSED ? "but it is not there"
							: "but its bitmap lacks sectors");
	}
	v->map_good = map;
	v->bitmap_block = VHD_UNUSED;
}

static void check_time(struct check *c, const struct vhd_image *v, const char *parent)
{
	char then[32], now[32];
	time_t recorded = vhd_unix_time(v->header.parent_timestamp);
	struct stat st;
	struct tm tm;

	if (c->flags & VHD_CHECK_NO_TIME || !v->header.parent_timestamp || stat(parent, &st) < 0 ||
	    S_ISBLK(st.st_mode) || vhd_time(st.st_mtime) == v->header.parent_timestamp)
		return;
	strftime(then, sizeof then, "%Y-%m-%d %H:%M:%S", gmtime_r(&recorded, &tm));
	strftime(now, sizeof now, "%Y-%m-%d %H:%M:%S", gmtime_r(&st.st_mtime, &tm));
	report_fault(
		c, false,
		"%s: its parent %s was written at %s UTC, and had been at %s when it became the "
		"parent",
		v->path, parent, now, then);
}

/* The parent's path goes to `path', empty when there is none to look at. */
static void check_parent(struct check *c, const struct vhd_image *v, char path[VHD_PATH_MAX],
			 bool *raw)
{
	struct vhd_image *parent;
	struct td_err why = {0};

	*path = 0;
	*raw = vhd_uuid_nil(v->header.parent_uuid);
	if (vhd_image_parent_path(v, path, &why) < 0) {
		report_fault(c, c->flags & VHD_CHECK_PARENTS, "%s", why.text);
		*path = 0;
		return;
	}
	check_time(c, v, path);
	if (c->flags & VHD_CHECK_NO_UUID)
		return;
	if (vhd_image_open_parent(v, VHD_LOOK | VHD_FAST, &parent, &why) < 0)
		report_fault(c, true, "%s", why.text);
	else
		vhd_image_close(parent);
}

/* One image; next, raw: its parent, if it has one. */
static int check_one(struct check *c, const char *path, char next[VHD_PATH_MAX], bool *raw)
{
	struct vhd_image *v;
	struct td_err why = {0};
	int rc = vhd_image_open(path, VHD_LOOK, &v, &why);

	*next = 0;
	c->rc = 0;
	if (rc < 0) {
		c->say(why.text, true, c->arg);
		return td_fail(c->err, -rc, "%s", why.text);
	}
	if (v->footer.type != VHD_FIXED)
		check_end(c, v); /* first: of what is lost repair restores nothing */
	if (!v->lost)
		check_footers(c, v);
	if (v->footer.type != VHD_FIXED) {
		if (!(c->flags & VHD_CHECK_NO_BITMAPS))
			check_bitmaps(c, v);
	}
	if (v->footer.type == VHD_DIFF)
		check_parent(c, v, next, raw);
	vhd_image_close(v);
	return c->rc;
}

int vhd_check(const char *path, unsigned flags, vhd_finding *say,
	      void (*good)(const char *path, void *arg), void *arg, struct vhd_stats *stats,
	      struct td_err *err)
{
	struct check c = {.flags = flags, .say = say, .arg = arg, .stats = stats, .err = err};
	struct vhd_stats below;
	char at[VHD_PATH_MAX], next[VHD_PATH_MAX];
	bool raw = false;
	int rc = 0, one;

	if (snprintf(at, sizeof at, "%s", path) >= (int)sizeof at)
		return td_fail(err, ENAMETOOLONG, "the path is too long");
	for (unsigned depth = 0; *at && !raw; depth++) {
		if (depth == VHD_CHAIN_OPEN)
			return td_fail(err, ELOOP, "%s: its chain of parents does not end", path);
		one = check_one(&c, at, next, &raw);
		if (!one)
			good(at, arg);
		else if (!rc)
			rc = one;
		c.stats = &below;
		if (!(flags & VHD_CHECK_PARENTS))
			break;
		strcpy(at, next);
	}
	return rc;
}
