/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* list: all tapdisks are asked at once, so that those that hang cost one time limit together, and not one each. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "control/tap-ctl-rows.h"
#include "lib/ctl-client.h"
#include "lib/msg.h"
#include "lib/shm-dir.h"

#define RETRY_MS 50 /* for a tapdisk that has too many callers just now, or is about to end */

struct asked {
	pid_t pid;
	int fd; /* -1: not connected yet, or done */
	bool done, any;
};

struct list {
	struct asked *asked;
	size_t n, room;
	struct tc_rows rows;
	struct td_err *err;
	int only_pid; /* -1: all */
};

static long long now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

static int list_add_pid(pid_t pid, void *arg)
{
	struct list *l = arg;

	if (l->only_pid >= 0 && pid != l->only_pid)
		return 0;
	if (l->n == l->room) {
		struct asked *more = realloc(l->asked, (l->room + 64) * sizeof *more);

		if (!more)
			return td_fail(l->err, ENOMEM, "no memory");
		l->asked = more;
		l->room += 64;
	}
	l->asked[l->n++] = (struct asked){.pid = pid, .fd = -1};
	return 0;
}

/* A tapdisk of which no more is known than that it is there. */
static int list_bare(struct list *l, const struct asked *q, bool silent)
{
	json_t *row = json_pack("{s:i}", "pid", (int)q->pid);

	if (silent)
		json_object_set_new(row, "answers", json_false());
	return tc_rows_add(&l->rows, row, l->err);
}

static void list_done(struct asked *q)
{
	if (q->fd >= 0)
		close(q->fd);
	q->fd = -1;
	q->done = true;
}

/* It ended between question and answer.  Asked again it shows as dead, and its socket is removed. */
static void list_again(struct asked *q)
{
	list_done(q);
	q->done = q->any;
	poll(NULL, 0, RETRY_MS / 10); /* so that one that hangs up each time does not keep us busy */
}

/* Connects and asks; a tapdisk that takes no connection just now stays to be tried again. */
static int list_ask(struct list *l, struct asked *q)
{
	struct td_err e = {};
	json_t *req;
	int ret;

	q->fd = td_ctl_connect(q->pid, 0, &e);
	if (q->fd == -ETIMEDOUT) {
		q->fd = -1;
		return 0;
	}
	if (q->fd < 0) {
		ret = q->fd;
		list_done(q);
		if (ret == -ENOENT)
			return 0; /* dead, and its socket has been removed */
		return td_fail(l->err, -ret, "%s", e.text);
	}
	req = json_pack("{s:s}", "op", "list");
	ret = td_msg_send(q->fd, req, NULL, 0);
	json_decref(req);
	if (ret == -EPIPE || ret == -ECONNRESET)
		list_again(q);
	return 0;
}

static int list_row(struct list *l, struct asked *q, const json_t *row)
{
	json_t *mine = json_pack("{s:i}", "pid", (int)q->pid);

	q->any = true;
	json_object_update_missing(mine, (json_t *)row);
	return tc_rows_add(&l->rows, mine, l->err);
}

/* Takes one message of the answer. */
static int list_hear(struct list *l, struct asked *q)
{
	json_t *msg, *row;
	int ret = td_msg_recv(q->fd, &msg, NULL, NULL);

	if (ret == -EAGAIN)
		return 0;
	if (ret == -ENODATA || ret == -ECONNRESET) {
		list_again(q);
		return 0;
	}
	if (ret) {
		list_done(q);
		return q->any ? 0 : list_bare(l, q, true);
	}
	row = json_object_get(msg, "row");
	if (json_is_object(row)) {
		ret = list_row(l, q, row);
	} else if (json_object_get(msg, "err")) {
		list_done(q);
		ret = q->any ? 0 : list_bare(l, q, false);
	}
	json_decref(msg);
	return ret;
}

/* One turn: asks those that are not asked yet, and hears those that answer.  Gives 1 when all are done. */
static int list_turn(struct list *l, struct pollfd *p, long long left)
{
	bool all = true, retry = false;
	int ret = 0;

	for (size_t i = 0; i < l->n && !ret; i++) {
		struct asked *q = &l->asked[i];

		if (!q->done && q->fd < 0)
			ret = list_ask(l, q);
		all = all && q->done;
		retry = retry || (!q->done && q->fd < 0);
		p[i] = (struct pollfd){.fd = q->fd, .events = POLLIN}; /* poll passes over -1 */
	}
	if (ret || all)
		return ret ? ret : 1;
	if (poll(p, l->n, retry && left > RETRY_MS ? RETRY_MS : (int)left) < 0 && errno != EINTR)
		return td_fail(l->err, errno, "poll: %s", strerror(errno));
	for (size_t i = 0; i < l->n && !ret; i++)
		if (p[i].fd >= 0 && p[i].revents)
			ret = list_hear(l, &l->asked[i]);
	return ret;
}

static int list_tapdisks(struct list *l)
{
	long long end = now_ms() + TD_CTL_TIMEOUT * 1000;
	struct pollfd *p;
	int ret = td_ctl_each(list_add_pid, l);

	p = calloc(l->n + 1, sizeof *p);
	if (!p && !ret)
		ret = td_fail(l->err, ENOMEM, "no memory");
	while (!ret && now_ms() < end)
		ret = list_turn(l, p, end - now_ms());
	for (size_t i = 0; i < l->n; i++) {
		if (ret >= 0 && !l->asked[i].done && !l->asked[i].any)
			ret = list_bare(l, &l->asked[i], true);
		list_done(&l->asked[i]);
	}
	free(p);
	return ret < 0 ? ret : 0;
}

static bool list_has_minor(const struct list *l, int minor)
{
	for (size_t i = 0; i < l->rows.n; i++) {
		const json_t *v = json_object_get(l->rows.row[i], "minor");

		if (v && json_integer_value(v) == minor)
			return true;
	}
	return false;
}

/* A marker that no tapdisk claims.  One that is held belongs to a tapdisk that did not answer, and shows by its pid alone. */
static void list_marker(int minor, void *arg)
{
	struct list *l = arg;

	if (tc_marker_sweep(minor) || td_ctl_marker(minor, NULL) != TD_MARKER_FREE || list_has_minor(l, minor))
		return;
	tc_rows_add(&l->rows, json_pack("{s:i}", "minor", minor), l->err);
}

int tc_cmd_list(const struct tc_args *a, struct td_err *err)
{
	struct list l = {.err = err, .only_pid = a->pid};
	pid_t pid;
	int ret;

	if (access(td_ctl_dir(), R_OK | X_OK) < 0 && errno != ENOENT)
		return td_fail(err, errno, "cannot look into %s: %s", td_ctl_dir(), strerror(errno));
	/* the marker says who serves a minor number: the others need not be asked, and one that hangs is not waited for */
	if (a->minor >= 0 && a->pid < 0 && td_ctl_marker(a->minor, &pid) == TD_MARKER_HELD && pid > 0)
		l.only_pid = pid;
	ret = list_tapdisks(&l);
	if (!ret)
		tc_markers(list_marker, &l);
	td_shm_sweep(0); /* of those whose socket is gone already */
	if (!ret) {
		tc_rows_filter(&l.rows, a);
		tc_rows_sort(&l.rows);
		if (a->json)
			tc_rows_json(&l.rows);
		else if (isatty(STDOUT_FILENO))
			tc_rows_table(&l.rows);
		else
			tc_rows_plain(&l.rows);
	}
	free(l.asked);
	tc_rows_free(&l.rows);
	return ret;
}
