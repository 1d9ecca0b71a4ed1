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
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "td/log.h"

#define OUT_MAX (TD_ERR_TEXT + 256) /* bytes: a line and what stands before it */

struct out {
	pthread_mutex_t lock; /* held over system calls that do not wait, and over nothing else; a
				 tool's stderr is the exception */
	bool (*put)(int priority, const char *ident, const char *line);
	const char *reader;      /* for the line that says what was lost */
	unsigned long long lost; /* lines, since the last that was taken */
};

static void out_put(struct out *o, int priority, const char *ident, const char *line)
{
	char text[160];

	pthread_mutex_lock(&o->lock);
	if (o->lost) {
		snprintf(text, sizeof text, "%llu log line%s lost here: %s did not take %s",
			 o->lost, o->lost == 1 ? " was" : "s were", o->reader,
			 o->lost == 1 ? "it" : "them");
		if (o->put(LOG_WARNING, ident, text))
			o->lost = 0;
	}
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
static bool daemon_open(void)
{
	static const int types[] = {SOCK_DGRAM, SOCK_STREAM};
	struct sockaddr_un sa = {.sun_family = AF_UNIX};

	snprintf(sa.sun_path, sizeof sa.sun_path, "%s", daemon_path);
	for (size_t i = 0; daemon_fd < 0 && i < sizeof types / sizeof *types; i++) {
		daemon_type = types[i];
		daemon_fd = socket(AF_UNIX, types[i] | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (daemon_fd < 0 || connect(daemon_fd, (struct sockaddr *)&sa, sizeof sa) == 0)
			break;
		daemon_close();
		if (errno != EPROTOTYPE)
			break;
	}
	return daemon_fd >= 0;
}

static bool daemon_put(int priority, const char *ident, const char *line)
{
	char text[OUT_MAX];
	int len = snprintf(text, sizeof text, "<%d>%s[%d]: %s", LOG_DAEMON | priority, ident,
			   (int)getpid(), line);

	len = len < (int)sizeof text ? len : (int)sizeof text - 1;
	for (int attempt = 0; attempt < 2; attempt++) {
		ssize_t n, all;

		if (daemon_fd < 0 && !daemon_open())
			return false;
		all = len + (daemon_type == SOCK_STREAM); /* the zero byte ends a line there */
		n = send(daemon_fd, text, (size_t)all, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n == all)
			return true;
		if (n < 0 &&
		    (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM || errno == EMSGSIZE))
			return false;
		daemon_close(); /* the daemon has gone, and another one may listen; or a stream
				   holds a part of the line, which this ends */
		if (n > 0)
			return false;
	}
	return false;
}

static struct out to_daemon = {PTHREAD_MUTEX_INITIALIZER, daemon_put, "the log daemon", 0};

void td_log_to_daemon(int priority, const char *ident, const char *line)
{
	out_put(&to_daemon, priority, ident, line);
}

void td_log_socket(const char *path)
{
	pthread_mutex_lock(&to_daemon.lock);
	daemon_close();
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

static struct out to_stderr = {PTHREAD_MUTEX_INITIALIZER, stderr_put, "the reader of stderr", 0};

void td_log_to_stderr(int priority, const char *ident, const char *line)
{
	out_put(&to_stderr, priority, ident, line);
}
