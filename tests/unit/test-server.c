/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A disk is attached while the tapdisk is about to be upgraded: its marker, and what is told. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/fiber/call.h"
#include "lib/fiber/fiber.h"
#include "lib/marker.h"
#include "tapdisk/server.h"
#include "tests/support/suite.h"

static struct ev_loop *loop;
static struct td_err err;
static char dir[64], marker[128];

static int text_of(char *buf, size_t size)
{
	int fd = open(marker, O_RDONLY | O_CLOEXEC);
	ssize_t n = read(fd, buf, size - 1);

	close(fd);
	buf[n > 0 ? n : 0] = 0;
	return atoi(buf);
}

static void make_marker(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	close(fd);
}

static void begin(void)
{
	strcpy(dir, "/tmp/test-server.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(marker, sizeof marker, "%s/tapdisk", dir);
	ck_assert_int_eq(mkdir(marker, 0700), 0);
	ck_assert_int_eq(setenv("TAPDISK_CONTROL_DIR", dir, 1), 0);
	snprintf(marker, sizeof marker, "%s/tapdisk/tapdisk-7", dir);
	make_marker(marker);
	loop = ev_default_loop(0);
	server_init(loop);
	err.code = 0;
	ck_assert_int_eq(td_calls_start(loop, &err), 0);
}

static void end(void)
{
	char cmd[128];

	td_calls_stop();
	snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
	ck_assert_int_eq(system(cmd), 0);
}

static int attached;

static void attach(void *arg)
{
	attached = server_attach(7, &err);
}

/* Up to the moment at which the marker is this process's, and the loop has not heard of that. */
static void begin_attach(void)
{
	int seal = td_marker_open(7);
	char text[40];

	ck_assert_int_eq(td_marker_seal(seal, 0), 0);
	attached = 1;
	ck_assert_int_eq(td_fiber_start(loop, attach, NULL), 0);
	for (int i = 0; i < 8; i++) /* it is a worker's now, who waits for the seal */
		ev_run(loop, EVRUN_NOWAIT);
	close(seal);
	while (text_of(text, sizeof text) != getpid())
		usleep(1000);
	ck_assert_int_eq(attached, 1);
	server.moving = true;
}

static void end_attach(void)
{
	while (attached == 1)
		ev_run(loop, EVRUN_ONCE);
	ck_assert_int_eq(attached, -EBUSY);
	ck_assert_ptr_nonnull(strstr(err.text, "just being upgraded"));
	ck_assert(td_list_empty(&server.disks));
}

START_TEST(an_attach_that_an_upgrade_overtakes_leaves_the_minor_to_others)
{
	char text[40];

	begin();
	begin_attach();
	end_attach();
	text_of(text, sizeof text);
	ck_assert_str_eq(text, "");
	end();
}
END_TEST

START_TEST(a_marker_that_cannot_be_given_back_is_told)
{
	char other[160];

	begin();
	begin_attach();
	snprintf(other, sizeof other, "%s.other", marker);
	make_marker(other);
	ck_assert_int_eq(rename(other, marker), 0);
	end_attach();
	ck_assert_ptr_nonnull(strstr(err.text, "cannot write the marker"));
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("server");

	SUITE_ADD(s, an_attach_that_an_upgrade_overtakes_leaves_the_minor_to_others);
	SUITE_ADD(s, a_marker_that_cannot_be_given_back_is_told);
	return suite_run(s);
}
