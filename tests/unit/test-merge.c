/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* lib/io/merge.c: on a simulated store with faults, and behind each real engine on a real file. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/io/file.h"
#include "tests/support/fault-io.h"
#include "tests/support/on-fiber.h"
#include "tests/support/suite.h"

#define BYTES (4u << 20)
#define MANY  200

static struct ev_loop *loop;
static struct fault_io fio;
static struct td_io *io;
static struct td_file *f, *other;
static struct fault_file *store;
static char *mem;

struct op {
	struct td_iop iop;
	struct iovec iov[130];
	int done, err;
};

static struct op ops[MANY];
static unsigned nops;

static void op_done(struct td_iop *iop, int err)
{
	struct op *o = iop->data;

	ck_assert_uint_le(iop->moved, iop->len);
	o->done++;
	o->err = err;
}

/* Queues one, whose memory is that of its place; in `pieces' of the same size. */
static struct op *add(enum td_io_op what, struct td_file *file, uint64_t off, uint64_t len,
		      unsigned pieces, unsigned flags)
{
	struct op *o = &ops[nops++];

	ck_assert_uint_le(nops, MANY);
	memset(o, 0, sizeof *o);
	for (unsigned i = 0; i < pieces; i++)
		o->iov[i] = (struct iovec){mem + off + i * (len / pieces), len / pieces};
	o->iop = (struct td_iop){.op = what,
				 .flags = flags,
				 .file = file,
				 .off = off,
				 .len = len,
				 .iov = o->iov,
				 .iovcnt = (int)pieces,
				 .done = op_done,
				 .data = o};
	td_iop_queue(io, &o->iop);
	ck_assert_int_eq(o->done, 0);
	return o;
}

static void run(void)
{
	for (unsigned i = 0; i < nops; i++) {
		for (unsigned n = 0; n < 100000 && !ops[i].done; n++)
			ev_run(loop, EVRUN_ONCE);
		ck_assert_int_eq(ops[i].done, 1);
		for (int k = 0; k < ops[i].iop.iovcnt; k++) /* as its owner knows it */
			ck_assert_ptr_eq(
				ops[i].iov[k].iov_base,
				mem + ops[i].iop.off +
					(size_t)k * (ops[i].iop.len / (unsigned)ops[i].iop.iovcnt));
	}
	ck_assert_uint_eq(io->inflight, 0);
}

static void fresh(void)
{
	nops = 0;
	fault_io_clear(&fio);
	for (unsigned i = 0; i < BYTES; i++)
		mem[i] = (char)(i * 7 + i / 4096);
}

static void open_both(void *arg)
{
	struct td_err err = {0};

	ck_assert_int_eq(td_file_open(io, "disk", 0, &f, &err), 0);
	ck_assert_int_eq(td_file_open(io, "other", 0, &other, &err), 0);
}

static void close_both(void *arg)
{
	td_file_close(f);
	td_file_close(other);
}

static void begin(void)
{
	loop = ev_loop_new(EVFLAG_AUTO);
	fault_io_new_merging(&fio, loop);
	store = fault_io_file(&fio, "disk", BYTES);
	fault_io_file(&fio, "other", BYTES);
	io = fio.io;
	on_fiber(loop, open_both, NULL);
	mem = aligned_alloc(4096, BYTES);
	fresh();
}

static void end(void)
{
	on_fiber(loop, close_both, NULL);
	fault_io_free(&fio);
	ev_loop_destroy(loop);
	free(mem);
}

/* Eight that continue each other. */
static void eight(enum td_io_op what, unsigned flags)
{
	fresh();
	for (unsigned i = 0; i < 8; i++)
		add(what, f, 8192 + i * 4096, 4096, 1u << i % 3, flags);
}

START_TEST(neighbours_go_to_the_store_as_one)
{
	begin();
	eight(TD_IO_WRITE, 0);
	run();
	ck_assert_uint_eq(fio.nlog, 1);
	ck_assert(fio.log[0].off == 8192 && fio.log[0].len == 32768 &&
		  fio.log[0].op == TD_IO_WRITE);
	ck_assert_mem_eq(store->data + 8192, mem + 8192, 32768);
	for (unsigned i = 0; i < 8; i++)
		ck_assert(!ops[i].err && ops[i].iop.moved == 4096);
	ck_assert(io->n.writes == 8 && io->n.merged == 7);
	eight(TD_IO_READ, 0);
	memset(mem, 0, BYTES);
	run();
	ck_assert_uint_eq(fio.nlog, 1);
	ck_assert_mem_eq(store->data + 8192, mem + 8192, 32768);
	ck_assert(io->n.reads == 8 && io->n.merged == 14);
	eight(TD_IO_WRITE, TD_IO_DSYNC);
	run();
	ck_assert(fio.nlog == 1 && fio.log[0].flags == TD_IO_DSYNC && io->n.durable_writes == 8);
	end();
}
END_TEST

START_TEST(what_does_not_continue_goes_alone)
{
	begin();
	add(TD_IO_WRITE, f, 4096, 4096, 1, 0);
	add(TD_IO_WRITE, f, 0, 4096, 1, 0);           /* before it */
	add(TD_IO_WRITE, f, 8192, 4096, 1, 0);        /* a gap */
	add(TD_IO_WRITE, f, 8192 + 2048, 4096, 1, 0); /* within it */
	add(TD_IO_WRITE, f, 16384 - 2048, 4096, 1, TD_IO_DSYNC);
	add(TD_IO_READ, f, 20480 - 2048, 2048, 1, TD_IO_DSYNC);
	add(TD_IO_READ, other, 20480, 4096, 1, TD_IO_DSYNC);
	add(TD_IO_READ, other, 20480 + 4096, 4096, 1, TD_IO_EOF_ZERO);
	run();
	ck_assert(fio.nlog == nops && io->n.merged == 0);
	fresh(); /* the order of the queue is kept around what is no transfer */
	add(TD_IO_WRITE, f, 0, 4096, 1, 0);
	add(TD_IO_WRITE, f, 4096, 4096, 1, 0);
	add(TD_IO_SYNC, f, 0, 0, 1, 0);
	add(TD_IO_WRITE, f, 8192, 4096, 1, 0);
	ops[2].iop.iovcnt = 0;
	run();
	ck_assert(fio.nlog == 3 && fio.log[0].len == 8192 && fio.log[1].op == TD_IO_SYNC &&
		  fio.log[2].off == 8192);
	end();
}
END_TEST

START_TEST(a_run_has_its_bounds)
{
	begin();
	for (unsigned i = 0; i < 24; i++) /* 1.5 MiB */
		add(TD_IO_READ, f, i * 65536, 65536, 1, 0);
	run();
	ck_assert(fio.nlog > 1 && fio.nlog < 24);
	for (unsigned i = 0; i < fio.nlog; i++)
		ck_assert_uint_le(fio.log[i].len, 1 << 20);
	fresh();
	for (unsigned i = 0; i < 4; i++) /* large ones gain nothing */
		add(TD_IO_READ, f, i << 20, 1 << 20, 1, 0);
	run();
	ck_assert_uint_eq(fio.nlog, 4);
	fresh();
	/* many small pieces: more than the kernel would take in one call */
	for (unsigned i = 0; i < 10; i++)
		add(TD_IO_WRITE, f, i * 130 * 16, 130 * 16, i % 2 ? 1 : 130, 0);
	for (unsigned i = 0; i < 20; i++)
		add(TD_IO_WRITE, f, 65536 + i * 1000, 1000, 100, 0);
	run();
	ck_assert_uint_ge(fio.nlog, 30 - 4);
	ck_assert_mem_eq(store->data, mem, 1300 * 16);
	ck_assert_mem_eq(store->data + 65536, mem + 65536, 20000);
	end();
}
END_TEST

START_TEST(an_error_finds_the_one_that_it_belongs_to)
{
	begin();
	for (int w = 0; w < 2; w++) {
		eight(w ? TD_IO_WRITE : TD_IO_READ, 0);
		fault_io_rule(&fio, 1, -EIO);     /* all of them */
		fault_io_rule(&fio, 1 + 3, -EIO); /* and the third of these */
		run();
		for (unsigned i = 0; i < 8; i++)
			ck_assert_int_eq(ops[i].err, i == 2 ? -EIO : 0);
		ck_assert_uint_eq(fio.nlog, 9);
	}
	end();
}
END_TEST

START_TEST(a_durable_writes_error_is_told_to_all_of_them)
{
	begin();
	eight(TD_IO_WRITE, TD_IO_DSYNC);
	fault_io_rule(&fio, 1, -EIO);
	run();
	for (unsigned i = 0; i < 8; i++)
		ck_assert_int_eq(ops[i].err, -EIO);
	ck_assert_uint_eq(fio.nlog, 1);
	/* interrupted, it may have been the report of another's loss */
	eight(TD_IO_WRITE, TD_IO_DSYNC);
	fault_io_rule(&fio, 1, -EINTR);
	run();
	for (unsigned i = 0; i < 8; i++)
		ck_assert_int_eq(ops[i].err, -EIO);
	ck_assert_uint_eq(fio.nlog, 1);
	end();
}
END_TEST

START_TEST(a_short_transfer_goes_on_with_those_it_has_not_reached)
{
	begin();
	for (int w = 0; w < 2; w++)
		for (long most = 0; most < 32768; most += 1023) {
			eight(w ? TD_IO_WRITE : TD_IO_READ, 0);
			if (!w)
				memset(mem, 0, BYTES);
			for (unsigned i = 8192; i < 8192 + 32768; i++)
				store->data[i] = (unsigned char)(w ? 0 : i * 3 + (unsigned)most);
			fault_io_rule(&fio, 1, most);
			run();
			for (unsigned i = 0; i < 8; i++)
				ck_assert_int_eq(ops[i].err, 0);
			ck_assert_mem_eq(store->data + 8192, mem + 8192, 32768);
			ck_assert_uint_eq(fio.nlog, 1 + 8 - most / 4096);
		}
	end();
}
END_TEST

START_TEST(over_the_end_of_the_file_each_has_its_own_answer)
{
	begin();
	add(TD_IO_READ, f, BYTES - 4096, 2048, 1, 0);
	add(TD_IO_READ, f, BYTES - 2048, 2048, 1, 0);
	mem = realloc(mem, BYTES + 65536);
	for (unsigned i = 0; i < nops; i++)
		ops[i].iov[0].iov_base = mem + ops[i].iop.off;
	add(TD_IO_READ, f, BYTES, 4096, 1, 0);
	run();
	ck_assert(!ops[0].err && !ops[1].err && ops[2].err == -EIO && fio.log[0].len == 8192);
	fresh();
	memset(mem, 0x55, BYTES + 65536);
	add(TD_IO_READ, f, BYTES - 2048, 1024, 1, TD_IO_EOF_ZERO);
	add(TD_IO_READ, f, BYTES - 1024, 2048, 2, TD_IO_EOF_ZERO);
	add(TD_IO_READ, f, BYTES + 1024, 1024, 1, TD_IO_EOF_ZERO);
	run();
	ck_assert(!ops[0].err && !ops[1].err && !ops[2].err);
	ck_assert(ops[0].iop.moved == 1024 && ops[1].iop.moved == 1024 && ops[2].iop.moved == 0);
	ck_assert(mem[BYTES - 1] == 0 && mem[BYTES] == 0 && mem[BYTES + 2047] == 0 &&
		  mem[BYTES + 2048] == 0x55);
	end();
}
END_TEST

START_TEST(more_runs_than_there_is_room_for_go_unmerged)
{
	begin();
	fio.manual = true;
	for (unsigned i = 0; i < 100; i++) {
		add(TD_IO_WRITE, f, i * 16384, 4096, 1, 0);
		add(TD_IO_WRITE, f, i * 16384 + 4096, 4096, 1, 0);
	}
	ev_run(loop, EVRUN_NOWAIT);
	ck_assert_uint_gt(fio.nrunning, 100);
	ck_assert_uint_lt(fio.nrunning, 200);
	while (fio.nrunning)
		ck_assert(fault_io_complete(&fio, fio.nrunning / 2));
	run();
	fio.manual = false;
	eight(TD_IO_WRITE, 0);
	run();
	ck_assert_uint_eq(fio.nlog, 1); /* the room is there again */
	end();
}
END_TEST

/* Who completes queues the next at once, in the middle of the others' completions. */
static unsigned chained;

static void chain_done(struct td_iop *iop, int err)
{
	op_done(iop, err);
	if (chained++ < 60)
		add(TD_IO_WRITE, f, (64 + (uint64_t)nops) * 4096, 4096, 1, 0)->iop.done =
			chain_done;
}

START_TEST(who_completes_may_queue_the_next)
{
	begin();
	chained = 0;
	for (unsigned i = 0; i < 8; i++)
		add(TD_IO_WRITE, f, (uint64_t)i * 4096, 4096, 1, 0)->iop.done = chain_done;
	run();
	ck_assert_uint_eq(nops, 68);
	ck_assert_mem_eq(store->data + 72 * 4096, mem + 72 * 4096, 60 * 4096);
	end();
}
END_TEST

/* --- real --- */

static const char *path = "test-merge.img";

static void open_real(void *arg)
{
	struct td_err err = {0};

	ck_assert_msg(td_file_open(io, path, *(unsigned *)arg, &f, &err) == 0, "%s", err.text);
}

static void close_real(void *arg)
{
	td_file_close(f);
}

/* Writes, then reads, in turns of random lengths that continue each other or do not. */
static void real_engine(const char *engine, unsigned flags)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | flags, 0600);
	char *want;

	if (fd < 0 && flags)
		return; /* no O_DIRECT here */
	ck_assert(fd >= 0 && ftruncate(fd, BYTES) == 0);
	close(fd);
	loop = ev_loop_new(EVFLAG_AUTO);
	ck_assert_int_eq(td_io_new(loop, engine, flags, &io, NULL), 0);
	flags = flags ? TD_FILE_DIRECT : 0;
	on_fiber(loop, open_real, &flags);
	mem = aligned_alloc(4096, BYTES);
	want = malloc(BYTES);
	srand(4);
	for (int w = 1; w >= 0; w--) {
		for (unsigned at = 0; at < BYTES;) {
			unsigned k = 1 + (unsigned)rand() % 60;

			nops = 0;
			for (unsigned i = 0; i < k && at < BYTES; i++) {
				unsigned len = 4096 * (1 + (unsigned)rand() % 12);

				len = len < BYTES - at ? len : BYTES - at;
				for (unsigned b = at; b < at + len; b++)
					mem[b] = w ? (char)rand() : 0;
				if (w)
					memcpy(want + at, mem + at, len);
				add(w ? TD_IO_WRITE : TD_IO_READ, f, at, len, 1 + len / 4096 % 2,
				    rand() % 8 ? 0 : TD_IO_DSYNC);
				at += len;
			}
			run();
			for (unsigned i = 0; i < nops; i++)
				ck_assert_int_eq(ops[i].err, 0);
		}
		ck_assert_mem_eq(mem, want, BYTES);
		memset(mem, 0, BYTES);
	}
	ck_assert_uint_gt(io->n.merged, (io->n.reads + io->n.writes) / 3);
	on_fiber(loop, close_real, NULL);
	td_io_free(io);
	ev_loop_destroy(loop);
	free(mem);
	free(want);
	unlink(path);
}

START_TEST(every_byte_is_right_behind_each_engine)
{
	real_engine("libaio", O_DIRECT);
	real_engine("threads", 0);
	real_engine("threads", O_DIRECT);
#ifdef HAVE_URING
	real_engine("io_uring", O_DIRECT);
	real_engine("io_uring", 0);
#endif
}
END_TEST

int main(void)
{
	Suite *s = suite_create("merge");

	SUITE_ADD(s, neighbours_go_to_the_store_as_one);
	SUITE_ADD(s, what_does_not_continue_goes_alone);
	SUITE_ADD(s, a_run_has_its_bounds);
	SUITE_ADD(s, an_error_finds_the_one_that_it_belongs_to);
	SUITE_ADD(s, a_durable_writes_error_is_told_to_all_of_them);
	SUITE_ADD(s, a_short_transfer_goes_on_with_those_it_has_not_reached);
	SUITE_ADD(s, over_the_end_of_the_file_each_has_its_own_answer);
	SUITE_ADD(s, more_runs_than_there_is_room_for_go_unmerged);
	SUITE_ADD(s, who_completes_may_queue_the_next);
	SUITE_ADD(s, every_byte_is_right_behind_each_engine);
	return suite_run(s);
}
