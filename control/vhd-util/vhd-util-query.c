/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The commands query and check. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "control/vhd-util/vhd-util.h"
#include "drivers/vhd/vhd-check.h"
#include "drivers/vhd/vhd-image.h"
#include "lib/json-get.h"
#include "lib/output.h"

/* How many images, the raw one at the end among them. */
static int chain_depth(const struct vhd_image *v, unsigned *depth, struct td_err *err)
{
	struct vhd_image *leaf;
	int rc = vhd_image_open(v->path, VHD_LOOK | VHD_FAST | VHD_CHAIN | VHD_ANY_PARENT, &leaf,
				err);

	*depth = 0;
	if (rc < 0)
		return rc;
	for (struct vhd_image *u = leaf; u; u = u->parent)
		++*depth;
	vhd_image_close(leaf);
	return 0;
}

static uint64_t fast_max(const struct vhd_image *v)
{
	return v->footer.type == VHD_FIXED ? v->size
					   : (uint64_t)v->layout.entries * v->layout.block_size;
}

/* The parent's line is there, whatever happens: callers count lines. */
static void print_parent(const struct vhd_image *v, bool resolve, struct td_err *err)
{
	char path[VHD_PATH_MAX];
	int rc = 0;

	if (v->footer.type == VHD_DIFF)
		rc = resolve ? vhd_image_parent_path(v, path, err)
			     : vhd_image_parent_name(v, path, err);
	td_output_name(stdout,
		       v->footer.type != VHD_DIFF ? v->path
		       : rc < 0                   ? "query failed"
						  : path,
		       false);
	puts(v->footer.type != VHD_DIFF ? " has no parent" : "");
}

static void print_depth(const struct vhd_image *v, struct td_err *err)
{
	unsigned depth;
	int rc = chain_depth(v, &depth, err);

	if (rc < 0)
		printf("error checking chain depth: %d\n", rc);
	else
		printf("chain depth: %u\n", depth);
}

static void query_lines(const struct vu_args *a, const struct vhd_image *v, struct td_err *err)
{
	char uuid[37];

	if (a->val['v'])
		printf("%llu\n", (unsigned long long)(v->size >> 20));
	if (a->val['s'])
		printf("%llu\n", (unsigned long long)vhd_image_data_end(v) + VHD_FOOTER);
	if (a->val['p'])
		print_parent(v, !a->val['u'], err);
	if (a->val['f'])
		printf("hidden: %u\n", v->footer.hidden);
	if (a->val['d'])
		print_depth(v, err);
	if (a->val['S'])
		printf("%llu\n", (unsigned long long)(fast_max(v) >> 20));
	if (a->val['a'])
		printf("%u\n", vhd_image_allocated(v));
	vhd_uuid_text(v->footer.uuid, uuid);
	if (a->val['U'])
		puts(uuid);
}

static const char *type_name(const struct vhd_image *v)
{
	return v->footer.type == VHD_FIXED     ? "fixed"
	       : v->footer.type == VHD_DYNAMIC ? "dynamic"
					       : "differencing";
}

/* All of it: a program picks what it wants. */
static void query_json(const struct vhd_image *v, struct td_err *err)
{
	char path[VHD_PATH_MAX], uuid[37];
	unsigned depth;
	json_t *o = json_object();

	vhd_uuid_text(v->footer.uuid, uuid);
	json_object_set_new(o, "path", td_json_name(v->path));
	json_object_set_new(o, "type", json_string(type_name(v)));
	json_object_set_new(o, "uuid", json_string(uuid));
	json_object_set_new(o, "virtual_size", json_integer((json_int_t)v->size));
	json_object_set_new(o, "physical_size",
			    json_integer((json_int_t)(vhd_image_data_end(v) + VHD_FOOTER)));
	json_object_set_new(o, "max_fast_size", json_integer((json_int_t)fast_max(v)));
	json_object_set_new(o, "allocated_blocks", json_integer(vhd_image_allocated(v)));
	json_object_set_new(
		o, "block_size",
		json_integer(v->footer.type == VHD_FIXED ? VHD_BLOCK : v->layout.block_size));
	json_object_set_new(o, "hidden", json_boolean(v->footer.hidden));
	json_object_set_new(o, "encrypted", json_boolean(vhd_image_encrypted(v) != NULL));
	json_object_set_new(o, "closed", json_boolean(v->state == VHD_FOOTERS_GOOD));
	if (v->footer.type == VHD_DIFF && vhd_image_parent_path(v, path, NULL) == 0)
		json_object_set_new(o, "parent", td_json_name(path));
	else
		json_object_set_new(o, "parent", json_null());
	if (chain_depth(v, &depth, err) == 0)
		json_object_set_new(o, "depth", json_integer(depth));
	json_dumpf(o, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	putchar('\n');
	json_decref(o);
}

int vu_query(const struct vu_args *a, struct td_err *err)
{
	bool tables = a->json || a->val['s'] || a->val['a'];
	struct vhd_image *v;
	int rc = vhd_image_open(a->val['n'], VHD_LOOK | VHD_AS_IS | (tables ? 0 : VHD_FAST), &v,
				err);

	if (rc < 0)
		return rc;
	if (a->json)
		query_json(v, err);
	else
		query_lines(a, v, err);
	vhd_image_close(v);
	return -err->code;
}

/* --- check --- */

struct report {
	json_t *findings; /* or NULL: text */
	bool first;
};

static void complain(const char *what, bool fatal)
{
	fputs(fatal ? "vhd-util: " : "vhd-util: note: ", stderr);
	td_output_name(stderr, what, false);
	putc('\n', stderr);
}

/* All findings go to stderr; the first fatal one is main's to print. */
static void finding(const char *what, bool fatal, void *arg)
{
	struct report *r = arg;

	if (r->findings)
		json_array_append_new(r->findings, json_pack("{s:o, s:b}", "what",
							     td_json_name(what), "fatal", fatal));
	else if (fatal && r->first)
		r->first = false;
	else
		complain(what, fatal);
}

static void good(const char *path, void *arg)
{
	struct report *r = arg;

	if (r->findings)
		return;
	td_output_name(stdout, path, false);
	puts(" is valid");
}

static void print_json(int rc, struct report *r, const struct vhd_stats *s)
{
	json_t *o = json_pack("{s:b, s:o, s:i, s:i, s:i, s:I}", "valid", rc == 0, "findings",
			      r->findings, "blocks", (int)s->blocks, "allocated", (int)s->allocated,
			      "full", (int)s->full, "sectors", (json_int_t)s->sectors);

	json_dumpf(o, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	putchar('\n');
	json_decref(o);
}

int vu_check(const struct vu_args *a, struct td_err *err)
{
	struct report r = {.findings = a->json ? json_array() : NULL, .first = true};
	struct vhd_stats s = {0};
	unsigned flags = 0;
	int rc;

	flags |= a->val['i'] ? VHD_CHECK_NO_LAST : 0;
	flags |= a->val['I'] ? VHD_CHECK_NO_UUID : 0;
	flags |= a->val['t'] ? VHD_CHECK_NO_TIME : 0;
	flags |= a->val['B'] && !a->val['b'] && !a->val['s'] ? VHD_CHECK_NO_BITMAPS : 0;
	flags |= a->val['p'] ? VHD_CHECK_PARENTS : 0;
	rc = vhd_check(a->val['n'], flags, finding, good, &r, &s, err);
	if (a->json)
		print_json(rc, &r, &s);
	else if (a->val['s'] && !rc)
		printf("blocks: %u\nallocated: %u\nfull: %u\nsectors: %llu\n", s.blocks,
		       s.allocated, s.full, (unsigned long long)s.sectors);
	return rc;
}
