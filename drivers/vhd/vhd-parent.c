/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where a differencing VHD's parent is.  The header has up to eight locators, each a name in
 * another notation, and a plain name; they are tried in the order of trust: relative names first,
 * since chains are moved as a whole.  The first file that is the parent is it: its uuid must be the
 * one that the child remembers.  A raw parent has none; then the file must be there.
 *
 * A relative name starts from the child's directory: the one that it was named by, and the one
 * where it is.  Of logical volumes, which are named /dev/VG/LV and lie in /dev/mapper, the second
 * is the one that tools write.  An absolute name (C:\vms\base.vhd) may be of the machine that the
 * chain comes from: what it calls the parent is looked for beside the child too, and known by its
 * uuid.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/vhd/vhd-image.h"
#include "drivers/vhd/vhd.h"
#include "lib/fiber/fiber.h"
#include "lib/path.h"
#include "lib/io/reach.h"

struct search {
	struct vhd *v;
	char here[VHD_PATH_MAX]; /* where the child is, without links; "": nobody knows */
	char path[VHD_PATH_MAX];
	char name[VHD_PATH_MAX]; /* as the image says it */
	struct td_err why;       /* of the first that was tried */
	bool tried;
	bool again;        /* an absolute name's last part, beside the child */
	char places[2048]; /* where nothing is */
};

static bool is_raw(const struct vhd *v)
{
	return vhd_uuid_nil(v->header.parent_uuid);
}

static int check_uuid(struct search *s, struct td_file *f, struct td_err *err)
{
	uint8_t first[VHD_FOOTER], last[VHD_FOOTER];
	enum vhd_footers state;
	struct vhd_footer footer;
	char want[37], have[37];
	int rc;

	if (f->st.size < 2 * VHD_FOOTER)
		return td_fail(err, EINVAL, "%s is too small to be a VHD", s->path);
	rc = td_file_rw(f, TD_IO_READ, first, 0, sizeof first, 0);
	if (!rc)
		rc = td_file_rw(f, TD_IO_READ, last, f->st.size - VHD_FOOTER, sizeof last, 0);
	if (rc < 0)
		return td_fail(err, -rc, "cannot read %s: %s", s->path, strerror(-rc));
	rc = vhd_footer_pick(first, last, f->st.size, &footer, &state, s->path, err);
	if (rc < 0 || !memcmp(footer.uuid, s->v->header.parent_uuid, sizeof footer.uuid))
		return rc;
	vhd_uuid_text(s->v->header.parent_uuid, want);
	vhd_uuid_text(footer.uuid, have);
	return td_fail(
		err, ESTALE,
		"%s is not the parent of %s any more: its uuid is %s, the child remembers %s",
		s->path, s->v->image->path, have, want);
}

static bool is_allowed(const struct search *s)
{
	const struct td_reach *reach = s->v->image->reach;

	return !reach || td_reach_has(reach, s->path);
}

/* What is not there is no matter of directories that parents may be in. */
static int not_allowed(struct search *s, struct td_err *err)
{
	struct td_err why = {0};
	struct td_file *f;

	if (td_file_open(s->v->image->io, s->path, TD_FILE_LOOK | TD_FILE_RDONLY, &f, &why) == 0)
		td_file_close(f);
	if (why.code == ENOENT || why.code == ENOTDIR)
		return td_fail(err, ENOENT, "%s does not exist", s->path);
	return td_fail(err, EACCES,
		       "%s: its parent %s is in no directory where parents are allowed: move it, "
		       "or name its directory in "
		       "tapdisk.conf with parent-dirs",
		       s->v->image->path, s->path);
}

/* Is the name that s->name says, as seen from `beside', the parent's?  1, or 0 and a reason in err.
 */
static int try(struct search *s, const char *beside, struct td_err *err)
{
	struct td_image *image = s->v->image;
	unsigned flags = image->file_flags & TD_FILE_DIRECT;
	struct td_io *io = image->io;
	struct td_reach reach;
	struct td_file *f;
	int rc = td_path_resolve(beside, s->name, s->path, sizeof s->path);

	if (rc < 0)
		return td_fail(err, -rc, "%s: the name of its parent, '%.100s', is of no use",
			       image->path, s->name),
		       0;
	if (!strcmp(s->path, image->path) && s->again)
		return td_fail(err, ENOENT, "%s does not exist", s->path), 0;
	if (!strcmp(s->path, image->path))
		return td_fail(err, ELOOP, "%s names itself as its parent", image->path), 0;
	if (!is_allowed(s))
		return not_allowed(s, err), 0;
	/* without a lock: it may be somebody else's disk, whose owner is not to be kept off (RW3 of
	 * lib/io/reach.h); and as it will be opened, if it is the one (PC2 of tapdisk/chain.h) */
	td_file_cached(s->path, image->cached, &flags, &io);
	if (image->reach) {
		reach = *image->reach;
		reach.uuid = is_raw(s->v) ? NULL : s->v->header.parent_uuid;
	}
	rc = td_file_open_in(io, s->path, flags | TD_FILE_LOOK | TD_FILE_RDONLY,
			     image->reach ? &reach : NULL, &f, err);
	if (rc < 0)
		return 0;
	rc = is_raw(s->v) ? 0 : check_uuid(s, f, err);
	td_file_close(f);
	return rc == 0;
}

/* An error that tells more than "not there" is the better answer when nothing is found. */
static bool found_from(struct search *s, const char *beside)
{
	struct td_err err = {0};

	size_t n = strlen(s->places);

	if (try(s, beside, &err))
		return true;
	if (err.code == ENOENT && !strstr(s->places, s->path))
		snprintf(s->places + n, sizeof s->places - n, "%s%s", n ? ", " : "", s->path);
	if (!s->tried || (s->why.code == ENOENT && err.code != ENOENT))
		s->why = err;
	s->tried = true;
	return false;
}

static bool parent_found(struct search *s)
{
	bool yes = found_from(s, s->v->image->path) ||
		   (*s->name != '/' && *s->here && found_from(s, s->here));

	/* a raw one could not be told from another of that name */
	if (yes || *s->name != '/' || is_raw(s->v))
		return yes;
	memmove(s->name, strrchr(s->name, '/') + 1, strlen(strrchr(s->name, '/')));
	s->again = true;
	yes = *s->name && parent_found(s);
	s->again = false;
	return yes;
}

static bool try_locator(struct search *s, const struct vhd_locator *loc)
{
	uint8_t *data;
	int rc;

	if (!loc->len || loc->len > VHD_LOC_MAX || !(data = malloc(loc->len)))
		return false;
	rc = td_file_rw(s->v->file, TD_IO_READ, data, loc->off, loc->len, 0);
	if (!rc)
		rc = vhd_locator_decode(loc->code, data, loc->len,
					!memcmp(s->v->footer.app, "tap", 4), s->name);
	free(data);
	return !rc && parent_found(s);
}

static bool search(struct search *s)
{
	static const uint32_t order[] = {VHD_LOC_W2RU, VHD_LOC_W2KU, VHD_LOC_MACX, VHD_LOC_WI2R,
					 VHD_LOC_WI2K};

	for (size_t i = 0; i < sizeof order / sizeof *order; i++)
		for (int k = 0; k < VHD_LOCATORS; k++)
			if (s->v->header.loc[k].code == order[i] &&
			    try_locator(s, &s->v->header.loc[k]))
				return true;
	return vhd_name_decode(s->v->header.parent_name, s->name) == 0 && parent_found(s);
}

static long look_where(void *arg)
{
	struct search *s = arg;

	if (vhd_canonical(s->v->image->path, s->here, NULL) < 0)
		*s->here = 0;
	if (!strcmp(s->here, s->v->image->path))
		*s->here = 0; /* once is enough */
	return 0;
}

int vhd_parent_find(struct vhd *v, char *spec, struct td_err *err)
{
	struct search *s = calloc(1, sizeof *s);
	int rc = 1;

	if (!s)
		return td_fail(err, ENOMEM, "%s: out of memory, cannot look for its parent",
			       v->image->path);
	s->v = v;
	td_await_call(v->image->io, look_where, s);
	if (search(s))
		snprintf(spec, TD_SPEC_MAX, "%s:%s", is_raw(v) ? "aio" : "vhd", s->path);
	else if (s->tried && s->why.code == ENOENT)
		rc = td_fail(err, ENOENT,
			     "cannot find the parent of %s: nothing is at %s; put it there, or "
			     "name it with vhd-util modify -p",
			     v->image->path, s->places);
	else if (s->tried)
		rc = td_fail(err, s->why.code, "cannot find the parent of %s: %s", v->image->path,
			     s->why.text);
	else
		rc = td_fail(err, ENOENT, "%s does not name its parent", v->image->path);
	free(s);
	return rc;
}
