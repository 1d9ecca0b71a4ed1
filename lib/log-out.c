/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Not syslog(3): it waits for the daemon when the daemon's socket is full, and reads the time
 * zone's file for a time of day that every daemon has itself.  A line without one is given the time
 * of its arrival.
 */
#include "lib/log-out.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "td/log.h"

#define OUT_MAX (TD_ERR_TEXT + 256) /* bytes: a line and what stands before it */

struct out {
	pthread_mutex_t lock; /* held over system calls that do not wait, and over nothing else; a
				 tool's stderr is the exception */
	bool (*put)(int priority, const char *ident, const char *line);
	const char *reader;       /* for the line that says what was lost */
	unsigned long long lost;  /* lines, since the last that was taken */
	unsigned long long worth; /* lines that the one being put stands for */
};

static void out_put(struct out *o, int priority, const char *ident, const char *line)
{
	char text[160];

	pthread_mutex_lock(&o->lock);
	if (o->lost) {
		snprintf(text, sizeof text, "%llu log line%s lost here: %s did not take %s",
			 o->lost, o->lost == 1 ? " was" : "s were", o->reader,
			 o->lost == 1 ? "it" : "them");
		o->worth = o->lost;
		if (o->put(LOG_WARNING, ident, text))
			o->lost = 0;
	}
	o->worth = 1;
	if (o->lost || !o->put(priority, ident, line))
		o->lost++;
	pthread_mutex_unlock(&o->lock);
}

/* --- the log daemon --- */

static const char *daemon_path = "/dev/log";
static int daemon_fd = -1, daemon_type;

static void daemon_close(void)
{
	if (daemon_fd >= 0)
		close(daemon_fd);
	daemon_fd = -1;
}

/* Datagrams, or with a few daemons a stream. */
static int daemon_dial(int *type)
{
	static const int types[] = {SOCK_DGRAM, SOCK_STREAM};
	struct sockaddr_un sa = {.sun_family = AF_UNIX};

	snprintf(sa.sun_path, sizeof sa.sun_path, "%s", daemon_path);
	for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
		bool other;
		int fd = socket(AF_UNIX, types[i] | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

		*type = types[i];
		if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0)
			return fd;
		other = errno == EPROTOTYPE;
		close(fd);
		if (!other)
			return -1;
	}
	return -1;
}

/* 0: not now; 1: it is sent; -1: there is no connection any more. */
static int daemon_send(const char *text, size_t len)
{
	size_t all = len + (daemon_type == SOCK_STREAM); /* the zero byte ends a line there */
	ssize_t n = send(daemon_fd, text, all, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n == (ssize_t)all)
		return 1;
	if (n < 0 && (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM || errno == EMSGSIZE))
		return 0;
	daemon_close(); /* the daemon has gone, and another one may listen; or a stream holds a part
			   of the line, which this ends */
	return n > 0 ? 0 : -1;
}

static struct out to_daemon;

/* Where a socket comes from another process, which may be stopped: nobody waits for it, and the
 * line that asked for it is sent by the thread that does.  Where nobody listens, a thread a second
 * finds that out. */
static bool apart, dialing;
static char first[OUT_MAX];
static unsigned long long first_worth;
static time_t not_before; /* s of the monotonic clock */

static time_t seconds(void)
{
	struct timespec t;

	return clock_gettime(CLOCK_MONOTONIC, &t) ? 0 : t.tv_sec;
}

static void *dial_apart(void *arg)
{
	int type, fd = daemon_dial(&type);

	pthread_mutex_lock(&to_daemon.lock);
	daemon_fd = fd;
	daemon_type = type;
	if (fd < 0)
		not_before = seconds() + 1;
	if (fd < 0 || daemon_send(first, strlen(first)) < 1)
		to_daemon.lost += first_worth;
	dialing = false;
	pthread_mutex_unlock(&to_daemon.lock);
	return NULL;
}

static bool begin_dialing(const char *text)
{
	sigset_t all, old;
	pthread_t t;

	if (dialing || seconds() < not_before)
		return false;
	strcpy(first, text);
	first_worth = to_daemon.worth;
	sigfillset(&all);
	sigdelset(&all, SIGSYS); /* a call that a sandbox catches */
	pthread_sigmask(SIG_SETMASK, &all, &old);
	dialing = !pthread_create(&t, NULL, dial_apart, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (dialing)
		pthread_detach(t);
	return dialing;
}

static bool daemon_put(int priority, const char *ident, const char *line)
{
	char text[OUT_MAX];
	int len = snprintf(text, sizeof text, "<%d>%s[%d]: %s", LOG_DAEMON | priority, ident,
			   (int)getpid(), line);

	len = len < (int)sizeof text ? len : (int)sizeof text - 1;
	for (int attempt = 0; attempt < 2; attempt++) {
		int sent;

		if (daemon_fd < 0 && apart)
			return begin_dialing(text);
		if (daemon_fd < 0 && (daemon_fd = daemon_dial(&daemon_type)) < 0)
			return false;
		sent = daemon_send(text, (size_t)len);
		if (sent >= 0)
			return sent;
	}
	return false;
}

static struct out to_daemon = {PTHREAD_MUTEX_INITIALIZER, daemon_put, "the log daemon", 0, 0};

void td_log_apart(void)
{
	pthread_mutex_lock(&to_daemon.lock);
	apart = true;
	pthread_mutex_unlock(&to_daemon.lock);
}

void td_log_to_daemon(int priority, const char *ident, const char *line)
{
	out_put(&to_daemon, priority, ident, line);
}

void td_log_socket(const char *path)
{
	pthread_mutex_lock(&to_daemon.lock);
	daemon_close();
	if (path)
		daemon_path = path;
	pthread_mutex_unlock(&to_daemon.lock);
}

/* --- stderr --- */

static bool stderr_nowait, stderr_socket, stderr_cut;

void td_log_stderr_nowait(void)
{
	struct stat st;
	int fd;

	stderr_nowait = true;
	if (fstat(STDERR_FILENO, &st) < 0)
		return;
	stderr_socket = S_ISSOCK(st.st_mode);
	if (!S_ISFIFO(st.st_mode) && !S_ISCHR(st.st_mode))
		return;
	fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return;
	dup2(fd, STDERR_FILENO); /* without CLOEXEC: libraries and children write there as well */
	close(fd);
}

static ssize_t stderr_write(const char *text, size_t len)
{
	struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
	ssize_t n;

	if (stderr_socket)
		return send(STDERR_FILENO, text, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	/* also where it could not be opened anew: then this look is all that there is */
	if (stderr_nowait && poll(&p, 1, 0) < 1)
		return -1;
	do
		n = write(STDERR_FILENO, text, len);
	while (n < 0 && errno == EINTR && !stderr_nowait);
	return n;
}

static bool stderr_put(int priority, const char *ident, const char *line)
{
	char text[OUT_MAX];
	int len = snprintf(text, sizeof text - 1, "%s%s[%d]: %s", stderr_cut ? "\n" : "", ident,
			   (int)getpid(), line);
	ssize_t n;

	len = len < (int)sizeof text - 1 ? len : (int)sizeof text - 2;
	text[len++] = '\n';
	n = stderr_write(text, (size_t)len);
	if (n > 0)
		stderr_cut = n < len;
	return n == len;
}

static struct out to_stderr = {PTHREAD_MUTEX_INITIALIZER, stderr_put, "the reader of stderr", 0, 0};

void td_log_to_stderr(int priority, const char *ident, const char *line)
{
	out_put(&to_stderr, priority, ident, line);
}
