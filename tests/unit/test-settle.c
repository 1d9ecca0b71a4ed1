/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is made durable when an image is opened, and what becomes of a failure (S1 and S2 of
 * lib/settle.h), on a simulated store. */
#include <errno.h>

#include "drivers/qcow/qcow-image.h"
#include "tests/support/drive.h"
#include "tests/support/suite.h"
#include "tests/support/vhd-make.h"

#define BLOCK (64u << 10)
#define SIZE  (4 * MIB)

static void create_it(void *arg)
{
	ck_assert_msg(qcow_image_create("/a.qcow2", arg, fio.io, &err) == 0, "%s", err.text);
}

static void create_qcow(struct qcow_create o)
{
	o.size = SIZE;
	o.version = 3;
	o.cluster_bits = 16;
	o.refcount_order = 4;
	fio.grows = true;
	fault_io_file(&fio, "/a.qcow2", 0);
	on_fiber(loop, create_it, &o);
}

/* A differencing VHD upon a dynamic one upon a raw one; a qcow2 with a data file of its own, upon
 * that raw one. */
static void make(const char *kind)
{
	begin();
	fault_io_file(&fio, "/base.img", SIZE);
	if (!strcmp(kind, "vhd")) {
		vhd_make(&fio, &(struct vhd_make){.name = "/b.vhd",
						  .size = SIZE,
						  .block_size = BLOCK,
						  .type = VHD_DIFF,
						  .uuid = 2,
						  .parent = "./base.img"});
		vhd_make(&fio, &(struct vhd_make){.name = "/a.vhd",
						  .size = SIZE,
						  .block_size = BLOCK,
						  .type = VHD_DIFF,
						  .uuid = 1,
						  .parent = "./b.vhd",
						  .parent_uuid = 2});
	} else if (!strcmp(kind, "qcow2")) {
		fault_io_file(&fio, "/a.data", 0);
		create_qcow((struct qcow_create){
			.data_file = "a.data", .backing = "base.img", .backing_format = "raw"});
	}
	fault_io_clear(&fio);
}

static const struct chain {
	const char *kind, *spec;
	const char *files[4]; /* that are to be durable */
} chains[] = {{"raw", "aio:/base.img", {"/base.img"}},
	      {"vhd", "vhd:/a.vhd", {"/a.vhd", "/b.vhd", "/base.img"}},
	      {"qcow2", "qcow2:/a.qcow2", {"/a.qcow2", "/a.data", "/base.img"}}};

#define NCHAINS (sizeof chains / sizeof *chains)

static unsigned syncs_of(const char *name)
{
	unsigned n = 0;

	for (unsigned i = 0; i < fio.nlog; i++)
		n += fio.log[i].op == TD_IO_SYNC && !strcmp(fio.file[fio.log_file[i]].name, name);
	return n;
}

static unsigned syncs(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < fio.nlog; i++)
		n += fio.log[i].op == TD_IO_SYNC;
	return n;
}

START_TEST(each_file_of_a_chain_is_made_durable_once)
{
	for (unsigned i = 0; i < NCHAINS; i++)
		for (unsigned direct = 0; direct < 2; direct++) {
			unsigned n = 0;

			make(chains[i].kind);
			ck_assert_msg(open_how(chains[i].spec,
					       (struct td_how){.flags = direct ? TD_FILE_DIRECT
									       : 0}) == 0,
				      "%s", err.text);
			for (; chains[i].files[n]; n++)
				ck_assert_msg(syncs_of(chains[i].files[n]) == 1, "%s: %u",
					      chains[i].files[n], syncs_of(chains[i].files[n]));
			ck_assert_uint_eq(syncs(), n);
			close_leaf();
			end();
		}
}
END_TEST

/* What is read of the image, and mended in it, comes behind it. */
START_TEST(an_image_is_durable_before_it_is_read)
{
	for (unsigned i = 1; i < NCHAINS; i++) {
		make(chains[i].kind);
		open_how(chains[i].spec, (struct td_how){.flags = TD_FILE_DIRECT});
		ck_assert_int_eq(fio.log[0].op, TD_IO_SYNC);
		close_leaf();
		end();
	}
}
END_TEST

START_TEST(who_promises_nothing_pays_for_nothing)
{
	static const unsigned flags[] = {TD_FILE_NOSYNC, TD_FILE_RDONLY,
					 TD_FILE_RDONLY | TD_FILE_LOOK,
					 TD_FILE_RDONLY | TD_FILE_PARENT};

	for (unsigned i = 0; i < NCHAINS; i++)
		for (unsigned f = 0; f < sizeof flags / sizeof *flags; f++) {
			make(chains[i].kind);
			ck_assert_int_eq(
				open_how(chains[i].spec, (struct td_how){.flags = flags[f]}), 0);
			ck_assert_uint_eq(syncs(), 0);
			close_leaf();
			end();
		}
}
END_TEST

/* The place of the n-th sync among the operations of an open; 0: there is none. */
static uint64_t place_of_sync(const struct chain *c, unsigned n)
{
	uint64_t k = 0;

	make(c->kind);
	ck_assert_int_eq(open_how(c->spec, (struct td_how){0}), 0);
	for (unsigned i = 0; i < fio.nlog && !k; i++)
		if (fio.log[i].op == TD_IO_SYNC && !n--)
			k = i + 1;
	close_leaf();
	end();
	return k;
}

START_TEST(where_that_fails_the_image_is_not_opened_or_its_guest_hears_of_it)
{
	for (unsigned i = 0; i < NCHAINS; i++)
		for (unsigned n = 0; place_of_sync(&chains[i], n); n++)
			for (unsigned told = 0; told < 2; told++) {
				uint64_t k = place_of_sync(&chains[i], n);
				int lost = 0;

				make(chains[i].kind);
				fault_io_rule(&fio, k, -EIO);
				ck_assert_int_eq(
					open_how(chains[i].spec,
						 (struct td_how){.lost = told ? &lost : NULL}),
					told ? 0 : -EIO);
				if (told) {
					ck_assert_int_eq(lost, -EIO);
					close_leaf();
				} else {
					ck_assert_ptr_nonnull(
						strstr(err.text, "could not be made durable"));
					ck_assert_ptr_nonnull(strstr(err.text, chains[i].files[n]));
				}
				end();
			}
}
END_TEST

/* squashfs and ISO 9660 have no fsync. */
START_TEST(a_parent_that_cannot_be_written_need_not_be_made_durable)
{
	for (unsigned i = 1; i < NCHAINS; i++) {
		uint64_t k = place_of_sync(&chains[i], 2);

		make(chains[i].kind);
		fault_io_rule(&fio, k, -EINVAL);
		ck_assert_msg(open_how(chains[i].spec, (struct td_how){0}) == 0, "%s", err.text);
		close_leaf();
		end();
		make(chains[i].kind);
		fault_io_rule(&fio, 1, -EINVAL); /* but what is written has to be */
		ck_assert_int_eq(open_how(chains[i].spec, (struct td_how){0}), -EINVAL);
		end();
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("settle");

	SUITE_ADD(s, each_file_of_a_chain_is_made_durable_once);
	SUITE_ADD(s, an_image_is_durable_before_it_is_read);
	SUITE_ADD(s, who_promises_nothing_pays_for_nothing);
	SUITE_ADD(s, where_that_fails_the_image_is_not_opened_or_its_guest_hears_of_it);
	SUITE_ADD(s, a_parent_that_cannot_be_written_need_not_be_made_durable);
	return suite_run(s);
}
