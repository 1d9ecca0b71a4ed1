/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The VHD driver on a simulated store: what goes to the file, when, and in which order; and what is
 * refused. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/drivers.h"
#include "drivers/vhd/vhd.h"
#include "lib/bytes.h"
#include "lib/fiber/fiber.h"
#include "tests/support/drive.h"
#include "tests/support/suite.h"
#include "tests/support/vhd-make.h"

#define BLOCK (64u << 10)
#define SIZE  (4 * MIB)

static struct fault_file *dynamic(void)
{
	return vhd_make(&fio, &(struct vhd_make){.name = "/a.vhd",
						 .size = SIZE,
						 .block_size = BLOCK,
						 .type = VHD_DYNAMIC,
						 .uuid = 1});
}

/* A differencing image on a raw one whose sectors say where they are. */
static void upon_raw(void)
{
	struct fault_file *raw = fault_io_file(&fio, "/base.img", SIZE);

	for (uint64_t i = 0; i < SIZE; i++)
		raw->data[i] = (uint8_t)(1 + i / 512 % 251);
	vhd_make(&fio, &(struct vhd_make){.name = "/a.vhd",
					  .size = SIZE,
					  .block_size = BLOCK,
					  .type = VHD_DIFF,
					  .uuid = 1,
					  .parent = "./base.img"});
}

static struct vhd *driver(void)
{
	return leaf->priv;
}

/* What the file says of a block now. */
static uint32_t entry_in(const struct fault_file *f, uint32_t block)
{
	return td_get_be32(f->data + 1536 + 4 * block);
}

/* --- the data path --- */

START_TEST(what_is_in_the_image_is_one_operation)
{
	begin();
	dynamic();
	open_leaf("vhd:/a.vhd");
	ok(TD_WRITE, mem, 2 * BLOCK, BLOCK, 0);
	ok(TD_FLUSH, NULL, 0, 0, 0);
	fault_io_clear(&fio);
	ok(TD_READ, mem + BLOCK, 2 * BLOCK + 512, 4096, 0);
	ok(TD_WRITE, mem, 2 * BLOCK + 512, 4096, 0);
	ok(TD_WRITE, mem, 2 * BLOCK + 512, 4096, TD_FUA);
	ck_assert_uint_eq(fio.nlog, 3);
	expect_log(0, TD_IO_READ, 4096);
	expect_log(1, TD_IO_WRITE, 4096);
	ck_assert_uint_eq(fio.log[1].flags & TD_IO_DSYNC, 0);
	ck_assert_uint_eq(fio.log[2].flags & TD_IO_DSYNC, TD_IO_DSYNC);
	/* a block's data stands at a multiple of 4,096 */
	ck_assert_uint_eq(fio.log[2].off % 4096, 512);
	ok(TD_FLUSH, NULL, 0, 0, 0);
	ck_assert_uint_eq(fio.nlog, 4);
	expect_log(3, TD_IO_SYNC, 0);
	close_leaf();
	end();
}
END_TEST

START_TEST(what_is_nowhere_reads_as_zeroes_without_an_operation)
{
	begin();
	dynamic();
	open_leaf("vhd:/a.vhd");
	ok(TD_READ, mem, 0, MIB, 0);
	for (unsigned i = 0; i < MIB; i++)
		ck_assert_uint_eq(mem[i], 0);
	ck_assert_uint_eq(fio.nlog, 0);
	close_leaf();
	ck_assert_uint_eq(fio.nlog, 0); /* and nothing was touched */
	end();
}
END_TEST

START_TEST(a_read_asks_each_file_once_for_what_is_contiguous)
{
	begin();
	upon_raw();
	open_leaf("vhd:/a.vhd");
	ok(TD_WRITE, mem, BLOCK + 1024, 512, 0);
	ok(TD_FLUSH, NULL, 0, 0, 0);
	fault_io_clear(&fio);
	ok(TD_READ, mem, 0, 8 * BLOCK, 0);
	ck_assert_uint_eq(fio.nlog, 3);
	uint64_t sum = 0;
	for (unsigned i = 0; i < 3; i++)
		sum += fio.log[i].len;
	ck_assert_uint_eq(sum, 8 * BLOCK);
	for (unsigned i = 0; i < 8 * BLOCK; i++)
		ck_assert_uint_eq(mem[i],
				  i / 512 == (BLOCK + 1024) / 512 ? 0xab : 1 + i / 512 % 251);
	close_leaf();
	end();
}
END_TEST

START_TEST(blocks_are_allocated_side_by_side)
{
	struct op o[8];
	unsigned before;

	begin();
	dynamic();
	open_leaf("vhd:/a.vhd");
	before = fio.ncommits;
	for (unsigned i = 0; i < 8; i++)
		start(&o[i], TD_WRITE, mem, (uint64_t)i * BLOCK, 4096, 0);
	turns(100);
	for (unsigned i = 0; i < 8; i++)
		ck_assert(o[i].done && !o[i].err);
	ck_assert_uint_le(fio.ncommits - before, 6); /* a few turns, not eight times a few */
	close_leaf();
	end();
}
END_TEST

START_TEST(a_discarded_sector_never_shows_its_parent_again)
{
	begin();
	upon_raw();
	open_leaf("vhd:/a.vhd");
	ok(TD_WRITE, mem, 0, BLOCK, 0);
	ok(TD_DISCARD, NULL, 0, BLOCK, 0);
	ok(TD_WRITE_ZEROES, NULL, 2 * BLOCK, 3 * BLOCK, TD_UNMAP);
	ok(TD_FLUSH, NULL, 0, 0, 0);
	close_leaf();
	open_leaf("vhd:/a.vhd");
	ok(TD_READ, mem, 0, BLOCK, 0);
	ok(TD_READ, mem + BLOCK, 2 * BLOCK, 3 * BLOCK, 0);
	for (unsigned i = 0; i < 4 * BLOCK; i++)
		ck_assert_uint_eq(mem[i], 0);
	ok(TD_DISCARD, NULL, 0, SIZE, 0); /* all of it, most of which is not here */
	close_leaf();
	end();
}
END_TEST

START_TEST(extents_tell_what_is_the_parents)
{
	struct td_extent e[8];

	begin();
	upon_raw();
	open_leaf("vhd:/a.vhd");
	ok(TD_WRITE, mem, BLOCK + 1024, 512, 0);
	ck_assert_int_eq(leaf->driver->extents(leaf, 0, 4 * BLOCK, e, 8), 3);
	ck_assert_uint_eq(e[0].len, BLOCK + 1024);
	ck_assert_uint_eq(e[0].flags, TD_EXTENT_PARENT);
	ck_assert_uint_eq(e[1].len, 512);
	ck_assert_uint_eq(e[1].flags, 0);
	ck_assert_uint_eq(e[2].len, 3 * BLOCK - 1536);
	close_leaf();
	end();
}
END_TEST

/* --- the write order --- */

START_TEST(a_flush_syncs_data_before_metadata_and_metadata_before_it_answers)
{
	struct fault_file *f;

	begin();
	f = dynamic();
	open_leaf("vhd:/a.vhd");
	ok(TD_WRITE, mem, 3 * BLOCK, 4096, 0);
	expect_log(0, TD_IO_WRITE, 512); /* the bitmap, clear (V2) */
	expect_log(1, TD_IO_WRITE, 4096);
	ck_assert_uint_eq(fio.nlog, 2);
	ck_assert_uint_eq(entry_in(f, 3), VHD_UNUSED);
	ok(TD_FLUSH, NULL, 0, 0, 0);
	expect_log(2, TD_IO_SYNC, 0);    /* V1 */
	expect_log(3, TD_IO_WRITE, 512); /* the bitmap */
	expect_log(4, TD_IO_WRITE, 512); /* the table */
	expect_log(5, TD_IO_SYNC, 0);    /* V5 */
	ck_assert_uint_eq(fio.nlog, 6);
	ck_assert_uint_eq(fio.log[3].off, fio.log[0].off);
	ck_assert_uint_eq(fio.log[4].off, 1536);
	ck_assert_uint_eq((uint64_t)entry_in(f, 3) * 512, fio.log[0].off);
	close_leaf();
	end();
}
END_TEST

/* Runs the loop with only so much completed as the test says; the i-th of what runs. */
static void complete(unsigned i)
{
	turns(3);
	ck_assert(fault_io_complete(&fio, i));
	turns(3);
}

START_TEST(what_a_sync_does_not_cover_waits_for_the_next_commit)
{
	struct op flush, write, fua;
	struct fault_file *f;
	uint8_t *bitmap;

	begin();
	f = dynamic();
	open_leaf("vhd:/a.vhd");
	ok(TD_WRITE, mem, 0, 4096, 0);
	fio.manual = true;
	start(&flush, TD_FLUSH, NULL, 0, 0, 0);
	turns(3);
	ck_assert_uint_eq(fio.nrunning, 1); /* the first sync */
	start(&write, TD_WRITE, mem, 8192, 4096, 0);
	start(&fua, TD_WRITE, mem, 16384, 512, TD_FUA);
	complete(1);
	complete(1);
	ck_assert(write.done && !write.err);
	ck_assert(!fua.done && !flush.done); /* the commit under way is not its own */
	complete(0);
	complete(0); /* bitmap */
	complete(0); /* table */
	bitmap = f->data + (uint64_t)entry_in(f, 0) * 512;
	ck_assert_uint_eq(bitmap[0], 0xff);
	ck_assert_uint_eq(bitmap[2], 0); /* sectors 16 and on */
	ck_assert(!flush.done);
	complete(0);
	ck_assert(flush.done && !flush.err && !fua.done);
	complete(0);
	complete(0);
	ck_assert_uint_eq(bitmap[2], 0xff);
	ck_assert_uint_eq(bitmap[4], 0x80);
	ck_assert(!fua.done);
	complete(0);
	ck_assert(fua.done && !fua.err);
	fio.manual = false;
	close_leaf();
	end();
}
END_TEST

START_TEST(a_sync_that_fails_leaves_the_metadata_alone_and_fails_all_after_it)
{
	struct fault_file *f;

	begin();
	f = dynamic();
	open_leaf("vhd:/a.vhd");
	ok(TD_WRITE, mem, 0, 4096, 0);
	fault_io_clear(&fio);
	fault_io_rule(&fio, 1, -EIO);
	ck_assert_int_eq(doing(TD_FLUSH, NULL, 0, 0, 0), -EIO);
	ck_assert_uint_eq(fio.nlog, 1);
	ck_assert_int_eq(doing(TD_WRITE, mem, 0, 4096, 0), -EIO);
	ck_assert_int_eq(doing(TD_FLUSH, NULL, 0, 0, 0), -EIO);
	ok(TD_READ, mem, 0, 4096, 0);
	close_leaf();
	ck_assert_uint_eq(entry_in(f, 0), VHD_UNUSED);
	end();
}
END_TEST

START_TEST(a_commit_that_finds_no_space_is_made_good_by_the_next)
{
	struct fault_file *f;

	begin();
	f = dynamic();
	open_leaf("vhd:/a.vhd");
	ok(TD_WRITE, mem, 0, 4096, 0);
	fault_io_clear(&fio);
	fault_io_rule(&fio, 3, -ENOSPC); /* after the data and the sync: the bitmap */
	fault_io_rule(&fio, 4, -ENOSPC);
	ck_assert_int_eq(doing(TD_WRITE, mem, 0, 4096, TD_FUA), -ENOSPC);
	fault_io_clear(&fio);
	ok(TD_WRITE, mem, 0, 4096, TD_FUA);
	ck_assert_uint_ne(entry_in(f, 0), VHD_UNUSED);
	ck_assert_uint_eq(f->data[(uint64_t)entry_in(f, 0) * 512], 0xff);
	close_leaf();
	end();
}
END_TEST

START_TEST(a_block_that_finds_no_space_leaves_its_place_to_the_next)
{
	uint64_t place;

	begin();
	dynamic();
	open_leaf("vhd:/a.vhd");
	fault_io_rule(&fio, 1, -ENOSPC);
	ck_assert_int_eq(doing(TD_WRITE, mem, 0, 4096, 0), -ENOSPC);
	place = fio.log[0].off;
	fault_io_clear(&fio);
	ok(TD_READ, mem, 0, 4096, 0);
	ck_assert_uint_eq(mem[0], 0);
	ok(TD_WRITE, mem, 5 * BLOCK, 4096, 0);
	ck_assert_uint_eq(fio.log[0].off, place);
	close_leaf();
	end();
}
END_TEST

START_TEST(a_guest_that_never_flushes_gets_a_commit_too)
{
	struct fault_file *f;

	begin();
	f = dynamic();
	open_leaf("vhd:/a.vhd");
	ok(TD_WRITE, mem, 0, 4096, 0);
	ck_assert(ev_is_active(&driver()->later));
	ev_timer_stop(loop, &driver()->later);
	ev_invoke(loop, &driver()->later, EV_TIMER); /* its time has come */
	turns(20);
	ck_assert_uint_ne(entry_in(f, 0), VHD_UNUSED);
	ck_assert(!ev_is_active(&driver()->later)); /* at rest nothing wakes */
	close_leaf();
	end();
}
END_TEST

/* No request fails with it, and who knows where the data are does not come by any more. */
START_TEST(a_commit_that_fails_by_itself_is_a_fault)
{
	struct td_map m;

	begin();
	dynamic();
	open_leaf("vhd:/a.vhd");
	ok(TD_WRITE, mem, 0, 4096, 0);
	ck_assert(leaf->driver->map(leaf, 0, 4096, &m));
	fault_io_clear(&fio);
	fault_io_rule(&fio, 1, -EIO);
	ev_timer_stop(loop, &driver()->later);
	ev_invoke(loop, &driver()->later, EV_TIMER);
	turns(20);
	ck_assert(leaf->fault && strstr(leaf->fault, "a sync of /a.vhd failed"));
	ck_assert(!leaf->driver->map(leaf, 0, 4096, &m));
	close_leaf();
	end();
}
END_TEST

START_TEST(the_footer_comes_back_at_close_and_the_batmap_tells_what_is_full)
{
	struct fault_file *f;
	uint64_t size;

	begin();
	f = dynamic();
	open_leaf("vhd:/a.vhd");
	ok(TD_WRITE, mem, 0, BLOCK, 0);
	ok(TD_WRITE, mem, BLOCK, 512, 0);
	ok(TD_FLUSH, NULL, 0, 0, 0);
	for (unsigned i = 0; i < 512; i++)
		ck_assert_uint_eq(f->data[f->size - 512 + i], 0); /* V7: never a guest's bytes */
	close_leaf();
	size = (uint64_t)entry_in(f, 1) * 512 + 512 + BLOCK + 512;
	ck_assert_uint_eq(f->size, size);
	ck_assert_mem_eq(f->data, f->data + size - 512, 512);
	open_leaf("vhd:/a.vhd");
	ck_assert(vhd_is_full(driver(), 0) && !vhd_is_full(driver(), 1));
	close_leaf();
	ck_assert_uint_eq(fio.nlog, 0);
	end();
}
END_TEST

START_TEST(bits_on_a_device_do_not_count_before_they_are_written)
{
	struct fault_file *f;

	begin();
	f = vhd_make(&fio, &(struct vhd_make){.name = "/dev",
					      .size = SIZE,
					      .block_size = BLOCK,
					      .type = VHD_DYNAMIC,
					      .uuid = 1,
					      .device = 8 * MIB});
	open_leaf("vhd:/dev");
	ok(TD_WRITE, mem, 4096, 512, TD_FUA);
	close_leaf();
	open_leaf("vhd:/dev");
	ok(TD_READ, mem, 0, BLOCK, 0);
	for (unsigned i = 0; i < BLOCK; i++)
		ck_assert_uint_eq(mem[i], i / 512 == 8 ? 0xab : 0);
	/* the last blocks find no room, and nothing is written over the footer */
	memset(mem, 0xcd, MIB);
	for (uint64_t off = 0; off < SIZE; off += BLOCK)
		doing(TD_WRITE, mem, off, BLOCK, 0);
	close_leaf();
	ck_assert_mem_eq(f->data, f->data + f->size - 512, 512);
	end();
}
END_TEST

/* --- what images say --- */

static void refuse(const char *what, int code, const char *word,
		   void (*spoil)(struct fault_file *f))
{
	struct fault_file *f;
	int rc;

	begin();
	f = dynamic();
	spoil(f);
	rc = open_how("vhd:/a.vhd", (struct td_how){.flags = TD_FILE_DIRECT});
	ck_assert_msg(rc == -code && strstr(err.text, word), "%s: %d, '%s'", what, rc,
		      rc ? err.text : "it was opened");
	ck_assert_msg(strstr(err.text, "/a.vhd") != NULL, "%s: which file?", what);
	end();
}

static void sum(uint8_t *b, size_t len, size_t at)
{
	uint32_t n = 0;

	td_put_be32(b + at, 0);
	for (size_t i = 0; i < len; i++)
		n += b[i];
	td_put_be32(b + at, ~n);
}

static void footers(struct fault_file *f, size_t at, uint64_t v, unsigned bytes)
{
	for (unsigned i = 0; i < 2; i++) {
		uint8_t *b = i ? f->data + f->size - 512 : f->data;

		for (unsigned k = 0; k < bytes; k++)
			b[at + k] = (uint8_t)(v >> 8 * (bytes - 1 - k));
		sum(b, 512, 64);
	}
}

static void header(struct fault_file *f, size_t at, uint64_t v, unsigned bytes)
{
	for (unsigned k = 0; k < bytes; k++)
		f->data[512 + at + k] = (uint8_t)(v >> 8 * (bytes - 1 - k));
	sum(f->data + 512, 1024, 36);
}

#define SPOIL(name, ...)                                                                           \
	static void name(struct fault_file *f)                                                     \
	{                                                                                          \
		__VA_ARGS__;                                                                       \
	}
SPOIL(no_cookie, f->data[0] = 'x'; f->data[f->size - 512] = 'x')
SPOIL(no_sum, f->data[100]++; f->data[f->size - 412]++)
SPOIL(odd_size, footers(f, 48, SIZE + 1, 8))
SPOIL(no_size, footers(f, 48, 0, 8))
SPOIL(huge_size, footers(f, 48, 1ull << 60, 8))
SPOIL(strange_type, footers(f, 60, 9, 4))
SPOIL(far_header, footers(f, 16, 1ull << 40, 8))
SPOIL(wrapping_header, footers(f, 16, UINT64_MAX - 511, 8))
SPOIL(block_of_nothing, header(f, 32, 0, 4))
SPOIL(odd_block, header(f, 32, 3 << 16, 4))
SPOIL(huge_block, header(f, 32, 1u << 31, 4))
SPOIL(few_entries, header(f, 28, 1, 4))
SPOIL(many_entries, header(f, 28, UINT32_MAX, 4))
SPOIL(far_table, header(f, 16, 1ull << 50, 8))
SPOIL(odd_table, header(f, 16, 1537, 8))
SPOIL(table_on_header, header(f, 16, 512, 8))
SPOIL(entry_in_header, td_put_be32(f->data + 1536, 1))
SPOIL(entry_beyond, td_put_be32(f->data + 1536, 0x7fffffff))

static void overlapping(struct fault_file *f)
{
	td_put_be32(f->data + 1536, 100);
	td_put_be32(f->data + 1540, 150);
	f->data = realloc(f->data, MIB);
	memset(f->data + f->size, 0, MIB - f->size);
	f->size = MIB;
}

START_TEST(a_malformed_image_is_refused_with_a_reason)
{
	refuse("no footer", EINVAL, "not a VHD", no_cookie);
	refuse("a wrong checksum", EINVAL, "checksum", no_sum);
	refuse("an odd size", EINVAL, "512", odd_size);
	refuse("no size", EINVAL, "0 bytes", no_size);
	refuse("a huge size", EINVAL, "2040 GiB", huge_size);
	refuse("a strange type", EINVAL, "type 9", strange_type);
	refuse("a header beyond the end", EINVAL, "header", far_header);
	refuse("a header that wraps", EINVAL, "header", wrapping_header);
	refuse("blocks of nothing", EINVAL, "blocks of 0", block_of_nothing);
	refuse("odd blocks", EINVAL, "powers of two", odd_block);
	refuse("huge blocks", EINVAL, "powers of two", huge_block);
	refuse("too few entries", EINVAL, "block table", few_entries);
	refuse("too many entries", EINVAL, "block table", many_entries);
	refuse("a table far away", EINVAL, "block table", far_table);
	refuse("a table between sectors", EINVAL, "block table", odd_table);
	refuse("a table over the header", EINVAL, "overlap", table_on_header);
	refuse("a block in the header", EINVAL, "block 0", entry_in_header);
	refuse("a block beyond the end", EINVAL, "beyond the end", entry_beyond);
	refuse("two blocks in one place", EINVAL, "overlap", overlapping);
}
END_TEST

START_TEST(a_guest_cannot_make_its_fixed_disk_into_something_else)
{
	struct fault_file *fixed, *dyn;

	begin();
	fixed = vhd_make(
		&fio,
		&(struct vhd_make){.name = "/f.vhd", .size = SIZE, .type = VHD_FIXED, .uuid = 2});
	dyn = dynamic();
	memcpy(fixed->data, dyn->data, dyn->size); /* what the guest wrote */
	ck_assert_int_eq(open_how("vhd:/f.vhd", (struct td_how){.flags = TD_FILE_DIRECT}), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "fixed"));
	end();
}
END_TEST

START_TEST(a_batmap_is_not_believed_of_blocks_that_are_not_there)
{
	struct fault_file *f;
	uint8_t *map;

	begin();
	f = dynamic();
	map = f->data + 1536 + 512 + 512;
	map[0] = 0x80;
	td_put_be32(map - 512 + 24, ~0x80u);
	open_leaf("vhd:/a.vhd");
	ck_assert_uint_eq(map[0], 0); /* not in the file either: a cut must not bring it back */
	ok(TD_WRITE, mem, 512, 512, 0);
	ok(TD_READ, mem, 0, 512, 0);
	ck_assert_uint_eq(mem[0], 0);
	close_leaf();
	end();
}
END_TEST

START_TEST(a_parent_is_the_one_that_the_child_remembers)
{
	struct vhd_make m = {.name = "/b.vhd",
			     .size = SIZE,
			     .block_size = BLOCK,
			     .type = VHD_DIFF,
			     .uuid = 2,
			     .parent = "./a.vhd",
			     .parent_uuid = 1};

	begin();
	dynamic();
	vhd_make(&fio, &m);
	m.name = "/c.vhd";
	m.parent_uuid = 9;
	vhd_make(&fio, &m);
	m.name = "/d.vhd";
	m.parent = "../../etc/a.vhd";
	vhd_make(&fio, &m);
	m.name = "/e.vhd";
	m.parent = "./e.vhd";
	vhd_make(&fio, &m);
	m.name = "/dir/f.vhd";
	m.parent = "../a.vhd";
	m.parent_uuid = 1;
	vhd_make(&fio, &m);
	open_leaf("vhd:/b.vhd");
	close_leaf();
	ck_assert_int_eq(open_how("vhd:/c.vhd", (struct td_how){0}), -ESTALE);
	ck_assert_ptr_nonnull(strstr(err.text, "uuid"));
	ck_assert_int_eq(open_how("vhd:/d.vhd", (struct td_how){0}), -ENOENT);
	ck_assert_int_eq(open_how("vhd:/e.vhd", (struct td_how){0}), -ELOOP);
	ck_assert_int_eq(open_how("vhd:/dir/f.vhd", (struct td_how){0}), -EACCES);
	ck_assert_ptr_nonnull(strstr(err.text, "parent-dirs"));
	ck_assert_int_eq(open_how("vhd:/dir/f.vhd", (struct td_how){.dirs = "/nowhere:/"}), 0);
	close_leaf();
	end();
}
END_TEST

START_TEST(a_chain_that_bites_its_tail_is_refused)
{
	struct vhd_make m = {.name = "/x.vhd",
			     .size = SIZE,
			     .block_size = BLOCK,
			     .type = VHD_DIFF,
			     .uuid = 1,
			     .parent = "./y.vhd",
			     .parent_uuid = 2};

	begin();
	vhd_make(&fio, &m);
	m.name = "/y.vhd";
	m.uuid = 2;
	m.parent = "./x.vhd";
	m.parent_uuid = 1;
	vhd_make(&fio, &m);
	ck_assert_int_eq(open_how("vhd:/x.vhd", (struct td_how){.flags = TD_FILE_RDONLY}), -ELOOP);
	end();
}
END_TEST

/* IEEE 1619-2007, vectors 4 and 5: AES-128, data units 0 and 1, of 512 bytes 00 01 02 ... */
START_TEST(encryption_is_that_of_the_standard)
{
	static const uint8_t bytes[32] = {0x27, 0x18, 0x28, 0x18, 0x28, 0x45, 0x90, 0x45,
					  0x23, 0x53, 0x60, 0x28, 0x74, 0x71, 0x35, 0x26,
					  0x31, 0x41, 0x59, 0x26, 0x53, 0x58, 0x97, 0x93,
					  0x23, 0x84, 0x62, 0x64, 0x33, 0x83, 0x27, 0x95};
	static const uint8_t want[16] = {0x27, 0xa7, 0x47, 0x9b, 0xef, 0xa1, 0xd4, 0x76,
					 0x48, 0x9f, 0x30, 0x8c, 0xd4, 0xcf, 0xa6, 0xe2};
	struct td_key key = {.len = 32};
	struct fault_file *f;
	uint8_t *data;

	memcpy(key.bytes, bytes, 32);
	begin();
	f = vhd_make(&fio, &(struct vhd_make){.name = "/k.vhd",
					      .size = SIZE,
					      .block_size = BLOCK,
					      .type = VHD_DYNAMIC,
					      .uuid = 1,
					      .key = (const char *)bytes,
					      .key_len = 32});
	ck_assert_int_eq(open_how("vhd:/k.vhd", (struct td_how){.key = &key}), 0);
	for (unsigned i = 0; i < 1024; i++)
		mem[i] = (uint8_t)i;
	ok(TD_WRITE, mem, 0, 1024, TD_FUA);
	data = f->data + (uint64_t)entry_in(f, 0) * 512 + 512;
	ck_assert_mem_eq(data, want, 16);
	ck_assert_uint_eq(mem[100], 100); /* the guest's memory is as it was */
	close_leaf();
	ck_assert_int_eq(open_how("vhd:/k.vhd", (struct td_how){0}), -ENOKEY);
	key.bytes[3]++;
	ck_assert_int_eq(open_how("vhd:/k.vhd", (struct td_how){.key = &key}), -ENOKEY);
	dynamic();
	ck_assert_int_eq(open_how("vhd:/a.vhd", (struct td_how){.key = &key}), -EINVAL);
	end();
}
END_TEST

/* --- files that were cut off (V9) --- */

/* A disk with all of block 3, or its first 8 sectors; closed. */
static struct fault_file *with_block(bool whole)
{
	struct fault_file *f;

	begin();
	f = dynamic();
	open_leaf("vhd:/a.vhd");
	ok(TD_WRITE, mem, 3 * BLOCK, whole ? BLOCK : 4096, 0);
	close_leaf();
	return f;
}

/* Takes the last `len' bytes of the block away; footer: a good one stands behind what is left. */
static void cut(struct fault_file *f, uint64_t len, bool footer)
{
	f->size -= VHD_FOOTER + len;
	if (footer) {
		memcpy(f->data + f->size, f->data, VHD_FOOTER);
		f->size += VHD_FOOTER;
	}
}

START_TEST(what_was_cut_off_is_an_error_and_is_not_written)
{
	struct fault_file *f = with_block(true);
	bool footer = _i;
	struct td_map map;
	uint8_t *was;

	cut(f, BLOCK / 2, footer);
	was = malloc(f->size);
	memcpy(was, f->data, f->size);
	ck_assert_int_eq(open_how("vhd:/a.vhd", (struct td_how){.flags = TD_FILE_DIRECT}), -EIO);
	ck_assert_msg(strstr(err.text, "64 sectors of block 3, from sector 448 of the disk on") !=
			      NULL,
		      "%s", err.text);
	ck_assert_mem_eq(f->data, was, f->size);
	ck_assert_int_eq(open_how("vhd:/a.vhd", (struct td_how){.flags = TD_FILE_RDONLY}), 0);
	ok(TD_READ, mem + BLOCK, 3 * BLOCK, BLOCK / 2, 0);
	ck_assert_mem_eq(mem + BLOCK, mem, BLOCK / 2);
	ck_assert_int_eq(doing(TD_READ, mem + BLOCK, 3 * BLOCK + BLOCK / 2, 512, 0), -EIO);
	ck_assert_int_eq(doing(TD_READ, mem + BLOCK, 3 * BLOCK, BLOCK, 0), -EIO);
	ck_assert_int_eq(doing(TD_READ, mem + BLOCK, 2 * BLOCK, 4 * BLOCK, 0), -EIO);
	ok(TD_READ, mem + BLOCK, 4 * BLOCK, BLOCK, 0);
	/* nor does another thread */
	ck_assert(!leaf->driver->map(leaf, 3 * BLOCK + BLOCK / 2, 512, &map));
	close_leaf();
	ck_assert_mem_eq(f->data, was, f->size);
	free(was);
	end();
}
END_TEST

START_TEST(a_short_block_of_which_nothing_is_lost_gets_its_length)
{
	struct fault_file *f = with_block(false);
	uint64_t whole = f->size, half = whole - VHD_FOOTER - BLOCK / 2;
	bool footer = _i;

	cut(f, BLOCK / 2, footer);
	ck_assert_int_eq(open_how("vhd:/a.vhd", (struct td_how){.flags = TD_FILE_RDONLY}), 0);
	ok(TD_READ, mem + BLOCK, 3 * BLOCK, BLOCK, 0);
	ck_assert_mem_eq(mem + BLOCK, mem, 4096);
	close_leaf();
	ck_assert_uint_eq(f->size, half + (footer ? VHD_FOOTER : 0));
	ck_assert_int_eq(open_how("vhd:/a.vhd", (struct td_how){.flags = TD_FILE_DIRECT}), 0);
	ck_assert_uint_eq(f->size, whole); /* before the first write, and durably */
	ck_assert_uint_eq(fio.log[fio.nlog - 1].op, TD_IO_SYNC);
	for (unsigned i = 0; i < VHD_FOOTER; i++)
		ck_assert_uint_eq(f->data[half + i], 0); /* others read past the bitmap */
	ok(TD_WRITE, mem, 4 * BLOCK - 512, 512, 0);
	close_leaf();
	ck_assert_uint_eq(f->size, whole);
	ck_assert_mem_eq(f->data + whole - VHD_FOOTER, f->data, VHD_FOOTER);
	open_leaf("vhd:/a.vhd");
	ok(TD_READ, mem + BLOCK, 3 * BLOCK, BLOCK, 0);
	ck_assert_mem_eq(mem + BLOCK, mem, 4096);
	ck_assert_mem_eq(mem + 2 * BLOCK - 512, mem, 512);
	ck_assert_uint_eq(mem[2 * BLOCK - 513], 0);
	close_leaf();
	end();
}
END_TEST

START_TEST(a_parent_that_was_cut_off_shows_an_error_through_its_child)
{
	struct fault_file *f = with_block(true);

	cut(f, BLOCK / 2, true);
	vhd_make(&fio, &(struct vhd_make){.name = "/b.vhd",
					  .size = SIZE,
					  .block_size = BLOCK,
					  .type = VHD_DIFF,
					  .uuid = 2,
					  .parent = "./a.vhd",
					  .parent_uuid = 1});
	open_leaf("vhd:/b.vhd");
	ck_assert_int_eq(doing(TD_READ, mem + BLOCK, 4 * BLOCK - 512, 512, 0), -EIO);
	/* half a block of the child's own: what surrounds it there stays an error */
	ok(TD_WRITE, mem, 4 * BLOCK - 4096, 4096, 0);
	ok(TD_READ, mem + BLOCK, 4 * BLOCK - 4096, 4096, 0);
	ck_assert_int_eq(doing(TD_READ, mem + BLOCK, 3 * BLOCK, BLOCK, 0), -EIO);
	close_leaf();
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vhd");

	SUITE_ADD(s, what_is_in_the_image_is_one_operation);
	SUITE_ADD(s, what_is_nowhere_reads_as_zeroes_without_an_operation);
	SUITE_ADD(s, a_read_asks_each_file_once_for_what_is_contiguous);
	SUITE_ADD(s, blocks_are_allocated_side_by_side);
	SUITE_ADD(s, a_discarded_sector_never_shows_its_parent_again);
	SUITE_ADD(s, extents_tell_what_is_the_parents);
	SUITE_ADD(s, a_flush_syncs_data_before_metadata_and_metadata_before_it_answers);
	SUITE_ADD(s, what_a_sync_does_not_cover_waits_for_the_next_commit);
	SUITE_ADD(s, a_sync_that_fails_leaves_the_metadata_alone_and_fails_all_after_it);
	SUITE_ADD(s, a_commit_that_finds_no_space_is_made_good_by_the_next);
	SUITE_ADD(s, a_block_that_finds_no_space_leaves_its_place_to_the_next);
	SUITE_ADD(s, a_guest_that_never_flushes_gets_a_commit_too);
	SUITE_ADD(s, a_commit_that_fails_by_itself_is_a_fault);
	SUITE_ADD(s, the_footer_comes_back_at_close_and_the_batmap_tells_what_is_full);
	SUITE_ADD(s, bits_on_a_device_do_not_count_before_they_are_written);
	SUITE_ADD(s, a_malformed_image_is_refused_with_a_reason);
	SUITE_ADD(s, a_guest_cannot_make_its_fixed_disk_into_something_else);
	SUITE_ADD(s, a_batmap_is_not_believed_of_blocks_that_are_not_there);
	SUITE_ADD(s, a_parent_is_the_one_that_the_child_remembers);
	SUITE_ADD(s, a_chain_that_bites_its_tail_is_refused);
	SUITE_ADD(s, encryption_is_that_of_the_standard);
	SUITE_ADD_LOOP(s, what_was_cut_off_is_an_error_and_is_not_written, 2);
	SUITE_ADD_LOOP(s, a_short_block_of_which_nothing_is_lost_gets_its_length, 2);
	SUITE_ADD(s, a_parent_that_was_cut_off_shows_an_error_through_its_child);
	return suite_run(s);
}
