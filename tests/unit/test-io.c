/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* lib/io/io.c: on a simulated store with faults, and each real engine on a real file. */
#include "tests/support/test-io.h"

/* --- simulated --- */

START_TEST(short_transfers_go_on_and_give_the_iovec_back)
{
	static const size_t cut[4] = {1000, 24, 3000, 4168};
	struct fault_file *file = begin(0);

	for (int w = 1; w >= 0; w--)
		for (long most = 1; most < 8192; most = most * 3 + 7) {
			struct iovec was[4];
			struct op o = {.iop = {.op = w ? TD_IO_WRITE : TD_IO_READ,
					       .file = f,
					       .off = 512,
					       .len = 8192,
					       .iovcnt = 4,
					       .done = op_done}};
			char *p = mem;

			for (unsigned i = 0; i < 4; i++) {
				was[i] = o.iov[i] = (struct iovec){p, cut[i]};
				p += cut[i];
			}
			for (int i = 0; i < 8192; i++)
				mem[i] = w ? (char)(i * 13 + most) : 0;
			for (int i = 0; !w && i < 8192; i++)
				file->data[512 + i] = (unsigned char)(i * 7 + most);
			fault_io_clear(&fio);
			for (unsigned k = 1; k <= 40; k += 1 + k % 3)
				fault_io_rule(&fio, k, most);
			o.iop.iov = o.iov;
			o.iop.data = &o;
			td_iop_queue(io, &o.iop);
			ck_assert_int_eq(run(&o), 0);
			ck_assert_mem_eq(o.iov, was, sizeof was);
			ck_assert_mem_eq(mem, file->data + 512, 8192);
			ck_assert_uint_eq(o.iop.moved, 8192);
		}
	ck_assert_uint_eq(io->n.writes, 7); /* rounds are not operations */
	ck_assert_uint_eq(io->n.reads, 7);
	end();
}
END_TEST

START_TEST(eintr_and_eagain_never_surface)
{
	static const enum td_io_op ops[] = {TD_IO_READ, TD_IO_WRITE, TD_IO_PUNCH, TD_IO_ZERO};

	begin(0);
	for (unsigned i = 0; i < 4; i++) {
		fault_io_clear(&fio);
		for (unsigned k = 1; k <= 60; k++)
			fault_io_rule(&fio, k, k & 1 ? -EINTR : -EAGAIN);
		ck_assert_int_eq(once(ops[i], mem, 0, 4096, 0), 0);
		ck_assert_uint_eq(fio.k, 61);
	}
	end();
}
END_TEST

/* The kernel reports a failed write-back once, whatever the error: the second try would succeed
 * over lost data. */
START_TEST(a_sync_that_is_interrupted_has_failed)
{
	static const int errors[] = {EINTR, EAGAIN};

	for (unsigned direct = 0; direct < 2; direct++) {
		begin(direct ? TD_FILE_DIRECT : 0);
		for (unsigned i = 0; i < 4; i++) {
			enum td_io_op op = i / 2 ? TD_IO_WRITE : TD_IO_SYNC;

			fault_io_clear(&fio);
			fault_io_rule(&fio, 1, -errors[i % 2]);
			ck_assert_int_eq(
				once(op, mem, 0, i / 2 ? 4096 : 0, i / 2 ? TD_IO_DSYNC : 0), -EIO);
			ck_assert_uint_eq(fio.k, 1);
		}
		fault_io_clear(&fio); /* after a part of the data too */
		fault_io_rule(&fio, 1, 1024);
		fault_io_rule(&fio, 2, -EINTR);
		ck_assert_int_eq(once(TD_IO_WRITE, mem, 0, 4096, TD_IO_DSYNC), -EIO);
		ck_assert_uint_eq(fio.k, 2);
		end();
	}
	begin(TD_FILE_NOSYNC); /* there the flag means nothing */
	fault_io_rule(&fio, 1, -EINTR);
	ck_assert_int_eq(once(TD_IO_WRITE, mem, 0, 4096, TD_IO_DSYNC), 0);
	end();
}
END_TEST

/* What a successor looks at (lib/syncmark.h), of writes past the page cache as well: they flush the
 * store's cache. */
START_TEST(each_sync_that_fails_leaves_its_mark)
{
	static const unsigned flags[] = {0, TD_FILE_DIRECT, TD_FILE_NOSYNC};

	for (unsigned i = 0; i < 3; i++)
		for (unsigned w = 0; w < 2; w++) {
			struct td_sync_mark m;
			unsigned n = i < 2;

			begin(flags[i]);
			m = (struct td_sync_mark){0};
			f->mark = &m;
			fault_io_rule(&fio, 2, -EIO);
			for (int k = 0; k < 2; k++)
				once(w ? TD_IO_WRITE : TD_IO_SYNC, mem, 0, w ? 4096 : 0,
				     w ? TD_IO_DSYNC : 0);
			ck_assert_uint_eq(m.begun, 2 * n);
			ck_assert_uint_eq(m.ended, 2 * n);
			ck_assert_uint_eq(m.failed, n);
			end();
		}
}
END_TEST

START_TEST(no_sync_of_a_file_does_well_after_one_that_failed)
{
	begin(0);
	fault_io_rule(&fio, 1, -EIO);
	ck_assert_int_eq(once(TD_IO_SYNC, mem, 0, 0, 0), -EIO);
	ck_assert_int_eq(once(TD_IO_SYNC, mem, 0, 0, 0), -EIO);
	end();
	begin(0); /* opened anew */
	ck_assert_int_eq(once(TD_IO_SYNC, mem, 0, 0, 0), 0);
	end();
}
END_TEST

/* A durable write may be the one that is told of what a sync was to make durable, and the other way
 * round. */
START_TEST(nothing_durable_of_a_file_does_well_after_one_that_failed)
{
	for (unsigned first = 0; first < 2; first++) {
		begin(0);
		fault_io_rule(&fio, 1, -EIO);
		ck_assert_int_eq(once(first ? TD_IO_WRITE : TD_IO_SYNC, mem, 0, first ? 4096 : 0,
				      first ? TD_IO_DSYNC : 0),
				 -EIO);
		ck_assert_int_eq(once(TD_IO_SYNC, mem, 0, 0, 0), -EIO);
		ck_assert_int_eq(once(TD_IO_WRITE, mem, 0, 4096, TD_IO_DSYNC), -EIO);
		ck_assert_int_eq(once(TD_IO_WRITE, mem, 0, 4096, 0), 0);
		ck_assert_int_eq(once(TD_IO_READ, mem, 0, 4096, 0), 0);
		end();
	}
	for (unsigned i = 0; i < 3; i++) { /* what says nothing of write-back */
		begin(0);
		fault_io_rule(&fio, 1, (int[]){-ENOSPC, -EOPNOTSUPP, -EIO}[i]);
		once(TD_IO_WRITE, mem, 0, 4096, i < 2 ? TD_IO_DSYNC : 0);
		ck_assert_int_eq(once(TD_IO_SYNC, mem, 0, 0, 0), 0);
		ck_assert_int_eq(once(TD_IO_WRITE, mem, 0, 4096, TD_IO_DSYNC), 0);
		end();
	}
}
END_TEST

/* It has changed nothing, as no space was found, or was not begun: the cache layer goes on, and so
 * must a successor. */
START_TEST(a_durable_write_that_changed_nothing_leaves_no_mark)
{
	static const int errs[] = {-ENOSPC, -EDQUOT, -EOPNOTSUPP};

	for (unsigned i = 0; i < sizeof(errs) / sizeof(*errs); i++) {
		struct td_sync_mark m = {0};

		begin(0);
		f->mark = &m;
		fault_io_rule(&fio, 1, errs[i]);
		ck_assert_int_eq(once(TD_IO_WRITE, mem, 0, 4096, TD_IO_DSYNC), errs[i]);
		ck_assert_uint_eq(m.ended, 1);
		ck_assert_uint_eq(m.failed, 0);
		end();
	}
}
END_TEST

/* Of a file system that keeps some for root. */
START_TEST(a_write_without_space_asks_for_roots_once)
{
	struct op o;

	begin(0);
	td_root_allocate = give_room;
	fault_io_rule(&fio, 1, -ENOSPC);
	start(&o, TD_IO_WRITE, mem, 0, 4096, TD_IO_DSYNC);
	ck_assert_int_eq(run(&o), 0);
	ck_assert_uint_eq(o.iop.flags, TD_IO_DSYNC);
	fault_io_clear(&fio);
	fault_io_rule(&fio, 1, -ENOSPC);
	fault_io_rule(&fio, 2, -ENOSPC);
	ck_assert_int_eq(once(TD_IO_WRITE, mem, 0, 4096, 0), -ENOSPC);
	fault_io_clear(&fio); /* what has no room to ask for does not */
	fault_io_rule(&fio, 1, -ENOSPC);
	ck_assert_int_eq(once(TD_IO_SYNC, NULL, 0, 0, 0), -EIO);
	f->st.blockdev = true;
	fault_io_clear(&fio);
	fault_io_rule(&fio, 1, -ENOSPC);
	ck_assert_int_eq(once(TD_IO_WRITE, mem, 0, 4096, 0), -ENOSPC);
	td_root_allocate = NULL;
	end();
}
END_TEST

START_TEST(a_short_transfer_before_an_error_is_the_error)
{
	struct op o;

	begin(0);
	fault_io_rule(&fio, 1, 1000);
	fault_io_rule(&fio, 2, -EIO);
	start(&o, TD_IO_WRITE, mem, 0, 4096, 0);
	ck_assert_int_eq(run(&o), -EIO);
	ck_assert_ptr_eq(o.iov[0].iov_base, mem);
	ck_assert_uint_eq(o.iov[0].iov_len, 4096);
	end();
}
END_TEST

START_TEST(a_sync_without_space_has_lost_data)
{
	begin(0);
	for (unsigned i = 0; i < 2; i++) {
		fault_io_clear(&fio);
		fault_io_rule(&fio, 1, i ? -ENOSPC : -EDQUOT);
		ck_assert_int_eq(once(TD_IO_SYNC, NULL, 0, 0, 0), -EIO);
	}
	end();
}
END_TEST

START_TEST(each_error_comes_through_done)
{
	static const int errors[] = {EIO, ENOSPC, EDQUOT, EROFS, EOPNOTSUPP};

	begin(0);
	for (unsigned i = 0; i < 5; i++) {
		fault_io_clear(&fio);
		fault_io_rule(&fio, 1, -errors[i]);
		ck_assert_int_eq(once(i % 4 ? TD_IO_WRITE : TD_IO_SYNC, mem, 0, i % 4 ? 512 : 0, 0),
				 -errors[i]);
	}
	end();
}
END_TEST

START_TEST(a_write_that_moves_nothing_is_tried_again)
{
	begin(0);
	for (unsigned k = 1; k < 50; k++)
		fault_io_rule(&fio, k, 0);
	ck_assert_int_eq(once(TD_IO_WRITE, mem, 0, 512, 0), 0);
	ck_assert_uint_eq(fio.k, 50);
	end();
}
END_TEST

START_TEST(a_read_over_the_end_is_eio_or_zeroes)
{
	struct op o;

	begin(0);
	memset(mem, 0x55, 4096);
	ck_assert_int_eq(once(TD_IO_READ, mem, 65536 - 512, 1024, 0), -EIO);
	memset(mem, 0x55, 4096);
	start(&o, TD_IO_READ, mem, 65536 - 512, 1024, TD_IO_EOF_ZERO);
	ck_assert_int_eq(run(&o), 0);
	ck_assert(mem[0] == 0 && mem[512] == 0 && mem[1023] == 0 && mem[1024] == 0x55);
	ck_assert_uint_eq(o.iop.moved, 512);
	end();
}
END_TEST

START_TEST(unsafe_files_pay_for_no_sync)
{
	struct op o;

	begin(TD_FILE_NOSYNC);
	start(&o, TD_IO_SYNC, NULL, 0, 0, 0); /* completes later all the same: start() looks */
	ck_assert_int_eq(run(&o), 0);
	ck_assert(fio.nlog == 0 && fio.k == 0 && io->n.syncs == 0);
	ck_assert_int_eq(once(TD_IO_WRITE, mem, 0, 512, TD_IO_DSYNC), 0);
	ck_assert_uint_eq(io->n.durable_writes, 0);
	end();
	begin(0);
	ck_assert_int_eq(once(TD_IO_SYNC, NULL, 0, 0, 0), 0);
	ck_assert_int_eq(once(TD_IO_WRITE, mem, 0, 512, TD_IO_DSYNC), 0);
	ck_assert(fio.nlog == 2 && io->n.syncs == 1 && io->n.durable_writes == 1);
	end();
}
END_TEST

START_TEST(a_turns_operations_go_out_in_one_commit)
{
	static struct op o[MANY];
	unsigned before;

	begin(0);
	before = fio.ncommits;
	for (unsigned i = 0; i < MANY; i++)
		start(&o[i], TD_IO_READ, mem, 0, 512, 0);
	ck_assert_uint_eq(fio.ncommits, before);
	run(&o[MANY - 1]);
	ck_assert_uint_eq(fio.ncommits, before + 1);
	end();
}
END_TEST

START_TEST(a_part_of_a_turn_may_be_sent_ahead)
{
	static struct op o[3];
	unsigned before;

	begin(0);
	before = fio.ncommits;
	td_io_ahead(io, 1); /* nothing */
	td_io_ahead(NULL, 1);
	ck_assert_uint_eq(fio.ncommits, before);
	for (unsigned i = 0; i < 2; i++)
		start(&o[i], TD_IO_READ, mem, 0, 512, 0);
	td_io_ahead(io, 3); /* which is not one after which it goes */
	ck_assert_uint_eq(fio.ncommits, before);
	td_io_ahead(io, 2);
	ck_assert_uint_eq(fio.ncommits, before + 1);
	start(&o[2], TD_IO_READ, mem, 0, 512, 0);
	for (unsigned i = 0; i < 3; i++)
		while (!o[i].done)
			ev_run(loop, EVRUN_ONCE);
	ck_assert_uint_eq(fio.ncommits, before + 2);
	end();
}
END_TEST

START_TEST(where_a_system_call_is_dear_nothing_is_sent_ahead)
{
	static struct op o[2];
	unsigned before;

	begin(0);
	td_clock_is(TD_CLOCK_CHEAP, 100000);
	before = fio.ncommits;
	start(&o[0], TD_IO_READ, mem, 0, 512, 0);
	td_io_ahead(io, 1);
	ck_assert_uint_eq(fio.ncommits, before);
	start(&o[1], TD_IO_READ, mem, 0, 512, 0);
	while (!o[0].done || !o[1].done)
		ev_run(loop, EVRUN_ONCE);
	ck_assert_uint_eq(fio.ncommits, before + 1);
	td_clock_is(TD_CLOCK_CHEAP, 0);
	end();
}
END_TEST

START_TEST(unknown_engines_are_named)
{
	struct td_err err = {0};
	struct td_io *none;

	loop = ev_loop_new(EVFLAG_AUTO);
	ck_assert_int_eq(td_io_new(loop, "bogus", true, &none, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "'bogus'"));
	ck_assert_ptr_nonnull(strstr(err.text, "auto, libaio, "));
	td_io_free(NULL);
	ev_loop_destroy(loop);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("io");

	SUITE_ADD(s, short_transfers_go_on_and_give_the_iovec_back);
	SUITE_ADD(s, eintr_and_eagain_never_surface);
	SUITE_ADD(s, a_sync_that_is_interrupted_has_failed);
	SUITE_ADD(s, each_sync_that_fails_leaves_its_mark);
	SUITE_ADD(s, a_durable_write_that_changed_nothing_leaves_no_mark);
	SUITE_ADD(s, no_sync_of_a_file_does_well_after_one_that_failed);
	SUITE_ADD(s, nothing_durable_of_a_file_does_well_after_one_that_failed);
	SUITE_ADD(s, a_write_without_space_asks_for_roots_once);
	SUITE_ADD(s, a_short_transfer_before_an_error_is_the_error);
	SUITE_ADD(s, a_sync_without_space_has_lost_data);
	SUITE_ADD(s, each_error_comes_through_done);
	SUITE_ADD(s, a_write_that_moves_nothing_is_tried_again);
	SUITE_ADD(s, a_read_over_the_end_is_eio_or_zeroes);
	SUITE_ADD(s, unsafe_files_pay_for_no_sync);
	SUITE_ADD(s, a_turns_operations_go_out_in_one_commit);
	SUITE_ADD(s, a_part_of_a_turn_may_be_sent_ahead);
	SUITE_ADD(s, where_a_system_call_is_dear_nothing_is_sent_ahead);
	SUITE_ADD(s, unknown_engines_are_named);
	return suite_run(s);
}
