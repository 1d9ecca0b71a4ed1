/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sockets that were passed: each is taken once, by its name, and none is left open. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/passed.h"
#include "tests/support/suite.h"

static int some_fd(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	return fd;
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

START_TEST(taken_once)
{
	int a = some_fd(), b = some_fd();

	ck_assert_int_eq(td_passed_keep("a", a, NULL, 0), 0);
	ck_assert_int_eq(td_passed_keep("b", b, NULL, 0), 0);
	ck_assert_int_eq(td_passed_take("none", NULL, 0), -ENOENT);
	ck_assert_int_eq(td_passed_take("a", NULL, 0), a);
	ck_assert_int_eq(td_passed_take("a", NULL, 0), -ENOENT);
	ck_assert(is_open(a));
	td_passed_close_all();
	ck_assert(is_open(a) && !is_open(b));
	ck_assert_int_eq(td_passed_take("b", NULL, 0), -ENOENT);
	close(a);
}
END_TEST

START_TEST(the_newest_of_a_name)
{
	int a = some_fd(), b = some_fd();

	td_passed_keep("x", a, NULL, 0);
	td_passed_keep("x", b, NULL, 0);
	ck_assert(!is_open(a));
	ck_assert_int_eq(td_passed_take("x", NULL, 0), b);
	close(b);
}
END_TEST

START_TEST(the_note_comes_back)
{
	char note[8] = "garbage";
	int a = some_fd();

	td_passed_keep("x", a, "1234567", 8);
	ck_assert_int_eq(td_passed_take("x", note, sizeof note), a);
	ck_assert_str_eq(note, "1234567");
	td_passed_keep("x", a, NULL, 0);
	ck_assert_int_eq(td_passed_take("x", note, sizeof note), a);
	ck_assert_int_eq(note[0], 0);
	ck_assert_int_eq(td_passed_take("x", note, sizeof note), -ENOENT);
	close(a);
}
END_TEST

START_TEST(the_oldest_goes_when_there_are_too_many)
{
	int fds[TD_PASSED_MAX + 1];
	char name[16];

	for (int i = 0; i <= TD_PASSED_MAX; i++) {
		snprintf(name, sizeof name, "n%d", i);
		fds[i] = some_fd();
		ck_assert_int_eq(td_passed_keep(name, fds[i], NULL, 0), 0);
	}
	ck_assert(!is_open(fds[0]) && is_open(fds[1]));
	ck_assert_int_eq(td_passed_take("n0", NULL, 0), -ENOENT);
	ck_assert_int_eq(td_passed_take("n1", NULL, 0), fds[1]);
	close(fds[1]);
	td_passed_close_all();
	ck_assert(!is_open(fds[TD_PASSED_MAX]));
}
END_TEST

START_TEST(names_without_end_and_without_text)
{
	char name[TD_PASSED_NAME + 2];
	int a = some_fd();

	ck_assert_int_eq(td_passed_keep("", a, NULL, 0), -EINVAL);
	ck_assert(!is_open(a));
	memset(name, 'n', sizeof name - 1);
	name[sizeof name - 1] = 0;
	a = some_fd();
	ck_assert_int_eq(td_passed_keep(name, a, NULL, 0), -EINVAL);
	ck_assert(!is_open(a));
	name[TD_PASSED_NAME] = 0;
	a = some_fd();
	ck_assert_int_eq(td_passed_keep(name, a, NULL, 0), 0);
	ck_assert_int_eq(td_passed_take(name, NULL, 0), a);
	close(a);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("passed");

	SUITE_ADD(s, taken_once);
	SUITE_ADD(s, the_newest_of_a_name);
	SUITE_ADD(s, the_note_comes_back);
	SUITE_ADD(s, the_oldest_goes_when_there_are_too_many);
	SUITE_ADD(s, names_without_end_and_without_text);
	return suite_run(s);
}
