/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* lib/io/io.c: on a simulated store with faults, and each real engine on a real file. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/io/clock.h"
#include "lib/io/file.h"
#include "tests/support/fault-io.h"
#include "tests/support/on-fiber.h"
#include "tests/support/suite.h"

#define MANY 300 /* more than the kernel is given at once */
#define ROOM 128 /* what any engine gives it at once, at least */

static struct ev_loop *loop;
static struct fault_io fio;
static struct td_io *io;
static struct td_file *f;
static char path[64];
static char *mem;

struct op {
	struct td_iop iop;
	struct iovec iov[4];
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
	td_iop_queue(io, &o->iop);
	ck_assert_int_eq(o->done, 0); /* never inside queue */
}

static int run(struct op *o)
{
	for (int i = 0; i < 100000 && !o->done; i++)
		ev_run(loop, EVRUN_ONCE);
	ck_assert_int_eq(o->done, 1);
	return o->err;
}

static int once(enum td_io_op what, void *buf, uint64_t off, uint64_t len, unsigned flags)
{
	struct op o;

	start(&o, what, buf, off, len, flags);
	return run(&o);
}

static void close_it(void *arg)
{
	td_file_close(f);
	f = NULL;
}

static void open_fault(void *arg)
{
	struct td_err err = {0};

	ck_assert_int_eq(td_file_open(io, "disk", *(unsigned *)arg, &f, &err), 0);
}

static struct fault_file *begin(unsigned flags)
{
	struct fault_file *file;

	loop = ev_loop_new(EVFLAG_AUTO);
	fault_io_new(&fio, loop, 1, 1);
	file = fault_io_file(&fio, "disk", 65536);
	io = fio.io;
	on_fiber(loop, open_fault, &flags);
	fault_io_clear(&fio);
	mem = aligned_alloc(4096, 65536);
	return file;
}

static void end(void)
{
	on_fiber(loop, close_it, NULL);
	ck_assert_uint_eq(io->inflight, 0);
	fault_io_free(&fio);
	ev_loop_destroy(loop);
	free(mem);
}

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

static uint64_t room_off, room_len; /* asked for, atomic: by a worker */
static unsigned rooms;

static int give_room(int fd, int mode, uint64_t off, uint64_t len)
{
	room_off = off;
	room_len = len;
	__atomic_add_fetch(&rooms, 1, __ATOMIC_SEQ_CST);
	return 0;
}

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
	td_io_commit(io); /* nothing */
	ck_assert_uint_eq(fio.ncommits, before);
	for (unsigned i = 0; i < 2; i++)
		start(&o[i], TD_IO_READ, mem, 0, 512, 0);
	td_io_commit(io);
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
	td_io_commit(io);
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

/* --- real --- */

static bool direct;

static void open_real(void *arg)
{
	struct td_err err = {0};

	ck_assert_msg(td_file_open(io, path, *(unsigned *)arg | (direct ? TD_FILE_DIRECT : 0), &f,
				   &err) == 0,
		      "%s", err.text);
}

/* In the build directory, whose file system is a disk's; false where it has no O_DIRECT. */
static bool begin_real(const char *engine, bool want_direct, unsigned flags)
{
	int fd;

	strcpy(path, "test-io.XXXXXX");
	fd = mkstemp(path);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, 4 << 20), 0);
	close(fd);
	fd = want_direct ? open(path, O_RDWR | O_DIRECT) : 0;
	if (fd < 0) {
		unlink(path);
		return false;
	}
	if (fd)
		close(fd);
	direct = want_direct;
	loop = ev_loop_new(EVFLAG_AUTO);
	ck_assert_int_eq(td_io_new(loop, engine, direct, &io, NULL), 0);
	on_fiber(loop, open_real, &flags);
	mem = aligned_alloc(4096, 4 << 20);
	return true;
}

/* Whether the kernel (and this build) has io_uring; without it the others stand in, and have their
 * own tests. */
static bool has_uring(void)
{
	struct td_io *probe = NULL;
	struct td_err err = {0};
	bool yes;

	loop = ev_loop_new(EVFLAG_AUTO);
	yes = !td_io_new(loop, "io_uring", true, &probe, &err) &&
	      !strcmp(probe->ops->name, "io_uring");
	td_io_free(probe);
	ev_loop_destroy(loop);
	return yes;
}

static void end_real(void)
{
	on_fiber(loop, close_it, NULL);
	ck_assert_uint_eq(io->inflight, 0);
	td_io_free(io);
	ev_loop_destroy(loop);
	free(mem);
	unlink(path);
}

static void many_at_once(void)
{
	static struct op o[MANY];
	uint64_t before = io->n.commits;

	for (unsigned i = 0; i < MANY; i++) {
		memset(mem + i * 4096, (int)i, 4096);
		start(&o[i], TD_IO_WRITE, mem + i * 4096, (MANY - 1 - i) * 4096, 4096, 0);
	}
	for (unsigned i = 0; i < MANY; i++)
		ck_assert_int_eq(run(&o[i]), 0);
	/* all that the kernel has room for goes in one; of the rest each may, on a slow disk, have
	 * to wait for a place of its own */
	if (!strcmp(io->ops->name, "io_uring") && !(f->flags & TD_FILE_DIRECT))
		/* writes into the host's cache are not the ring's */
		ck_assert_uint_eq(io->n.commits, before);
	else
		ck_assert_uint_ge(io->n.commits, before + 1);
	ck_assert_uint_le(io->n.commits, before + 1 + MANY - ROOM);
	memset(mem, 0xFF, MANY * 4096);
	ck_assert_int_eq(once(TD_IO_READ, mem, 0, MANY * 4096, 0), 0);
	for (unsigned i = 0; i < MANY; i++)
		ck_assert(mem[i * 4096] == (char)(MANY - 1 - i) &&
			  mem[i * 4096 + 4095] == (char)(MANY - 1 - i));
}

static void one_turn_one_commit(void)
{
	struct op o[20];
	uint64_t before = io->n.commits;

	for (unsigned i = 0; i < 20; i++)
		start(&o[i], TD_IO_READ, mem, 0, 4096, 0);
	for (unsigned i = 0; i < 20; i++)
		run(&o[i]);
	ck_assert_uint_eq(io->n.commits, before + 1);
}

static void punch(void)
{
	struct stat st[2];
	int err;

	memset(mem, 0x44, 1 << 20);
	ck_assert_int_eq(once(TD_IO_WRITE, mem, 0, 1 << 20, TD_IO_DSYNC), 0);
	ck_assert_int_eq(once(TD_IO_SYNC, NULL, 0, 0, 0), 0);
	ck_assert_int_eq(stat(path, &st[0]), 0);
	err = once(TD_IO_PUNCH, NULL, 4096, (1 << 20) - 8192, 0);
	if (err == -EOPNOTSUPP)
		return;
	ck_assert_int_eq(err, 0);
	ck_assert_int_eq(once(TD_IO_READ, mem, 0, 1 << 20, 0), 0);
	ck_assert(mem[4095] == 0x44 && mem[4096] == 0 && mem[(1 << 20) - 4097] == 0 &&
		  mem[(1 << 20) - 4096] == 0x44);
	ck_assert_int_eq(stat(path, &st[1]), 0);
	ck_assert_int_lt(st[1].st_blocks, st[0].st_blocks);
	ck_assert_int_eq(st[1].st_size, st[0].st_size);
}

static void real_engine(const char *engine, bool want_direct)
{
	if (!begin_real(engine, want_direct, 0))
		return;
	many_at_once();
	one_turn_one_commit();
	ck_assert_int_eq(once(TD_IO_WRITE, mem, 8192, 4096, TD_IO_DSYNC), 0);
	ck_assert_int_eq(once(TD_IO_SYNC, NULL, 0, 0, 0), 0);
	ck_assert(io->n.syncs == 1 && io->n.durable_writes == 1);
	ck_assert_int_eq(once(TD_IO_READ, mem, 4 << 20, 4096, 0), -EIO);
	ck_assert_int_eq(once(TD_IO_READ, mem, 4 << 20, 4096, TD_IO_EOF_ZERO), 0);
	ck_assert_int_eq(mem[17], 0);
	punch();
	end_real();
}

static void seen_without_the_loop(const char *engine)
{
	struct op o[3];

	if (!begin_real(engine, true, 0))
		return;
	td_io_peek_begin(io);
	td_io_peek_begin(io);
	td_io_peek_end(io);
	for (unsigned i = 0; i < 3; i++)
		start(&o[i], TD_IO_READ, mem + i * 4096, i * 4096, 4096, 0);
	ev_run(loop, EVRUN_NOWAIT); /* the commit */
	while (!o[0].done || !o[1].done || !o[2].done)
		td_io_peek(io);
	ck_assert(!o[0].err && !o[1].err && !o[2].err && !td_io_peek(io));
	td_io_peek_end(io);
	ck_assert_int_eq(once(TD_IO_READ, mem, 0, 4096, 0), 0); /* and again by the loop */
	end_real();
}

START_TEST(completions_are_seen_without_the_loop)
{
	seen_without_the_loop("libaio");
	if (has_uring())
		seen_without_the_loop("io_uring");
}
END_TEST

START_TEST(libaio_on_a_direct_file)
{
	real_engine("libaio", true);
}
END_TEST

START_TEST(threads_on_a_buffered_file)
{
	real_engine("threads", false);
}
END_TEST

START_TEST(io_uring_on_either)
{
	if (!has_uring())
		return;
	real_engine("io_uring", true);
	real_engine("io_uring", false);
}
END_TEST

/* What other processes share must not have a dead one's requests land on it: it goes by threads,
 * which die with their process. */
START_TEST(io_uring_has_only_files_that_are_locked)
{
	static const struct {
		unsigned flags;
		bool ring;
	} kind[] = {{0, true},
		    {TD_FILE_RDONLY, false},
		    {TD_FILE_PARENT, false},
		    {TD_FILE_SHARED, false},
		    {TD_FILE_BENEATH, false}};

	for (unsigned i = 0; has_uring() && i < sizeof kind / sizeof *kind; i++) {
		uint64_t before;

		ck_assert(begin_real("io_uring", false, kind[i].flags));
		before = io->n.commits;
		ck_assert_int_eq(once(TD_IO_READ, mem, 0, 4096, 0), 0);
		/* system calls to the ring */
		ck_assert_uint_eq(io->n.commits - before, kind[i].ring);
		end_real();
	}
}
END_TEST

/* A new block's write is one that the kernel may have to block for: io_uring has it all the same,
 * and holds nothing up. */
START_TEST(a_write_of_a_new_block_is_right_behind_each_engine)
{
	static const char *const engines[] = {"libaio", "io_uring", "threads"};

	for (unsigned e = 0; e < 3; e++) {
		static struct op o[16];

		if (!strcmp(engines[e], "io_uring") && !has_uring())
			continue;
		if (!begin_real(engines[e], true, 0))
			return;
		memset(mem, (int)e + 1, 1 << 20);
		for (unsigned i = 0; i < 16; i++) /* beyond the end, too */
			start(&o[i], TD_IO_WRITE, mem + i * 65536, (4 << 20) - 65536 + i * 131072,
			      65536, TD_IO_NEW);
		for (unsigned i = 0; i < 16; i++)
			ck_assert_int_eq(run(&o[i]), 0);
		memset(mem, 0xFF, 65536);
		ck_assert_int_eq(once(TD_IO_READ, mem, (4 << 20) - 65536 + 15 * 131072, 65536, 0),
				 0);
		ck_assert(mem[0] == (char)(e + 1) && mem[65535] == (char)(e + 1));
		end_real();
	}
}
END_TEST

START_TEST(room_is_asked_for_behind_each_engine)
{
	static const char *const engines[] = {"libaio", "io_uring", "threads"};

	td_root_allocate = give_room;
	for (unsigned e = 0; e < 3; e++) {
		if (!strcmp(engines[e], "io_uring") && !has_uring())
			continue;
		if (!begin_real(engines[e], true, 0))
			break;
		rooms = 0;
		memset(mem, 7, 8192);
		ck_assert_int_eq(once(TD_IO_WRITE, mem, 4096, 8192, TD_IO_ROOM), 0);
		ck_assert_uint_eq(rooms, 1);
		ck_assert_uint_eq(room_off, 4096);
		ck_assert_uint_eq(room_len, 8192);
		ck_assert_int_eq(once(TD_IO_WRITE, mem, 4096, 8192, 0), 0);
		ck_assert_uint_eq(rooms, 1);
		end_real();
	}
	td_root_allocate = NULL;
}
END_TEST

START_TEST(engines_of_the_other_kind_work_too)
{
	real_engine("libaio", false);
	real_engine("threads", true);
}
END_TEST

START_TEST(the_engine_follows_from_the_kind_of_file)
{
	bool uring = has_uring();

	if (begin_real(NULL, true, 0)) {
		ck_assert_str_eq(io->ops->name, "libaio");
		end_real();
	}
	ck_assert(begin_real(NULL, false, 0));
	ck_assert_str_eq(io->ops->name, uring ? "io_uring" : "threads");
	end_real();
}
END_TEST

/* The kernel refuses these before they are under way: io_submit stops there, and the ones behind it
 * must go on. */
static void refused_among_good(const char *engine)
{
	struct op o[9];

	ck_assert(begin_real(engine, false, TD_FILE_RDONLY));
	for (unsigned i = 0; i < 9; i++)
		start(&o[i], i % 3 == 1 ? TD_IO_WRITE : TD_IO_READ, mem, i * 4096, 4096, 0);
	for (unsigned i = 0; i < 9; i++)
		ck_assert_int_eq(run(&o[i]), i % 3 == 1 ? -EBADF : 0);
	end_real();
}

START_TEST(what_the_kernel_refuses_fails_alone)
{
	refused_among_good("libaio");
	refused_among_good("threads");
	if (has_uring())
		refused_among_good("io_uring");
}
END_TEST

static sem_t others_are_done;

static long slow_call(struct td_iop *op)
{
	return sem_wait(&others_are_done);
}

START_TEST(a_slow_call_holds_nothing_else_up)
{
	static const char *const engines[] = {"libaio", "threads", "io_uring"};

	for (unsigned i = 0; i < (has_uring() ? 3 : 2); i++) {
		struct op slow, warm, o;

		sem_init(&others_are_done, 0, 0);
		ck_assert(begin_real(engines[i], false, 0));
		once(TD_IO_PUNCH, NULL, 0, 4096, 0); /* one thread is there, and idle */
		slow = (struct op){.iop = {.op = TD_IO_CALL,
					   .call = slow_call,
					   .done = op_done,
					   .data = &slow}};
		td_iop_queue(io, &slow.iop);
		ev_run(loop, EVRUN_NOWAIT); /* it is on its way, the thread not yet awake perhaps */
		start(&warm, TD_IO_PUNCH, NULL, 0, 4096, 0);
		start(&o, TD_IO_READ, mem, 0, 4096, 0);
		run(&o);
		run(&warm);
		ck_assert_int_eq(slow.done, 0);
		sem_post(&others_are_done);
		run(&slow);
		end_real();
	}
}
END_TEST

/* --- near --- */

static const char *const all_engines[] = {"libaio", "threads", "io_uring"};

static struct {
	int cpu, cpus; /* where it was made, and where its thread may be */
} made;

static long look_around(struct td_iop *op)
{
	cpu_set_t may;

	made.cpu = sched_getcpu();
	made.cpus = sched_getaffinity(0, sizeof may, &may) ? 0 : CPU_COUNT(&may);
	return 0;
}

/* One turn of the loop; was it done in that? */
static bool near_in_a_turn(struct op *o, long (*call)(struct td_iop *op))
{
	*o = (struct op){.iop = {.op = TD_IO_CALL,
				 .flags = TD_IO_NEAR,
				 .call = call,
				 .done = op_done,
				 .data = o}};
	td_iop_queue(io, &o->iop);
	ev_run(loop, EVRUN_NOWAIT);
	return o->done;
}

/* Once in several: others may have the processor, and the scheduler may move either. */
START_TEST(what_is_near_is_done_on_this_processor_in_this_turn)
{
	for (unsigned e = 0; e < (has_uring() ? 3 : 2); e++) {
		bool there = false;
		struct op o;

		ck_assert(begin_real(all_engines[e], false, 0));
		for (int i = 0; i < 5000 && !there; i++) {
			int cpu = sched_getcpu();

			there = near_in_a_turn(&o, look_around) && made.cpu == cpu &&
				made.cpus == 1;
			ck_assert_int_eq(run(&o), 0);
			if (!there)
				usleep(1000);
		}
		ck_assert_msg(there, "%s", all_engines[e]);
		end_real();
	}
}
END_TEST

START_TEST(what_is_near_and_waits_holds_nothing_else_up)
{
	for (unsigned e = 0; e < (has_uring() ? 3 : 2); e++) {
		struct op slow, o;

		sem_init(&others_are_done, 0, 0);
		ck_assert(begin_real(all_engines[e], false, 0));
		ck_assert(!near_in_a_turn(&slow, slow_call));
		ck_assert_int_eq(once(TD_IO_WRITE, mem, 0, 4096, 0), 0);
		start(&o, TD_IO_READ, mem, 0, 4096, 0);
		ck_assert_int_eq(run(&o), 0);
		ck_assert_int_eq(slow.done, 0);
		sem_post(&others_are_done);
		ck_assert_int_eq(run(&slow), 0); /* and the loop is woken for it */
		memset(mem, 9, 4096);
		ck_assert_int_eq(once(TD_IO_WRITE, mem, 4096, 4096, TD_IO_NEAR), 0);
		memset(mem, 0, 4096);
		ck_assert_int_eq(once(TD_IO_READ, mem, 4096, 4096, 0), 0);
		ck_assert(mem[0] == 9 && mem[4095] == 9);
		end_real();
	}
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
	SUITE_ADD(s, completions_are_seen_without_the_loop);
	SUITE_ADD(s, libaio_on_a_direct_file);
	SUITE_ADD(s, threads_on_a_buffered_file);
	SUITE_ADD(s, io_uring_on_either);
	SUITE_ADD(s, io_uring_has_only_files_that_are_locked);
	SUITE_ADD(s, a_write_of_a_new_block_is_right_behind_each_engine);
	SUITE_ADD(s, room_is_asked_for_behind_each_engine);
	SUITE_ADD(s, engines_of_the_other_kind_work_too);
	SUITE_ADD(s, the_engine_follows_from_the_kind_of_file);
	SUITE_ADD(s, what_the_kernel_refuses_fails_alone);
	SUITE_ADD(s, a_slow_call_holds_nothing_else_up);
	SUITE_ADD(s, what_is_near_is_done_on_this_processor_in_this_turn);
	SUITE_ADD(s, what_is_near_and_waits_holds_nothing_else_up);
	return suite_run(s);
}
