/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The qcow2 driver against a model: tests/support/model.h. */
#include <stdio.h>

#include "drivers/qcow/qcow-image.h"
#include "tests/support/model.h"
#include "tests/support/suite.h"

#define ONE_BIT 7 /* for a refcount_order of 0, which is here that of 16 bits */

static struct td_key key;

static void make(struct fault_io *f, int n, const void *arg)
{
	struct qcow_create o = *(const struct qcow_create *)arg;
	struct td_err err = {0};

	fault_io_file(f, model_name(n), 0);
	if (n) {
		o.backing = model_name(n - 1) + 1;
		o.backing_format = "qcow2";
	}
	ck_assert_msg(qcow_image_create(model_name(n), &o, f->io, &err) == 0, "%s", err.text);
}

static void say(struct qcow_check *c, const char *line)
{
	printf("%s\n", line);
}

/* Nothing is wrong with it, and no cluster is lost. */
static void closed(struct fault_io *f, int n, const void *arg)
{
	struct qcow_check c = {.say = say};
	struct td_err err = {0};

	ck_assert_msg(qcow_image_check(model_name(n), &c, f->io, &err) == 0, "%s", err.text);
	ck_assert_msg(!c.corruptions && !c.leaks, "image %d: %llu corruptions, %llu leaks", n,
		      (unsigned long long)c.corruptions, (unsigned long long)c.leaks);
}

static void merge(struct fault_io *f, int n, const void *arg)
{
	struct td_err err = {0};

	ck_assert_msg(qcow_image_commit(model_name(n), false, &key, NULL, NULL, f->io, &err) == 0,
		      "%s", err.text);
}

static void run(struct qcow_create o, struct model m)
{
	if (!o.version)
		o.version = 3;
	o.refcount_order = !o.refcount_order ? 4 : o.refcount_order % ONE_BIT;
	o.size = m.size;
	m.type = "qcow2";
	m.flags = TD_FILE_DIRECT;
	m.grows = true;
	m.off_align = m.off_align ? m.off_align : 512;
	m.make = make;
	m.closed = closed;
	m.merge = m.chain_max > 1 ? merge : NULL;
	m.arg = &o;
	model_run(&m);
}

START_TEST(plain)
{
	run((struct qcow_create){.cluster_bits = 16},
	    (struct model){.size = 24 << 20, .steps = 8000, .chain_max = 1});
}
END_TEST

START_TEST(an_odd_size_in_clusters)
{
	run((struct qcow_create){.cluster_bits = 15},
	    (struct model){.size = (5 << 20) + 3 * 512, .steps = 8000, .chain_max = 3});
}
END_TEST

START_TEST(small_clusters)
{
	run((struct qcow_create){.cluster_bits = 9},
	    (struct model){.size = 8 << 20, .steps = 5000, .chain_max = 3});
}
END_TEST

START_TEST(large_clusters)
{
	run((struct qcow_create){.cluster_bits = 21},
	    (struct model){.size = 32 << 20, .steps = 4000, .chain_max = 3});
}
END_TEST

START_TEST(subclusters)
{
	run((struct qcow_create){.cluster_bits = 16, .extended_l2 = true},
	    (struct model){.size = 8 << 20, .steps = 8000, .chain_max = 4, .reopen = 500});
}
END_TEST

START_TEST(version_2)
{
	run((struct qcow_create){.cluster_bits = 14, .version = 2},
	    (struct model){.size = 8 << 20, .steps = 8000, .chain_max = 4, .reopen = 500});
}
END_TEST

START_TEST(counts_of_a_bit_and_of_64)
{
	run((struct qcow_create){.cluster_bits = 12, .refcount_order = ONE_BIT},
	    (struct model){.size = 8 << 20, .steps = 5000, .chain_max = 2});
	run((struct qcow_create){.cluster_bits = 12, .refcount_order = 6},
	    (struct model){.size = 8 << 20, .steps = 5000, .chain_max = 2});
}
END_TEST

START_TEST(lazy_counts)
{
	run((struct qcow_create){.cluster_bits = 12, .lazy = true},
	    (struct model){.size = 8 << 20, .steps = 8000, .chain_max = 3});
}
END_TEST

START_TEST(a_store_of_4096)
{
	run((struct qcow_create){.cluster_bits = 16},
	    (struct model){.size = 8 << 20, .steps = 8000, .chain_max = 3, .off_align = 4096});
}
END_TEST

START_TEST(chains_of_snapshots)
{
	run((struct qcow_create){.cluster_bits = 16},
	    (struct model){.size = 8 << 20, .steps = 20000, .chain_max = 30, .reopen = 300});
}
END_TEST

int main(void)
{
	Suite *s = suite_create("qcow2 against a model");

	SUITE_ADD(s, plain);
	SUITE_ADD(s, an_odd_size_in_clusters);
	SUITE_ADD(s, small_clusters);
	SUITE_ADD(s, large_clusters);
	SUITE_ADD(s, subclusters);
	SUITE_ADD(s, version_2);
	SUITE_ADD(s, counts_of_a_bit_and_of_64);
	SUITE_ADD(s, lazy_counts);
	SUITE_ADD(s, a_store_of_4096);
	SUITE_ADD(s, chains_of_snapshots);
	return suite_run(s);
}
