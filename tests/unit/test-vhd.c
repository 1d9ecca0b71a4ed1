/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The VHD driver on a simulated store: what goes to the file, when, and in which order. */
#include "tests/support/test-vhd.h"

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
	return suite_run(s);
}
