/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* All tapdisks are asked at once, so that those that hang cost one time limit together, and not one
 * each. */
#include "control/tap-ctl/tap-ctl-ask.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lib/ctl-client.h"
#include "lib/msg.h"
#include "lib/proc.h"

#define RETRY_MS 50 /* for a tapdisk that has too many callers just now, or is about to end */

struct asked {
	pid_t pid;
	int fd; /* -1: not connected yet, or done */
	bool done, any;
};

struct ask {
	const char *op;
	struct asked *asked;
	size_t n, room;
	struct tc_rows *rows;
	struct td_err *err;
	int only_pid; /* -1: all */
};

static long long now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

static int ask_add_pid(pid_t pid, void *arg)
{
	struct ask *all = arg;

	if (all->only_pid >= 0 && pid != all->only_pid)
		return 0;
	if (all->n == all->room) {
		struct asked *more = realloc(all->asked, (all->room + 64) * sizeof *more);

		if (!more)
			return td_fail(all->err, ENOMEM, "out of memory");
		all->asked = more;
		all->room += 64;
	}
	all->asked[all->n++] = (struct asked){.pid = pid, .fd = -1};
	return 0;
}

/* A tapdisk of which no more is known than that it is there. */
static int ask_bare(struct ask *all, const struct asked *q, bool silent)
{
	json_t *row = json_pack("{s:i}", "pid", (int)q->pid);
	char why[256];

	if (silent) {
		td_proc_waits(q->pid, why, sizeof why);
		json_object_set_new(row, "answers", json_false());
		json_object_set_new(row, "reason",
				    json_sprintf("it does not answer%s%s", *why ? ": " : "", why));
	}
	return tc_rows_add(all->rows, row, all->err);
}

static void ask_done(struct asked *q)
{
	if (q->fd >= 0)
		close(q->fd);
	q->fd = -1;
	q->done = true;
}

/* It ended between question and answer.  Asked again it shows as dead, and its socket is removed.
 */
static void ask_again(struct asked *q)
{
	ask_done(q);
	q->done = q->any;
	/* so that one that hangs up each time does not keep us busy */
	poll(NULL, 0, RETRY_MS / 10);
}

/* Connects and asks; a tapdisk that takes no connection just now stays to be tried again. */
static int ask_one(struct ask *all, struct asked *q)
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
		ask_done(q);
		if (ret == -ENOENT)
			return 0; /* dead, and its socket has been removed */
		return td_fail(all->err, -ret, "%s", e.text);
	}
	req = json_pack("{s:s}", "op", all->op);
	ret = td_msg_send(q->fd, req, NULL, 0);
	json_decref(req);
	if (ret == -EPIPE || ret == -ECONNRESET)
		ask_again(q);
	return 0;
}

static int ask_row(struct ask *all, struct asked *q, const json_t *row)
{
	json_t *mine = json_pack("{s:i}", "pid", (int)q->pid);

	q->any = true;
	json_object_update_missing(mine, (json_t *)row);
	return tc_rows_add(all->rows, mine, all->err);
}

/* Takes one message of the answer. */
static int ask_hear(struct ask *all, struct asked *q)
{
	json_t *msg, *row;
	int ret = td_msg_recv(q->fd, &msg, NULL, NULL);

	if (ret == -EAGAIN)
		return 0;
	if (ret == -ENODATA || ret == -ECONNRESET) {
		ask_again(q);
		return 0;
	}
	if (ret) {
		ask_done(q);
		return q->any ? 0 : ask_bare(all, q, true);
	}
	row = json_object_get(msg, "row");
	if (json_is_object(row)) {
		ret = ask_row(all, q, row);
	} else if (json_object_get(msg, "err")) {
		ask_done(q);
		ret = q->any ? 0 : ask_bare(all, q, false);
	}
	json_decref(msg);
	return ret;
}

/* One turn: asks those that are not asked yet, and hears those that answer.  Gives 1 when all are
 * done. */
static int ask_turn(struct ask *all, struct pollfd *p, long long left)
{
	bool through = true, retry = false;
	int ret = 0;

	for (size_t i = 0; i < all->n && !ret; i++) {
		struct asked *q = &all->asked[i];

		if (!q->done && q->fd < 0)
			ret = ask_one(all, q);
		through = through && q->done;
		retry = retry || (!q->done && q->fd < 0);
		p[i] = (struct pollfd){.fd = q->fd, .events = POLLIN}; /* poll passes over -1 */
	}
	if (ret || through)
		return ret ? ret : 1;
	if (poll(p, all->n, retry && left > RETRY_MS ? RETRY_MS : (int)left) < 0 && errno != EINTR)
		return td_fail(all->err, errno, "cannot wait for the answers of tapdisks: %s",
			       strerror(errno));
	for (size_t i = 0; i < all->n && !ret; i++)
		if (p[i].fd >= 0 && p[i].revents)
			ret = ask_hear(all, &all->asked[i]);
	return ret;
}

int tc_ask_all(const char *op, pid_t only_pid, int timeout_s, struct tc_rows *rows,
	       struct td_err *err)
{
	struct ask all = {.op = op, .rows = rows, .err = err, .only_pid = only_pid};
	long long end = now_ms() + timeout_s * 1000LL;
	struct pollfd *p;
	int ret = td_ctl_each(ask_add_pid, &all);

	p = calloc(all.n + 1, sizeof *p);
	if (!p && !ret)
		ret = td_fail(err, ENOMEM, "out of memory");
	while (!ret && now_ms() < end)
		ret = ask_turn(&all, p, end - now_ms());
	for (size_t i = 0; i < all.n; i++) {
		if (ret >= 0 && !all.asked[i].done && !all.asked[i].any)
			ret = ask_bare(&all, &all.asked[i], true);
		ask_done(&all.asked[i]);
	}
	free(p);
	free(all.asked);
	return ret < 0 ? ret : 0;
}
