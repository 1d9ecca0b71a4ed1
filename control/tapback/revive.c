/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "control/tapback/revive.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "td/log.h"

extern char **environ;

struct revive {
	struct ev_loop *loop;
	ev_child child;
	int out, err; /* pipes of what it says: the pid, and why it has none */
	revive_done *fn;
	void *arg;
};

/* The one beside this program, as in a build tree or under a moved prefix; else the installed one.
 */
static void find_program(char *path)
{
	ssize_t n = readlink("/proc/self/exe", path, PATH_MAX - 16);
	char *slash;

	if (n > 0) {
		path[n] = 0;
		slash = strrchr(path, '/');
		strcpy(slash + 1, "tap-ctl");
		if (!access(path, X_OK))
			return;
	}
	strcpy(path, SBINDIR "/tap-ctl");
}

void revive_drop(struct revive *r)
{
	if (!r)
		return;
	ev_child_stop(r->loop, &r->child); /* libev reaps it all the same */
	close(r->out);
	close(r->err);
	free(r);
}

/* What stands in the last line; what came before it may be a library's warning. */
static void read_last_line(int fd, char *text, size_t size)
{
	ssize_t n = read(fd, text, size - 1);
	char *last;

	n = n > 0 ? n : 0;
	while (n && text[n - 1] == '\n')
		n--;
	text[n] = 0;
	last = strrchr(text, '\n');
	if (last)
		memmove(text, last + 1, strlen(last));
}

static void on_end(struct ev_loop *loop, ev_child *w, int revents)
{
	struct revive *r = w->data, was = *r;
	char text[512];
	int status = w->rstatus;
	bool good = WIFEXITED(status) && !WEXITSTATUS(status);
	pid_t pid;

	read_last_line(good ? r->out : r->err, text, sizeof text);
	pid = !WIFEXITED(status)    ? -ECHILD
	      : WEXITSTATUS(status) ? -WEXITSTATUS(status)
				    : (pid_t)atoi(text);
	revive_drop(r);
	was.fn(was.arg, pid ? pid : -EPROTO, text);
}

static int run_revive(int out, int err, int minor, pid_t *child)
{
	char program[PATH_MAX], num[16];
	char *argv[] = {(char *)"tap-ctl", (char *)"revive", (char *)"-m", num, NULL};
	posix_spawn_file_actions_t to;
	int rc;

	find_program(program);
	snprintf(num, sizeof num, "%d", minor);
	posix_spawn_file_actions_init(&to);
	posix_spawn_file_actions_addopen(&to, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&to, out, 1);
	posix_spawn_file_actions_adddup2(&to, err, 2);
	rc = posix_spawn(child, program, &to, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&to);
	return rc;
}

/* They never block who writes into them: nobody reads before the end. */
static int make_pipes(int out[2], int err[2])
{
	if (pipe2(out, O_CLOEXEC | O_NONBLOCK) < 0)
		return -1;
	if (pipe2(err, O_CLOEXEC | O_NONBLOCK) == 0)
		return 0;
	close(out[0]);
	close(out[1]);
	return -1;
}

struct revive *revive_start(struct ev_loop *loop, int minor, revive_done *fn, void *arg)
{
	struct revive *r = calloc(1, sizeof *r);
	int out[2], err[2], rc;
	pid_t pid;

	if (!r)
		return NULL;
	if (make_pipes(out, err) < 0) {
		free(r);
		return NULL;
	}
	rc = run_revive(out[1], err[1], minor, &pid);
	close(out[1]);
	close(err[1]);
	if (rc) {
		close(out[0]);
		close(err[0]);
		free(r);
		errno = rc;
		return NULL;
	}
	*r = (struct revive){.loop = loop, .out = out[0], .err = err[0], .fn = fn, .arg = arg};
	ev_child_init(&r->child, on_end, pid, 0);
	r->child.data = r;
	ev_child_start(loop, &r->child);
	return r;
}
