/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The control side of a tapdisk without a disk, for tests of tapback where there are no grants to
 * map: the real socket, the real messages, and for each minor that anybody asks for rings that are
 * notes of who has them.
 *
 *   tapdisk-standin CONFIG LOG
 *
 * CONFIG is a JSON object, read again for each request: {"info": {...} (put over the answer of
 * info), "fail": {OP: [ERRNO, TEXT]}, "ping": {...} (the answer of ping), "hang": [OP, ...] (never
 * answered), "drop": [OP, ...] (done, and the connection closed in place of an answer), "die":
 * [OP, ...] (ends the process), "event": {...} (sent to all watchers on SIGUSR1)}.  LOG gets each
 * request, a line.
 */
#include <errno.h>
#include <ev.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/ctl-client.h"
#include "lib/msg.h"

#define MAX_WATCHERS 64

static int watchers[MAX_WATCHERS], n_watchers;
static const char *config_path, *log_path;
static json_t *rings; /* minor: [{domid, devid, state}, ...] */

struct conn {
	ev_io io;
};

static json_t *config(const char *key)
{
	json_t *c = json_load_file(config_path, 0, NULL), *v = json_incref(json_object_get(c, key));

	json_decref(c);
	return v;
}

static void reply(int fd, json_t *msg)
{
	td_msg_send(fd, msg, NULL, 0);
	json_decref(msg);
}

static json_t *info(int minor, json_t *list)
{
	json_t *r = json_pack("{s:i,s:i,s:i,s:s,s:s,s:b,s:I,s:i,s:i,s:b,s:b,s:b,s:i,s:i,s:b}",
			      "err", 0, "minor", minor, "state", 0, "args", "aio:/standin", "mode",
			      "none", "read_only", 0, "sectors", (json_int_t)2048, "sector_size",
			      512, "physical_sector_size", 4096, "flush", 1, "barrier", 1,
			      "discard", 1, "discard_granularity", 4096, "max_indirect_segments",
			      512, "persistent", 1);
	json_t *over = config("info");

	if (list)
		json_object_set(r, "rings", list);
	json_object_update(r, over);
	json_decref(over);
	return r;
}

static json_t *connect_ring(json_t *req, json_t *list, const char *minor)
{
	json_t *dom = json_object_get(req, "domid"), *dev = json_object_get(req, "devid");

	if (json_array_size(list) && !json_is_true(json_object_get(req, "beside")))
		return json_pack("{s:i,s:s}", "err", EBUSY, "text", "a ring is connected already");
	if (!list)
		json_object_set_new(rings, minor, list = json_array());
	json_array_append_new(
		list, json_pack("{s:O,s:O,s:s}", "domid", dom, "devid", dev, "state", "connected"));
	return json_pack("{s:i}", "err", 0);
}

static void disconnect_ring(json_t *req, json_t *list)
{
	for (size_t i = json_array_size(list); i--;) {
		json_t *r = json_array_get(list, i);

		if (json_equal(json_object_get(r, "domid"), json_object_get(req, "domid")) &&
		    json_equal(json_object_get(r, "devid"), json_object_get(req, "devid")))
			json_array_remove(list, i);
	}
}

static json_t *failure(const char *op)
{
	json_t *all = config("fail"), *one = json_object_get(all, op), *r = NULL;

	if (one)
		r = json_pack("{s:O,s:O}", "err", json_array_get(one, 0), "text",
			      json_array_get(one, 1));
	json_decref(all);
	return r;
}

static bool is_among(const char *key, const char *op)
{
	json_t *all = config(key), *v;
	bool yes = false;
	size_t i;

	json_array_foreach (all, i, v)
		yes = yes || !strcmp(json_string_value(v), op);
	json_decref(all);
	return yes;
}

static void note(json_t *req)
{
	FILE *f = fopen(log_path, "a");
	char *text = json_dumps(req, JSON_COMPACT | JSON_SORT_KEYS);

	if (f) {
		fprintf(f, "%s\n", text);
		fclose(f);
	}
	free(text);
}

static void answer(int fd, json_t *req)
{
	const char *op = json_string_value(json_object_get(req, "op"));
	int minor = (int)json_integer_value(json_object_get(req, "minor"));
	json_t *r = failure(op), *list;
	char key[16];

	snprintf(key, sizeof key, "%d", minor);
	list = json_object_get(rings, key);
	if (r) {
		reply(fd, r);
	} else if (!strcmp(op, "info")) {
		reply(fd, info(minor, list));
	} else if (!strcmp(op, "ping")) {
		r = config("ping");
		reply(fd, r ? r : json_pack("{s:i}", "err", 0));
	} else if (!strcmp(op, "connect")) {
		reply(fd, connect_ring(req, list, key));
	} else if (!strcmp(op, "disconnect")) {
		disconnect_ring(req, list);
		reply(fd, json_pack("{s:i}", "err", 0));
	} else if (!strcmp(op, "limit")) {
		reply(fd, json_pack("{s:i}", "err", 0));
	} else if (!strcmp(op, "watch") && n_watchers < MAX_WATCHERS) {
		watchers[n_watchers++] = fd;
		reply(fd, json_pack("{s:i}", "err", 0));
	} else {
		reply(fd, json_pack("{s:i,s:s}", "err", ENOSYS, "text",
				    "the stand-in does not know this"));
	}
}

static void on_message(struct ev_loop *loop, ev_io *w, int revents)
{
	json_t *req = NULL;
	const char *op;

	if (td_msg_recv(w->fd, &req, NULL, &(int){0})) {
		for (int i = 0; i < n_watchers; i++)
			if (watchers[i] == w->fd)
				watchers[i] = watchers[--n_watchers];
		ev_io_stop(loop, w);
		close(w->fd);
		free(w);
		return;
	}
	note(req);
	op = json_string_value(json_object_get(req, "op"));
	if (op && is_among("die", op))
		_exit(0);
	if (op && is_among("drop", op))
		shutdown(w->fd, SHUT_WR); /* the caller reads the end, and closes its own */
	if (op && !is_among("hang", op))
		answer(w->fd, req);
	json_decref(req);
}

static void on_accept(struct ev_loop *loop, ev_io *w, int revents)
{
	struct conn *c = calloc(1, sizeof *c);
	int fd = accept4(w->fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0 || !c)
		exit(99);
	ev_io_init(&c->io, on_message, fd, EV_READ);
	ev_io_start(loop, &c->io);
}

static void on_event(struct ev_loop *loop, ev_signal *w, int revents)
{
	json_t *ev = config("event"), *msg = json_pack("{s:o}", "event", ev);

	for (int i = 0; i < n_watchers; i++)
		td_msg_send(watchers[i], msg, NULL, 0);
	json_decref(msg);
}

int main(int argc, char **argv)
{
	struct ev_loop *loop = ev_default_loop(0);
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	ev_signal usr1;
	ev_io listener;
	int fd;

	if (argc != 3)
		return 2;
	config_path = argv[1];
	log_path = argv[2];
	rings = json_object();
	signal(SIGPIPE, SIG_IGN);
	if (td_ctl_mkdirs(NULL))
		return 99;
	snprintf(a.sun_path, sizeof a.sun_path, "%s/ctl%d", td_ctl_dir(), (int)getpid());
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 64))
		return 99;
	ev_io_init(&listener, on_accept, fd, EV_READ);
	ev_io_start(loop, &listener);
	ev_signal_init(&usr1, on_event, SIGUSR1);
	ev_signal_start(loop, &usr1);
	ev_run(loop, 0);
	return 0;
}
