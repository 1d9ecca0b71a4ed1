/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * upgrade: tapdisks go on with the program on disk, each in a new process that its old one hands
 * its disks over to (tapdisk/ctl/handover.h).
 *
 * The old one alone decides: it has the disks until it says that the new one has them, and takes
 * them back when that dies or hangs within its first second.  So nothing is lost when this process
 * dies: a new tapdisk that is given no disk exits. Of several tapdisks, the next begins
 * when one has handed over; their trials run beside each other.
 */
#include "control/tap-ctl/tap-ctl.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "lib/ctl-client.h"
#include "lib/msg.h"
#include "lib/output.h"

struct upgrade {
	pid_t old, now;
	int fd;    /* to the old one, which answers; -1: over */
	int disks; /* that it has to hand over */
	int passed;
	double pause; /* s; the longest of its disks' */
	struct td_err err;
};

struct upgrades {
	struct upgrade *u;
	size_t n, room;
	const struct tc_args *args;
	struct stat program; /* on disk */
	struct td_err *err;
};

/* Does it run that very file? */
static bool runs(pid_t pid, const struct stat *program)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof path, "/proc/%d/exe", (int)pid);
	return !stat(path, &st) && st.st_dev == program->st_dev && st.st_ino == program->st_ino;
}

static void count_disk(json_t *row, void *arg)
{
	struct upgrade *u = arg;

	u->disks++;
}

/* One more that is to be upgraded, if it is.  A tapdisk without a disk is left alone: the
 * program that started it knows it by its pid. */
static int consider(pid_t pid, void *arg)
{
	struct upgrade u = {.old = pid, .fd = -1};
	struct upgrades *all = arg;
	int ret;

	if (all->args->pid > 0 ? pid != all->args->pid
			       : !all->args->force && runs(pid, &all->program))
		return 0;
	ret = td_ctl_call(pid, json_pack("{s:s}", "op", "list"), NULL, 0, TD_CTL_TIMEOUT,
			  count_disk, &u, NULL, &u.err);
	if (all->args->pid < 0 && (ret == -ENOENT || (!ret && !u.disks)))
		return 0;
	if (all->n == all->room) {
		struct upgrade *more = realloc(all->u, (all->room + 16) * sizeof *more);

		if (!more)
			return td_fail(all->err, ENOMEM, "out of memory");
		all->u = more;
		all->room += 16;
	}
	all->u[all->n++] = u;
	return 0;
}

/* After a failure the new one is not wanted any more; but if the old one has died, it may be all
 * that guests have. */
static void over(struct upgrade *u)
{
	bool tapdisk;

	if (u->fd >= 0)
		close(u->fd);
	u->fd = -1;
	if (u->err.code && u->now > 0 && td_ctl_running(u->old, &tapdisk))
		tc_reap(u->now, 0);
}

/* The next word of the old one: true, or it is over. */
static bool hear(struct upgrade *u)
{
	struct pollfd p = {.fd = u->fd, .events = POLLIN};
	json_t *msg = NULL, *row;
	int rc = poll(&p, 1, TC_SLOW * 1000);

	if (rc < 0 && errno == EINTR)
		return true;
	rc = rc <= 0 ? -ETIMEDOUT : td_msg_recv(u->fd, &msg, NULL, NULL);
	if (rc == -ETIMEDOUT)
		td_fail(&u->err, ETIMEDOUT, "tapdisk %d did not hand over within %d s", (int)u->old,
			TC_SLOW);
	else if (rc)
		td_fail(&u->err, ECONNRESET, "tapdisk %d ended before it had handed over",
			(int)u->old);
	row = json_object_get(msg, "row");
	if (row) {
		double pause = json_number_value(json_object_get(row, "pause"));

		u->passed++;
		u->pause = pause > u->pause ? pause : u->pause;
	} else if (msg && json_integer_value(json_object_get(msg, "err"))) {
		td_fail(&u->err, (int)json_integer_value(json_object_get(msg, "err")), "%s",
			json_string_value(json_object_get(msg, "text")) ?: "");
	}
	json_decref(msg);
	if (row)
		return true;
	over(u);
	return false;
}

/* Until all its disks are the new one's, or it is over. */
static void begin(struct upgrade *u)
{
	json_t *req;
	int ret;

	if (u->err.code) /* it did not answer */
		return;
	ret = tc_spawn(&u->now, NULL, &u->err);
	if (ret) {
		u->now = 0;
		return;
	}
	tc_place_like(u->now, u->old);
	u->fd = td_ctl_connect(u->old, TD_CTL_TIMEOUT, &u->err);
	if (u->fd < 0) {
		over(u);
		return;
	}
	req = json_pack("{s:s, s:i}", "op", "handover", "to", (int)u->now);
	ret = td_msg_send(u->fd, req, NULL, 0);
	json_decref(req);
	if (ret)
		td_fail(&u->err, -ret, "cannot ask tapdisk %d: %s", (int)u->old, strerror(-ret));
	if (ret)
		over(u);
	while (u->fd >= 0 && u->passed < u->disks)
		hear(u);
}

static int print_plain(const struct upgrade *u, struct td_err *err)
{
	char text[160];

	snprintf(text, sizeof text, "pid=%d now=%d disks=%d pause=%.1fms", (int)u->old, (int)u->now,
		 u->passed, u->pause * 1000);
	return tc_put_line(text, err);
}

static int print_json(const struct upgrades *all, struct td_err *err)
{
	json_t *rows = json_array();
	int ret = 0;

	for (size_t i = 0; i < all->n; i++) {
		const struct upgrade *u = &all->u[i];
		json_t *row = json_pack("{s:i, s:i, s:s}", "pid", (int)u->old, "err", u->err.code,
					"text", u->err.text);

		if (!u->err.code)
			json_object_update_new(row,
					       json_pack("{s:i, s:i, s:f}", "now", (int)u->now,
							 "disks", u->passed, "pause", u->pause));
		json_array_append_new(rows, row);
	}
	if (json_dumpf(rows, stdout, JSON_INDENT(2)) || putchar('\n') == EOF)
		ret = td_fail(err, errno ? errno : EIO, "writing the output: %s",
			      strerror(errno ? errno : EIO));
	json_decref(rows);
	return ret;
}

/* The first failure is the command's; of more, each has its line. */
static int report_all(struct upgrades *all, struct td_err *err)
{
	int failed = 0, ret = all->args->json ? print_json(all, err) : 0;

	for (size_t i = 0; i < all->n; i++) {
		struct upgrade *u = &all->u[i];

		if (!u->err.code) {
			if (!all->args->json && !ret)
				ret = print_plain(u, err);
		} else if (failed++) {
			td_output_line(u->err.text);
			fprintf(stderr, "tap-ctl: tapdisk %d continues as before: %s\n",
				(int)u->old, u->err.text);
		}
	}
	for (size_t i = 0; i < all->n && !ret; i++)
		if (all->u[i].err.code)
			ret = td_fail(err, all->u[i].err.code, "tapdisk %d continues as before: %s",
				      (int)all->u[i].old, all->u[i].err.text);
	return ret;
}

int tc_cmd_upgrade(const struct tc_args *a, struct td_err *err)
{
	struct upgrades all = {.args = a, .err = err};
	char path[PATH_MAX];
	int ret;

	if ((a->pid > 0) == a->all)
		return td_fail(err, EINVAL, "upgrade: say which tapdisk with -p PID, or --all");
	ret = tc_program(path, err);
	if (!ret && stat(path, &all.program) < 0)
		ret = td_fail(err, errno, "cannot look at %s: %s", path, strerror(errno));
	if (!ret)
		ret = td_ctl_each(consider, &all);
	if (!ret && a->pid > 0 && !all.n)
		ret = td_fail(err, ENOENT, "there is no tapdisk with pid %d", (int)a->pid);
	for (size_t i = 0; i < all.n && !ret; i++)
		begin(&all.u[i]);
	for (size_t i = 0; i < all.n && !ret; i++)
		while (all.u[i].fd >= 0)
			hear(&all.u[i]);
	if (!ret)
		ret = report_all(&all, err);
	free(all.u);
	return ret;
}
