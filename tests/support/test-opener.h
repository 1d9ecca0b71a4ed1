/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A process in the sandbox, whose calls that name files are made by its opener, in a directory of
 * its own; for tests of what such a process may do. */
#ifndef TESTS_TEST_OPENER_H
#define TESTS_TEST_OPENER_H

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/conf.h"
#include "td/ctl.h"
#include "tapdisk/opener/opener-rights.h"
#include "tapdisk/opener/opener.h"
#include "tapdisk/sandbox/sandbox.h"
#include "tests/support/suite.h"

#define DIR_NAME "test-opener.d" /* the control directory */
#define OWN      DIR_NAME "/left7."
#define ALIEN    "test-opener.alien"

static char here[PATH_MAX];
static bool commits;
static int far_port; /* on 127.0.0.1 */

/* In the child a check that fails is told by its line. */
#define SAY(what)                                                                                  \
	do {                                                                                       \
		if (!(what)) {                                                                     \
			fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__, #what,             \
				strerror(errno));                                                  \
			_exit(1);                                                                  \
		}                                                                                  \
	} while (0)

#define REFUSED(what) SAY((what) < 0 && errno == EACCES)

/* What the host says before the tapdisk asks for anything. */
static bool read_only;

static inline void say(const char *op, const char *type, const char *name, const char *option)
{
	json_t *msg = json_pack("{s:s, s:i, s:b}", "op", op, "minor", 7, "read_only", read_only);

	if (name)
		json_object_set_new(msg, "args",
				    json_sprintf("%s:%s/" DIR_NAME "/%s", type, here, name));
	if (option)
		json_object_set_new(
			msg, "options",
			json_pack("[o]", json_sprintf("%s%s/" DIR_NAME "/left7.s", option, here)));
	rights_learn(msg);
	json_decref(msg);
}

#define MARKER DIR_NAME "/tapdisk/tapdisk-7"

/* Whose the minor is. */
static inline bool write_marker(pid_t pid)
{
	FILE *f = fopen(MARKER, "we");

	return f && (!pid || fprintf(f, "%d\n", (int)pid) > 0) && !fclose(f);
}

/* Disks on other hosts, and one beneath. */
static inline void say_far(void)
{
	json_t *msg = json_pack("{s:s, s:i, s:o, s:[o, s]}", "op", "open", "minor", 7, "args",
				json_sprintf("nbd://127.0.0.1:%d/a", far_port), "options",
				json_sprintf("mirror=nbd:127.0.0.1:%d", far_port), "parent-disk=9");

	rights_learn(msg);
	json_decref(msg);
}

static inline pid_t start(void (*fn)(void))
{
	pid_t pid = fork();

	if (!pid) {
		struct td_err err = {0};

		SAY(write_marker(getpid()));
		say("attach", NULL, NULL, NULL);
		say("open", "aio", "fifo", "mirror=nbd:");
		say("unpause", "vhd", "image", NULL);
		say_far();
		if (commits)
			say("commit", NULL, NULL, NULL);
		SAY(sandbox_enter(1, &err) == 0);
		fn();
		_exit(0);
	}
	return pid;
}

static inline int status_of(pid_t pid)
{
	int status;

	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static inline void inside(void (*fn)(void))
{
	ck_assert_int_eq(status_of(start(fn)), 0);
}

static inline bool prepare(void)
{
	FILE *f = fopen("test-opener.conf", "w");

	if (!f || fputs("sandbox = yes\n", f) < 0 || fclose(f))
		return false;
	setenv(TD_CONF_ENV, "test-opener.conf", 1);
	if (!getcwd(here, sizeof here - 100))
		return false;
	snprintf(here + strlen(here), 100, "/" DIR_NAME);
	setenv(TD_CTL_DIR_ENV, here, 1);
	*strrchr(here, '/') = 0;
	return !system("rm -rf " DIR_NAME " " ALIEN) && !mkdir(DIR_NAME, 0700) &&
	       !mkdir(DIR_NAME "/tapdisk", 0700);
}

static inline bool tidy(void)
{
	return !system("rm -rf " DIR_NAME " " ALIEN " test-opener.conf");
}

static inline void setup(void)
{
	ck_assert(prepare());
}

static inline void teardown(void)
{
	ck_assert(tidy());
}

static inline void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);

	SAY(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && !close(fd));
}

/* A directory that is its own. */
static inline const char *own_dir(char path[64])
{
	snprintf(path, 64, DIR_NAME "/td3-%d", (int)getpid());
	return path;
}

#define ADD(test, from, to)                                                                        \
	do {                                                                                       \
		TCase *tc = tcase_create(#test);                                                   \
		tcase_set_timeout(tc, SUITE_PATIENCE);                                             \
		tcase_add_checked_fixture(tc, setup, teardown);                                    \
		tcase_add_loop_test(tc, test, from, to);                                           \
		suite_add_tcase(s, tc);                                                            \
	} while (0)

static inline bool has_opener(void)
{
	int status = -1;

	if (prepare() && !fork()) {
		struct td_err err = {0};

		_exit(sandbox_enter(1, &err) || strcmp(sandbox_state(), "yes"));
	}
	wait(&status);
	return tidy() && status == 0;
}

/* The whole program: add() puts its tests into the suite. */
static inline int opener_main(const char *name, void (*add)(Suite *s))
{
	char dir[32];
	Suite *s;

	if (suite_enter_dir(dir))
		return 1;
	if (!has_opener()) {
		puts("this host, or this build, has none");
		return suite_leave_dir(dir, 77);
	}
	s = suite_create(name);
	add(s);
	return suite_leave_dir(dir, suite_run(s));
}

#endif
