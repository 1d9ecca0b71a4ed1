/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The client against a server of few words, one process a server: it answers, fails, hangs, dies or
 * talks nonsense. */
#include "lib/ctl-client.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib/msg.h"

enum server {
	ANSWER,
	ROWS,
	FAIL,
	FAIL_BARE,
	FAIL_HUGE,
	HANG,
	TRICKLE,
	DIE,
	GARBAGE,
	REFUSE,
	START_LATE
};

static char dir[64];
static pid_t servers[8];
static int n_servers;

static void setup(void)
{
	snprintf(dir, sizeof dir, "/tmp/td-ctl-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	setenv(TD_CTL_DIR_ENV, dir, 1);
	n_servers = 0;
}

static void teardown(void)
{
	char cmd[80];

	for (int i = 0; i < n_servers; i++) {
		kill(servers[i], SIGKILL);
		waitpid(servers[i], NULL, 0);
	}
	snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
	ck_assert_int_eq(system(cmd), 0);
}

static void say(int fd, json_t *msg)
{
	td_msg_send(fd, msg, NULL, 0);
	json_decref(msg);
}

static void serve_one(enum server what, int fd)
{
	json_t *req = NULL;

	td_msg_recv(fd, &req, NULL, NULL);
	switch (what) {
	case ROWS:
		for (int i = 0; i < 3; i++)
			say(fd, json_pack("{s:{s:i}}", "row", "minor", i));
		say(fd, json_pack("{s:i}", "err", 0));
		break;
	case FAIL:
		say(fd, json_pack("{s:i, s:s}", "err", EBUSY, "text", "the image is in use by 17"));
		break;
	case FAIL_BARE:
		say(fd, json_pack("{s:i}", "err", ENODEV));
		break;
	case FAIL_HUGE:
		say(fd, json_pack("{s:i}", "err", 256));
		break;
	case HANG:
		pause();
		break;
	case TRICKLE: /* always something, never the end: the limit is on the whole answer */
		for (;;) {
			say(fd, json_pack("{s:{}}", "row"));
			usleep(100 * 1000);
		}
	case DIE:
		_exit(0);
	case GARBAGE:
		send(fd, "hello", 5, 0);
		break;
	default:
		say(fd, json_pack("{s:i, s:O}", "err", 0, "echo", req));
	}
	json_decref(req);
	close(fd);
}

static void __attribute__((noreturn)) server(enum server what, int ready)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0), one;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (what == START_LATE)
		prctl(PR_SET_NAME, "tapdisk");
	if (chdir(td_ctl_dir()) < 0)
		_exit(1);
	snprintf(sa.sun_path, sizeof sa.sun_path, "ctl%d", (int)getpid());
	if (bind(fd, (struct sockaddr *)&sa, sizeof sa) < 0 || (what < REFUSE && listen(fd, 8) < 0))
		_exit(1);
	if (write(ready, "", 1) != 1)
		_exit(1);
	if (what == START_LATE) {
		usleep(200 * 1000);
		listen(fd, 8);
	}
	while ((one = accept(fd, NULL, NULL)) >= 0)
		serve_one(what, one);
	pause();
	_exit(0);
}

static pid_t start(enum server what)
{
	int p[2];
	pid_t pid;
	char c;

	ck_assert_int_eq(pipe(p), 0);
	pid = fork();
	if (!pid)
		server(what, p[1]);
	close(p[1]);
	ck_assert_int_eq(read(p[0], &c, 1), 1);
	close(p[0]);
	servers[n_servers++] = pid;
	return pid;
}

static bool has_socket(pid_t pid)
{
	char path[4096];

	snprintf(path, sizeof path, "%s/ctl%d", td_ctl_dir(), (int)pid);
	return !access(path, F_OK);
}

static void count_row(json_t *row, void *arg)
{
	int *n = arg;

	ck_assert_int_eq(json_integer_value(json_object_get(row, "minor")), *n);
	++*n;
}

static int ask(pid_t pid, int timeout, struct td_err *err)
{
	memset(err, 0, sizeof *err);
	return td_ctl_call(pid, json_pack("{s:s}", "op", "ping"), NULL, 0, timeout, NULL, NULL,
			   NULL, err);
}

static struct td_err err;

START_TEST(call)
{
	pid_t pid = start(ANSWER);
	json_t *reply, *echo;

	ck_assert_int_eq(td_ctl_call(pid, json_pack("{s:s, s:i}", "op", "open", "minor", 3), NULL,
				     0, 100, NULL, NULL, &reply, &err),
			 0);
	echo = json_object_get(reply, "echo");
	ck_assert_str_eq(json_string_value(json_object_get(echo, "op")), "open");
	ck_assert_int_eq(json_integer_value(json_object_get(echo, "minor")), 3);
	json_decref(reply);
	ck_assert_int_eq(ask(pid, 100, &err), 0); /* each question has its own connection */
}
END_TEST

START_TEST(call_rows)
{
	pid_t pid = start(ROWS);
	int n = 0;

	ck_assert_int_eq(td_ctl_call(pid, json_pack("{s:s}", "op", "list"), NULL, 0, 100, count_row,
				     &n, NULL, &err),
			 0);
	ck_assert_int_eq(n, 3);
	ck_assert_int_eq(ask(pid, 100, &err), 0); /* rows that nobody wants do no harm */
}
END_TEST

START_TEST(call_errors)
{
	json_t *reply;

	ck_assert_int_eq(ask(start(FAIL), 100, &err), -EBUSY);
	ck_assert_int_eq(err.code, EBUSY);
	ck_assert_str_eq(err.text, "the image is in use by 17");
	ck_assert_int_eq(ask(start(FAIL_BARE), 100, &err), -ENODEV);
	ck_assert_str_eq(err.text, strerror(ENODEV));
	ck_assert_int_eq(ask(start(FAIL_HUGE), 100, &err), -EPROTO);
	ck_assert_int_eq(ask(start(GARBAGE), 100, &err), -EBADMSG);
	ck_assert_int_eq(ask(start(DIE), 100, &err), -ECONNRESET);
	ck_assert_ptr_nonnull(strstr(err.text, "ended before"));
	ck_assert_int_eq(td_ctl_call(servers[0], json_pack("{s:s}", "op", "x"), NULL, 0, 100, NULL,
				     NULL, &reply, NULL),
			 -EBUSY);
	ck_assert_int_eq(json_integer_value(json_object_get(reply, "err")), EBUSY);
	json_decref(reply);
}
END_TEST

static void check_timeout(enum server what)
{
	struct timespec a, b;
	double took;

	clock_gettime(CLOCK_MONOTONIC, &a);
	ck_assert_int_eq(ask(start(what), 1, &err), -ETIMEDOUT);
	clock_gettime(CLOCK_MONOTONIC, &b);
	took = (b.tv_sec - a.tv_sec) + (b.tv_nsec - a.tv_nsec) / 1e9;
	ck_assert(took > 0.9); /* and it came to an end */
	ck_assert_ptr_nonnull(strstr(err.text, "within 1 s"));
}

START_TEST(call_timeout)
{
	check_timeout(HANG);
	check_timeout(TRICKLE);
}
END_TEST

/* Nobody accepts and the queue of connections is full: connect itself has a limit. */
START_TEST(connect_timeout)
{
	pid_t pid = start(HANG);
	int fds[64], n = 0;

	kill(pid, SIGSTOP);
	while (n < 64 && (fds[n] = td_ctl_connect(pid, 0, NULL)) >= 0)
		n++;
	ck_assert_int_lt(n, 64);
	ck_assert_int_eq(fds[n], -ETIMEDOUT);
	ck_assert_int_eq(ask(pid, 1, &err), -ETIMEDOUT);
	while (n)
		close(fds[--n]);
}
END_TEST

START_TEST(dead)
{
	pid_t zombie = start(ANSWER), gone = start(ANSWER), other = start(REFUSE);

	kill(zombie, SIGKILL);
	kill(gone, SIGKILL);
	ck_assert_int_eq(waitpid(gone, NULL, 0), gone);
	ck_assert(has_socket(gone));
	ck_assert_int_eq(td_ctl_connect(gone, 100, &err), -ENOENT);
	ck_assert(!has_socket(gone));
	waitid(P_PID, zombie, &(siginfo_t){}, WEXITED | WNOWAIT);
	ck_assert_int_eq(td_ctl_connect(zombie, 100, NULL), -ENOENT);
	ck_assert(!has_socket(zombie));
	/* a live process with that pid that is no tapdisk: the number was used again */
	ck_assert_int_eq(td_ctl_connect(other, 100, NULL), -ENOENT);
	ck_assert(!has_socket(other));
	ck_assert_int_eq(td_ctl_connect(gone, 100, NULL), -ENOENT);
	ck_assert_int_eq(td_ctl_connect(0, 100, NULL), -ENOENT);
	ck_assert_int_eq(td_ctl_connect(-1, 100, NULL), -ENOENT);
}
END_TEST

/* Between bind and listen a tapdisk's socket refuses as a dead one's does; it must not be taken
 * away then. */
START_TEST(starting)
{
	pid_t pid = start(START_LATE);

	ck_assert_int_eq(ask(pid, 100, &err), 0);
	ck_assert(has_socket(pid));
}
END_TEST

/* A control directory whose name does not fit a socket's address. */
START_TEST(long_directory)
{
	char deep[256];

	snprintf(deep, sizeof deep, "%s/%0150d", dir, 1);
	setenv(TD_CTL_DIR_ENV, deep, 1);
	ck_assert_int_eq(td_ctl_mkdirs(&err), 0);
	ck_assert_int_eq(ask(start(ANSWER), 100, &err), 0);
}
END_TEST

START_TEST(directory)
{
	struct stat st;
	char path[128];

	unsetenv(TD_CTL_DIR_ENV);
	ck_assert_str_eq(td_ctl_dir(), "/run/blktap-control");
	setenv(TD_CTL_DIR_ENV, "", 1);
	ck_assert_str_eq(td_ctl_dir(), "/run/blktap-control");
	snprintf(path, sizeof path, "%s/c", dir);
	setenv(TD_CTL_DIR_ENV, path, 1);
	ck_assert_int_eq(td_ctl_mkdirs(&err), 0);
	ck_assert_int_eq(td_ctl_mkdirs(&err), 0);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_eq(st.st_mode, S_IFDIR | 0700);
	snprintf(path, sizeof path, "%s/c/tapdisk", dir);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_eq(st.st_mode, S_IFDIR | 0700);
	snprintf(path, sizeof path, "%s/no/such", dir);
	setenv(TD_CTL_DIR_ENV, path, 1);
	ck_assert_int_eq(td_ctl_mkdirs(&err), -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.text, path));
}
END_TEST

static void touch(const char *name, const char *text)
{
	char path[128];
	int fd;

	snprintf(path, sizeof path, "%s/%s", dir, name);
	fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static int collect(pid_t pid, void *arg)
{
	char *text = arg;

	sprintf(text + strlen(text), "%d ", (int)pid);
	return pid == 77 ? 5 : 0;
}

START_TEST(each)
{
	char text[256] = "";

	ck_assert_int_eq(td_ctl_each(collect, text), 0);
	touch("ctl100", "");
	touch("ctl9", "");
	touch("ctl23", "");
	touch("ctl", "");
	touch("ctl5x", "");
	touch("ctl-5", "");
	touch("ctl+6", "");
	touch("ctl 7", "");
	touch("ctl99999999999999999999", "");
	touch("nbd9.0", "");
	ck_assert_int_eq(td_ctl_each(collect, text), 0);
	ck_assert_str_eq(text, "9 23 100 ");
	touch("ctl77", "");
	*text = 0;
	ck_assert_int_eq(td_ctl_each(collect, text), 5);
	ck_assert_str_eq(text, "9 23 77 ");
	setenv(TD_CTL_DIR_ENV, "/nonexistent", 1);
	ck_assert_int_eq(td_ctl_each(collect, text), 0);
}
END_TEST

START_TEST(marker)
{
	char path[128];
	pid_t pid = 1;
	int fd, exclusive, shared;

	ck_assert_int_eq(td_ctl_mkdirs(&err), 0);
	ck_assert_int_eq(td_ctl_marker(3, &pid), TD_MARKER_NONE);
	ck_assert_int_eq(pid, 0);
	touch("tapdisk/tapdisk-3", "");
	ck_assert_int_eq(td_ctl_marker(3, &pid), TD_MARKER_FREE);
	ck_assert_int_eq(td_ctl_marker(30, &pid), TD_MARKER_NONE);
	touch("tapdisk/tapdisk-3", "4711\n");
	ck_assert_int_eq(td_ctl_marker(3, &pid), TD_MARKER_STALE);
	ck_assert_int_eq(pid, 4711);
	snprintf(path, sizeof path, "%s/tapdisk/tapdisk-3", dir);
	fd = open(path, O_RDWR);
	/* the look before has let go of its own lock */
	ck_assert_int_eq(flock(fd, LOCK_EX | LOCK_NB), 0);
	ck_assert_int_eq(td_ctl_marker(3, &pid), TD_MARKER_HELD);
	ck_assert_int_eq(pid, 4711);
	ck_assert_int_eq(td_ctl_marker(3, NULL), TD_MARKER_HELD);
	close(fd);
	ck_assert_int_eq(td_ctl_marker(3, NULL), TD_MARKER_STALE);
	/* a look at an allocated marker tries no lock, so that it cannot make an attach fail */
	touch("tapdisk/tapdisk-4", "");
	snprintf(path, sizeof path, "%s/tapdisk/tapdisk-4", dir);
	exclusive = open(path, O_RDWR);
	shared = open(path, O_RDWR);
	ck_assert_int_eq(flock(exclusive, LOCK_EX | LOCK_NB), 0);
	ck_assert_int_eq(td_ctl_marker(4, &pid), TD_MARKER_FREE);
	ck_assert_int_lt(flock(shared, LOCK_SH | LOCK_NB), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ctl-client");
	TCase *tc = tcase_create("ctl-client");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 200);
	tcase_add_test(tc, call);
	tcase_add_test(tc, call_rows);
	tcase_add_test(tc, call_errors);
	tcase_add_test(tc, call_timeout);
	tcase_add_test(tc, connect_timeout);
	tcase_add_test(tc, dead);
	tcase_add_test(tc, starting);
	tcase_add_test(tc, long_directory);
	tcase_add_test(tc, directory);
	tcase_add_test(tc, each);
	tcase_add_test(tc, marker);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? 1 : 0;
}
