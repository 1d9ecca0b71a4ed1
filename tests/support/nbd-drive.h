/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One disk on a server that goes away and comes back (nbd-flaky.h), driven request by request; for
 * tests of the NBD client. */
#ifndef TESTS_NBD_DRIVE_H
#define TESTS_NBD_DRIVE_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "drivers/drivers.h"
#include "drivers/nbd/nbd.h"
#include "tests/support/nbd-flaky.h"
#include "tests/support/on-fiber.h"

static char home[32], left[64], spec[200];
static struct ev_loop *loop;
static struct td_io *io;
static struct td_image *image;
static struct td_err err; /* of the last open_spec() */
static struct td_how how;
static int rc;

struct op {
	struct td_req req;
	struct iovec iov;
	bool out;
	int result;
	char *mem;
};

static struct op ops[64];

static inline void tick(void)
{
	ev_run(loop, EVRUN_NOWAIT);
	usleep(200);
}

/* What no test can wait for is a hang: the suite's limit ends it. */
#define UNTIL(cond)                                                                                \
	do {                                                                                       \
		while (!(cond))                                                                    \
			tick();                                                                    \
	} while (0)

static inline struct nbdc_client *client(void)
{
	return image->priv;
}

/* A server, and all that a client of it needs. */
static inline void prepare(bool tcp)
{
	strcpy(home, "/tmp/td-nbd.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(home));
	setenv("TAPDISK_CONTROL_DIR", home, 1);
	snprintf(left, sizeof left, "%s/left0", home);
	loop = ev_loop_new(EVFLAG_AUTO);
	ck_assert_int_eq(td_io_new(loop, "threads", false, &io, NULL), 0);
	if (tcp)
		flaky_start_tcp();
	else
		flaky_start(home);
}

static inline void open_main(void *arg)
{
	rc = td_image_open_how(&td_driver_nbd, spec, &how, io, &image, &err);
}

/* The disk `spec'. */
static inline void open_spec(int reconnect, unsigned flags)
{
	how = (struct td_how){.reconnect = reconnect, .flags = flags, .left = left};
	err = (struct td_err){0};
	on_fiber(loop, open_main, NULL);
	ck_assert_msg(!rc, "%s", err.text);
}

static inline void close_main(void *arg)
{
	td_image_close(image);
	image = NULL;
}

static inline void end(void)
{
	char path[100];

	on_fiber(loop, close_main, NULL);
	flaky_stop();
	td_io_free(io);
	ev_loop_destroy(loop);
	for (unsigned i = 0; i < 64; i++) {
		free(ops[i].mem);
		ops[i] = (struct op){0};
	}
	unlink(left);
	snprintf(path, sizeof path, "%s/nbd.lock", home);
	unlink(path);
	ck_assert_int_eq(rmdir(home), 0);
}

/* --- requests --- */

static inline void on_done(struct td_req *req, int result)
{
	struct op *o = td_entry(req, struct op, req);

	o->out = false;
	o->result = result;
}

/* In slot i; c: what is in its memory, and of a WRITE what it writes. */
static inline struct op *submit(unsigned i, enum td_op op, unsigned flags, uint64_t off,
				uint64_t len, int c)
{
	struct op *o = &ops[i];
	bool data = op == TD_READ || op == TD_WRITE;

	ck_assert(!o->out);
	o->mem = realloc(o->mem, data ? len : 1);
	memset(o->mem, c, data ? len : 1);
	o->iov = (struct iovec){o->mem, len};
	o->req = (struct td_req){.op = op,
				 .flags = flags,
				 .off = off,
				 .len = op == TD_FLUSH ? 0 : len,
				 .iov = data ? &o->iov : NULL,
				 .iovcnt = data,
				 .done = on_done,
				 .io = io};
	o->out = true;
	td_submit(image, &o->req);
	return o;
}

static inline int finish(struct op *o)
{
	UNTIL(!o->out);
	return o->result;
}

static inline int do_write(uint64_t off, uint64_t len, int c)
{
	return finish(submit(0, TD_WRITE, 0, off, len, c));
}

static inline int do_flush(void)
{
	return finish(submit(1, TD_FLUSH, 0, 0, 0, 0));
}

#endif
