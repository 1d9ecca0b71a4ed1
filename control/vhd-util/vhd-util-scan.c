/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The command scan: many images, a line each, or as trees.  A line's fields are `vhd capacity size
 * hidden parent', or `vhd scan-error error-message'; callers split them at spaces and equal signs.
 */
#include <errno.h>
#include <fnmatch.h>
#include <glob.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "control/vhd-util/vhd-util-scan.h"
#include "control/vhd-util/vhd-util.h"
#include "drivers/vhd/vhd-image.h"
#include "lib/bytes.h"
#include "lib/json-get.h"
#include "lib/output.h"

struct image {
	char *name;
	char *parent; /* or NULL */
	bool raw_parent;
	uint64_t capacity, size;
	unsigned hidden, marker;
	char hash[65];
	struct td_err *error; /* or NULL */
	/* in a tree: indexes, -1: none */
	long above, child, sibling;
	bool printed;
};

struct scan {
	const struct vu_args *a;
	struct vu_targets targets, volumes; /* volumes: all of the group */
	struct image *images;
	size_t n, room;
};

struct vu_target *vu_target_add(struct vu_targets *all, const char *name)
{
	struct vu_target *t;

	if (all->n == all->room) {
		size_t room = all->room ? 2 * all->room : 64;

		t = realloc(all->t, room * sizeof *t);
		if (!t)
			return NULL;
		all->t = t;
		all->room = room;
	}
	t = &all->t[all->n];
	*t = (struct vu_target){.name = strdup(name)};
	if (!t->name)
		return NULL;
	all->n++;
	return t;
}

void vu_targets_free(struct vu_targets *all)
{
	for (size_t i = 0; i < all->n; i++) {
		free(all->t[i].name);
		free(all->t[i].device);
	}
	free(all->t);
	*all = (struct vu_targets){0};
}

static const char *base(const char *path)
{
	return strrchr(path, '/') && strrchr(path, '/')[1] ? strrchr(path, '/') + 1 : path;
}

/* --- one image --- */

/* The whole path where others have to be found by it; else the name that is cheapest to have. */
static int parent_of_file(const struct vu_args *a, const struct vhd_image *v,
			  char out[VHD_PATH_MAX], struct td_err *err)
{
	bool whole = a->val['p'] || a->val['a'] || a->val['v'];

	if (a->val['f'] && !whole && vhd_name_decode(v->header.parent_name, out) == 0 && *out)
		return 0;
	if (vhd_image_parent_path(v, out, NULL) == 0)
		return 0;
	return vhd_image_parent_name(v, out, err);
}

static int fill_image(struct image *i, const struct vhd_image *v, struct td_err *err)
{
	i->capacity = v->size;
	i->size = v->file_size;
	i->hidden = v->footer.hidden;
	if (!v->has_batmap)
		return 0;
	i->marker = v->batmap.marker;
	if (v->batmap.has_key)
		td_put_hex(i->hash, v->batmap.hash, sizeof v->batmap.hash);
	return 0;
}

static int look_at_file(const struct vu_args *a, const char *path, struct image *i,
			struct td_err *err)
{
	char parent[VHD_PATH_MAX];
	struct vhd_image *v;
	int rc = vhd_image_open(path, VHD_LOOK | VHD_FAST, &v, err);

	if (rc < 0)
		return rc;
	rc = fill_image(i, v, err);
	if (!rc && v->footer.type == VHD_DIFF) {
		i->raw_parent = vhd_uuid_nil(v->header.parent_uuid);
		rc = parent_of_file(a, v, parent, err);
		if (!rc && !(i->parent = strdup(parent)))
			rc = td_fail(err, ENOMEM, "out of memory");
	}
	vhd_image_close(v);
	return rc;
}

/* What a VHD names as a raw parent: all of it is the disk, and nobody's own. */
static int look_at_raw(const char *path, struct image *i, struct td_err *err)
{
	struct vhd_image *raw;
	int rc = vhd_image_open_raw(path, VHD_LOOK, &raw, err);

	if (rc < 0)
		return rc;
	i->capacity = i->size = raw->size;
	i->hidden = 1;
	vhd_image_close(raw);
	return 0;
}

/* Footer, header and the parent's name in the header stand in the volume's first extent. */
static int look_inside(struct vhd_image *dev, const struct vu_target *t, struct image *i,
		       struct td_err *err)
{
	uint8_t b[VHD_HEADER];
	char parent[VHD_PATH_MAX];
	struct vhd_header h;
	int rc = vhd_pread(dev, b, VHD_FOOTER, t->start, err);

	if (!rc)
		rc = vhd_footer_decode(b, &dev->footer, t->name, err);
	if (rc < 0)
		return rc;
	i->capacity = dev->footer.size;
	i->hidden = dev->footer.hidden;
	if (dev->footer.type != VHD_DIFF)
		return 0;
	if (t->length < VHD_HEADER || dev->footer.data_offset > t->length - VHD_HEADER)
		return td_fail(err, EINVAL,
			       "%s: its header is not in its first segment: activate the volume",
			       t->name);
	rc = vhd_pread(dev, b, sizeof b, t->start + dev->footer.data_offset, err);
	if (!rc)
		rc = vhd_header_decode(b, &h, t->name, err);
	if (!rc && vhd_name_decode(h.parent_name, parent) < 0)
		rc = td_fail(err, EINVAL, "%s: its parent's name cannot be read", t->name);
	if (rc < 0)
		return rc;
	vu_lvm_volume_of(parent);
	i->raw_parent = vhd_uuid_nil(h.parent_uuid);
	i->parent = strdup(parent);
	return i->parent ? 0 : td_fail(err, ENOMEM, "out of memory");
}

static int look_at_volume(const struct vu_args *a, const struct vu_target *t, bool raw,
			  struct image *i, struct td_err *err)
{
	char path[VHD_PATH_MAX];
	struct vu_target own = *t;
	struct vhd_image *dev;
	int rc;

	i->size = t->size;
	/* the storage manager's name of a raw disk */
	if (raw || !strncmp(t->name, "LV-", 3)) {
		i->capacity = t->size;
		i->hidden = 1;
		return 0;
	}
	if (!t->device) {
		snprintf(path, sizeof path, "/dev/%s/%s", a->val['l'], t->name);
		own.start = 0;
		own.length = t->size;
	}
	rc = vhd_image_open_raw(t->device ? t->device : path, VHD_LOOK, &dev, err);
	if (rc < 0)
		return rc;
	rc = look_inside(dev, &own, i, err);
	vhd_image_close(dev);
	return rc;
}

/* --- output --- */

static void print_line(const struct vu_args *a, const struct image *i, int depth, bool found)
{
	bool whole = a->val['v'] != NULL;

	printf("%*s", depth * 3, "");
	fputs("vhd=", stdout);
	td_output_name(stdout, whole || i->error ? i->name : base(i->name), true);
	if (i->error) {
		printf(" scan-error=%d error-message='", i->error->code);
		td_output_name(stdout, i->error->text, false);
		puts("'");
		return;
	}
	printf(" capacity=%llu size=%llu hidden=%u ", (unsigned long long)i->capacity,
	       (unsigned long long)i->size, i->hidden);
	if (a->val['M'])
		printf("marker=%u keyhash=%s ", i->marker, i->hash);
	fputs("parent=", stdout);
	td_output_name(stdout, !i->parent ? "none" : whole ? i->parent : base(i->parent), true);
	puts(i->parent && !found ? " (not found in scan)" : "");
}

static void print_json(const struct scan *s)
{
	json_t *all = json_array();

	for (size_t k = 0; k < s->n; k++) {
		const struct image *i = &s->images[k];
		json_t *o = json_object();

		json_object_set_new(o, "vhd", td_json_name(i->name));
		if (i->error) {
			json_object_set_new(o, "error", json_integer(i->error->code));
			json_object_set_new(o, "message", td_json_name(i->error->text));
		} else {
			json_object_set_new(o, "capacity", json_integer((json_int_t)i->capacity));
			json_object_set_new(o, "size", json_integer((json_int_t)i->size));
			json_object_set_new(o, "hidden", json_boolean(i->hidden));
			json_object_set_new(o, "marker", json_integer(i->marker));
			json_object_set_new(o, "keyhash",
					    *i->hash ? json_string(i->hash) : json_null());
			json_object_set_new(o, "parent",
					    i->parent ? td_json_name(i->parent) : json_null());
		}
		json_array_append_new(all, o);
	}
	json_dumpf(all, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	putchar('\n');
	json_decref(all);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct image *)a)->name, ((const struct image *)b)->name);
}

static void print_tree(struct scan *s, struct image *i, int depth)
{
	if (i->printed)
		return;
	i->printed = true;
	print_line(s->a, i, depth, i->above >= 0);
	for (unsigned hidden = 0; hidden < 2; hidden++)
		for (long k = i->child; k >= 0; k = s->images[k].sibling)
			if (!!s->images[k].hidden == hidden)
				print_tree(s, &s->images[k], depth + 1);
}

/* Hidden roots first, then the others; what is left is in a ring. */
static void print_trees(struct scan *s)
{
	qsort(s->images, s->n, sizeof *s->images, by_name);
	for (size_t k = 0; k < s->n; k++)
		s->images[k].above = s->images[k].child = s->images[k].sibling = -1;
	for (size_t k = s->n; k-- > 0;) {
		struct image *i = &s->images[k], key = {.name = i->parent}, *above;

		above = i->parent ? bsearch(&key, s->images, s->n, sizeof key, by_name) : NULL;
		if (!above)
			continue;
		i->above = above - s->images;
		i->sibling = above->child;
		above->child = (long)k;
	}
	for (size_t k = 0; k < s->n; k++)
		if (s->images[k].above < 0 && s->images[k].hidden)
			print_tree(s, &s->images[k], 0);
	for (size_t k = 0; k < s->n; k++)
		if (s->images[k].above < 0)
			print_tree(s, &s->images[k], 0);
	for (size_t k = 0; k < s->n; k++)
		print_tree(s, &s->images[k], 0);
}

/* --- all --- */

static struct image *new_image(struct scan *s, const char *name, struct td_err *err)
{
	struct image *i;

	if (s->n == s->room) {
		size_t room = s->room ? 2 * s->room : 64;

		i = realloc(s->images, room * sizeof *i);
		if (!i) {
			td_fail(err, ENOMEM, "out of memory");
			return NULL;
		}
		s->images = i;
		s->room = room;
	}
	i = &s->images[s->n];
	*i = (struct image){.name = strdup(name)};
	if (!i->name) {
		td_fail(err, ENOMEM, "out of memory");
		return NULL;
	}
	s->n++;
	return i;
}

static bool known_name(const struct scan *s, const char *name)
{
	for (size_t k = 0; k < s->n; k++)
		if (!strcmp(s->images[k].name, name))
			return true;
	return false;
}

/* In the trees files go by the names that parents have. */
static const char *settled_name(const struct scan *s, const struct vu_target *t,
				char room[VHD_PATH_MAX])
{
	bool settle = !s->a->val['l'] && (s->a->val['p'] || s->a->val['a']);

	return settle && vhd_canonical(t->name, room, NULL) == 0 ? room : t->name;
}

static const struct vu_target *parent_target(const struct scan *s, const struct image *i,
					     struct vu_target *room)
{
	if (!s->a->val['l']) {
		*room = (struct vu_target){.name = i->parent};
		return room;
	}
	for (size_t k = 0; k < s->volumes.n; k++)
		if (!strcmp(s->volumes.t[k].name, i->parent))
			return &s->volumes.t[k];
	return NULL;
}

/* One target, and with -a what it stands on. */
static int scan_one(struct scan *s, const struct vu_target *t, struct td_err *err)
{
	struct vu_target room;
	bool raw = false;

	while (t) {
		char name[VHD_PATH_MAX];
		struct td_err why = {0};
		struct image *i;
		int rc;

		if ((s->a->val['a'] || s->a->val['p']) && known_name(s, settled_name(s, t, name)))
			return 0;
		i = new_image(s, settled_name(s, t, name), err);
		if (!i)
			return -ENOMEM;
		rc = s->a->val['l'] ? look_at_volume(s->a, t, raw, i, &why)
		     : raw          ? look_at_raw(t->name, i, &why)
				    : look_at_file(s->a, t->name, i, &why);
		if (rc < 0) {
			i->error = malloc(sizeof why);
			if (!i->error)
				return td_fail(err, ENOMEM, "out of memory");
			*i->error = why;
		}
		if (!s->a->json && (!s->a->val['p'] || i->error))
			print_line(s->a, i, 0, true);
		if (i->error) {
			if (s->a->val['p'] && !s->a->json) { /* printed, and no part of a tree */
				free(i->error);
				free(i->name);
				free(i->parent);
				s->n--;
			}
			return s->a->val['c'] ? 0 : td_fail(err, why.code, "%s", why.text);
		}
		raw = i->raw_parent;
		t = s->a->val['a'] && i->parent ? parent_target(s, i, &room) : NULL;
	}
	return 0;
}

static int find_files(struct scan *s, struct td_err *err)
{
	const char *pattern = s->a->val['m'];
	glob_t g = {0};
	int rc = 0;

	if (pattern && !s->a->nrest) {
		int how = glob(pattern, 0, NULL, &g);

		if (how && how != GLOB_NOMATCH)
			return td_fail(err, how == GLOB_NOSPACE ? ENOMEM : EIO,
				       "cannot look for '%s'", pattern);
		for (size_t i = 0; i < g.gl_pathc && !rc; i++)
			rc = vu_target_add(&s->targets, g.gl_pathv[i])
				     ? 0
				     : td_fail(err, ENOMEM, "out of memory");
		globfree(&g);
	}
	for (int i = 0; i < s->a->nrest && !rc; i++)
		if (!pattern || fnmatch(pattern, s->a->rest[i], FNM_PATHNAME) == 0)
			rc = vu_target_add(&s->targets, s->a->rest[i])
				     ? 0
				     : td_fail(err, ENOMEM, "out of memory");
	return rc;
}

static bool wanted(const struct scan *s, const char *name)
{
	bool named = !s->a->nrest;

	for (int i = 0; i < s->a->nrest && !named; i++)
		named = !strcmp(name, base(s->a->rest[i]));
	return named && (!s->a->val['m'] || fnmatch(s->a->val['m'], name, FNM_PATHNAME) == 0);
}

static int scan_all(struct scan *s, struct td_err *err)
{
	int rc = s->a->val['l'] ? vu_lvm_volumes(s->a->val['l'], &s->volumes, err)
				: find_files(s, err);

	for (size_t k = 0; k < s->targets.n && !rc; k++)
		rc = scan_one(s, &s->targets.t[k], err);
	for (size_t k = 0; k < s->volumes.n && !rc; k++)
		if (wanted(s, s->volumes.t[k].name))
			rc = scan_one(s, &s->volumes.t[k], err);
	if (s->a->json)
		print_json(s);
	else if (s->a->val['p'])
		print_trees(s);
	return rc;
}

int vu_scan(const struct vu_args *a, struct td_err *err)
{
	struct scan s = {.a = a};
	int rc;

	if (!a->val['m'] && !a->nrest && !a->val['l'])
		return td_fail(
			err, EINVAL,
			"scan: nothing to look at: -m PATTERN, names, or -l GROUP are needed");
	rc = scan_all(&s, err);
	for (size_t k = 0; k < s.n; k++) {
		free(s.images[k].name);
		free(s.images[k].parent);
		free(s.images[k].error);
	}
	free(s.images);
	vu_targets_free(&s.targets);
	vu_targets_free(&s.volumes);
	return rc;
}
