/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* lib/io/align.c on a simulated store, which asserts that what it is handed is aligned. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/io/file.h"
#include "tests/support/fault-io.h"
#include "tests/support/on-fiber.h"
#include "tests/support/suite.h"

#define SIZE (64 * 4096)

static struct ev_loop *loop;
static struct fault_io fio;
static struct fault_file *file;
static struct td_file *f;
static unsigned char *mem; /* 64 KiB, aligned to 4,096 */

static void open_it(void *arg)
{
	struct td_err err = {0};

	ck_assert_int_eq(td_file_open(fio.io, "disk", *(unsigned *)arg, &f, &err), 0);
}

static void close_it(void *arg)
{
	td_file_close(f);
}

static void begin_size(uint32_t off_align, uint32_t mem_align, uint64_t size)
{
	unsigned flags = TD_FILE_DIRECT;

	loop = ev_loop_new(EVFLAG_AUTO);
	fault_io_new(&fio, loop, off_align, mem_align);
	file = fault_io_file(&fio, "disk", size);
	for (uint64_t i = 0; i < size; i++)
		file->data[i] = (unsigned char)(i / 512 * 7);
	on_fiber(loop, open_it, &flags);
	mem = aligned_alloc(4096, 65536);
	memset(mem, 0, 65536);
	fault_io_clear(&fio);
}

static void begin(uint32_t off_align, uint32_t mem_align)
{
	begin_size(off_align, mem_align, SIZE);
}

static void end(void)
{
	ck_assert(td_list_empty(&f->changes) && !f->rmws && !f->held);
	fio.manual = false;
	on_fiber(loop, close_it, NULL);
	fault_io_free(&fio);
	ev_loop_destroy(loop);
	free(mem);
}

struct op {
	struct td_iop iop;
	struct iovec iov[2];
	int done, err;
};

static void op_done(struct td_iop *iop, int err)
{
	struct op *o = iop->data;

	o->done++;
	o->err = err;
}

static void start(struct op *o, enum td_io_op what, void *buf, uint64_t off, uint64_t len,
		  unsigned flags)
{
	memset(o, 0, sizeof *o);
	o->iov[0] = (struct iovec){buf, len};
	o->iop = (struct td_iop){.op = what,
				 .flags = flags,
				 .file = f,
				 .off = off,
				 .len = len,
				 .iov = o->iov,
				 .iovcnt = 1,
				 .done = op_done,
				 .data = o};
	td_file_io(fio.io, &o->iop);
	ck_assert_int_eq(o->done, 0);
}

static void turns(int n)
{
	while (n--)
		ev_run(loop, EVRUN_NOWAIT);
}

static void expect_log(unsigned i, enum td_io_op op, uint64_t off, uint64_t len)
{
	ck_assert_uint_lt(i, fio.nlog);
	ck_assert_int_eq(fio.log[i].op, op);
	ck_assert_uint_eq(fio.log[i].off, off);
	ck_assert_uint_eq(fio.log[i].len, len);
}

START_TEST(aligned_transfers_go_straight)
{
	struct op o;

	begin(4096, 4096);
	start(&o, TD_IO_WRITE, mem, 4096, 8192, TD_IO_DSYNC);
	turns(2);
	ck_assert(o.done && !o.err && fio.nlog == 1);
	expect_log(0, TD_IO_WRITE, 4096, 8192);
	ck_assert_uint_eq(fio.log[0].flags, TD_IO_DSYNC);
	start(&o, TD_IO_READ, mem, 0, 4096, 0);
	turns(2);
	ck_assert(o.done && !o.err && fio.nlog == 2);
	end();
}
END_TEST

START_TEST(a_part_of_a_block_is_read_changed_and_written)
{
	struct op o;

	begin(4096, 512);
	memset(mem, 0xAB, 512);
	start(&o, TD_IO_WRITE, mem, 4096 + 1024, 512, TD_IO_DSYNC);
	turns(4);
	ck_assert(o.done == 1 && o.err == 0);
	ck_assert_uint_eq(fio.nlog, 2);
	expect_log(0, TD_IO_READ, 4096, 4096);
	expect_log(1, TD_IO_WRITE, 4096, 4096);
	/* the promise goes with the write */
	ck_assert_uint_eq(fio.log[1].flags & TD_IO_DSYNC, TD_IO_DSYNC);
	for (unsigned i = 0; i < SIZE; i++)
		ck_assert_uint_eq(file->data[i],
				  i / 512 == 10 ? 0xAB : (unsigned char)(i / 512 * 7));
	ck_assert_ptr_eq(o.iov[0].iov_base, mem);
	ck_assert_uint_eq(o.iov[0].iov_len, 512);
	end();
}
END_TEST

/* A4: another host's write between the read and the write would be undone. */
START_TEST(a_file_that_hosts_share_has_no_read_modify_write)
{
	struct op o;

	begin(4096, 512);
	f->flags |= TD_FILE_SHARED;
	for (unsigned i = 0; i < 3; i++) {
		start(&o, TD_IO_WRITE, mem, i == 1 ? 512 : 4096,
		      i == 0   ? 512
		      : i == 1 ? 4096
			       : 4096 + 512,
		      TD_IO_DSYNC);
		turns(4);
		ck_assert(o.done == 1 && o.err == -EOPNOTSUPP);
	}
	ck_assert_uint_eq(fio.nlog, 0);
	start(&o, TD_IO_WRITE, mem, 4096, 4096, 0);
	turns(4);
	ck_assert(o.done == 1 && !o.err && fio.nlog == 1);
	start(&o, TD_IO_READ, mem, 4096 + 512, 512, 0);
	turns(4);
	ck_assert(o.done == 1 && !o.err);
	end();
}
END_TEST

START_TEST(misaligned_memory_is_bounced_both_ways)
{
	static const uint32_t block[] = {512, 4096};

	for (unsigned i = 0; i < 2; i++) {
		struct op o;

		begin(block[i], 512);
		memset(mem, 0xAB, 8193);
		start(&o, TD_IO_WRITE, mem + 1, 4096, 8192, 0);
		turns(2);
		ck_assert(o.done && !o.err);
		ck_assert_uint_eq(fio.nlog, 1);
		ck_assert(file->data[4096] == 0xAB && file->data[12287] == 0xAB &&
			  file->data[12288] == 24 * 7);
		memset(mem, 0, 65536);
		start(&o, TD_IO_READ, mem + 3, 4096, 8192, 0);
		turns(2);
		ck_assert(mem[2] == 0 && mem[3] == 0xAB && mem[3 + 8191] == 0xAB &&
			  mem[3 + 8192] == 0);
		end();
	}
}
END_TEST

START_TEST(a_read_of_part_of_a_block_gets_that_part)
{
	struct op o;

	begin(4096, 512);
	start(&o, TD_IO_READ, mem, 4096 - 512, 1024, 0);
	turns(2);
	expect_log(0, TD_IO_READ, 0, 8192);
	ck_assert(mem[0] == 49 && mem[512] == 56 && mem[1024] == 0);
	end();
}
END_TEST

START_TEST(a_read_over_the_end_is_an_error_or_zeroes)
{
	struct op o;

	begin_size(4096, 512, 4096 * 2 + 1024);
	start(&o, TD_IO_READ, mem, 8192, 1024, 0); /* up to the end: all is there */
	turns(3);
	ck_assert_int_eq(o.err, 0);
	ck_assert_uint_eq(mem[1023], 17 * 7);
	start(&o, TD_IO_READ, mem, 8192 + 512, 1024, 0);
	turns(3);
	ck_assert(o.done && o.err == -EIO);
	memset(mem, 0xFF, 4096);
	start(&o, TD_IO_READ, mem, 8192 + 512, 1024, TD_IO_EOF_ZERO);
	turns(3);
	ck_assert_int_eq(o.err, 0);
	ck_assert(mem[0] == 17 * 7 && mem[511] == 17 * 7 && mem[512] == 0 && mem[1023] == 0 &&
		  mem[1024] == 0xFF);
	ck_assert_uint_eq(o.iop.moved, 512);
	/* wholly beyond, within the last block */
	start(&o, TD_IO_READ, mem, 8192 + 2048, 512, TD_IO_EOF_ZERO);
	turns(3);
	ck_assert(o.err == 0 && o.iop.moved == 0 && mem[0] == 0);
	end();
}
END_TEST

START_TEST(writes_to_one_block_are_one_after_the_other)
{
	struct op o[4];

	begin(4096, 512);
	fio.manual = true;
	memset(mem, 1, 512);
	memset(mem + 512, 2, 512);
	memset(mem + 4096, 3, 4096);
	memset(mem + 8192, 4, 512);
	start(&o[0], TD_IO_WRITE, mem, 0, 512, 0);
	start(&o[1], TD_IO_WRITE, mem + 512, 512, 512, 0);
	start(&o[2], TD_IO_WRITE, mem + 4096, 0, 4096, 0);
	start(&o[3], TD_IO_WRITE, mem + 8192, 4096 * 5, 512, 0); /* another block: now */
	turns(2);
	ck_assert_uint_eq(fio.nrunning, 2);
	fault_io_complete(&fio, 0); /* the first's read */
	turns(2);
	ck_assert_uint_eq(fio.nrunning, 2);
	fault_io_complete(&fio, 1); /* its write */
	turns(2);
	ck_assert(o[0].done && !o[1].done);
	/* the second's read; the third, a whole block, waits for it */
	ck_assert_uint_eq(fio.nrunning, 2);
	for (int i = 0; i < 10; i++) {
		fault_io_complete(&fio, 0);
		turns(2);
	}
	ck_assert(o[1].done && o[2].done && o[3].done);
	ck_assert_uint_eq(file->data[0], 3); /* what came last is there, over both */
	ck_assert_uint_eq(file->data[512], 3);
	end();
}
END_TEST

START_TEST(whole_blocks_never_wait_for_each_other)
{
	struct op o[2];

	begin(4096, 512);
	fio.manual = true;
	start(&o[0], TD_IO_WRITE, mem, 0, 8192, 0);
	start(&o[1], TD_IO_WRITE, mem, 4096, 8192, 0);
	turns(2);
	ck_assert_uint_eq(fio.nrunning, 2);
	fault_io_complete(&fio, 1);
	fault_io_complete(&fio, 0);
	ck_assert(o[0].done && o[1].done);
	end();
}
END_TEST

START_TEST(an_rmw_waits_for_a_whole_block_in_flight)
{
	struct op o[2];

	begin(4096, 512);
	fio.manual = true;
	memset(mem, 9, 4096);
	memset(mem + 4096, 5, 512);
	start(&o[0], TD_IO_WRITE, mem, 4096, 4096, 0);
	start(&o[1], TD_IO_WRITE, mem + 4096, 4096 + 512, 512, 0);
	turns(2);
	ck_assert_uint_eq(fio.nrunning, 1);
	for (int i = 0; i < 3; i++) {
		fault_io_complete(&fio, 0);
		turns(2);
	}
	ck_assert(o[0].done && o[1].done);
	ck_assert(file->data[4096] == 9 && file->data[4608] == 5 && file->data[5120] == 9);
	end();
}
END_TEST

/* What an RMW has read must not come back over a range that was punched, zeroed or discarded
 * meanwhile. */
START_TEST(a_punch_waits_for_an_rmw_and_an_rmw_for_a_punch)
{
	static const enum td_io_op what[] = {TD_IO_PUNCH, TD_IO_ZERO, TD_IO_DISCARD};
	struct op o[3];

	for (unsigned i = 0; i < 3; i++) {
		begin(4096, 512);
		fio.manual = true;
		memset(mem, 5, 512);
		start(&o[0], TD_IO_WRITE, mem, 4096, 512, 0);
		start(&o[1], what[i], NULL, 4096 + 1024, 2048, 0);
		start(&o[2], TD_IO_WRITE, mem, 8192 - 512, 512, 0);
		turns(2);
		ck_assert_uint_eq(fio.nrunning, 1);
		for (unsigned n = 0; n < 5; n++) {
			fault_io_complete(&fio, 0);
			turns(2);
			ck_assert_uint_eq(fio.nrunning, n < 4);
			ck_assert_int_eq(o[0].done, n >= 1);
			ck_assert_int_eq(o[1].done, n >= 2);
		}
		ck_assert(o[0].done && o[1].done && o[2].done);
		expect_log(2, what[i], 4096 + 1024, 2048);
		ck_assert(file->data[4096] == 5 && file->data[4608] == (unsigned char)(9 * 7) &&
			  file->data[8192 - 512] == 5);
		if (what[i] != TD_IO_DISCARD)
			for (unsigned b = 4096 + 1024; b < 4096 + 3072; b++)
				ck_assert_uint_eq(file->data[b], 0);
		end();
	}
}
END_TEST

START_TEST(punches_and_whole_blocks_go_side_by_side)
{
	struct op o[3];

	begin(4096, 512);
	fio.manual = true;
	start(&o[0], TD_IO_WRITE, mem, 4096, 4096, 0);
	start(&o[1], TD_IO_PUNCH, NULL, 4096 + 512, 1024, 0);
	start(&o[2], TD_IO_ZERO, NULL, 0, 8192, 0);
	turns(2);
	ck_assert_uint_eq(fio.nrunning, 3);
	while (fault_io_complete(&fio, 0))
		;
	end();
}
END_TEST

/* A format's header may be shorter than a sector: on 512-byte blocks it is an RMW like any other.
 */
START_TEST(parts_of_512_byte_blocks_are_one_after_the_other)
{
	struct op o[4];

	begin(512, 512);
	fio.manual = true;
	memset(mem, 1, 8);
	memset(mem + 512, 2, 8);
	memset(mem + 1024, 3, 512);
	start(&o[0], TD_IO_WRITE, mem, 512, 8, 0);
	start(&o[1], TD_IO_WRITE, mem + 512, 512 + 8, 8, 0);
	start(&o[2], TD_IO_WRITE, mem + 1024, 1024, 512, 0);
	start(&o[3], TD_IO_PUNCH, NULL, 512, 512, 0);
	turns(2);
	ck_assert_uint_eq(fio.nrunning, 2); /* the first's read; and the other block's write */
	for (int i = 0; i < 6; i++) {
		fault_io_complete(&fio, 0);
		turns(2);
		if (o[1].done && !o[3].done)
			ck_assert(file->data[512] == 1 && file->data[519] == 1 &&
				  file->data[520] == 2 && file->data[528] == 7);
	}
	ck_assert(o[0].done && o[1].done && o[2].done && o[3].done);
	ck_assert(file->data[512] == 0 && file->data[520] == 0 && file->data[1024] == 3);
	end();
}
END_TEST

START_TEST(an_error_goes_to_its_own_write_and_the_next_goes_on)
{
	struct op o[2];

	for (unsigned k = 1; k <= 2; k++) { /* the read fails, or the write */
		begin(4096, 512);
		fault_io_rule(&fio, k, -EIO);
		memset(mem, 5, 1024);
		start(&o[0], TD_IO_WRITE, mem, 0, 512, 0);
		start(&o[1], TD_IO_WRITE, mem, 512, 512, 0);
		turns(8);
		ck_assert(o[0].done == 1 && o[0].err == -EIO);
		ck_assert(o[1].done == 1 && o[1].err == 0);
		ck_assert(file->data[0] == 0 && file->data[512] == 5);
		end();
	}
}
END_TEST

/* --- at random --- */

#define DEPTH   16
#define SECTORS (SIZE / 512)

static unsigned char model[SIZE];
static unsigned char busy[SECTORS]; /* 1: being written */

struct job {
	struct op op;
	unsigned char *buf;
	unsigned from, n; /* sectors */
	bool running, zero;
};

static bool overlaps_busy(unsigned from, unsigned n)
{
	for (unsigned s = from; s < from + n; s++)
		if (busy[s])
			return true;
	return false;
}

static void random_start(struct job *j)
{
	bool write = rand() % 3;
	unsigned shift = rand() % 2 ? 0 : (unsigned)rand() % 64;

	j->n = 1 + (unsigned)rand() % 24;
	j->from = (unsigned)rand() % (SECTORS - j->n + 1);
	if (overlaps_busy(j->from, j->n))
		return;
	if (rand() % 4 == 0 && j->n > 8 && j->from % 8 == 0)
		j->n = j->n / 8 * 8; /* some whole blocks too */
	j->zero = write && rand() % 4 == 0;
	if (j->zero) {
		memset(busy + j->from, 1, j->n);
		memset(model + j->from * 512, 0, j->n * 512);
		start(&j->op, rand() % 2 ? TD_IO_PUNCH : TD_IO_ZERO, NULL, j->from * 512,
		      j->n * 512, 0);
		j->running = true;
		return;
	}
	if (write) {
		memset(busy + j->from, 1, j->n);
		for (unsigned i = 0; i < j->n * 512; i++)
			j->buf[shift + i] = (unsigned char)rand();
		memcpy(model + j->from * 512, j->buf + shift, j->n * 512);
	}
	start(&j->op, write ? TD_IO_WRITE : TD_IO_READ, j->buf + shift, j->from * 512, j->n * 512,
	      0);
	j->running = true;
}

static void random_end(struct job *j)
{
	j->running = false;
	ck_assert_int_eq(j->op.err, 0);
	ck_assert_int_eq(j->op.done, 1);
	if (j->op.iop.op != TD_IO_READ)
		memset(busy + j->from, 0, j->n);
}

START_TEST(random_writes_of_sectors_on_blocks_of_4096)
{
	unsigned seed = getenv("SEED") ? (unsigned)atoi(getenv("SEED")) : (unsigned)time(NULL),
		 nrmw = 0;
	struct job job[DEPTH] = {0};

	fprintf(stderr, "seed %u\n", seed);
	srand(seed);
	begin(4096, 512);
	memcpy(model, file->data, SIZE);
	fio.reorder = true;
	for (unsigned i = 0; i < DEPTH; i++)
		job[i].buf = aligned_alloc(4096, 16384);
	for (unsigned step = 0; step < 20000; step++) {
		struct job *j = &job[rand() % DEPTH];

		if (!j->running) {
			random_start(j);
		} else if (rand() % 3 == 0) {
			turns(1);
			for (unsigned i = 0; i < DEPTH; i++)
				if (job[i].running && job[i].op.done)
					random_end(&job[i]);
		}
		/* short transfers too, in whole blocks as direct I/O has them */
		if (fio.nrules == FAULT_RULES || fio.nlog > FAULT_LOG - 64)
			fault_io_clear(&fio);
		if (rand() % 16 == 0)
			fault_io_rule(&fio, fio.k + 1 + (unsigned)rand() % 4,
				      rand() % 4 ? 4096 : -EINTR);
	}
	turns(100);
	for (unsigned i = 0; i < DEPTH; i++) {
		if (job[i].running)
			random_end(&job[i]);
		free(job[i].buf);
	}
	for (unsigned i = 0; i < fio.nlog; i++)
		nrmw += fio.log[i].op == TD_IO_READ;
	ck_assert_mem_eq(file->data, model, SIZE);
	ck_assert_uint_gt(nrmw, 0);
	end();
}
END_TEST

START_TEST(random_reads_see_what_was_written)
{
	begin(4096, 512);
	srand(3);
	for (unsigned i = 0; i < 2000; i++) {
		unsigned n = 1 + (unsigned)rand() % 16, from = (unsigned)rand() % (SECTORS - n),
			 shift = (unsigned)rand() % 100;
		struct op o;

		start(&o, TD_IO_READ, mem + shift, from * 512, n * 512, 0);
		turns(2);
		ck_assert_int_eq(o.err, 0);
		ck_assert_mem_eq(mem + shift, file->data + from * 512, n * 512);
		if (fio.nlog > FAULT_LOG - 64)
			fault_io_clear(&fio);
	}
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("align");

	SUITE_ADD(s, aligned_transfers_go_straight);
	SUITE_ADD(s, a_part_of_a_block_is_read_changed_and_written);
	SUITE_ADD(s, a_file_that_hosts_share_has_no_read_modify_write);
	SUITE_ADD(s, misaligned_memory_is_bounced_both_ways);
	SUITE_ADD(s, a_read_of_part_of_a_block_gets_that_part);
	SUITE_ADD(s, a_read_over_the_end_is_an_error_or_zeroes);
	SUITE_ADD(s, writes_to_one_block_are_one_after_the_other);
	SUITE_ADD(s, whole_blocks_never_wait_for_each_other);
	SUITE_ADD(s, an_rmw_waits_for_a_whole_block_in_flight);
	SUITE_ADD(s, a_punch_waits_for_an_rmw_and_an_rmw_for_a_punch);
	SUITE_ADD(s, punches_and_whole_blocks_go_side_by_side);
	SUITE_ADD(s, parts_of_512_byte_blocks_are_one_after_the_other);
	SUITE_ADD(s, an_error_goes_to_its_own_write_and_the_next_goes_on);
	SUITE_ADD(s, random_writes_of_sectors_on_blocks_of_4096);
	SUITE_ADD(s, random_reads_see_what_was_written);
	return suite_run(s);
}
