/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A log of changes and its image, on a simulated store; for tests of lib/redo.h. */
#ifndef TESTS_REDO_LOG_H
#define TESTS_REDO_LOG_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/io/file.h"
#include "lib/redo-inside.h"
#include "td/block.h"
#include "tests/support/fault-io.h"
#include "tests/support/on-fiber.h"
#include "tests/support/suite.h"

#define SHARE 8192 /* of the image */
#define WHOLE REDO_WHOLE
#define FILL  4096 /* where what fills a half stands */

static char dir[64], log_path[128];
static struct ev_loop *loop;
static struct fault_io fio;
static struct fault_file *image;
static struct td_file *file;
static struct td_err err;

static inline void open_it(void *arg)
{
	ck_assert_int_eq(td_file_open(fio.io, "/img", 0, &file, &err), 0);
}

static inline void begin(void)
{
	strcpy(dir, "test-redo.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(log_path, sizeof log_path, "%s/redo", dir);
	loop = ev_loop_new(EVFLAG_AUTO);
	fault_io_new(&fio, loop, 512, 512);
	image = fault_io_file(&fio, "/img", SHARE);
	on_fiber(loop, open_it, NULL);
}

static inline void close_it(void *arg)
{
	td_file_close(file);
}

static inline void end(void)
{
	on_fiber(loop, close_it, NULL);
	fault_io_free(&fio);
	ev_loop_destroy(loop);
	unlink(log_path);
	ck_assert_int_eq(rmdir(dir), 0);
}

static int *lost; /* of the successor; NULL: it is none */

struct applying {
	struct td_redo *r;
	int rc;
};

static inline void apply_it(void *arg)
{
	struct applying *a = arg;

	err = (struct td_err){0};
	a->rc = td_redo_apply(a->r, file, &(struct td_image){.lost = lost}, &err);
}

/* As a successor does. */
static inline int adopt_and_apply(void)
{
	struct applying a = {NULL, 0};

	err = (struct td_err){0};
	a.rc = td_redo_adopt(log_path, false, &a.r, &err);
	if (a.rc < 0)
		return a.rc;
	on_fiber(loop, apply_it, &a);
	td_redo_free(a.r);
	return a.rc;
}

static inline bool put(struct td_redo *r, enum td_redo_wave wave, unsigned at, uint8_t value)
{
	return td_redo_put(r, wave, at, &value, 1);
}

static inline void fill_up(struct td_redo *r, unsigned left)
{
	static const uint8_t zeroes[488]; /* with what a record begins with: 504 bytes */
	unsigned n = (TD_REDO_BYTES - left) / 504;

	for (unsigned i = 0; i < n; i++)
		td_redo_put(r, TD_REDO_SECOND, FILL, zeroes, sizeof zeroes);
}

static inline void poke(off_t at, uint32_t value)
{
	int fd = open(log_path, O_RDWR);

	ck_assert_int_eq(pwrite(fd, &value, sizeof value, at), sizeof value);
	close(fd);
}

static inline void log_of(uint8_t value)
{
	struct td_redo *r = td_redo_new(log_path);

	put(r, TD_REDO_SECOND, 0, value);
	td_redo_free(r);
}

#endif
