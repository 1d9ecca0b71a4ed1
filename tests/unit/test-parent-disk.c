/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A disk of this host beneath a leaf, whose tapdisk answers some reads and others not (PD2, PD4 of
 * tapdisk/parent-disk.h). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tapdisk/parent-disk.h"
#include "tests/support/nbd-flaky.h"
#include "tests/support/on-fiber.h"
#include "tests/support/suite.h"

#define MINOR 7

static char dir[32];
static struct ev_loop *loop;
static struct td_io *io;
static struct td_image *image;
static struct parent_disk_id id;
static struct td_err err;
static int marker, rc;

static struct ask {
	struct td_req req;
	struct iovec iov;
	char data[4096];
	int rc;
	bool done;
} a, b;

static void tick(void)
{
	ev_run(loop, EVRUN_NOWAIT);
	usleep(200);
}

#define UNTIL(cond)                                                                                \
	do {                                                                                       \
		while (!(cond))                                                                    \
			tick();                                                                    \
	} while (0)

static void open_it(void *arg)
{
	rc = parent_disk_open(MINOR, &id, io, &image, &err);
}

static void close_it(void *arg)
{
	td_image_close(image);
}

/* This process is the tapdisk that has the minor number. */
static void begin(void)
{
	char path[200];

	strcpy(dir, "/tmp/td-beneath.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	ck_assert_int_eq(setenv("TAPDISK_CONTROL_DIR", dir, 1), 0);
	snprintf(path, sizeof path, "%s/tapdisk", dir);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	snprintf(path, sizeof path, "%s/tapdisk/tapdisk-%d", dir, MINOR);
	marker = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_ge(marker, 0);
	ck_assert_int_gt(dprintf(marker, "%d\n", (int)getpid()), 0);
	ck_assert_int_eq(flock(marker, LOCK_EX | LOCK_NB), 0);
	flaky_start(dir);
	snprintf(path, sizeof path, "%s/nbd-ro%d.%d", dir, (int)getpid(), MINOR);
	ck_assert_int_eq(symlink(flaky.path, path), 0);
	loop = ev_loop_new(EVFLAG_AUTO);
	ck_assert_int_eq(td_io_new(loop, "threads", false, &io, &err), 0);
	parent_disk_wait = 0.3;
	on_fiber(loop, open_it, NULL);
	ck_assert_msg(!rc, "%s", err.text);
}

static void end(void)
{
	char cmd[64];

	on_fiber(loop, close_it, NULL);
	td_io_free(io);
	ev_loop_destroy(loop);
	flaky_stop();
	close(marker);
	snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
	ck_assert_int_eq(system(cmd), 0);
}

static void on_done(struct td_req *req, int result)
{
	struct ask *ask = td_entry(req, struct ask, req);

	ask->rc = result;
	ask->done = true;
}

static void ask_for(struct ask *ask, uint64_t off)
{
	memset(ask->data, 0x55, sizeof ask->data);
	ask->iov = (struct iovec){ask->data, sizeof ask->data};
	ask->done = false;
	ask->req = (struct td_req){.op = TD_READ,
				   .off = off,
				   .len = sizeof ask->data,
				   .iov = &ask->iov,
				   .iovcnt = 1,
				   .io = io,
				   .done = on_done};
	td_submit(image, &ask->req);
}

START_TEST(a_read_that_fails_is_sent_again_and_so_is_one_that_is_never_answered)
{
	begin();
	flaky.mute = true;
	ask_for(&a, 0);
	UNTIL(flaky_count() == 1);
	flaky.mute = false;
	flaky.fail_read = 5;
	ask_for(&b, 8192);
	UNTIL(flaky_count() == 2);
	flaky.fail_read = 0;
	UNTIL(a.done && b.done);
	ck_assert(!a.rc && !b.rc);
	ck_assert(!a.data[0] && !b.data[0]);
	ask_for(&a, 4096);
	UNTIL(a.done);
	ck_assert_int_eq(a.rc, 0);
	end();
}
END_TEST

/* Nobody serves the disk: they fail, and none waits for ever. */
START_TEST(with_no_tapdisk_they_fail_in_the_end)
{
	begin();
	flaky.mute = true;
	ask_for(&a, 0);
	UNTIL(flaky_count() == 1);
	flaky_down();
	ask_for(&b, 8192);
	UNTIL(a.done && b.done);
	ck_assert(a.rc == -EIO && b.rc == -EIO);
	flaky.mute = false;
	flaky_up();
	ask_for(&a, 0);
	UNTIL(a.done);
	ck_assert_int_eq(a.rc, 0);
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("parent-disk");

	SUITE_ADD(s, a_read_that_fails_is_sent_again_and_so_is_one_that_is_never_answered);
	SUITE_ADD(s, with_no_tapdisk_they_fail_in_the_end);
	return suite_run(s);
}
