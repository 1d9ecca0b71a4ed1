/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Another parent for an image that a tapdisk writes: a storage manager's garbage collector has
 * coalesced the parent into its own, and takes it out of the chain.  The tapdisk is the image's one
 * writer, and writes the name at our request.  It must be of an image further down in the chain:
 * with any other the guest would find another disk at the next open.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "control/vhd-util/vhd-util.h"
#include "drivers/vhd/vhd-image.h"
#include "lib/bytes.h"
#include "lib/ctl-client.h"
#include "lib/io/reach.h"
#include "td/ctl.h"

#define RELINK_TIMEOUT 120 /* s: some writes, each made durable */

struct holder {
	char file[48]; /* as a tapdisk's list has it (struct vbd.file) */
	pid_t asked, pid;
	int minor;
	bool leaf_cache;
};

static void on_row(json_t *row, void *arg)
{
	const char *file = json_string_value(json_object_get(row, "file"));
	struct holder *h = arg;

	/* while it is paused it has no file open, and the number may be another file's by now */
	if (!file || strcmp(file, h->file) ||
	    (json_integer_value(json_object_get(row, "state")) & TD_STATE_PAUSED))
		return;
	h->pid = h->asked;
	h->minor = (int)json_integer_value(json_object_get(row, "minor"));
	h->leaf_cache = json_is_true(json_object_get(row, "leaf_cache"));
}

static int ask(pid_t pid, void *arg)
{
	struct holder *h = arg;

	h->asked = pid;
	td_ctl_call(pid, json_pack("{s:s}", "op", "list"), NULL, 0, TD_CTL_TIMEOUT, on_row, h, NULL,
		    NULL);
	return h->pid > 0;
}

static bool find_holder(const char *path, struct holder *h)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return false;
	if (S_ISBLK(st.st_mode))
		snprintf(h->file, sizeof h->file, "b%llu", (unsigned long long)st.st_rdev);
	else
		snprintf(h->file, sizeof h->file, "%llu:%llu", (unsigned long long)st.st_dev,
			 (unsigned long long)st.st_ino);
	return td_ctl_each(ask, h) > 0;
}

bool vu_only_caches(const char *path)
{
	struct holder h = {.pid = 0};

	return find_holder(path, &h) && h.leaf_cache;
}

static bool is_that_file(const char *a, const char *b)
{
	struct stat s, t;

	return stat(a, &s) == 0 && stat(b, &t) == 0 && s.st_dev == t.st_dev &&
	       s.st_ino == t.st_ino && s.st_rdev == t.st_rdev;
}

int vu_only_down(const char *path, const char *parent, struct td_err *err)
{
	struct vhd_image *v;
	bool is = false;
	int rc = vhd_image_open(path, VHD_LOOK | VHD_CHAIN | VHD_FAST, &v, err);

	if (rc < 0)
		return rc;
	for (const struct vhd_image *p = v->parent; p && !is; p = p->parent)
		is = is_that_file(p->path, parent);
	vhd_image_close(v);
	return is ? 0
		  : td_fail(err, EBUSY,
			    "%s is in use, and %s is not among its parents: its guest would find "
			    "another disk there; close it first",
			    path, parent);
}

static json_t *question(const char *relative, const struct vhd_image *parent,
			const struct holder *h, struct td_err *err)
{
	const char *slash = strrchr(parent->path, '/');
	char uuid[33] = "";
	struct vhd_header like = {0};

	if (vhd_name_parent(&like, parent, err) < 0)
		return NULL;
	td_put_hex(uuid, like.parent_uuid, sizeof like.parent_uuid);
	return json_pack("{s:s, s:i, s:s, s:s, s:s, s:s, s:I, s:b}", "op", "relink", "minor",
			 h->minor, "file", h->file, "relative", relative, "name",
			 slash ? slash + 1 : parent->path, "uuid", uuid, "timestamp",
			 (json_int_t)like.parent_timestamp, "raw", parent->raw);
}

static int relink(const char *path, const struct vhd_image *parent, const struct holder *h,
		  struct td_err *err)
{
	char here[VHD_PATH_MAX], relative[VHD_PATH_MAX];
	int rc = vu_only_down(path, parent->path, err);
	json_t *q;

	if (!rc)
		rc = vhd_canonical(path, here, err);
	if (!rc)
		rc = vhd_relative_path(here, parent->path, relative, err);
	if (rc < 0)
		return rc;
	q = question(relative, parent, h, err);
	if (!q)
		return td_fail(err, EINVAL, "%s cannot be named as a parent", parent->path);
	rc = td_ctl_call(h->pid, q, NULL, 0, RELINK_TIMEOUT, NULL, NULL, NULL, err);
	if (!rc && parent->raw)
		td_reach_freeze(parent->path);
	return rc;
}

int vu_relink(const char *path, const char *parent, bool raw, struct td_err *busy,
	      struct td_err *err)
{
	struct holder h = {.pid = 0};
	char name[VHD_PATH_MAX];
	struct vhd_image *p;
	int rc;

	if (!find_holder(path, &h))
		return td_fail(err, busy->code, "%s", busy->text);
	rc = vhd_canonical(parent, name, err);
	if (!rc)
		rc = raw ? vhd_image_open_raw(name, VHD_READ, &p, err)
			 : vhd_image_open(name, VHD_READ | VHD_FAST, &p, err);
	if (rc < 0)
		return rc;
	rc = relink(path, p, &h, err);
	vhd_image_close(p);
	return rc;
}
