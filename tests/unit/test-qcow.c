/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The qcow2 driver on a simulated store: what goes to the file, when, and in which order. */
#include <errno.h>

#include "drivers/qcow/qcow-image.h"
#include "drivers/qcow/qcow.h"
#include "tests/support/drive.h"
#include "tests/support/suite.h"

#define CLUSTER (64u << 10)
#define SIZE    (64 * MIB)

static void create_it(void *arg)
{
	ck_assert_msg(qcow_image_create("/a.qcow2", arg, fio.io, &err) == 0, "%s", err.text);
}

static void create(struct qcow_create o)
{
	o.size = o.size ? o.size : SIZE;
	o.version = o.version ? o.version : 3;
	o.cluster_bits = 16;
	o.refcount_order = 4;
	fio.grows = true;
	fault_io_file(&fio, "/a.qcow2", 0);
	on_fiber(loop, create_it, &o);
}

static void open_new(void)
{
	begin();
	create((struct qcow_create){.size = SIZE});
	open_leaf("qcow2:/a.qcow2");
}

/* Upon a raw disk whose sectors say where they are. */
static void open_upon_raw(unsigned version)
{
	struct fault_file *raw;

	begin();
	raw = fault_io_file(&fio, "/base.img", SIZE);
	for (uint64_t i = 0; i < SIZE; i++)
		raw->data[i] = (uint8_t)(1 + i / 512 % 251);
	create((struct qcow_create){
		.version = version, .backing = "base.img", .backing_format = "raw"});
	open_leaf("qcow2:/a.qcow2");
}

struct checking {
	struct qcow_check c;
	int rc;
};

static void check_it(void *arg)
{
	struct checking *c = arg;

	c->rc = qcow_image_check("/a.qcow2", &c->c, fio.io, &err);
}

static void close_sound(void)
{
	struct checking c = {.rc = 0};

	close_leaf();
	on_fiber(loop, check_it, &c);
	ck_assert_int_eq(c.rc, 0);
	ck_assert_uint_eq(c.c.corruptions, 0);
	ck_assert_uint_eq(c.c.leaks, 0);
	end();
}

static struct qcow *driver(void)
{
	return leaf->priv;
}

/* Where a byte of the disk stands in the file; 0: nowhere. */
static uint64_t place_of(uint64_t off)
{
	struct qcow_run run;

	qcow_map(driver(), off, 512, &run);
	return run.kind == QCOW_RUN_DATA ? run.host : 0;
}

static uint64_t first_l2(void)
{
	return driver()->l1.entry[0] & QCOW_OFFSET;
}

static bool is_l2(const struct fault_record *r)
{
	return r->op == TD_IO_WRITE && r->off >= first_l2() && r->off < first_l2() + CLUSTER;
}

static bool is_count(const struct fault_record *r)
{
	return r->op == TD_IO_WRITE && r->off >= driver()->ref.entry[0] &&
	       r->off < driver()->ref.entry[0] + CLUSTER;
}

/* The tables of the disk's beginning are in memory, and there is an L2 table. */
static void warm(void)
{
	ok(TD_WRITE, mem, SIZE / 2 - CLUSTER, CLUSTER, 0);
	ok(TD_FLUSH, NULL, 0, 0, 0);
	ok(TD_READ, mem, 0, 512, 0);
	memset(mem, 0xab, MIB);
	fault_io_clear(&fio);
}

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

/* --- the write order --- */

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
	SUITE_ADD(s, counts_and_data_are_durable_before_the_mapping_and_that_before_the_answer);
	SUITE_ADD(s, a_durable_write_to_a_new_cluster_has_its_mapping_durable_too);
	SUITE_ADD(s, a_sync_that_fails_leaves_the_mapping_alone_and_fails_all_after_it);
	SUITE_ADD(s, counts_that_read_right_are_written_again_before_the_mark_comes_off);
	SUITE_ADD(s, a_write_back_that_finds_no_space_is_made_good_by_the_next);
	SUITE_ADD(s, a_cluster_that_finds_no_space_is_given_back);
	SUITE_ADD(s, a_discarded_place_is_given_back_only_when_that_is_durable);
	SUITE_ADD(s, a_discarded_place_waits_for_who_reads_it);
	SUITE_ADD(s, a_place_that_is_being_punched_is_not_taken);
	SUITE_ADD(s, what_a_growth_brings_reads_as_zeroes);
	SUITE_ADD(s, a_sync_that_fails_in_a_growth_sticks);
	SUITE_ADD(s, a_larger_refcount_table_that_finds_no_space_for_its_name_is_named_later);
	SUITE_ADD(s, a_header_written_after_one_that_found_no_space_names_the_table_in_use);
	return suite_run(s);
}
