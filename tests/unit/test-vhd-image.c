/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* VHDs offline: random writes, snapshots, coalesces, fills, resizes and reopens against plain
 * arrays. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "drivers/vhd/vhd-check.h"
#include "tests/support/vhd-trial.h"

#define CHAIN 6

static struct {
	char path[128];
	uint8_t *model; /* what it shows; of `size' bytes */
	uint64_t size;
} chain[CHAIN];
static int depth, names;

static void push(void)
{
	struct vhd_new n = {.path = chain[depth].path,
			    .block_size = rnd(2) ? 4096 : 65536,
			    .parent_as_named = true};

	snprintf(chain[depth].path, sizeof chain[depth].path, "%s/%d.vhd", dir, names++);
	chain[depth].size = depth ? chain[depth - 1].size : 512ull * (1 + rnd(1500));
	chain[depth].model = calloc(1, chain[depth].size);
	if (depth) {
		n.parent = chain[depth - 1].path;
		memcpy(chain[depth].model, chain[depth - 1].model, chain[depth].size);
	} else {
		n.size = chain[depth].size;
		n.fixed = !rnd(4);
	}
	n.table_size = rnd(2) ? 0 : chain[depth].size * 2;
	ok(vhd_create(&n, &err));
	depth++;
}

/* The leaf into its parent; then it is as if it had never been. */
static void coalesce(void)
{
	struct vhd_image *v, *to;
	uint64_t sectors;
	int leaf = depth - 1;

	ok(vhd_image_open(chain[leaf].path, VHD_READ, &v, &err));
	if (chain[leaf].size > chain[leaf - 1].size)
		ok(vhd_resize(chain[leaf - 1].path, chain[leaf].size, in_dir("journal"), &err));
	ok(vhd_image_open_parent(v, VHD_BENEATH, &to, &err));
	ok(vhd_coalesce(v, to, NULL, &sectors, &err));
	vhd_image_close(to);
	vhd_image_close(v);
	same_content(chain[leaf].path, chain[leaf].model, chain[leaf].size,
		     "after a coalesce beneath it");
	unlink(chain[leaf].path);
	free(chain[leaf - 1].model);
	chain[leaf - 1].model = chain[leaf].model;
	chain[leaf - 1].size = chain[leaf].size;
	depth--;
}

static void resize(void)
{
	int leaf = depth - 1;
	uint64_t size = chain[leaf].size + 512ull * (1 + rnd(300));
	struct vhd_image *v;
	bool fast;

	ok(vhd_image_open(chain[leaf].path, VHD_LOOK, &v, &err));
	fast = v->footer.type != VHD_FIXED &&
	       size <= (uint64_t)v->layout.entries * v->layout.block_size && rnd(2);
	vhd_image_close(v);
	ok(vhd_resize(chain[leaf].path, size, fast ? NULL : in_dir("journal"), &err));
	ck_assert_int_lt(access(in_dir("journal"), F_OK), 0);
	chain[leaf].model = realloc(chain[leaf].model, size);
	memset(chain[leaf].model + chain[leaf].size, 0, size - chain[leaf].size);
	chain[leaf].size = size;
}

static void reparent_or_fill(void)
{
	int leaf = depth - 1;
	struct vhd_image *v;

	ok(vhd_image_open(chain[leaf].path, VHD_WRITE | VHD_CHAIN, &v, &err));
	if (rnd(2) && leaf)
		ok(vhd_reparent(v, chain[leaf - 1].path, false, &err));
	else
		ok(vhd_fill(v, NULL, &err));
	vhd_image_close(v);
}

START_TEST(model)
{
	int steps = getenv("VHD_STEPS") ? atoi(getenv("VHD_STEPS")) : 500;

	push();
	for (int step = 0; step < steps; step++) {
		uint32_t what = rnd(20);

		err.code = 0;
		if (what < 12)
			write_some(chain[depth - 1].path, chain[depth - 1].model, 1 + rnd(20));
		else if (what < 15 && depth < CHAIN)
			push();
		else if (what < 17 && depth > 1)
			coalesce();
		else if (what < 18 && chain[depth - 1].size < 4 << 20)
			resize();
		else
			reparent_or_fill();
		same_content(chain[depth - 1].path, chain[depth - 1].model, chain[depth - 1].size,
			     "after a step");
		if (step % 8 == 0)
			check_image(chain[depth - 1].path, VHD_CHECK_PARENTS, "after a step");
	}
	while (depth--)
		free(chain[depth].model);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vhd-image");

	ADD(model);
	return suite_run(s);
}
