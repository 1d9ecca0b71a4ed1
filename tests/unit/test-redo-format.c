/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a tapdisk that dies alone must not take along (Q9 of drivers/qcow/qcow-flush.c, V8 of
 * drivers/vhd/vhd-alloc.c), on a simulated store: at chosen moments of a commit, most of them with
 * a log that is full.  A death is a picture of the log and of the store, taken while the process
 * lives on; a successor then opens what is on the picture.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "drivers/qcow/qcow-image.h"
#include "drivers/qcow/qcow.h"
#include "drivers/vhd/vhd.h"
#include "lib/bytes.h"
#include "tests/support/drive.h"
#include "tests/support/suite.h"
#include "tests/support/vhd-make.h"

#define CLUSTER (64u << 10)
#define SIZE    (64 * MIB)
#define LOG     (4096 + 2 * TD_REDO_BYTES)

static char dir[64], log_path[128];
static struct td_redo *redo;
static const char *spec;

static void open_it(void)
{
	ck_assert_msg(open_how(spec, (struct td_how){.flags = TD_FILE_DIRECT, .redo = redo}) == 0,
		      "%s", err.text);
	fault_io_clear(&fio);
}

static void begin_with_log(void)
{
	begin();
	strcpy(dir, "test-redo-format.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(log_path, sizeof log_path, "%s/redo", dir);
	redo = td_redo_new(log_path);
}

static void end_with_log(void)
{
	td_redo_free(redo);
	unlink(log_path);
	ck_assert_int_eq(rmdir(dir), 0);
	end();
}

static void create_it(void *arg)
{
	ck_assert_msg(qcow_image_create("/a.qcow2", arg, fio.io, &err) == 0, "%s", err.text);
}

/* Open, with the tables of the disk's beginning in memory and in the file, and with nothing in the
 * log. */
static void open_qcow(struct qcow_create o)
{
	o.size = SIZE;
	o.version = 3;
	o.cluster_bits = 16;
	o.refcount_order = 4;
	begin_with_log();
	fio.grows = true;
	fault_io_file(&fio, "/a.qcow2", 0);
	if (o.data_file)
		fault_io_file(&fio, "/a.data", 0);
	on_fiber(loop, create_it, &o);
	spec = "qcow2:/a.qcow2";
	open_it();
	ok(TD_WRITE, mem, SIZE / 2 - CLUSTER, CLUSTER, 0);
	ok(TD_FLUSH, NULL, 0, 0, 0);
	fault_io_clear(&fio);
}

static struct qcow *qcow(void)
{
	return leaf->priv;
}

/* Leaves no room in the half that is written to: what goes there is the beginning of the file, as
 * it is. */
static void fill_log(void)
{
	unsigned n = TD_REDO_BYTES / 504, rest = (TD_REDO_BYTES - n * 504) / 24;

	while (n--)
		ck_assert(td_redo_put(redo, TD_REDO_FIRST, 0, fio.file[0].data, 488));
	while (rest--)
		td_redo_put(redo, TD_REDO_FIRST, 0, fio.file[0].data, 1);
	ck_assert(td_redo_crowded(redo));
}

/* --- one step at a time --- */

static bool is_sync(const struct td_iop *op)
{
	return op->op == TD_IO_SYNC;
}

static bool is_data(const struct td_iop *op)
{
	return op->op == TD_IO_WRITE && op->iov[0].iov_base >= (void *)mem &&
	       op->iov[0].iov_base < (void *)(mem + MIB);
}

static bool is_metadata(const struct td_iop *op)
{
	return !is_sync(op) && !is_data(op);
}

static bool is_no_data(const struct td_iop *op)
{
	return !is_data(op);
}

/* Completes those that are of the kind, and what comes of that; at most n; how many were there? */
static unsigned complete(bool (*kind)(const struct td_iop *), unsigned n)
{
	unsigned done = 0;

	for (bool any = true; any && done < n;) {
		unsigned i = 0;

		any = false;
		turns(5);
		td_list_each (l, &fio.running) {
			if (kind(td_entry(l, struct td_iop, link))) {
				any = fault_io_complete(&fio, i);
				done++;
				break;
			}
			i++;
		}
	}
	turns(5);
	return done;
}

struct death {
	uint8_t log[LOG];
	struct fault_file file[3];
};

static struct death death;

static void die_here(void)
{
	int fd = open(log_path, O_RDONLY);

	ck_assert_int_eq(read(fd, death.log, LOG), LOG);
	close(fd);
	for (unsigned i = 0; i < 3; i++) {
		death.file[i] = fio.file[i];
		if (!fio.file[i].data)
			continue;
		death.file[i].data = malloc(fio.file[i].size + 1);
		memcpy(death.file[i].data, fio.file[i].data, fio.file[i].size);
	}
}

/* What was there when the other died is there, and a successor opens it. */
static int succeed(void)
{
	int fd;

	close_leaf();
	td_redo_free(redo);
	fd = open(log_path, O_WRONLY);
	ck_assert_int_eq(write(fd, death.log, LOG), LOG);
	close(fd);
	for (unsigned i = 0; i < 3; i++) {
		free(fio.file[i].data);
		fio.file[i] = death.file[i];
	}
	fault_io_clear(&fio);
	ck_assert_msg(td_redo_adopt(log_path, true, &redo, &err) == 0, "%s", err.text);
	return open_how(spec, (struct td_how){.flags = TD_FILE_DIRECT, .redo = redo});
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

static void succeed_sound(void)
{
	struct checking c = {.rc = 0};

	ck_assert_msg(succeed() == 0, "%s", err.text);
	close_leaf();
	on_fiber(loop, check_it, &c);
	ck_assert_int_eq(c.rc, 0);
	ck_assert_uint_eq(c.c.corruptions, 0);
	end_with_log();
}

static void finish_all(struct op *o, unsigned n)
{
	fio.manual = false;
	complete(is_sync, 100);
	complete(is_no_data, 100);
	complete(is_data, 100);
	for (unsigned i = 0; i < n; i++)
		ck_assert_int_eq(finish(&o[i]), 0);
}

/* --- a log that is full --- */

/* A write to what a change has made room for that the log has missed is lost with that: it is not
 * answered before. */
START_TEST(no_write_is_answered_before_the_mapping_that_the_log_has_missed)
{
	struct op o[2];

	for (unsigned vhd = 0; vhd < 2; vhd++) {
		if (vhd) {
			begin_with_log();
			vhd_make(&fio, &(struct vhd_make){.name = "/a.vhd",
							  .size = 4 * MIB,
							  .block_size = CLUSTER,
							  .type = VHD_DYNAMIC,
							  .uuid = 1});
			spec = "vhd:/a.vhd";
			open_it();
			ok(TD_WRITE, mem, 4096, 4096, 0); /* the block is there */
			ok(TD_FLUSH, NULL, 0, 0, 0);
		} else {
			open_qcow((struct qcow_create){.size = SIZE});
		}
		fill_log();
		fio.manual = true;
		start(&o[0], TD_WRITE, mem, 0, 4096, 0);
		complete(is_data, 1);
		start(&o[1], TD_WRITE, mem, 0, 4096, 0);
		complete(is_data, 1);
		complete(is_metadata, 100);
		ck_assert(td_redo_missed(redo));
		ck_assert_int_eq(o[0].done + o[1].done, 0);
		/* nor by a lane */
		ck_assert(!leaf->driver->map(leaf, 0, 4096, &(struct td_map){0}));
		finish_all(o, 2);
		ok(TD_FLUSH, NULL, 0, 0, 0);
		ck_assert(!td_redo_missed(redo));
		ck_assert(leaf->driver->map(leaf, 0, 4096, &(struct td_map){0}));
		fault_io_clear(&fio);
		ok(TD_WRITE, mem, 0, 4096, 0);
		ck_assert_uint_eq(fio.nlog, 1);
		close_leaf();
		end_with_log();
	}
}
END_TEST

/* The count of a new cluster found no room in the log; the entry that points to it comes after a
 * commit has begun, and finds some. */
START_TEST(an_entry_is_not_applied_without_its_count)
{
	struct op o[2];

	open_qcow((struct qcow_create){.size = SIZE});
	fill_log();
	fio.manual = true;
	start(&o[0], TD_WRITE, mem, 0, CLUSTER, 0);
	turns(5);
	ck_assert(td_redo_missed(redo));
	start(&o[1], TD_FLUSH, NULL, 0, 0, 0);
	turns(5);
	ck_assert_uint_eq(complete(is_data, 1), 1);
	ck_assert_int_eq(o[0].done + o[1].done, 0);
	die_here();
	finish_all(o, 2);
	succeed_sound();
}
END_TEST

/* A cluster was given back, which is in the log, and is taken anew, which is not: a commit that is
 * not over must not be undone in part. */
START_TEST(a_cluster_that_is_taken_anew_is_counted)
{
	bool over = false;

	for (unsigned steps = 0; !over; steps++) {
		struct op o;
		uint64_t was;

		open_qcow((struct qcow_create){.size = SIZE});
		ok(TD_WRITE, mem, 0, CLUSTER, 0);
		ok(TD_FLUSH, NULL, 0, 0, 0);
		ok(TD_DISCARD, NULL, 0, CLUSTER, 0);
		ok(TD_FLUSH, NULL, 0, 0, 0);
		turns(20);
		was = qcow()->hint;
		ck_assert_uint_lt(was, qcow()->end);
		fill_log();
		fio.manual = true;
		start(&o, TD_WRITE, mem, MIB, CLUSTER, 0);
		for (unsigned i = 0; i < steps && !over; i++)
			over = !complete(is_no_data, 1) && !complete(is_data, 1);
		ck_assert_uint_lt(steps, 100);
		die_here();
		finish_all(&o, 1);
		succeed_sound();
	}
}
END_TEST

/* Long before it is full a commit begins, so that no request has to wait for one. */
START_TEST(a_guest_that_never_flushes_does_not_fill_the_log)
{
	open_qcow((struct qcow_create){.size = SIZE, .lazy = false});
	for (unsigned i = 0; i < 20; i++) {
		ok(TD_WRITE, mem, i * CLUSTER, CLUSTER, 0);
		for (unsigned k = 0; k < 60; k++)
			td_redo_put(redo, TD_REDO_FIRST, 0, fio.file[0].data, 488);
		turns(20);
		ck_assert(!td_redo_missed(redo));
	}
	close_leaf();
	end_with_log();
}
END_TEST

/* --- lazy counts, marks, data elsewhere --- */

static void commit(void *arg)
{
	ck_assert_int_eq(qcow_flush(qcow()), 0);
	*(bool *)arg = true;
}

/* A commit between the count and the entry: it has nothing to write but the mark, without which
 * nobody counts anew. */
START_TEST(a_commit_without_entries_marks_lazy_counts_too)
{
	struct op o[1];
	bool committed = false;

	open_qcow((struct qcow_create){.size = SIZE, .lazy = true});
	close_leaf();
	open_it();
	ok(TD_READ, mem, SIZE / 2 - CLUSTER, 512, 0);
	fio.manual = true;
	start(&o[0], TD_WRITE, mem, 0, CLUSTER, 0);
	complete(is_no_data, 100);
	ck_assert_int_eq(td_fiber_start(loop, commit, &committed), 0);
	complete(is_no_data, 100);
	ck_assert(committed);
	complete(is_data, 1);
	ck_assert_int_eq(o[0].done, 1);
	die_here();
	finish_all(o, 1);
	succeed_sound();
}
END_TEST

static void corrupt_it(void *arg)
{
	ck_assert_int_eq(qcow_corrupt(qcow(), "as a test"), -EIO);
}

START_TEST(the_mark_of_a_corrupt_image_stays)
{
	open_qcow((struct qcow_create){.size = SIZE, .lazy = true});
	close_leaf();
	open_it();
	ok(TD_WRITE, mem, 0, CLUSTER, 0);
	on_fiber(loop, corrupt_it, NULL);
	die_here();
	ck_assert_int_eq(succeed(), -EROFS);
	ck_assert_ptr_nonnull(strstr(err.text, "marked as corrupt"));
	end_with_log();
}
END_TEST

START_TEST(data_in_a_file_of_their_own_are_durable_before_the_log_is_applied)
{
	uint64_t synced = 0;

	open_qcow((struct qcow_create){.size = SIZE, .data_file = "a.data"});
	ok(TD_WRITE, mem, 0, CLUSTER, 0);
	die_here();
	ck_assert_msg(succeed() == 0, "%s", err.text);
	for (unsigned i = 0; i < fio.nlog && fio.log[i].op != TD_IO_WRITE; i++)
		synced |= (uint64_t)(fio.log[i].op == TD_IO_SYNC) << fio.log_file[i];
	ck_assert_int_eq(__builtin_popcountll(synced), 2); /* the one file and the other */
	memset(mem, 0, CLUSTER);
	ok(TD_READ, mem, 0, CLUSTER, 0);
	ck_assert_uint_eq(mem[0], 0xab);
	close_leaf();
	end_with_log();
}
END_TEST

/* --- a log belongs to one state of one image --- */

/* A write to a new block, of which only the log knows, and a death. */
static void die_with_a_vhd(uint64_t *table, uint64_t *bitmap)
{
	begin_with_log();
	vhd_make(&fio, &(struct vhd_make){.name = "/a.vhd",
					  .size = 4 * MIB,
					  .block_size = CLUSTER,
					  .type = VHD_DYNAMIC,
					  .uuid = 1});
	spec = "vhd:/a.vhd";
	open_it();
	*table = ((struct vhd *)leaf->priv)->l.table_off;
	ok(TD_WRITE, mem, CLUSTER, 2048, 0);
	*bitmap = (uint64_t)((struct vhd *)leaf->priv)->bat[1] * VHD_SECTOR;
	die_here();
}

static void refused_and_kept(void)
{
	ck_assert_int_eq(succeed(), -ESTALE);
	ck_assert(td_redo_pending(redo));
	end_with_log();
}

START_TEST(what_others_have_changed_in_a_vhd_is_found)
{
	uint64_t table, bitmap;

	die_with_a_vhd(&table, &bitmap);
	ck_assert_msg(succeed() == 0, "%s", err.text); /* nobody has */
	close_leaf();
	ck_assert(!td_redo_pending(redo));
	end_with_log();

	die_with_a_vhd(&table, &bitmap);
	/* a place like any other */
	td_put_be32(death.file[0].data + table, (uint32_t)(bitmap / VHD_SECTOR) + 256);
	refused_and_kept();

	die_with_a_vhd(&table, &bitmap);
	memset(death.file[0].data + table, 0, 4);
	refused_and_kept();

	die_with_a_vhd(&table, &bitmap);
	death.file[0].data[bitmap] |= 0x0f;
	refused_and_kept();
}
END_TEST

/* Whoever does not know the mark clears it. */
START_TEST(a_qcow_without_the_mark_of_the_log_has_been_changed_by_others)
{
	open_qcow((struct qcow_create){.size = SIZE});
	ok(TD_WRITE, mem, 0, CLUSTER, 0);
	die_here();
	memset(death.file[0].data + QCOW_H_AUTOCLEAR, 0, 8);
	refused_and_kept();
}
END_TEST

START_TEST(a_log_that_has_to_be_there_is_not_made_anew)
{
	uint64_t table, bitmap;

	die_with_a_vhd(&table, &bitmap);
	close_leaf();
	td_redo_free(redo);
	redo = NULL;
	unlink(log_path);
	ck_assert_int_eq(td_redo_adopt(log_path, true, &redo, &err), -ENODATA);
	ck_assert_int_eq(access(log_path, F_OK), -1);
	for (unsigned i = 0; i < 3; i++)
		free(death.file[i].data);
	end_with_log();
}
END_TEST

/* A commit is under way, and the half that it has frozen has an older word on the same bytes. */
START_TEST(the_newer_half_has_the_last_word)
{
	open_qcow((struct qcow_create){.size = SIZE});
	ck_assert(td_redo_put(redo, TD_REDO_SECOND, CLUSTER / 2, "olderold", 8));
	td_redo_freeze(redo);
	ck_assert(td_redo_put(redo, TD_REDO_SECOND, CLUSTER / 2, "newernew", 8));
	die_here();
	ck_assert_msg(succeed() == 0, "%s", err.text);
	ck_assert_mem_eq(fio.file[0].data + CLUSTER / 2, "newernew", 8);
	close_leaf();
	end_with_log();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("redo-format");

	SUITE_ADD(s, no_write_is_answered_before_the_mapping_that_the_log_has_missed);
	SUITE_ADD(s, an_entry_is_not_applied_without_its_count);
	SUITE_ADD(s, a_cluster_that_is_taken_anew_is_counted);
	SUITE_ADD(s, a_guest_that_never_flushes_does_not_fill_the_log);
	SUITE_ADD(s, a_commit_without_entries_marks_lazy_counts_too);
	SUITE_ADD(s, the_mark_of_a_corrupt_image_stays);
	SUITE_ADD(s, data_in_a_file_of_their_own_are_durable_before_the_log_is_applied);
	SUITE_ADD(s, what_others_have_changed_in_a_vhd_is_found);
	SUITE_ADD(s, a_qcow_without_the_mark_of_the_log_has_been_changed_by_others);
	SUITE_ADD(s, a_log_that_has_to_be_there_is_not_made_anew);
	SUITE_ADD(s, the_newer_half_has_the_last_word);
	return suite_run(s);
}
