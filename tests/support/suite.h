/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What every unit test's main() does.  CK_RUN_CASE=name in the environment runs one case alone. */
#ifndef TESTS_SUITE_H
#define TESTS_SUITE_H

#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* s for a case: one that hangs is told of as failed.  No machine is too slow for it */
#define SUITE_PATIENCE 200

/* Adds a case of one test, both of the same name, so that CK_RUN_CASE finds it. */
#define SUITE_ADD(s, test)                                                                         \
	do {                                                                                       \
		TCase *tc_ = tcase_create(#test);                                                  \
		tcase_set_timeout(tc_, SUITE_PATIENCE);                                            \
		tcase_add_test(tc_, test);                                                         \
		suite_add_tcase(s, tc_);                                                           \
	} while (0)

/* The same, of one that shall end by an assertion. */
#define SUITE_ADD_ABORT(s, test)                                                                   \
	do {                                                                                       \
		TCase *tc_ = tcase_create(#test);                                                  \
		tcase_set_timeout(tc_, SUITE_PATIENCE);                                            \
		tcase_add_test_raise_signal(tc_, test, SIGABRT);                                   \
		suite_add_tcase(s, tc_);                                                           \
	} while (0)

/* The same, run n times with _i from 0 on. */
#define SUITE_ADD_LOOP(s, test, n)                                                                 \
	do {                                                                                       \
		TCase *tc_ = tcase_create(#test);                                                  \
		tcase_set_timeout(tc_, SUITE_PATIENCE);                                            \
		tcase_add_loop_test(tc_, test, 0, n);                                              \
		suite_add_tcase(s, tc_);                                                           \
	} while (0)

/* The same, each of which shall end by an assertion. */
#define SUITE_ADD_LOOP_ABORT(s, test, n)                                                           \
	do {                                                                                       \
		TCase *tc_ = tcase_create(#test);                                                  \
		tcase_set_timeout(tc_, SUITE_PATIENCE);                                            \
		tcase_add_loop_test_raise_signal(tc_, test, SIGABRT, 0, n);                        \
		suite_add_tcase(s, tc_);                                                           \
	} while (0)

/* A directory of its own, in which the test runs: several of one program do not meet, as when bugs
 * are planted.  suite_leave_dir() removes it. */
static inline int suite_enter_dir(char dir[32])
{
	strcpy(dir, "test-suite.XXXXXX");
	return mkdtemp(dir) ? chdir(dir) : -1;
}

static inline int suite_leave_dir(const char *dir, int result)
{
	char command[64];

	snprintf(command, sizeof command, "rm -rf %s", dir);
	return chdir("..") || system(command) ? 1 : result;
}

static inline int suite_run(Suite *s)
{
	SRunner *r = srunner_create(s);
	int failed;

	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}

#endif
