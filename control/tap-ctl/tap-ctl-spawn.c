/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Starting a tapdisk, and hearing over an inherited socket that it listens, or why not. */
#include "control/tap-ctl/tap-ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib/ctl-client.h"
#include "lib/msg.h"

#define SPAWN_FD 3 /* the child's end of the socket: the first after stdio */

/* path becomes DIR-OF-THIS-PROGRAM/rest if that can be executed. */
static bool spawn_near(const char *rest, char *path)
{
	char self[PATH_MAX], *slash;
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

	if (n < 0)
		return false;
	self[n] = 0;
	slash = strrchr(self, '/');
	if (!slash)
		return false;
	*slash = 0;
	return snprintf(path, PATH_MAX, "%s/%s", self, rest) < PATH_MAX && !access(path, X_OK);
}

/* Which program: $TAPDISK, the build tree's, the one below this program's own prefix, which may
 * have been moved, or the one that was configured. */
int tc_program(char *path, struct td_err *err)
{
	const char *env = getenv("TAPDISK");

	if (env && *env) {
		if (!realpath(env, path) || access(path, X_OK) < 0)
			return td_fail(err, errno,
				       "cannot run the tapdisk that $TAPDISK names, %s: %s", env,
				       strerror(errno));
		return 0;
	}
	if (spawn_near("../tapdisk/tapdisk", path) || spawn_near("../libexec/tapdisk", path))
		return 0;
	snprintf(path, PATH_MAX, "%s", LIBEXECDIR "/tapdisk");
	if (!access(path, X_OK))
		return 0;
	return td_fail(err, ENOENT,
		       "there is no program " LIBEXECDIR
		       "/tapdisk: install it, or set TAPDISK to where it is");
}

static void __attribute__((noreturn)) spawn_child(const char *path, int fd, bool leash)
{
	char *argv[] = {(char *)"tapdisk", (char *)"--spawn-fd", (char *)"3",
			leash ? (char *)"--leash" : NULL, NULL};
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), code;
	sigset_t none;
	json_t *msg;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	setsid();
	if (null >= 0 && dup2(null, 0) == 0 && dup2(null, 1) == 1 && dup2(null, 2) == 2 &&
	    chdir("/") == 0 && (fd == SPAWN_FD ? fcntl(fd, F_SETFD, 0) : dup2(fd, SPAWN_FD)) >= 0) {
		fd = SPAWN_FD;
		if (!close_range(SPAWN_FD + 1, ~0U, 0))
			execv(path, argv);
	}
	code = errno;
	msg = json_pack("{s:i, s:o}", "err", code, "text",
			json_sprintf("cannot run %s: %s", path, strerror(code)));
	td_msg_send(fd, msg, NULL, 0);
	_exit(1);
}

/* What the child says: 0 once it listens. */
static int spawn_wait(int fd, struct td_err *err)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	const char *text;
	json_t *msg;
	int n, ret;

	do
		n = poll(&p, 1, TD_CTL_TIMEOUT * 1000);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return td_fail(err, ETIMEDOUT,
			       "the new tapdisk did not get ready within %d s: see the system log",
			       TD_CTL_TIMEOUT);
	ret = td_msg_recv(fd, &msg, NULL, NULL);
	if (ret == -ENODATA || ret == -ECONNRESET)
		return td_fail(err, ECHILD,
			       "the new tapdisk ended before it was ready: see the system log");
	if (ret)
		return td_fail(err, -ret,
			       "the new tapdisk reports its start in an unknown form: %s",
			       strerror(-ret));
	ret = (int)json_integer_value(json_object_get(msg, "err"));
	text = json_string_value(json_object_get(msg, "text"));
	if (ret)
		ret = td_fail(err, ret > 0 && ret < 256 ? ret : EPROTO, "%s",
			      text && *text ? text : "the new tapdisk failed");
	json_decref(msg);
	return ret;
}

int tc_spawn(pid_t *pid, int *leash, struct td_err *err)
{
	char path[PATH_MAX];
	int sv[2], ret;

	ret = tc_program(path, err);
	if (!ret)
		ret = td_ctl_mkdirs(err);
	if (ret)
		return ret;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0)
		return td_fail(err, errno, "cannot make a socket: %s", strerror(errno));
	fflush(stdout);
	*pid = fork();
	if (*pid == 0)
		spawn_child(path, sv[1], leash != NULL);
	if (*pid < 0)
		ret = td_fail(err, errno, "cannot start a process: %s", strerror(errno));
	close(sv[1]);
	if (!ret) {
		ret = spawn_wait(sv[0], err);
		if (ret)
			tc_reap(*pid, 0);
	}
	if (!ret && leash)
		*leash = sv[0];
	else
		close(sv[0]);
	return ret;
}

int tc_release(int leash, struct td_err *err)
{
	json_t *msg = json_pack("{s:s}", "op", "release");
	int ret = td_msg_send(leash, msg, NULL, 0);

	json_decref(msg);
	return ret ? td_fail(err, ECONNRESET, "the new tapdisk has died: see the system log") : 0;
}

static bool reaped_within(pid_t pid, int ms)
{
	struct timespec step = {.tv_nsec = 5 * 1000 * 1000};

	for (;; ms -= 5) {
		if (waitpid(pid, NULL, WNOHANG) != 0)
			return true;
		if (ms <= 0)
			return false;
		nanosleep(&step, NULL);
	}
}

void tc_reap(pid_t pid, int grace_ms)
{
	if (!reaped_within(pid, grace_ms)) {
		kill(pid, SIGKILL);
		reaped_within(pid, 2000); /* one that the kernel holds, on a dead NFS server say,
					     must not hold us too */
	}
	td_ctl_remove_sockets(pid);
}

int tc_cmd_spawn(const struct tc_args *a, struct td_err *err)
{
	char text[64];
	pid_t pid;
	int ret = tc_spawn(&pid, NULL, err);

	if (ret)
		return ret;
	snprintf(text, sizeof text, "%s%d",
		 isatty(STDOUT_FILENO) ? "tapdisk spawned with pid " : "", (int)pid);
	ret = tc_put_line(text, err);
	if (ret)
		tc_reap(pid, 0);
	return ret;
}
