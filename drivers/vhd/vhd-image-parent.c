/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A VHD offline: who its parent is. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "drivers/vhd/vhd-image.h"
#include "lib/conf.h"
#include "lib/io/reach.h"

/* Of a device mapper's device: the name that it keeps, which its node /dev/dm-N is not. */
static bool mapper_name(const char *path, char out[VHD_PATH_MAX])
{
	char sys[64], name[256];
	struct stat st;
	bool ok;
	FILE *f;

	if (stat(path, &st) < 0 || !S_ISBLK(st.st_mode))
		return false;
	snprintf(sys, sizeof sys, "/sys/dev/block/%u:%u/dm/name", major(st.st_rdev),
		 minor(st.st_rdev));
	f = fopen(sys, "re");
	if (!f)
		return false;
	ok = fgets(name, sizeof name, f) != NULL;
	fclose(f);
	if (!ok)
		return false;
	name[strcspn(name, "\n")] = 0;
	snprintf(out, VHD_PATH_MAX, "/dev/mapper/%s", name);
	return access(out, F_OK) == 0;
}

int vhd_canonical(const char *path, char out[VHD_PATH_MAX], struct td_err *err)
{
	char dir[PATH_MAX], real[PATH_MAX];
	const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;

	if (realpath(path, real)) {
		if (!mapper_name(real, out))
			strcpy(out, real);
		return 0;
	}
	if (errno != ENOENT || !*base || strlen(path) >= sizeof dir)
		return td_fail(err, errno, "cannot resolve %s: %s", path, strerror(errno));
	snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
	if (!realpath(*dir ? dir : "/", real))
		return td_fail(err, errno, "cannot resolve the directory of %s: %s", path,
			       strerror(errno));
	if (snprintf(out, VHD_PATH_MAX, "%s/%s", strcmp(real, "/") ? real : "", base) >=
	    VHD_PATH_MAX)
		return td_fail(err, ENAMETOOLONG, "the path of %s is too long", path);
	return 0;
}

/* Locator i's name; -ENOENT when it has none that can be read. */
static int locator_name(const struct vhd_image *v, int i, char out[VHD_PATH_MAX])
{
	const struct vhd_locator *loc = &v->header.loc[i];
	uint32_t len = loc->len < VHD_LOC_MAX ? loc->len : VHD_LOC_MAX;
	uint8_t *data;
	int rc;

	if (!loc->code || !len)
		return -ENOENT;
	data = malloc(len);
	if (!data)
		return -ENOMEM;
	rc = vhd_pread(v, data, len, loc->off, NULL);
	if (!rc)
		rc = vhd_locator_decode(loc->code, data, len, !memcmp(v->footer.app, "tap", 4),
					out);
	free(data);
	return !rc && !*out ? -ENOENT : rc;
}

/* The child's directory stays the base of a relative name, however the child was named. */
static int beside(const struct vhd_image *v, const char *name, char out[VHD_PATH_MAX])
{
	char here[VHD_PATH_MAX];
	char *slash;

	if (*name == '/') {
		strcpy(out, name);
		return 0;
	}
	if (vhd_canonical(v->path, here, NULL) < 0 || !(slash = strrchr(here, '/')))
		return -ENOENT;
	*slash = 0;
	return snprintf(out, VHD_PATH_MAX, "%s/%s", here, name) >= VHD_PATH_MAX ? -ENAMETOOLONG : 0;
}

/* Relative names first: a directory that was moved as a whole keeps its chains. */
static const uint32_t codes[] = {VHD_LOC_W2RU, VHD_LOC_MACX, VHD_LOC_W2KU,
				 VHD_LOC_WI2R, VHD_LOC_WI2K, 0};

/* Calls with each name that there is, in order of preference, the header's last; ends when fn says
 * true. */
static bool each_name(const struct vhd_image *v,
		      bool (*fn)(const struct vhd_image *v, const char *name, void *arg), void *arg)
{
	char name[VHD_PATH_MAX];

	for (const uint32_t *code = codes; *code; code++)
		for (int i = 0; i < VHD_LOCATORS; i++)
			if (v->header.loc[i].code == *code && locator_name(v, i, name) == 0 &&
			    fn(v, name, arg))
				return true;
	return vhd_name_decode(v->header.parent_name, name) == 0 && *name && fn(v, name, arg);
}

struct found {
	char *out;
	char tried[2048];
};

/* Is it the one that v remembers?  By its uuid. */
static bool is_remembered(const struct vhd_image *v, const char *path)
{
	struct vhd_image *p;
	bool same = vhd_image_open(path, VHD_LOOK | VHD_FAST, &p, NULL) == 0;

	if (same) {
		same = !memcmp(p->footer.uuid, v->header.parent_uuid, 16);
		vhd_image_close(p);
	}
	return same;
}

/* An absolute name may be of the machine that the chain comes from (C:\vms\base.vhd): what it calls
 * the parent may lie beside. */
static bool found_beside(const struct vhd_image *v, const char *name, char out[VHD_PATH_MAX])
{
	const char *last = strrchr(name, '/') + 1;

	return *last && !vhd_uuid_nil(v->header.parent_uuid) && beside(v, last, out) == 0 &&
	       access(out, F_OK) == 0 && is_remembered(v, out);
}

static bool found_file(const struct vhd_image *v, const char *name, void *arg)
{
	struct found *f = arg;
	size_t n = strlen(f->tried);

	if (beside(v, name, f->out) == 0 && access(f->out, F_OK) == 0)
		return true;
	if (*name == '/' && found_beside(v, name, f->out))
		return true;
	if (!strstr(f->tried, name))
		snprintf(f->tried + n, sizeof f->tried - n, "%s%s", n ? ", " : "", name);
	return false;
}

static int allowed(const struct vhd_image *v, const char *parent, struct td_err *err);

/* Only where parents may be is a file opened on the image's word. */
static bool found_remembered(const struct vhd_image *v, const char *name, void *arg)
{
	struct found *f = arg;
	char real[VHD_PATH_MAX];

	return beside(v, name, f->out) == 0 && access(f->out, F_OK) == 0 &&
	       vhd_canonical(f->out, real, NULL) == 0 && allowed(v, real, NULL) == 0 &&
	       is_remembered(v, f->out);
}

int vhd_image_parent_path(const struct vhd_image *v, char out[VHD_PATH_MAX], struct td_err *err)
{
	char path[VHD_PATH_MAX];
	struct found f = {.out = path};

	if (v->footer.type != VHD_DIFF)
		return td_fail(err, EINVAL, "%s has no parent", v->path);
	/* while a name is changed (RL2 of vhd-relink-plan.c), or after a copy, some lead elsewhere
	 */
	if (!vhd_uuid_nil(v->header.parent_uuid) && each_name(v, found_remembered, &f))
		return vhd_canonical(path, out, err);
	*f.tried = 0;
	if (!each_name(v, found_file, &f))
		return td_fail(err, ENOENT,
			       "%s: its parent was not found; tried %s. Put it there, or name it "
			       "with vhd-util modify -p",
			       v->path, *f.tried ? f.tried : "nothing, since it names none");
	return vhd_canonical(path, out, err);
}

static bool first_name(const struct vhd_image *v, const char *name, void *arg)
{
	strcpy(arg, name);
	return true;
}

int vhd_image_parent_name(const struct vhd_image *v, char out[VHD_PATH_MAX], struct td_err *err)
{
	return each_name(v, first_name, out) ? 0
					     : td_fail(err, ENOENT, "%s names no parent", v->path);
}

static const char *parent_dirs;

void vhd_parent_dirs(const char *dirs)
{
	parent_dirs = dirs;
}

static int allowed(const struct vhd_image *v, const char *parent, struct td_err *err)
{
	char own[VHD_PATH_MAX], *slash;
	int rc = vhd_canonical((v->leaf ? v->leaf : v)->path, own, err);

	if (rc < 0)
		return rc;
	slash = strrchr(own, '/');
	slash[slash == own] = 0;
	if (td_reach_has(&(struct td_reach){.own = own, .dirs = parent_dirs}, parent))
		return 0;
	return td_fail(err, EACCES,
		       "%s: its parent %s is in no directory where parents are allowed: move it, "
		       "or name its directory in %s with "
		       "parent-dirs",
		       v->path, parent, td_conf_path());
}

int vhd_image_open_parent(const struct vhd_image *v, unsigned flags, struct vhd_image **out,
			  struct td_err *err)
{
	char path[VHD_PATH_MAX], want[37], got[37];
	int rc = vhd_image_parent_path(v, path, err);

	if (!rc && !(flags & VHD_FAST))
		rc = allowed(v, path, err);
	if (rc < 0)
		return rc;
	if (vhd_uuid_nil(v->header.parent_uuid))
		return vhd_image_open_raw(path, flags, out, err);
	rc = vhd_image_open(path, flags, out, err);
	if (rc < 0 || flags & VHD_ANY_PARENT ||
	    !memcmp((*out)->footer.uuid, v->header.parent_uuid, 16))
		return rc;
	vhd_uuid_text(v->header.parent_uuid, want);
	vhd_uuid_text((*out)->footer.uuid, got);
	vhd_image_close(*out);
	*out = NULL;
	return td_fail(
		err, EINVAL,
		"%s: its parent %s is not the one that it was made of: uuid %s instead of %s",
		v->path, path, got, want);
}
