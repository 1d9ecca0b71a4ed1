/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The qcow2 driver on a simulated store: in which order its tables, counts and data become durable.
 */
#include <errno.h>

#include "tests/support/test-qcow.h"

START_TEST(counts_and_data_are_durable_before_the_mapping_and_that_before_the_answer)
{
	unsigned counts = 0, mapping = 0, syncs = 0;

	open_new();
	warm();
	ok(TD_WRITE, mem, 0, CLUSTER, 0);
	ck_assert_uint_eq(fio.nlog, 1); /* the data alone */
	ok(TD_FLUSH, NULL, 0, 0, 0);
	for (unsigned i = 1; i < fio.nlog; i++) {
		const struct fault_record *r = &fio.log[i];

		syncs += r->op == TD_IO_SYNC;
		counts += is_count(r);
		mapping += is_l2(r);
		ck_assert(!is_count(r) || syncs == 0);
		ck_assert(!is_l2(r) || (syncs == 1 && counts));
	}
	ck_assert_uint_eq(counts, 1);
	ck_assert_uint_eq(mapping, 1);
	ck_assert_uint_eq(syncs, 2);
	ck_assert_int_eq(fio.log[fio.nlog - 1].op, TD_IO_SYNC);
	close_sound();
}
END_TEST

START_TEST(a_durable_write_to_a_new_cluster_has_its_mapping_durable_too)
{
	open_new();
	warm();
	ok(TD_WRITE, mem, 0, 4096, TD_FUA);
	ck_assert_int_eq(fio.log[fio.nlog - 1].op, TD_IO_SYNC);
	ck_assert_uint_eq(td_get_be64(fio.file[0].data + first_l2()), place_of(0) | QCOW_COPIED);
	close_sound();
}
END_TEST

START_TEST(a_sync_that_fails_leaves_the_mapping_alone_and_fails_all_after_it)
{
	open_new();
	warm();
	ok(TD_WRITE, mem, 0, CLUSTER, 0);
	fault_io_clear(&fio);
	fault_io_rule(&fio, 2, -EIO); /* counts, sync */
	ck_assert_int_eq(doing(TD_FLUSH, NULL, 0, 0, 0), -EIO);
	ck_assert_uint_eq(fio.nlog, 2);
	expect_log(1, TD_IO_SYNC, 0);
	ck_assert(leaf->fault && strstr(leaf->fault, "a sync of "));
	fault_io_clear(&fio);
	ck_assert_int_eq(doing(TD_FLUSH, NULL, 0, 0, 0), -EIO);
	ck_assert_int_eq(doing(TD_WRITE, mem, 0, 4096, 0), -EIO);
	ck_assert_int_eq(doing(TD_WRITE, mem, CLUSTER, 4096, 0), -EIO);
	ck_assert_int_eq(doing(TD_DISCARD, NULL, 0, CLUSTER, 0), -EIO);
	for (unsigned i = 0; i < fio.nlog; i++)
		ck_assert_int_ne(fio.log[i].op, TD_IO_WRITE);
	ok(TD_READ, mem, 0, CLUSTER, 0);
	ck_assert_uint_eq(mem[0], 0xab);
	close_leaf();
	/* behind header, counts and L1: the first L2 table */
	ck_assert_uint_eq(td_get_be64(fio.file[0].data + CLUSTER * 4), 0);
	end();
}
END_TEST

/* Is it written, all of [off, off + len), before the i-th operation, and a sync after it? */
static bool durable_before(unsigned i, uint64_t off, uint64_t len)
{
	bool written = false, synced = false;

	for (unsigned k = 0; k < i; k++) {
		const struct fault_record *r = &fio.log[k];

		if (r->op == TD_IO_WRITE && r->off <= off && off + len <= r->off + r->len)
			written = true;
		synced |= written && r->op == TD_IO_SYNC;
	}
	return synced;
}

static uint64_t ref_table(void)
{
	return td_get_be64(fio.file[0].data + QCOW_H_REF_OFF);
}

/* The counts that the close writes read right afterwards, and its sync has failed: whether they are
 * on the disk, nobody knows. */
START_TEST(counts_that_read_right_are_written_again_before_the_mark_comes_off)
{
	unsigned i;

	begin();
	create((struct qcow_create){.lazy = true});
	open_leaf("qcow2:/a.qcow2");
	ok(TD_WRITE, mem, 0, CLUSTER, 0);
	ok(TD_FLUSH, NULL, 0, 0, 0);
	fault_io_clear(&fio);
	fault_io_rule(&fio, 2, -EIO);
	close_leaf();
	ck_assert_uint_eq(fio.nlog, 2); /* the counts, and their sync */
	ck_assert_int_eq(fio.log[0].op, TD_IO_WRITE);
	ck_assert_int_eq(fio.log[1].op, TD_IO_SYNC);
	ck_assert(fio.file[0].data[QCOW_H_INCOMPAT + 7] & QCOW_INCOMPAT_DIRTY);
	fault_io_clear(&fio);
	ck_assert_msg(open_how("qcow2:/a.qcow2", (struct td_how){.flags = TD_FILE_DIRECT}) == 0,
		      "%s", err.text);
	ck_assert(!(fio.file[0].data[QCOW_H_INCOMPAT + 7] & QCOW_INCOMPAT_DIRTY));
	for (i = 0; i < fio.nlog && !(fio.log[i].op == TD_IO_WRITE && !fio.log[i].off); i++)
		;
	ck_assert_uint_lt(i, fio.nlog);
	ck_assert(durable_before(i, ref_table(), CLUSTER));
	ck_assert(durable_before(i, td_get_be64(fio.file[0].data + ref_table()), CLUSTER));
	close_leaf();
	end();
}
END_TEST

START_TEST(a_write_back_that_finds_no_space_is_made_good_by_the_next)
{
	open_new();
	warm();
	ok(TD_WRITE, mem, 0, CLUSTER, 0);
	for (unsigned k = 1; k <= 3; k += 2) { /* counts, (sync), mapping */
		fault_io_clear(&fio);
		fault_io_rule(&fio, k, -ENOSPC);
		ck_assert_int_eq(doing(TD_FLUSH, NULL, 0, 0, 0), -ENOSPC);
	}
	ok(TD_FLUSH, NULL, 0, 0, 0);
	ck_assert_uint_eq(td_get_be64(fio.file[0].data + first_l2()), place_of(0) | QCOW_COPIED);
	close_sound();
}
END_TEST

START_TEST(a_cluster_that_finds_no_space_is_given_back)
{
	open_new();
	warm();
	fault_io_rule(&fio, 1, -ENOSPC);
	ck_assert_int_eq(doing(TD_WRITE, mem, 0, CLUSTER, 0), -ENOSPC);
	ck_assert_uint_eq(place_of(0), 0);
	ok(TD_READ, mem, 0, 512, 0);
	ck_assert_uint_eq(mem[0], 0);
	ok(TD_WRITE, mem, 0, CLUSTER, 0);
	close_sound();
}
END_TEST

/* Q4: whoever finds the old mapping after a cut must find the guest's bytes there, not another's or
 * a hole. */
START_TEST(a_discarded_place_is_given_back_only_when_that_is_durable)
{
	uint64_t was;
	unsigned syncs = 0;

	open_new();
	ok(TD_WRITE, mem, 0, 4 * CLUSTER, 0);
	warm();
	was = place_of(0);
	ok(TD_DISCARD, NULL, 0, CLUSTER, 0);
	ck_assert_uint_eq(place_of(0), 0);
	ok(TD_WRITE, mem, MIB, CLUSTER, 0);
	ck_assert_uint_ne(place_of(MIB), was);
	for (unsigned i = 0; i < fio.nlog; i++)
		ck_assert_int_ne(fio.log[i].op, TD_IO_PUNCH);
	fault_io_clear(&fio);
	ok(TD_FLUSH, NULL, 0, 0, 0);
	turns(10);
	for (unsigned i = 0; i < fio.nlog; i++) {
		syncs += fio.log[i].op == TD_IO_SYNC;
		if (fio.log[i].op == TD_IO_PUNCH) {
			ck_assert_uint_eq(syncs, 2);
			ck_assert_uint_eq(fio.log[i].off, was);
			syncs = 100;
		}
	}
	ck_assert_uint_ge(syncs, 100);
	ok(TD_WRITE, mem, 2 * MIB, CLUSTER, 0);
	ck_assert_uint_eq(place_of(2 * MIB), was);
	close_sound();
}
END_TEST

/* A read that found the old mapping is under way: the place is not punched or taken under it. */
START_TEST(a_discarded_place_waits_for_who_reads_it)
{
	struct op reading, flush;
	uint64_t was;

	open_new();
	ok(TD_WRITE, mem, 0, 4 * CLUSTER, 0);
	warm();
	was = place_of(0);
	fio.manual = true;
	start(&reading, TD_READ, mem, 0, CLUSTER, 0);
	turns(3);
	ck_assert_uint_eq(fio.nrunning, 1);
	ok(TD_DISCARD, NULL, 0, CLUSTER, 0);
	start(&flush, TD_FLUSH, NULL, 0, 0, 0);
	for (int i = 0; i < 100 && !flush.done; i++) {
		turns(3);
		fault_io_complete(&fio, 1); /* all but the read */
	}
	ck_assert_int_eq(flush.done, 1);
	turns(10);
	for (unsigned i = 0; i < fio.nlog; i++)
		ck_assert_int_ne(fio.log[i].op, TD_IO_PUNCH);
	fio.manual = false;
	fault_io_complete(&fio, 0);
	ck_assert_int_eq(finish(&reading), 0);
	ck_assert_uint_eq(mem[0], 0xab);
	turns(10);
	expect_log(fio.nlog - 1, TD_IO_PUNCH, CLUSTER);
	ck_assert_uint_eq(fio.log[fio.nlog - 1].off, was);
	close_sound();
}
END_TEST

static bool punching(void)
{
	return fio.nlog && fio.log[fio.nlog - 1].op == TD_IO_PUNCH;
}

/* While it is being punched, nobody takes it: what is written there meanwhile would go with it. */
START_TEST(a_place_that_is_being_punched_is_not_taken)
{
	struct op flush, writing;
	uint64_t was;

	open_new();
	ok(TD_WRITE, mem, 0, 4 * CLUSTER, 0);
	warm();
	was = place_of(0);
	ok(TD_DISCARD, NULL, 0, CLUSTER, 0);
	fio.manual = true;
	start(&flush, TD_FLUSH, NULL, 0, 0, 0);
	for (int i = 0; i < 100 && !punching(); i++) {
		turns(3);
		if (fio.nrunning && !punching())
			fault_io_complete(&fio, 0);
	}
	ck_assert(punching());
	ck_assert_uint_eq(fio.log[fio.nlog - 1].off, was);
	start(&writing, TD_WRITE, mem, MIB, CLUSTER, 0);
	turns(10);
	for (unsigned i = 0; i < fio.nlog; i++)
		ck_assert(fio.log[i].op != TD_IO_WRITE || fio.log[i].off != was);
	fio.manual = false;
	for (int i = 0; i < 10; i++) {
		while (fio.nrunning)
			fault_io_complete(&fio, 0);
		turns(3);
	}
	ck_assert_int_eq(finish(&flush), 0);
	ck_assert_int_eq(finish(&writing), 0);
	close_sound();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("qcow2-order");

	SUITE_ADD(s, counts_and_data_are_durable_before_the_mapping_and_that_before_the_answer);
	SUITE_ADD(s, a_durable_write_to_a_new_cluster_has_its_mapping_durable_too);
	SUITE_ADD(s, a_sync_that_fails_leaves_the_mapping_alone_and_fails_all_after_it);
	SUITE_ADD(s, counts_that_read_right_are_written_again_before_the_mark_comes_off);
	SUITE_ADD(s, a_write_back_that_finds_no_space_is_made_good_by_the_next);
	SUITE_ADD(s, a_cluster_that_finds_no_space_is_given_back);
	SUITE_ADD(s, a_discarded_place_is_given_back_only_when_that_is_durable);
	SUITE_ADD(s, a_discarded_place_waits_for_who_reads_it);
	SUITE_ADD(s, a_place_that_is_being_punched_is_not_taken);
	return suite_run(s);
}
