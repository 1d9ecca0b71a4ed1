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
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "lib/msg.h"
#include "lib/shm-dir.h"

/* How long a process that looks like a tapdisk may stand between bind and listen before it counts as one that is going away. */
#define CTL_STARTING_MS 1000
/* How long a killed process may take to let go of its locks. */
#define CTL_ENDING_MS 2000

const char *td_ctl_dir(void)
{
	const char *dir = getenv(TD_CTL_DIR_ENV);

	return dir && *dir ? dir : TD_CTL_DIR;
}

static int ctl_mkdir(const char *path, struct td_err *err)
{
	struct stat st;

	if (!mkdir(path, 0700))
		return 0;
	if (errno != EEXIST)
		return td_fail(err, errno, "cannot make the control directory %s: %s", path, strerror(errno));
	if (!stat(path, &st) && !S_ISDIR(st.st_mode))
		return td_fail(err, ENOTDIR, "%s is in the way of the control directory: it is not a directory", path);
	return 0;
}

int td_ctl_mkdirs(struct td_err *err)
{
	char path[PATH_MAX];
	int ret = ctl_mkdir(td_ctl_dir(), err);

	if (ret)
		return ret;
	if (snprintf(path, sizeof path, "%s/tapdisk", td_ctl_dir()) >= (int)sizeof path)
		return td_fail(err, ENAMETOOLONG, "the control directory's name is too long");
	return ctl_mkdir(path, err);
}

static long long ctl_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

/* What /proc says of pid: whether it runs (a zombie does not), and whether `like' is in its name. */
static bool ctl_running_as(pid_t pid, const char *like, bool *is)
{
	char path[64], line[256], *name, *end;
	ssize_t n;
	int fd;

	*is = false;
	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, line, sizeof line - 1);
	close(fd);
	if (n <= 0)
		return false;
	line[n] = 0;
	name = strchr(line, '(');
	end = strrchr(line, ')');
	if (!name || !end || end[1] != ' ')
		return true;
	*end = 0;
	*is = strstr(name, like) != NULL;
	return end[2] != 'Z' && end[2] != 'X';
}

bool td_ctl_running(pid_t pid, bool *tapdisk)
{
	return ctl_running_as(pid, "tapdisk", tapdisk);
}

/* Connects to DIR/ctl<pid>, also where DIR is longer than a socket's address may be.  0 or -errno. */
static int ctl_connect_path(int fd, pid_t pid)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int dir = -1, ret = 0;

	if (snprintf(sa.sun_path, sizeof sa.sun_path, "%s/ctl%d", td_ctl_dir(), (int)pid) >= (int)sizeof sa.sun_path) {
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

/* Is `name' PREFIX<pid>, or with a minor PREFIX<pid>.<minor>? */
static bool ctl_name_is(const char *name, const char *prefix, pid_t pid, bool minor)
{
	char want[64];
	int n = snprintf(want, sizeof want, "%s%d%s", prefix, (int)pid, minor ? "." : "");

	if (!minor)
		return !strcmp(name, want);
	return !strncmp(name, want, (size_t)n) && name[n] && name[n + strspn(name + n, "0123456789")] == 0;
}

static const char *const ctl_of_a_disk[] = {"nbd", "nbd-old", "nbdserver", "nbdserver-new"};

void td_ctl_remove_sockets(pid_t pid)
{
	DIR *dir = opendir(td_ctl_dir());
	struct dirent *e;

	while (dir && (e = readdir(dir))) {
		bool its = ctl_name_is(e->d_name, "ctl", pid, false) || ctl_name_is(e->d_name, "nbdclient", pid, false);

		for (size_t i = 0; i < sizeof ctl_of_a_disk / sizeof *ctl_of_a_disk; i++)
			its |= ctl_name_is(e->d_name, ctl_of_a_disk[i], pid, true);
		if (its)
			unlinkat(dirfd(dir), e->d_name, 0);
	}
	if (dir)
		closedir(dir);
	td_shm_sweep(pid);
}

/* A socket on which no one listens: its process is dead, or only just starting.  True when another try is worth while. */
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
		fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | (timeout_s > 0 ? 0 : SOCK_NONBLOCK), 0);
		if (fd < 0)
			return td_fail(err, errno, "cannot make a socket: %s", strerror(errno));
		if (timeout_s > 0)
			setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv); /* limits connect as well */
		ret = ctl_connect_path(fd, pid);
		if (!ret)
			return fd;
		close(fd);
	} while (ret == -EINTR || (ret == -ECONNREFUSED && ctl_refused(pid, since)));

	if (ret == -ENOENT || ret == -ECONNREFUSED)
		return td_fail(err, ENOENT, "there is no tapdisk with pid %d", (int)pid);
	if (ret == -EAGAIN || ret == -EINPROGRESS)
		return td_fail(err, ETIMEDOUT, "tapdisk %d does not take connections", (int)pid);
	return td_fail(err, -ret, "cannot connect to %s/ctl%d: %s", td_ctl_dir(), (int)pid, strerror(-ret));
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
static int ctl_answer(int fd, long long deadline, void (*rows)(json_t *row, void *arg), void *arg, json_t **last)
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

static int ctl_judge(pid_t pid, const char *op, int ret, const json_t *last, int timeout_s, struct td_err *err)
{
	const char *text;
	json_int_t code;

	if (ret == -ETIMEDOUT)
		return td_fail(err, ETIMEDOUT, "tapdisk %d did not answer '%s' within %d s", (int)pid, op, timeout_s);
	if (ret == -ENODATA || ret == -ECONNRESET || ret == -EPIPE)
		return td_fail(err, ECONNRESET, "tapdisk %d ended before it answered '%s'", (int)pid, op);
	if (ret)
		return td_fail(err, -ret, "talking to tapdisk %d (%s): %s", (int)pid, op, strerror(-ret));
	code = json_integer_value(json_object_get(last, "err"));
	if (!code)
		return 0;
	if (code < 0 || code > 255) /* it has to fit an exit status */
		return td_fail(err, EPROTO, "tapdisk %d answered '%s' with error %lld", (int)pid, op, (long long)code);
	text = json_string_value(json_object_get(last, "text"));
	return td_fail(err, (int)code, "%s", text && *text ? text : strerror((int)code));
}

int td_ctl_call(pid_t pid, json_t *req, const int *fds, int nfds, int timeout_s, void (*rows)(json_t *row, void *arg), void *arg,
                json_t **reply, struct td_err *err)
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
	/* a tapdisk that answers before it reads (because it is full, say) may have closed: its answer is there all the same */
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

/*
 * Is the marker locked?  A process that is being killed counts as dead while its last threads, and with them the lock, are
 * still on their way out; that takes a moment, for which this waits.
 */
static bool ctl_marker_locked(int fd, pid_t pid)
{
	struct timespec pause = {.tv_nsec = 10 * 1000 * 1000};
	long long since = ctl_now_ms();
	bool tapdisk;

	while (flock(fd, LOCK_SH | LOCK_NB) < 0 && (errno == EWOULDBLOCK || errno == EINTR)) {
		if (pid <= 0 || td_ctl_running(pid, &tapdisk) || ctl_now_ms() - since > CTL_ENDING_MS)
			return true;
		nanosleep(&pause, NULL);
	}
	return false;
}

int td_ctl_ring_path(int minor, unsigned domid, unsigned devid, unsigned queue, char *path)
{
	return snprintf(path, PATH_MAX, "%s/ring%d.%u.%u.%u", td_ctl_dir(), minor, domid, devid, queue) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

/* Calls fn, if there is one, with each record's name; true if there was any. */
static bool ctl_each_ring(int minor, void (*fn)(int dir, const char *name))
{
	DIR *dir = opendir(td_ctl_dir());
	unsigned domid, devid, queue;
	struct dirent *de;
	bool any = false;
	char rest;
	int m;

	if (!dir)
		return false;
	while ((de = readdir(dir)))
		if (sscanf(de->d_name, "ring%d.%u.%u.%u%c", &m, &domid, &devid, &queue, &rest) == 4 && m == minor) {
			any = true;
			if (fn)
				fn(dirfd(dir), de->d_name);
		}
	closedir(dir);
	return any;
}

bool td_ctl_ring_any(int minor)
{
	return ctl_each_ring(minor, NULL);
}

static void ctl_ring_remove(int dir, const char *name)
{
	unlinkat(dir, name, 0);
}

int td_ctl_disk_path(int minor, char *path)
{
	return snprintf(path, PATH_MAX, "%s/disk%d", td_ctl_dir(), minor) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

int td_ctl_flush_path(int minor, char *path)
{
	return snprintf(path, PATH_MAX, "%s/flush%d", td_ctl_dir(), minor) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

int td_ctl_redo_path(int minor, char *path)
{
	return snprintf(path, PATH_MAX, "%s/redo%d", td_ctl_dir(), minor) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

int td_ctl_left_path(int minor, char *path)
{
	return snprintf(path, PATH_MAX, "%s/left%d", td_ctl_dir(), minor) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

void td_ctl_move(pid_t from, pid_t to, int minor)
{
	char name[PATH_MAX], target[64];

	for (size_t i = 0; i < sizeof ctl_of_a_disk / sizeof *ctl_of_a_disk; i++) {
		snprintf(target, sizeof target, "%s%d.%d", ctl_of_a_disk[i], (int)to, minor);
		if (snprintf(name, sizeof name, "%s/%s%d.%d", td_ctl_dir(), ctl_of_a_disk[i], (int)from, minor) < (int)sizeof name &&
		    symlink(target, name) < 0)
			td_log(LOG_WARNING, "cannot make %s: %s", name, strerror(errno));
	}
}

pid_t td_ctl_moved(pid_t from, int minor)
{
	char name[PATH_MAX], target[64], rest;
	bool tapdisk;
	pid_t pid = 0;

	for (int hops = 0; hops < 1000; hops++, from = pid) {
		ssize_t n = snprintf(name, sizeof name, "%s/nbd%d.%d", td_ctl_dir(), (int)from, minor) < (int)sizeof name ?
				    readlink(name, target, sizeof target - 1) : -1;

		if (n < 0)
			return pid && td_ctl_running(pid, &tapdisk) && tapdisk ? pid : 0;
		target[n] = 0;
		if (sscanf(target, "nbd%d.%d%c", &pid, &(int){0}, &rest) != 2)
			return 0;
	}
	return 0;
}

static void ctl_unlink_notes(int minor)
{
	DIR *dir = opendir(td_ctl_dir());
	struct dirent *e;
	char end[24];
	struct stat st;

	snprintf(end, sizeof end, ".%d", minor);
	while (dir && (e = readdir(dir))) {
		size_t n = strlen(e->d_name), m = strlen(end);

		if (!strncmp(e->d_name, "nbd", 3) && n > m && !strcmp(e->d_name + n - m, end) &&
		    !fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) && S_ISLNK(st.st_mode))
			unlinkat(dirfd(dir), e->d_name, 0);
	}
	if (dir)
		closedir(dir);
}

void td_ctl_record_sweep(int minor)
{
	char path[PATH_MAX];

	ctl_unlink_notes(minor);
	ctl_each_ring(minor, ctl_ring_remove);
	if (!td_ctl_disk_path(minor, path))
		unlink(path);
	if (!td_ctl_flush_path(minor, path))
		unlink(path);
	if (!td_ctl_redo_path(minor, path))
		unlink(path);
	if (!td_ctl_left_path(minor, path))
		unlink(path);
}

enum td_marker td_ctl_marker(int minor, pid_t *pid)
{
	char path[PATH_MAX], text[24];
	enum td_marker what;
	pid_t holder;
	ssize_t n;
	bool making;
	int fd;

	if (pid)
		*pid = 0;
	if (snprintf(path, sizeof path, "%s/tapdisk/tapdisk-%d", td_ctl_dir(), minor) >= (int)sizeof path)
		return TD_MARKER_NONE;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return TD_MARKER_NONE;
	n = read(fd, text, sizeof text - 1);
	if (n <= 0) {
		/* The lock is not tried here: a look at an allocated marker must not get in the way of an attach. */
		what = TD_MARKER_FREE;
	} else {
		text[n] = 0;
		holder = (pid_t)atoi(text);
		if (pid)
			*pid = holder;
		if (ctl_running_as(holder, "tap-ctl", &making) && making)
			what = TD_MARKER_FREE; /* create is about to attach it: nor is its lock tried */
		else
			what = ctl_marker_locked(fd, holder) ? TD_MARKER_HELD : TD_MARKER_STALE;
	}
	close(fd);
	return what;
}
