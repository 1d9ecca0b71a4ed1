/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The qcow2 driver on a simulated store: what goes to the file, and how an image grows. */
#include <errno.h>

#include "tests/support/test-qcow.h"

/* --- the data path --- */

START_TEST(what_is_mapped_in_a_row_is_one_operation)
{
	open_new();
	ok(TD_WRITE, mem, 0, MIB, 0);
	ok(TD_FLUSH, NULL, 0, 0, 0);
	fault_io_clear(&fio);
	ok(TD_READ, mem, 512, MIB - 1024, 0);
	ok(TD_WRITE, mem, CLUSTER / 2, 3 * CLUSTER, 0);
	ok(TD_WRITE, mem, 4096, 4096, TD_FUA);
	ok(TD_FLUSH, NULL, 0, 0, 0);
	ck_assert_uint_eq(fio.nlog, 4);
	expect_log(0, TD_IO_READ, MIB - 1024);
	expect_log(1, TD_IO_WRITE, 3 * CLUSTER);
	expect_log(2, TD_IO_WRITE, 4096);
	ck_assert_uint_eq(fio.log[2].flags & TD_IO_DSYNC, TD_IO_DSYNC);
	expect_log(3, TD_IO_SYNC, 0);
	close_sound();
}
END_TEST

START_TEST(what_is_nowhere_reads_as_zeroes_without_an_operation)
{
	open_new();
	warm();
	ok(TD_READ, mem, 4096, MIB - 4096, 0);
	ck_assert(!mem[0] && !memcmp(mem, mem + 1, MIB - 4097));
	ck_assert_uint_eq(fio.nlog, 0);
	close_sound();
}
END_TEST

START_TEST(a_read_asks_each_file_once_for_what_is_contiguous)
{
	open_upon_raw(3);
	ok(TD_WRITE, mem, CLUSTER, 2 * CLUSTER, 0);
	fault_io_clear(&fio);
	ok(TD_READ, mem, 512, 8 * CLUSTER - 512, 0);
	ck_assert_uint_eq(fio.nlog, 3);
	for (unsigned i = 0; i < 3; i++)
		ck_assert_int_eq(fio.log[i].op, TD_IO_READ);
	ck_assert_uint_eq(fio.log[0].len + fio.log[1].len + fio.log[2].len, 8 * CLUSTER - 512);
	ck_assert_uint_eq(mem[0], 2);
	ck_assert_uint_eq(mem[CLUSTER - 512], 0xab);
	ck_assert_uint_eq(mem[3 * CLUSTER - 512], 1 + 3 * CLUSTER / 512 % 251);
	close_sound();
}
END_TEST

START_TEST(clusters_are_allocated_side_by_side_and_in_a_row)
{
	struct op o[8];

	open_new();
	warm();
	fio.manual = true;
	for (unsigned i = 0; i < 8; i++)
		start(&o[i], TD_WRITE, mem + i * CLUSTER, i * CLUSTER, CLUSTER, 0);
	turns(20);
	ck_assert_uint_eq(fio.nrunning, 8); /* none waits for another */
	for (unsigned i = 0; i < 8; i++) {
		expect_log(i, TD_IO_WRITE, CLUSTER);
		ck_assert_uint_eq(fio.log[i].off, fio.log[0].off + i * CLUSTER);
		ck_assert_int_eq(o[i].done, 0);
	}
	while (fault_io_complete(&fio, 0)) /* the last ones first would do as well */
		turns(3);
	fio.manual = false;
	for (unsigned i = 0; i < 8; i++)
		ck_assert_int_eq(finish(&o[i]), 0);
	fault_io_clear(&fio);
	ok(TD_READ, mem, 0, 8 * CLUSTER, 0);
	ck_assert_uint_eq(fio.nlog, 1);
	close_sound();
}
END_TEST

START_TEST(writes_to_a_cluster_that_is_being_made_do_not_wait_for_it)
{
	struct op o[8];

	open_new();
	warm();
	fio.manual = true;
	for (unsigned i = 0; i < 8; i++)
		start(&o[i], TD_WRITE, mem, i * 8192, 4096, 0);
	turns(20);
	ck_assert_uint_eq(fio.nrunning, 8);
	for (unsigned i = 0; i < 8; i++)
		ck_assert_uint_eq(fio.log[i].off, fio.log[0].off + i * 8192);
	while (fault_io_complete(&fio, fio.nrunning - 1))
		turns(3);
	fio.manual = false;
	for (unsigned i = 0; i < 8; i++)
		ck_assert_int_eq(finish(&o[i]), 0);
	ok(TD_READ, mem, 0, CLUSTER, 0);
	for (unsigned i = 0; i < CLUSTER; i += 4096)
		ck_assert_uint_eq(mem[i], i % 8192 ? 0 : 0xab);
	close_sound();
}
END_TEST

/* Copies from below what lies around a write, and no byte of what the write covers. */
START_TEST(what_is_overwritten_is_not_read)
{
	uint64_t around = 0;

	open_upon_raw(3);
	warm();
	ok(TD_WRITE, mem, CLUSTER + 4096, 8192, 0);
	for (unsigned i = 0; i < fio.nlog; i++) {
		const struct fault_record *r = &fio.log[i];

		if (r->op != TD_IO_READ)
			continue;
		around += r->len;
		ck_assert(r->off + r->len <= CLUSTER + 4096 || r->off >= CLUSTER + 12288);
	}
	ck_assert_uint_eq(around, CLUSTER - 8192);
	fault_io_clear(&fio);
	ok(TD_WRITE, mem, 4 * CLUSTER, 4 * CLUSTER, 0);
	ck_assert_uint_eq(fio.nlog, 1);
	expect_log(0, TD_IO_WRITE, 4 * CLUSTER);
	ok(TD_READ, mem, CLUSTER, CLUSTER, 0);
	ck_assert_uint_eq(mem[0], 1 + CLUSTER / 512 % 251);
	ck_assert_uint_eq(mem[4096], 0xab);
	ck_assert_uint_eq(mem[12288], 1 + (CLUSTER + 12288) / 512 % 251);
	close_sound();
}
END_TEST

START_TEST(a_discarded_cluster_never_shows_what_is_below)
{
	for (unsigned version = 2; version <= 3; version++) {
		open_upon_raw(version);
		ok(TD_WRITE, mem, 0, CLUSTER, 0);
		ok(TD_DISCARD, NULL, 0, 2 * CLUSTER, 0);
		ok(TD_WRITE_ZEROES, NULL, 2 * CLUSTER, CLUSTER, TD_UNMAP);
		ok(TD_READ, mem, 0, 3 * CLUSTER, 0);
		for (unsigned i = 0; i < CLUSTER; i += 512)
			/* version 2 has no mark: it is kept */
			ck_assert_uint_eq(mem[i], version == 2 ? 0xab : 0);
		for (unsigned i = CLUSTER; i < 2 * CLUSTER; i += 512)
			ck_assert_uint_eq(mem[i], version == 2 ? 1 + i / 512 % 251 : 0);
		for (unsigned i = 2 * CLUSTER; i < 3 * CLUSTER; i += 512)
			ck_assert_uint_eq(mem[i], 0);
		close_sound();
	}
}
END_TEST

/* --- larger --- */

static void grow_main(void *arg)
{
	*(int *)arg = leaf->driver->grow(leaf, SIZE, &err);
}

/* Others make an image smaller by its header alone, and leave what the last cluster held. */
START_TEST(what_a_growth_brings_reads_as_zeroes)
{
	const uint64_t size = CLUSTER + 1536;
	struct fault_file *f;
	int rc = 1;

	begin();
	create((struct qcow_create){.size = SIZE});
	open_leaf("qcow2:/a.qcow2");
	ok(TD_WRITE, mem, 0, 2 * CLUSTER, 0);
	close_leaf();
	f = &fio.file[0];
	td_put_be64(f->data + QCOW_H_SIZE, size);
	open_leaf("qcow2:/a.qcow2");
	on_fiber(loop, grow_main, &rc);
	ck_assert_msg(!rc, "%s", err.text);
	ok(TD_READ, mem, 0, 4 * CLUSTER, 0);
	for (uint64_t i = 0; i < 4 * CLUSTER; i++)
		ck_assert_msg(mem[i] == (i < size ? 0xab : 0), "byte %u", (unsigned)i);
	close_sound();
}
END_TEST

/* The disk has failed, as after any other sync: a guest's writes would go on upon what is lost. */
START_TEST(a_sync_that_fails_in_a_growth_sticks)
{
	unsigned syncs = 0;

	for (uint64_t k = 1;; k++) {
		int rc = 1, again = 1;
		bool sync;

		begin();
		create((struct qcow_create){.size = CLUSTER});
		open_leaf("qcow2:/a.qcow2");
		fault_io_clear(&fio);
		fault_io_rule(&fio, k, -EIO);
		on_fiber(loop, grow_main, &rc);
		sync = fio.nlog >= k && fio.log[k - 1].op == TD_IO_SYNC;
		fault_io_clear(&fio);
		err.code = 0;
		if (rc && sync) {
			ck_assert_ptr_nonnull(leaf->fault);
			on_fiber(loop, grow_main, &again);
			ck_assert_int_lt(again, 0);
			ck_assert_int_lt(doing(TD_WRITE, mem, 0, CLUSTER, 0), 0);
		}
		syncs += rc && sync;
		close_leaf();
		end();
		if (!rc)
			break;
	}
	ck_assert_uint_gt(syncs, 1);
}
END_TEST

/* --- a larger refcount table --- */

#define FULL (2 * MIB) /* what a table of one cluster counts, with clusters of 512 and 64 bits */

/* Writes until the counts need a larger table, which is named by a write of the header. */
static int fill(uint64_t *from, uint64_t *header)
{
	for (; *from < FULL + CLUSTER; *from += CLUSTER) {
		int rc = doing(TD_WRITE, mem, *from, CLUSTER, 0);

		if (rc)
			return rc;
	}
	for (unsigned i = 0; i < fio.nlog; i++)
		if (fio.log[i].op == TD_IO_WRITE && !fio.log[i].off)
			*header = i + 1;
	return 0;
}

static void open_small_clusters(bool lazy)
{
	struct qcow_create o = {
		.size = SIZE, .version = 3, .cluster_bits = 9, .refcount_order = 6, .lazy = lazy};

	begin();
	fio.grows = true;
	fault_io_file(&fio, "/a.qcow2", 0);
	on_fiber(loop, create_it, &o);
	open_leaf("qcow2:/a.qcow2");
}

START_TEST(a_larger_refcount_table_that_finds_no_space_for_its_name_is_named_later)
{
	uint64_t at = 0, header = 0;

	open_small_clusters(false);
	ck_assert_int_eq(fill(&at, &header), 0);
	close_sound();
	ck_assert_uint_gt(header, 0);

	open_small_clusters(false);
	fault_io_rule(&fio, header, -ENOSPC);
	at = 0;
	ck_assert_int_eq(fill(&at, &header), -ENOSPC);
	ck_assert_uint_lt(at, FULL);
	ck_assert_int_eq(fill(&at, &header), 0);
	ok(TD_FLUSH, NULL, 0, 0, 0);
	close_sound();
}
END_TEST

START_TEST(a_header_written_after_one_that_found_no_space_names_the_table_in_use)
{
	uint64_t at = 0, header = 0;

	open_small_clusters(true);
	ck_assert_int_eq(fill(&at, &header), 0);
	close_sound();

	open_small_clusters(true);
	fault_io_rule(&fio, header, -ENOSPC);
	at = 0;
	ck_assert_int_eq(fill(&at, &header), -ENOSPC);
	ok(TD_FLUSH, NULL, 0, 0, 0);
	close_sound(); /* which takes the mark of lazy counts off, in the header */
}
END_TEST

int main(void)
{
	Suite *s = suite_create("qcow2");

	SUITE_ADD(s, what_is_mapped_in_a_row_is_one_operation);
	SUITE_ADD(s, what_is_nowhere_reads_as_zeroes_without_an_operation);
	SUITE_ADD(s, a_read_asks_each_file_once_for_what_is_contiguous);
	SUITE_ADD(s, clusters_are_allocated_side_by_side_and_in_a_row);
	SUITE_ADD(s, writes_to_a_cluster_that_is_being_made_do_not_wait_for_it);
	SUITE_ADD(s, what_is_overwritten_is_not_read);
	SUITE_ADD(s, a_discarded_cluster_never_shows_what_is_below);
	SUITE_ADD(s, what_a_growth_brings_reads_as_zeroes);
	SUITE_ADD(s, a_sync_that_fails_in_a_growth_sticks);
	SUITE_ADD(s, a_larger_refcount_table_that_finds_no_space_for_its_name_is_named_later);
	SUITE_ADD(s, a_header_written_after_one_that_found_no_space_names_the_table_in_use);
	return suite_run(s);
}
