/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A process that plays a tapdisk taken over: inside the sandbox it tries what an intruder would. */
#ifndef TESTS_TEST_SANDBOX_H
#define TESTS_TEST_SANDBOX_H

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/conf.h"
#include "td/ctl.h"
#include "tapdisk/opener/opener-rights.h"
#include "tapdisk/sandbox/sandbox.h"
#include "tests/support/suite.h"

enum { REFUSED = 10, DONE };

#ifdef TD_SANITIZED /* which needs what the filter forbids */
enum { FILTERS = false };
#else
enum { FILTERS = true };
#endif

static inline void conf(const char *text)
{
	FILE *f = fopen("test-sandbox.conf", "w");

	ck_assert_ptr_nonnull(f);
	fputs(text, f);
	fclose(f);
	setenv(TD_CONF_ENV, "test-sandbox.conf", 1);
}

/* Before the sandbox, as a test has no control socket: what the opener is told. */
static inline void host_says(const char *op, const char *image)
{
	json_t *msg = json_pack("{s:s, s:i, s:o}", "op", op, "minor", 3, "args",
				json_sprintf("aio:%s", image));

	rights_learn(msg);
	json_decref(msg);
}

/* The minor is its own. */
static inline void mark_minor(void)
{
	FILE *f;

	mkdir("test-sandbox.d", 0700);
	mkdir("test-sandbox.d/tapdisk", 0700);
	f = fopen("test-sandbox.d/tapdisk/tapdisk-3", "w");
	if (!f || fprintf(f, "%d\n", (int)getpid()) < 0 || fclose(f))
		_exit(1);
}

/* DONE: it did it; REFUSED: an error; -SIGSYS: it died of it. */
static inline int inside(int (*attempt)(void))
{
	struct td_err err = {0};
	pid_t pid = fork();
	int status;

	if (!pid) {
		mark_minor();
		host_says("attach", "test-sandbox.none");
		host_says("open", "test-sandbox.image");
		if (sandbox_enter(1, &err) || sandbox_network("a disk", false, &err))
			_exit(1);
		_exit(attempt() < 0 ? REFUSED : DONE);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static inline int run_program(void)
{
	return execl("/bin/true", "true", (char *)NULL);
}

static inline int dial_out_6(void)
{
	return socket(AF_INET6, SOCK_DGRAM, 0);
}

static inline int to_the_hypervisor(void)
{
	return socket(AF_VSOCK, SOCK_STREAM, 0);
}

static inline int routes(void)
{
	return socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
}

static inline int dial_out(void)
{
	return socket(AF_INET, SOCK_STREAM, 0);
}

static inline int packets(void)
{
	return socket(AF_PACKET, SOCK_RAW, 0);
}

static inline int own_files(void)
{
	int fd = open("test-sandbox.image", O_RDWR);

	if (fd < 0 || pwrite(fd, "#", 1, 0) != 1 || fdatasync(fd) || close(fd))
		return -1;
	fd = open("test-sandbox.d/left3", O_RDWR | O_CREAT, 0600);
	return fd < 0 || close(fd) || unlink("test-sandbox.d/left3") ? -1 : 0;
}

#define VICTIM "test-sandbox.victim"

static inline int is_whole(void)
{
	return strcmp(sandbox_state(), "yes") ? -1 : 0;
}

/* A file in a directory of its own, of another owner, that nobody but root may open. */
static inline void make_victim(void)
{
	int fd = open(VICTIM, O_RDWR | O_CREAT | O_TRUNC, 0600);

	ck_assert(fd >= 0 && pwrite(fd, "the other guest's", 17, 0) == 17);
	ck_assert(fchown(fd, 12345, 12345) == 0 || geteuid());
	close(fd);
}

/* The whole program: add() puts its tests into the suite.  filtered: all of them need the filter.
 */
static inline int sandbox_main(const char *name, bool filtered, void (*add)(Suite *s))
{
	char dir[PATH_MAX], own[32];
	Suite *s;
	FILE *f;

	if (filtered && !FILTERS) {
		puts("a build with sanitizers has no sandbox");
		return 77;
	}
	if (suite_enter_dir(own))
		return 1;
	f = fopen("test-sandbox.image", "w"); /* its disk */
	if (!f || fclose(f) || !getcwd(dir, sizeof dir - 20))
		return 1;
	strcat(dir, "/test-sandbox.d");
	setenv(TD_CTL_DIR_ENV, dir, 1);
	s = suite_create(name);
	add(s);
	return suite_leave_dir(own, suite_run(s));
}

#endif
