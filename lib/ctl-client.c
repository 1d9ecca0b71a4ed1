/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/ctl-client.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "lib/msg.h"
#include "lib/shm-dir.h"

/* How long a process that looks like a tapdisk may stand between bind and listen before it counts
 * as one that is going away. */
#define CTL_STARTING_MS 1000

static long long ctl_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

/* Connects to DIR/ctl<pid>, also where DIR is longer than a socket's address may be.  0 or -errno.
 */
static int ctl_connect_path(int fd, pid_t pid)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int dir = -1, ret = 0;

	if (snprintf(sa.sun_path, sizeof sa.sun_path, "%s/ctl%d", td_ctl_dir(), (int)pid) >=
	    (int)sizeof sa.sun_path) {
		dir = open(td_ctl_dir(), O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (dir < 0)
			return -errno;
		snprintf(sa.sun_path, sizeof sa.sun_path, "/proc/self/fd/%d/ctl%d", dir, (int)pid);
	}
	if (connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0)
		ret = -errno;
	if (dir >= 0)
		close(dir);
	return ret;
}

void td_ctl_remove_sockets(pid_t pid)
{
	td_ctl_unlink_sockets(pid);
	td_shm_sweep(pid);
}

/* A socket on which no one listens: its process is dead, or only just starting.  True when another
 * try is worth while. */
static bool ctl_refused(pid_t pid, long long since)
{
	struct timespec pause = {.tv_nsec = 10 * 1000 * 1000};
	bool tapdisk;

	if (!td_ctl_running(pid, &tapdisk) || !tapdisk) {
		td_ctl_remove_sockets(pid);
		return false;
	}
	if (ctl_now_ms() - since > CTL_STARTING_MS)
		return false;
	nanosleep(&pause, NULL);
	return true;
}

int td_ctl_connect(pid_t pid, int timeout_s, struct td_err *err)
{
	struct timeval tv = {.tv_sec = timeout_s};
	long long since = ctl_now_ms();
	int fd, ret;

	if (pid <= 0)
		return td_fail(err, ENOENT, "%d is no pid", (int)pid);
	do {
		fd = socket(AF_UNIX,
			    SOCK_SEQPACKET | SOCK_CLOEXEC | (timeout_s > 0 ? 0 : SOCK_NONBLOCK), 0);
		if (fd < 0)
			return td_fail(err, errno, "cannot make a socket: %s", strerror(errno));
		if (timeout_s > 0)
			/* limits connect as well */
			setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
		ret = ctl_connect_path(fd, pid);
		if (!ret)
			return fd;
		close(fd);
	} while (ret == -EINTR || (ret == -ECONNREFUSED && ctl_refused(pid, since)));

	if (ret == -ENOENT || ret == -ECONNREFUSED)
		return td_fail(err, ENOENT, "there is no tapdisk with pid %d", (int)pid);
	if (ret == -EAGAIN || ret == -EINPROGRESS)
		return td_fail(err, ETIMEDOUT, "tapdisk %d does not take connections", (int)pid);
	return td_fail(err, -ret, "cannot connect to %s/ctl%d: %s", td_ctl_dir(), (int)pid,
		       strerror(-ret));
}

/* Waits for a message until `deadline' (ms).  0, -ETIMEDOUT, or as td_msg_recv. */
static int ctl_wait_msg(int fd, long long deadline, json_t **msg)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	long long left;
	int n;

	do {
		left = deadline - ctl_now_ms();
		n = left > 0 ? poll(&p, 1, left > INT_MAX ? INT_MAX : (int)left) : 0;
	} while (n < 0 && errno == EINTR);
	if (n <= 0)
		return n < 0 ? -errno : -ETIMEDOUT;
	return td_msg_recv(fd, msg, NULL, NULL);
}

/* Reads rows until the object that ends the answer, which is in *last. */
static int ctl_answer(int fd, long long deadline, void (*rows)(json_t *row, void *arg), void *arg,
		      json_t **last)
{
	for (;;) {
		json_t *msg, *row;
		int ret = ctl_wait_msg(fd, deadline, &msg);

		if (ret)
			return ret;
		if (json_is_integer(json_object_get(msg, "err"))) {
			*last = msg;
			return 0;
		}
		row = json_object_get(msg, "row");
		if (rows && json_is_object(row))
			rows(row, arg);
		json_decref(msg);
	}
}

static int ctl_judge(pid_t pid, const char *op, int ret, const json_t *last, int timeout_s,
		     struct td_err *err)
{
	const char *text;
	json_int_t code;

	if (ret == -ETIMEDOUT)
		return td_fail(err, ETIMEDOUT, "tapdisk %d did not answer '%s' within %d s",
			       (int)pid, op, timeout_s);
	if (ret == -ENODATA || ret == -ECONNRESET || ret == -EPIPE)
		return td_fail(err, ECONNRESET, "tapdisk %d ended before it answered '%s'",
			       (int)pid, op);
	if (ret)
		return td_fail(err, -ret, "talking to tapdisk %d (%s): %s", (int)pid, op,
			       strerror(-ret));
	code = json_integer_value(json_object_get(last, "err"));
	if (!code)
		return 0;
	if (code < 0 || code > 255) /* it has to fit an exit status */
		return td_fail(err, EPROTO, "tapdisk %d answered '%s' with error %lld", (int)pid,
			       op, (long long)code);
	text = json_string_value(json_object_get(last, "text"));
	return td_fail(err, (int)code, "%s", text && *text ? text : strerror((int)code));
}

int td_ctl_call(pid_t pid, json_t *req, const int *fds, int nfds, int timeout_s,
		void (*rows)(json_t *row, void *arg), void *arg, json_t **reply, struct td_err *err)
{
	long long deadline = ctl_now_ms() + timeout_s * 1000LL;
	const char *op = json_string_value(json_object_get(req, "op"));
	json_t *last = NULL;
	int fd, ret;

	if (reply)
		*reply = NULL;
	fd = td_ctl_connect(pid, timeout_s, err);
	if (fd < 0) {
		json_decref(req);
		return fd;
	}
	ret = td_msg_send(fd, req, fds, nfds);
	/* a tapdisk that answers before it reads (because it is full, say) may have closed: its
	 * answer is there all the same */
	if (!ret || ret == -EPIPE)
		ret = ctl_answer(fd, deadline, rows, arg, &last);
	close(fd);
	ret = ctl_judge(pid, op ? op : "?", ret, last, timeout_s, err);
	if (reply && last)
		*reply = last;
	else
		json_decref(last);
	json_decref(req);
	return ret;
}

/* The number in PREFIX<number>, or -1. */
static int ctl_name_number(const char *name, const char *prefix)
{
	size_t n = strlen(prefix);
	char *end;
	long v;

	if (strncmp(name, prefix, n) || name[n] < '0' || name[n] > '9')
		return -1;
	v = strtol(name + n, &end, 10);
	return *end || v > INT_MAX ? -1 : (int)v;
}

static int ctl_by_number(const void *a, const void *b)
{
	const pid_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

int td_ctl_each(int (*fn)(pid_t pid, void *arg), void *arg)
{
	size_t n = 0, room = 0;
	pid_t *pids = NULL;
	struct dirent *de;
	DIR *dir = opendir(td_ctl_dir());
	int ret = 0;

	if (!dir)
		return 0;
	while ((de = readdir(dir))) {
		int pid = ctl_name_number(de->d_name, "ctl");

		if (pid <= 0)
			continue;
		if (n == room) {
			pid_t *more = realloc(pids, (room += 64) * sizeof *pids);

			if (!more)
				break; /* those that fit are better than none */
			pids = more;
		}
		pids[n++] = pid;
	}
	closedir(dir);
	if (n)
		qsort(pids, n, sizeof *pids, ctl_by_number);
	for (size_t i = 0; i < n && !ret; i++)
		ret = fn(pids[i], arg);
	free(pids);
	return ret;
}
