/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "control/tapback/tapdisk-call.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/ctl-dir.h"
#include "lib/msg.h"
#include "td/list.h"

#define RETRY_S 0.1 /* a tapdisk whose backlog is full is tried again after this */

struct tapdisk_call {
	struct ev_loop *loop;
	pid_t pid;
	int fd; /* -1: not connected yet */
	ev_io io;
	ev_timer retry, limit;
	json_t *req;
	tapdisk_answer *answer; /* of a question */
	tapdisk_event *event;   /* of a watch */
	bool watching;          /* the watch was granted */
	void *arg;
};

void tapdisk_call_drop(struct tapdisk_call *c)
{
	if (!c)
		return;
	ev_io_stop(c->loop, &c->io);
	ev_timer_stop(c->loop, &c->retry);
	ev_timer_stop(c->loop, &c->limit);
	if (c->fd >= 0)
		close(c->fd);
	json_decref(c->req);
	free(c);
}

/* The last thing that happens to a call. */
static void finish_call(struct tapdisk_call *c, int err, json_t *reply, const char *text)
{
	struct tapdisk_call was = *c;
	char own[160];

	if (!text) {
		const char *why =
			err == -ETIMEDOUT                        ? "did not answer in time"
			: err == -ENOENT || err == -ECONNREFUSED ? "is not running (any more)"
			: err == -ENODATA || err == -ECONNRESET || err == -EPIPE ? "has died"
										 : strerror(-err);

		snprintf(own, sizeof own, "tapdisk %d %s", (int)c->pid, why);
		text = own;
	}
	tapdisk_call_drop(c);
	if (was.event)
		was.event(was.arg, NULL, text);
	else
		was.answer(was.arg, err, reply, text);
}

static void on_limit(struct ev_loop *loop, ev_timer *t, int revents)
{
	finish_call(td_entry(t, struct tapdisk_call, limit), -ETIMEDOUT, NULL, NULL);
}

/* False: the call is over. */
static bool take_message(struct tapdisk_call *c, json_t *msg)
{
	json_t *ev = json_object_get(msg, "event"), *code = json_object_get(msg, "err");
	int err;

	if (json_object_get(msg, "row"))
		return true;
	if (c->watching && json_is_object(ev)) {
		c->event(c->arg, ev, NULL);
		return true;
	}
	err = json_is_integer(code) ? (int)json_integer_value(code) : EBADMSG;
	if (c->event && !err) {
		c->watching = true;
		ev_timer_stop(c->loop, &c->limit);
		return true;
	}
	finish_call(c, err > 0 ? -err : err, msg,
		    err ? json_string_value(json_object_get(msg, "text")) : "");
	return false;
}

static void on_readable(struct ev_loop *loop, ev_io *w, int revents)
{
	struct tapdisk_call *c = td_entry(w, struct tapdisk_call, io);
	json_t *msg = NULL;
	int rc = td_msg_recv(c->fd, &msg, NULL, &(int){0});

	if (rc == -EAGAIN || rc == -EINTR)
		return;
	if (rc) {
		finish_call(c, rc, NULL, NULL);
		return;
	}
	/* one message a turn: the event may end the call from outside, and others get their turn */
	take_message(c, msg);
	json_decref(msg);
}

static void start_call(struct tapdisk_call *c)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int n = snprintf(a.sun_path, sizeof a.sun_path, "%s/ctl%d", td_ctl_dir(), (int)c->pid),
	    rc = 0;

	if (n >= (int)sizeof a.sun_path) {
		finish_call(c, -ENAMETOOLONG, NULL, NULL);
		return;
	}
	c->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&a, sizeof a) < 0)
		rc = -errno;
	if (!rc)
		rc = td_msg_send(c->fd, c->req, NULL, 0);
	if (rc == -EAGAIN) {
		close(c->fd);
		c->fd = -1;
		ev_timer_set(&c->retry, RETRY_S, 0.);
		ev_timer_start(c->loop, &c->retry);
		return;
	}
	if (rc) {
		finish_call(c, rc, NULL, NULL);
		return;
	}
	ev_io_set(&c->io, c->fd, EV_READ);
	ev_io_start(c->loop, &c->io);
}

static void on_retry(struct ev_loop *loop, ev_timer *t, int revents)
{
	start_call(td_entry(t, struct tapdisk_call, retry));
}

static struct tapdisk_call *call_new(struct ev_loop *loop, pid_t pid, json_t *req, double timeout_s,
				     void *arg)
{
	struct tapdisk_call *c = calloc(1, sizeof *c);

	if (!c || !req) {
		free(c);
		json_decref(req);
		return NULL;
	}
	c->loop = loop;
	c->pid = pid;
	c->fd = -1;
	c->req = req;
	c->arg = arg;
	ev_init(&c->io, on_readable);
	/* the first try is from the loop too, so that an answer never comes inside the asking */
	ev_timer_init(&c->retry, on_retry, 0., 0.);
	ev_timer_start(loop, &c->retry);
	ev_now_update(loop);
	ev_timer_init(&c->limit, on_limit, timeout_s, 0.);
	ev_timer_start(loop, &c->limit);
	return c;
}

struct tapdisk_call *tapdisk_ask(struct ev_loop *loop, pid_t pid, json_t *req, double timeout_s,
				 tapdisk_answer *fn, void *arg)
{
	struct tapdisk_call *c = call_new(loop, pid, req, timeout_s, arg);

	if (c)
		c->answer = fn;
	return c;
}

struct tapdisk_call *tapdisk_watch(struct ev_loop *loop, pid_t pid, int minor, double timeout_s,
				   tapdisk_event *fn, void *arg)
{
	json_t *req = json_pack("{s:s,s:i}", "op", "watch", "minor", minor);
	struct tapdisk_call *c = call_new(loop, pid, req, timeout_s, arg);

	if (c)
		c->event = fn;
	return c;
}
