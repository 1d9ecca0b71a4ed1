/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Another parent for a VHD that is being written (RL1 and RL2 of vhd-relink.c): the power is cut
 * around each write, and the chain that is opened then must be one of the two; each write fails;
 * and what does not fit is refused with nothing written.
 */
#include <errno.h>

#include "drivers/vhd/vhd-relink.h"
#include "drivers/vhd/vhd.h"
#include "tests/support/drive.h"
#include "tests/support/suite.h"
#include "tests/support/vhd-make.h"

#define SIZE  (4 * MIB)
#define BLOCK (64u << 10)
#define TIME  77

static struct fault_file *file; /* the leaf's, on mids.vhd, on the base */
static uint8_t *before;         /* its content at first */
static bool raw_base;

static void image(const char *name, uint8_t uuid, const char *parent, uint8_t parent_uuid)
{
	file = vhd_make(&fio, &(struct vhd_make){.name = name,
						 .size = SIZE,
						 .block_size = BLOCK,
						 .type = parent ? VHD_DIFF : VHD_DYNAMIC,
						 .uuid = uuid,
						 .parent = parent,
						 .locators = 3,
						 .parent_uuid = parent_uuid});
}

static void chain(bool raw)
{
	begin();
	raw_base = raw;
	if (raw)
		fault_io_file(&fio, "/base.vhd", SIZE);
	else
		image("/base.vhd", 1, NULL, 0);
	image("/mids.vhd", 2, "./base.vhd", raw ? 0 : 1);
	image("/leaf.vhd", 3, "./mids.vhd", 2);
	before = malloc(file->size);
	memcpy(before, file->data, file->size);
}

static void chain_end(void)
{
	free(before);
	end();
}

struct relink_call {
	const char *relative;
	int rc;
};

static void relink_main(void *arg)
{
	struct relink_call *c = arg;
	struct td_relink to = {
		.relative = c->relative, .name = "base.vhd", .timestamp = TIME, .raw = raw_base};

	to.uuid[0] = !raw_base;
	err.code = 0;
	c->rc = leaf->driver->relink(leaf, &to, &err);
}

static int relink(const char *relative)
{
	struct relink_call c = {.relative = relative};

	on_fiber(loop, relink_main, &c);
	return c.rc;
}

/* The parent that an open of what is in the file takes: 'm' or 'b'. */
static char parent_now(void)
{
	char is;

	ck_assert_msg(open_how("vhd:/leaf.vhd",
			       (struct td_how){.flags = TD_FILE_DIRECT | TD_FILE_RDONLY}) == 0,
		      "%s", err.text);
	ck_assert_ptr_nonnull(leaf->backing);
	is = leaf->backing->path[1];
	ck_assert(is == 'm' || is == 'b');
	ck_assert_str_eq(leaf->backing->driver->name, is == 'b' && raw_base ? "aio" : "vhd");
	close_leaf();
	return is;
}

/* The writes and syncs of a whole run: each writes a place of its own, so the end has their data.
 */
static unsigned whole_run(struct fault_record ops[16], uint8_t *after)
{
	unsigned n = 0;

	open_leaf("vhd:/leaf.vhd");
	ck_assert_msg(relink("./base.vhd") == 0, "%s", err.text);
	for (unsigned i = 0; i < fio.nlog; i++)
		if (fio.log[i].op == TD_IO_WRITE || fio.log[i].op == TD_IO_SYNC) {
			ck_assert_uint_lt(n, 16);
			ops[n++] = fio.log[i];
		}
	memcpy(after, file->data, file->size);
	close_leaf();
	ck_assert_int_eq(parent_now(), 'b');
	return n;
}

/* The sectors written by ops[0..n), from the last sync before `cut' on if volatile_ones. */
static unsigned sectors(const struct fault_record *ops, unsigned cut, bool volatile_ones,
			uint64_t *out)
{
	unsigned from = 0, to, n = 0;

	for (unsigned i = 0; i < cut; i++)
		if (ops[i].op == TD_IO_SYNC)
			from = i;
	to = volatile_ones ? cut : from;
	from = volatile_ones ? from : 0;
	for (unsigned i = from; i < to; i++)
		for (uint64_t s = 0; ops[i].op == TD_IO_WRITE && s < ops[i].len; s += 512)
			out[n++] = ops[i].off + s;
	ck_assert_uint_lt(n, 16);
	return n;
}

static void take(const uint8_t *after, uint64_t off)
{
	memcpy(file->data + off, after + off, 512);
}

static void cut_everywhere(bool raw)
{
	struct fault_record ops[16];
	uint64_t sure[16], maybe[16];
	unsigned n, seen[2] = {0};
	uint8_t *after;

	chain(raw);
	after = malloc(file->size);
	n = whole_run(ops, after);
	ck_assert_uint_ge(n, 4); /* three names and the header */
	for (unsigned cut = 0; cut <= n; cut++) {
		unsigned nsure = sectors(ops, cut, false, sure);
		unsigned nmaybe = sectors(ops, cut, true, maybe);

		for (unsigned set = 0; set < 1u << nmaybe; set++) {
			memcpy(file->data, before, file->size);
			for (unsigned i = 0; i < nsure; i++)
				take(after, sure[i]);
			for (unsigned i = 0; i < nmaybe; i++)
				if (set >> i & 1)
					take(after, maybe[i]);
			seen[parent_now() == 'b']++;
		}
	}
	ck_assert(seen[0] && seen[1]);
	free(after);
	chain_end();
}

START_TEST(a_cut_leaves_one_of_two_parents)
{
	cut_everywhere(false);
}
END_TEST

START_TEST(a_cut_leaves_one_of_two_parents_the_new_one_raw)
{
	cut_everywhere(true);
}
END_TEST

START_TEST(each_write_that_fails_is_told_and_the_disk_opens_and_can_be_relinked)
{
	for (int raw = 0; raw < 2; raw++) {
		uint64_t k = 0;
		int rc;

		chain(raw);
		do {
			memcpy(file->data, before, file->size);
			open_leaf("vhd:/leaf.vhd");
			fault_io_rule(&fio, ++k, -EIO);
			rc = relink("./base.vhd");
			ck_assert(rc == 0 || rc == -EIO);
			fault_io_clear(&fio);
			close_leaf();
			if (rc) {
				ck_assert_ptr_nonnull(strstr(err.text, "/leaf.vhd"));
				parent_now();
				open_leaf("vhd:/leaf.vhd");
				ck_assert_msg(relink("./base.vhd") == 0, "%s", err.text);
				close_leaf();
			}
			ck_assert_int_eq(parent_now(), 'b');
		} while (rc);
		ck_assert_uint_gt(k, 8);
		chain_end();
	}
}
END_TEST

START_TEST(a_name_that_does_not_fit_is_refused_and_nothing_is_written)
{
	chain(false);
	open_leaf("vhd:/leaf.vhd");
	ck_assert_int_eq(relink("./a-longer-name.vhd"), -EBUSY);
	ck_assert_ptr_nonnull(strstr(err.text, "tap-ctl pause"));
	ck_assert_int_eq(relink("/base.vhd"), -EINVAL);
	close_leaf();
	ck_assert_mem_eq(file->data, before, file->size);
	ck_assert_int_eq(parent_now(), 'm');
	chain_end();
}
END_TEST

START_TEST(a_shorter_name_fits_and_writes_go_on)
{
	chain(false);
	fault_io_file(&fio, "/b.vhd", 1); /* what is found there does not matter here */
	open_leaf("vhd:/leaf.vhd");
	ok(TD_WRITE, mem, 0, 4096, 0);
	ck_assert_msg(relink("./b.vhd") == 0, "%s", err.text);
	ok(TD_WRITE, mem, BLOCK, 4096, 0);
	ok(TD_FLUSH, NULL, 0, 0, 0);
	memset(mem, 0, 4096);
	ok(TD_READ, mem, BLOCK, 4096, 0);
	ck_assert_uint_eq(mem[4095], 0xab);
	close_leaf();
	chain_end();
}
END_TEST

/* LC3 of tapdisk/commit.h: what the image names is durable where nothing else is. */
START_TEST(the_name_is_durable_where_flushes_are_dropped)
{
	unsigned syncs = 0, writes = 0;

	chain(false);
	ck_assert_msg(open_how("vhd:/leaf.vhd", (struct td_how){.flags = TD_FILE_NOSYNC}) == 0,
		      "%s", err.text);
	fault_io_clear(&fio);
	ck_assert_msg(relink("./base.vhd") == 0, "%s", err.text);
	for (unsigned i = 0; i < fio.nlog; i++) {
		syncs += fio.log[i].op == TD_IO_SYNC;
		writes += fio.log[i].op == TD_IO_WRITE;
	}
	ck_assert_uint_eq(syncs, writes); /* each before the next */
	close_leaf();
	ck_assert_int_eq(parent_now(), 'b');
	chain_end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vhd-relink");

	SUITE_ADD(s, a_cut_leaves_one_of_two_parents);
	SUITE_ADD(s, a_cut_leaves_one_of_two_parents_the_new_one_raw);
	SUITE_ADD(s, each_write_that_fails_is_told_and_the_disk_opens_and_can_be_relinked);
	SUITE_ADD(s, a_name_that_does_not_fit_is_refused_and_nothing_is_written);
	SUITE_ADD(s, a_shorter_name_fits_and_writes_go_on);
	SUITE_ADD(s, the_name_is_durable_where_flushes_are_dropped);
	return suite_run(s);
}
