/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Operations on a file, simulated or real; for tests of the engines. */
#ifndef TESTS_TEST_IO_H
#define TESTS_TEST_IO_H

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
static char *mem;

struct op {
	struct td_iop iop;
	struct iovec iov[4];
	int done, err;
};

static inline void op_done(struct td_iop *iop, int err)
{
	struct op *o = iop->data;

	o->done++;
	o->err = err;
}

static inline void start(struct op *o, enum td_io_op what, void *buf, uint64_t off, uint64_t len,
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

static inline int run(struct op *o)
{
	for (int i = 0; i < 100000 && !o->done; i++)
		ev_run(loop, EVRUN_ONCE);
	ck_assert_int_eq(o->done, 1);
	return o->err;
}

static inline int once(enum td_io_op what, void *buf, uint64_t off, uint64_t len, unsigned flags)
{
	struct op o;

	start(&o, what, buf, off, len, flags);
	return run(&o);
}

static inline void close_it(void *arg)
{
	td_file_close(f);
	f = NULL;
}

static inline void open_fault(void *arg)
{
	struct td_err err = {0};

	ck_assert_int_eq(td_file_open(io, "disk", *(unsigned *)arg, &f, &err), 0);
}

static inline struct fault_file *begin(unsigned flags)
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

static inline void end(void)
{
	on_fiber(loop, close_it, NULL);
	ck_assert_uint_eq(io->inflight, 0);
	fault_io_free(&fio);
	ev_loop_destroy(loop);
	free(mem);
}

/* --- room of root's --- */

static uint64_t room_off, room_len; /* asked for, atomic: by a worker */
static unsigned rooms;

static inline int give_room(int fd, int mode, uint64_t off, uint64_t len)
{
	room_off = off;
	room_len = len;
	__atomic_add_fetch(&rooms, 1, __ATOMIC_SEQ_CST);
	return 0;
}

#endif
