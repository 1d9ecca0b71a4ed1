/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Log lines: their form, and that nobody who reads them is ever waited for. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "td/log.h"
#include "tests/support/suite.h"

static char dir[] = "test-log.XXXXXX", path[64];

/* A log daemon's socket, of SOCK_DGRAM or SOCK_STREAM, in a place of its own. */
static int daemon_start(int type)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	unlink(path);
	strcpy(sa.sun_path, path);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
	if (type == SOCK_STREAM)
		ck_assert_int_eq(listen(fd, 1), 0);
	return fd;
}

static void begin(void)
{
	strcpy(dir, "test-log.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/log", dir);
	td_log_open("tester", TD_LOG_NO_STDERR);
	td_log_socket(path);
}

static void end(void)
{
	unlink(path);
	rmdir(dir);
}

/* The next line that has come, or "". */
static const char *heard(int fd)
{
	static char text[8192];
	ssize_t n = recv(fd, text, sizeof text - 1, MSG_DONTWAIT);

	text[n > 0 ? n : 0] = 0;
	return text;
}

static void is_line(const char *got, const char *rest)
{
	char want[256];

	snprintf(want, sizeof want, "<%d>tester[%d]: %s", LOG_DAEMON | LOG_WARNING, (int)getpid(),
		 rest);
	ck_assert_str_eq(got, want);
}

START_TEST(a_line_is_what_daemons_expect)
{
	int fd;

	begin();
	fd = daemon_start(SOCK_DGRAM);
	td_log(LOG_WARNING, "a\nb %d", 7);
	is_line(heard(fd), "a?b 7");
	td_log(LOG_DEBUG, "below the level");
	ck_assert_str_eq(heard(fd), "");
	close(fd);
	end();
}
END_TEST

/* alarm() ends the case when a line waits. */
START_TEST(a_daemon_that_stands_still_is_not_waited_for)
{
	unsigned sent = 5000, got = 0, lost = 0;
	const char *line;
	int fd;

	begin();
	fd = daemon_start(SOCK_DGRAM);
	alarm(60);
	for (unsigned i = 0; i < sent; i++)
		td_log(LOG_WARNING, "line %u", i);
	while (*(line = heard(fd)))
		got++;
	ck_assert_msg(got && got < sent, "the socket took %u lines: it was never full", got);
	td_log(LOG_WARNING, "it goes on");
	ck_assert_int_eq(sscanf(strchr(heard(fd), ':') + 2,
				"%u log lines were lost here: the log daemon did not take them",
				&lost),
			 1);
	ck_assert_uint_eq(lost, sent - got);
	is_line(heard(fd), "it goes on");
	td_log(LOG_WARNING, "and on");
	is_line(heard(fd), "and on");
	close(fd);
	end();
}
END_TEST

START_TEST(a_daemon_that_restarts_is_found_again)
{
	int fd;

	begin();
	fd = daemon_start(SOCK_DGRAM);
	td_log(LOG_WARNING, "one");
	is_line(heard(fd), "one");
	close(fd);
	unlink(path);
	td_log(LOG_WARNING, "nobody is there");
	fd = daemon_start(SOCK_DGRAM);
	td_log(LOG_WARNING, "two");
	is_line(heard(fd), "1 log line was lost here: the log daemon did not take it");
	is_line(heard(fd), "two");
	close(fd);
	fd = daemon_start(SOCK_DGRAM); /* at once, without a line in between */
	td_log(LOG_WARNING, "three");
	is_line(heard(fd), "three");
	close(fd);
	end();
}
END_TEST

START_TEST(a_daemon_may_take_a_stream)
{
	unsigned got = 0;
	int fd, conn;

	begin();
	fd = daemon_start(SOCK_STREAM);
	alarm(60);
	td_log(LOG_WARNING, "one");
	conn = accept(fd, NULL, NULL);
	is_line(heard(conn), "one");
	for (unsigned i = 0; i < 20000; i++)
		td_log(LOG_WARNING, "line %u", i);
	while (*heard(conn))
		got++;
	close(conn);
	close(fd);
	fd = daemon_start(SOCK_STREAM);
	td_log(LOG_WARNING, "two");
	conn = accept(fd, NULL, NULL);
	ck_assert_ptr_nonnull(strstr(heard(conn), "log lines were lost here"));
	close(conn);
	close(fd);
	end();
}
END_TEST

/* Reads all that is in the pipe. */
static size_t drain(int fd, char *text, size_t size)
{
	size_t n = 0;
	ssize_t k;

	while ((k = read(fd, text + n, size - 1 - n)) > 0)
		n += (size_t)k;
	text[n] = 0;
	return n;
}

START_TEST(a_full_pipe_behind_stderr_is_not_waited_for)
{
	static char text[1 << 20];
	int p[2], old = dup(2);
	char *last, want[96];

	begin();
	ck_assert_int_eq(pipe2(p, O_CLOEXEC), 0);
	ck_assert_int_eq(dup2(p[1], 2), 2);
	td_log_open("tester", TD_LOG_STDERR_NOWAIT);
	alarm(60);
	for (unsigned i = 0; i < 20000; i++)
		td_log(LOG_WARNING, "line %u", i);
	ck_assert_msg(!(fcntl(p[1], F_GETFL) & O_NONBLOCK),
		      "those that share the pipe are made non-blocking");
	fcntl(p[0], F_SETFL, O_NONBLOCK);
	ck_assert_uint_gt(drain(p[0], text, sizeof text), 0);
	td_log(LOG_WARNING, "it goes on");
	drain(p[0], text, sizeof text);
	dup2(old, 2);
	ck_assert_ptr_nonnull(
		strstr(text, "log lines were lost here: the reader of stderr did not take them\n"));
	last = strstr(text, "it goes on");
	snprintf(want, sizeof want, "tester[%d]: it goes on\n", (int)getpid());
	ck_assert_msg(last && !strcmp(last - strlen(want) + strlen("it goes on\n"), want), "'%s'",
		      text);
	close(p[0]);
	close(p[1]);
	end();
}
END_TEST

/* A tool's messages are all there, however slow its reader is. */
static void *slow_reader(void *arg)
{
	static char text[1 << 20];
	size_t *lines = arg, n;
	int fd = (int)lines[1];

	usleep(50000);
	while ((n = (size_t)read(fd, text, sizeof text)) > 0 && n <= sizeof text)
		for (size_t i = 0; i < n; i++)
			lines[0] += text[i] == '\n';
	return NULL;
}

START_TEST(a_tool_waits_for_the_reader_of_stderr)
{
	int p[2], old = dup(2);
	size_t lines[2] = {0};
	pthread_t t;

	begin();
	ck_assert_int_eq(pipe(p), 0);
	dup2(p[1], 2);
	close(p[1]);
	lines[1] = (size_t)p[0];
	td_log_open("tester", TD_LOG_STDERR);
	pthread_create(&t, NULL, slow_reader, lines);
	for (unsigned i = 0; i < 20000; i++)
		td_log(LOG_WARNING, "line %u", i);
	dup2(old, 2);
	pthread_join(t, NULL);
	ck_assert_uint_eq(lines[0], 20000);
	close(p[0]);
	end();
}
END_TEST

static void *talk(void *arg)
{
	for (unsigned i = 0; i < 2000; i++)
		td_log(LOG_WARNING, "line %u", i);
	return NULL;
}

START_TEST(threads_may_log_at_once)
{
	unsigned got = 0, lost = 0, n;
	const char *line;
	pthread_t t[4];
	int fd;

	begin();
	fd = daemon_start(SOCK_DGRAM);
	for (int i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, talk, NULL);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	while (*heard(fd))
		got++;
	td_log(LOG_WARNING, "the end");
	while (*(line = heard(fd)))
		if (sscanf(strchr(line, ':') + 2, "%u log lines were lost", &n) == 1)
			lost += n;
	ck_assert_uint_eq(got + lost, 8000);
	close(fd);
	end();
}
END_TEST

/* The same, when another thread has sent it. */
static const char *heard_later(int fd)
{
	const char *line;

	while (!*(line = heard(fd)))
		usleep(1000);
	return line;
}

START_TEST(another_thread_connects_where_that_may_take_long)
{
	int fd;

	begin();
	fd = daemon_start(SOCK_DGRAM);
	td_log_apart();
	td_log(LOG_WARNING, "one");
	is_line(heard_later(fd), "one");
	close(fd);
	fd = daemon_start(SOCK_DGRAM);
	td_log(LOG_WARNING, "two");
	is_line(heard_later(fd), "two");
	close(fd);
	end();
}
END_TEST

/* Adds what has come to *lines, and what it says was lost to *lost; whether there was anything. */
static bool add_heard(int fd, unsigned *lines, unsigned *lost)
{
	const char *line, *text;
	bool any = false;
	unsigned n;

	for (; *(line = heard(fd)); any = true) {
		text = strstr(line, "]: ");
		ck_assert_ptr_nonnull(text);
		if (sscanf(text, "]: %u log line", &n) == 1)
			*lost += n;
		else
			++*lines;
	}
	return any;
}

START_TEST(lines_that_another_thread_could_not_send_are_counted)
{
	unsigned said = 0, lines = 0, lost = 0;
	int fd;

	begin();
	td_log_apart();
	for (; said < 30; said++) {
		td_log(LOG_WARNING, "nobody listens");
		usleep(20 * 1000);
	}
	fd = daemon_start(SOCK_DGRAM);
	for (; !add_heard(fd, &lines, &lost); said++) {
		td_log(LOG_WARNING, "somebody may listen");
		usleep(20 * 1000);
	}
	td_log(LOG_WARNING, "the last");
	add_heard(fd, &lines, &lost);
	ck_assert_uint_eq(lines + lost, said + 1);
	ck_assert_uint_ge(lost, 30);
	close(fd);
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("log");

	SUITE_ADD(s, a_line_is_what_daemons_expect);
	SUITE_ADD(s, a_daemon_that_stands_still_is_not_waited_for);
	SUITE_ADD(s, a_daemon_that_restarts_is_found_again);
	SUITE_ADD(s, a_daemon_may_take_a_stream);
	SUITE_ADD(s, a_full_pipe_behind_stderr_is_not_waited_for);
	SUITE_ADD(s, a_tool_waits_for_the_reader_of_stderr);
	SUITE_ADD(s, threads_may_log_at_once);
	SUITE_ADD(s, another_thread_connects_where_that_may_take_long);
	SUITE_ADD(s, lines_that_another_thread_could_not_send_are_counted);
	return suite_run(s);
}
