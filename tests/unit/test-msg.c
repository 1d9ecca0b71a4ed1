/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/msg.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static int sv[2];

static void setup(void)
{
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
}

static void teardown(void)
{
	close(sv[0]);
	close(sv[1]);
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static json_t *text_of(size_t len)
{
	char *text = malloc(len + 1);
	json_t *msg;

	memset(text, 'x', len);
	text[len] = 0;
	msg = json_pack("{s:s}", "t", text);
	free(text);
	return msg;
}

START_TEST(round_trip)
{
	json_t *msg = json_pack("{s:s, s:i, s:[s, s]}", "op", "open", "minor", 7, "options", "a=b",
				"path=/x y:z"),
	       *got;
	int n = 0;

	ck_assert_int_eq(td_msg_send(sv[0], msg, NULL, 0), 0);
	ck_assert_int_eq(td_msg_recv(sv[1], &got, NULL, &n), 0);
	ck_assert(json_equal(msg, got));
	ck_assert_int_eq(n, 0);
	json_decref(msg);
	json_decref(got);
}
END_TEST

START_TEST(boundaries_are_kept)
{
	json_t *got;

	for (int i = 0; i < 3; i++) {
		json_t *msg = json_pack("{s:i}", "i", i);

		ck_assert_int_eq(td_msg_send(sv[0], msg, NULL, 0), 0);
		json_decref(msg);
	}
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(td_msg_recv(sv[1], &got, NULL, NULL), 0);
		ck_assert_int_eq(json_integer_value(json_object_get(got, "i")), i);
		json_decref(got);
	}
}
END_TEST

START_TEST(descriptors)
{
	int fds[3] = {open("/dev/null", O_RDONLY), open("/dev/zero", O_RDONLY),
		      open("/", O_RDONLY)},
	    in[TD_MSG_FDS], n = TD_MSG_FDS;
	json_t *msg = json_object(), *got;
	struct stat a, b;

	ck_assert_int_eq(td_msg_send(sv[0], msg, fds, 3), 0);
	ck_assert_int_eq(td_msg_recv(sv[1], &got, in, &n), 0);
	ck_assert_int_eq(n, 3);
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(fstat(fds[i], &a), 0);
		ck_assert_int_eq(fstat(in[i], &b), 0);
		ck_assert(a.st_ino == b.st_ino && a.st_dev == b.st_dev);
		ck_assert_int_eq(fcntl(in[i], F_GETFD), FD_CLOEXEC);
		close(in[i]);
		close(fds[i]);
	}
	json_decref(msg);
	json_decref(got);
}
END_TEST

/* Those that the receiver has no room for must not stay open in it. */
START_TEST(descriptors_without_room)
{
	int fds[4], in[1], n = 1, next;
	json_t *msg = json_object(), *got;

	for (int i = 0; i < 4; i++)
		fds[i] = open("/dev/null", O_RDONLY);
	ck_assert_int_eq(td_msg_send(sv[0], msg, fds, 4), 0);
	ck_assert_int_eq(td_msg_send(sv[0], msg, fds, 4), 0);
	next = dup(0);
	close(next);
	ck_assert_int_eq(td_msg_recv(sv[1], &got, in, &n), 0);
	json_decref(got);
	ck_assert_int_eq(n, 1);
	ck_assert_int_eq(in[0], next);
	ck_assert(!is_open(next + 1) && !is_open(next + 2) && !is_open(next + 3));
	ck_assert_int_eq(td_msg_recv(sv[1], &got, NULL, NULL), 0);
	json_decref(got);
	ck_assert(!is_open(next + 1));
	json_decref(msg);
}
END_TEST

/* A message that is refused leaves no descriptor behind either. */
START_TEST(bad_message_with_descriptor)
{
	union {
		struct cmsghdr c;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {};
	struct iovec iov = {.iov_base = (char *)"[1]", .iov_len = 3};
	struct msghdr mh = {.msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof control};
	int fd = open("/dev/null", O_RDONLY), in[2], n = 2, next;
	json_t *got;

	control.c.cmsg_level = SOL_SOCKET;
	control.c.cmsg_type = SCM_RIGHTS;
	control.c.cmsg_len = CMSG_LEN(sizeof fd);
	memcpy(CMSG_DATA(&control.c), &fd, sizeof fd);
	ck_assert_int_eq(sendmsg(sv[0], &mh, 0), 3);
	next = dup(0);
	close(next);
	ck_assert_int_eq(td_msg_recv(sv[1], &got, in, &n), -EBADMSG);
	ck_assert_int_eq(n, 0);
	ck_assert_ptr_null(got);
	ck_assert(!is_open(next));
}
END_TEST

START_TEST(nonsense)
{
	static const char *const bad[] = {
		"", "{", "[]", "3", "nul", "{\"a\":1}x", "{\"a\":\"\xff\"}", "\"x\""};
	json_t *got;

	for (size_t i = 1; i < sizeof bad / sizeof *bad; i++) {
		ck_assert_int_gt(send(sv[0], bad[i], strlen(bad[i]), 0), 0);
		ck_assert_int_eq(td_msg_recv(sv[1], &got, NULL, NULL), -EBADMSG);
		ck_assert_ptr_null(got);
	}
}
END_TEST

/* As deep as a message can be: no answer but a refusal, and no end of the stack. */
START_TEST(deep)
{
	char *text = malloc(TD_MSG_MAX);
	json_t *got;

	memset(text, '[', TD_MSG_MAX);
	memcpy(text, "{\"a\":", 5);
	ck_assert_int_eq(send(sv[0], text, TD_MSG_MAX, 0), TD_MSG_MAX);
	ck_assert_int_eq(td_msg_recv(sv[1], &got, NULL, NULL), -EBADMSG);
	free(text);
}
END_TEST

START_TEST(sizes)
{
	json_t *msg = text_of(TD_MSG_MAX - 8), *got;
	char *big;

	ck_assert_int_eq(td_msg_send(sv[0], msg, NULL, 0), 0); /* {"t":"..."}: exactly the limit */
	ck_assert_int_eq(td_msg_recv(sv[1], &got, NULL, NULL), 0);
	ck_assert(json_equal(msg, got));
	json_decref(msg);
	json_decref(got);
	msg = text_of(TD_MSG_MAX - 7);
	ck_assert_int_eq(td_msg_send(sv[0], msg, NULL, 0), -EMSGSIZE);
	json_decref(msg);
	big = calloc(1, TD_MSG_MAX + 1);
	ck_assert_int_eq(send(sv[0], big, TD_MSG_MAX + 1, 0), TD_MSG_MAX + 1);
	ck_assert_int_eq(td_msg_recv(sv[1], &got, NULL, NULL), -EMSGSIZE);
	free(big);
}
END_TEST

START_TEST(ends)
{
	json_t *msg = json_object(), *got;

	ck_assert_int_eq(td_msg_send(sv[0], msg, NULL, 0), 0);
	close(sv[0]);
	ck_assert_int_eq(td_msg_recv(sv[1], &got, NULL, NULL), 0);
	json_decref(got);
	ck_assert_int_eq(td_msg_recv(sv[1], &got, NULL, NULL), -ENODATA);
	/* a SIGPIPE would end the test */
	ck_assert_int_eq(td_msg_send(sv[1], msg, NULL, 0), -EPIPE);
	json_decref(msg);
	sv[0] = -1;
}
END_TEST

START_TEST(full_and_empty)
{
	json_t *msg = text_of(32 * 1024), *got;
	int ret, sent = 0;

	fcntl(sv[0], F_SETFL, O_NONBLOCK);
	fcntl(sv[1], F_SETFL, O_NONBLOCK);
	ck_assert_int_eq(td_msg_recv(sv[1], &got, NULL, NULL), -EAGAIN);
	while (!(ret = td_msg_send(sv[0], msg, NULL, 0)))
		ck_assert_int_lt(++sent, 10000);
	ck_assert_int_eq(ret, -EAGAIN);
	ck_assert_int_gt(sent, 0);
	json_decref(msg);
}
END_TEST

START_TEST(misuse)
{
	int fds[TD_MSG_FDS + 1] = {};
	json_t *array = json_array(), *object = json_object();

	ck_assert_int_eq(td_msg_send(sv[0], array, NULL, 0), -EINVAL);
	ck_assert_int_eq(td_msg_send(sv[0], NULL, NULL, 0), -EINVAL);
	ck_assert_int_eq(td_msg_send(sv[0], object, fds, TD_MSG_FDS + 1), -EINVAL);
	ck_assert_int_eq(td_msg_send(-1, object, NULL, 0), -EBADF);
	json_decref(array);
	json_decref(object);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("msg");
	TCase *tc = tcase_create("msg");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, round_trip);
	tcase_add_test(tc, boundaries_are_kept);
	tcase_add_test(tc, descriptors);
	tcase_add_test(tc, descriptors_without_room);
	tcase_add_test(tc, bad_message_with_descriptor);
	tcase_add_test(tc, nonsense);
	tcase_add_test(tc, deep);
	tcase_add_test(tc, sizes);
	tcase_add_test(tc, ends);
	tcase_add_test(tc, full_and_empty);
	tcase_add_test(tc, misuse);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? 1 : 0;
}
