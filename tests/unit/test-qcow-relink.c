/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Another backing file for a qcow2 that is being written (QR1 and QR2 of qcow-relink.c): beside
 * other changes of the header, and where flushes are dropped. */
#include <errno.h>

#include "drivers/qcow/qcow-image.h"
#include "drivers/qcow/qcow.h"
#include "tests/support/drive.h"
#include "tests/support/suite.h"

#define CLUSTER (64u << 10)
#define SIZE    (4 * MIB)

static struct fault_file *file;

static void create_it(void *arg)
{
	struct qcow_create o = {.size = SIZE,
				.version = 3,
				.cluster_bits = 16,
				.refcount_order = 4,
				.lazy = true,
				.backing = "base.img",
				.backing_format = "raw"};

	ck_assert_msg(qcow_image_create("/a.qcow2", &o, fio.io, &err) == 0, "%s", err.text);
}

static void chain(unsigned flags)
{
	begin();
	fio.grows = true;
	fault_io_file(&fio, "/base.img", SIZE);
	fault_io_file(&fio, "/other.img", SIZE);
	file = fault_io_file(&fio, "/a.qcow2", 0);
	on_fiber(loop, create_it, NULL);
	ck_assert_msg(open_how("qcow2:/a.qcow2", (struct td_how){.flags = flags}) == 0, "%s",
		      err.text);
	fault_io_clear(&fio);
}

static int result;

static bool doubt;

static void relink_main(void *arg)
{
	struct td_relink to = {.path = "/other.img",
			       .name = "other.img",
			       .type = "aio",
			       .raw = true,
			       .doubt = &doubt};

	err.code = 0;
	result = leaf->driver->relink(leaf, &to, &err);
}

static uint64_t marks(void)
{
	return td_get_be64(file->data + QCOW_H_INCOMPAT);
}

static void names_the_other(void)
{
	uint64_t at = td_get_be64(file->data + QCOW_H_BACKING_OFF);

	ck_assert_uint_eq(td_get_be32(file->data + QCOW_H_BACKING_LEN), strlen("/other.img"));
	ck_assert_mem_eq(file->data + at, "/other.img", strlen("/other.img"));
}

/* QR1: whatever the header names stands there. */
static void names_one_of_the_two(void)
{
	const uint8_t *name = file->data + td_get_be64(file->data + QCOW_H_BACKING_OFF);

	if (td_get_be32(file->data + QCOW_H_BACKING_LEN) == strlen("base.img"))
		ck_assert_mem_eq(name, "base.img", strlen("base.img"));
	else
		names_the_other();
}

/* Lazy refcounts: the mark must be in the file before a mapping without a count is (Q8). */
START_TEST(a_mark_that_a_flush_makes_meanwhile_is_not_lost)
{
	struct op flush;

	chain(TD_FILE_DIRECT);
	ok(TD_WRITE, mem, 0, CLUSTER, 0);
	ck_assert_uint_eq(marks() & QCOW_INCOMPAT_DIRTY, 0);
	result = 1;
	ck_assert_int_eq(td_fiber_start(loop, relink_main, NULL), 0);
	start(&flush, TD_FLUSH, NULL, 0, 0, 0);
	ck_assert_int_eq(finish(&flush), 0);
	for (int i = 0; i < 1000 && result == 1; i++)
		turns(1);
	ck_assert_msg(!result, "%s", err.text);
	ck_assert_uint_eq(marks() & QCOW_INCOMPAT_DIRTY, QCOW_INCOMPAT_DIRTY);
	names_the_other();
	close_leaf();
	ck_assert_uint_eq(marks() & QCOW_INCOMPAT_DIRTY, 0);
	names_the_other();
	end();
}
END_TEST

/* LC3 of tapdisk/commit.h: what the image names is durable where nothing else is. */
START_TEST(the_name_is_durable_where_flushes_are_dropped)
{
	unsigned syncs = 0;

	chain(TD_FILE_NOSYNC);
	on_fiber(loop, relink_main, NULL);
	ck_assert_msg(!result, "%s", err.text);
	for (unsigned i = 0; i < fio.nlog; i++)
		syncs += fio.log[i].op == TD_IO_SYNC;
	ck_assert_uint_eq(syncs, 2);
	ck_assert_int_eq(fio.log[fio.nlog - 1].op, TD_IO_SYNC);
	names_the_other();
	close_leaf();
	end();
}
END_TEST

/* Calls: the header is read; the name written, for which its sector is read, and synced; the
 * header's sector written, and synced. */
START_TEST(one_that_fails_says_whether_the_image_may_name_the_other)
{
	static const struct {
		uint64_t k;
		bool doubt, broken;
	} at[] = {{1, false, false},
		  {3, false, false},
		  {4, false, true},
		  {5, true, false},
		  {6, true, true}};

	for (unsigned i = 0; i < sizeof at / sizeof *at; i++) {
		chain(TD_FILE_DIRECT);
		doubt = false;
		fault_io_rule(&fio, at[i].k, -EIO);
		on_fiber(loop, relink_main, NULL);
		ck_assert_int_eq(result, -EIO);
		ck_assert_int_eq(doubt, at[i].doubt);
		ck_assert_int_eq(!!strstr(err.text, "keep both"), at[i].doubt);
		names_one_of_the_two();
		fault_io_clear(&fio);
		/* a sync that failed is told once, and sticks */
		on_fiber(loop, relink_main, NULL);
		ck_assert_int_eq(result, at[i].broken ? -EINVAL : 0);
		close_leaf();
		end();
	}
}
END_TEST

/* QR2: a storage manager marks the image in the header, while it is open. */
START_TEST(what_others_have_written_into_the_header_stays)
{
	uint8_t theirs[16];

	chain(TD_FILE_DIRECT);
	memset(theirs, 'v', sizeof theirs);
	memcpy(file->data + QCOW_SECTOR - sizeof theirs, theirs, sizeof theirs);
	on_fiber(loop, relink_main, NULL);
	ck_assert_msg(!result, "%s", err.text);
	ck_assert_mem_eq(file->data + QCOW_SECTOR - sizeof theirs, theirs, sizeof theirs);
	names_the_other();
	close_leaf();
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("qcow-relink");

	SUITE_ADD(s, a_mark_that_a_flush_makes_meanwhile_is_not_lost);
	SUITE_ADD(s, the_name_is_durable_where_flushes_are_dropped);
	SUITE_ADD(s, one_that_fails_says_whether_the_image_may_name_the_other);
	SUITE_ADD(s, what_others_have_written_into_the_header_stays);
	return suite_run(s);
}
