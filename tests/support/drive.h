/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One disk on a simulated store, driven request by request; for tests of a format's driver. */
#ifndef TESTS_DRIVE_H
#define TESTS_DRIVE_H

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "tapdisk/chain.h"
#include "tests/support/fault-io.h"
#include "tests/support/on-fiber.h"

#define MIB (1u << 20)

static struct ev_loop *loop;
static struct fault_io fio;
static struct td_image *leaf;
static struct td_err err; /* of the last open_how() */
static uint8_t *mem;      /* 1 MiB, aligned */

static inline void begin(void)
{
	loop = ev_loop_new(EVFLAG_AUTO);
	fault_io_new(&fio, loop, 512, 512);
	mem = aligned_alloc(4096, MIB);
	memset(mem, 0xab, MIB);
}

static inline void end(void)
{
	fault_io_free(&fio);
	ev_loop_destroy(loop);
	free(mem);
}

struct open_call {
	const char *spec;
	struct td_how how;
	int rc;
};

static inline void open_main(void *arg)
{
	struct open_call *c = arg;

	err.code = 0;
	c->rc = chain_open(c->spec, &c->how, fio.io, &leaf, &err);
}

static inline int open_how(const char *spec, struct td_how how)
{
	struct open_call c = {.spec = spec, .how = how};

	on_fiber(loop, open_main, &c);
	return c.rc;
}

static inline void open_leaf(const char *spec)
{
	ck_assert_msg(open_how(spec, (struct td_how){.flags = TD_FILE_DIRECT}) == 0, "%s",
		      err.text);
	fault_io_clear(&fio);
}

static inline void close_main(void *arg)
{
	chain_close(leaf);
	leaf = NULL;
}

static inline void close_leaf(void)
{
	on_fiber(loop, close_main, NULL);
}

/* --- requests --- */

struct op {
	struct td_req req;
	struct iovec iov;
	int done, err;
};

static inline void op_done(struct td_req *req, int e)
{
	struct op *o = td_entry(req, struct op, req);

	o->done++;
	o->err = e;
}

static inline void start(struct op *o, enum td_op what, void *buf, uint64_t off, uint64_t len,
			 unsigned flags)
{
	memset(o, 0, sizeof *o);
	o->iov = (struct iovec){buf, len};
	o->req = (struct td_req){.op = what,
				 .flags = flags,
				 .off = off,
				 .len = len,
				 .iov = &o->iov,
				 .iovcnt = 1,
				 .done = op_done,
				 .io = fio.io};
	td_submit(leaf, &o->req);
}

static inline void turns(int n)
{
	while (n--)
		ev_run(loop, EVRUN_NOWAIT);
}

static inline int finish(struct op *o)
{
	for (int i = 0; i < 1000 && !o->done; i++)
		turns(1);
	ck_assert_int_eq(o->done, 1);
	return o->err;
}

static inline int doing(enum td_op what, void *buf, uint64_t off, uint64_t len, unsigned flags)
{
	struct op o;

	start(&o, what, buf, off, len, flags);
	return finish(&o);
}

static inline void ok(enum td_op what, void *buf, uint64_t off, uint64_t len, unsigned flags)
{
	ck_assert_int_eq(doing(what, buf, off, len, flags), 0);
}

static inline void expect_log(unsigned i, enum td_io_op op, uint64_t len)
{
	ck_assert_uint_lt(i, fio.nlog);
	ck_assert_msg(fio.log[i].op == op && fio.log[i].len == len,
		      "operation %u is %d of %llu bytes, not %d of %llu", i, fio.log[i].op,
		      (unsigned long long)fio.log[i].len, op, (unsigned long long)len);
}

#endif
