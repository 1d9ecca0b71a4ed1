/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One thing: a connection's message is dispatched to the operations, and they answer through
 * their connection; handing disks over adopts rings, with the options that operations parse.
 */
#include "tapdisk/ctl/ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/ctl-client.h"
#include "lib/fiber/fiber.h"
#include "tapdisk/opener/opener.h"

#define UNSENT_MAX 256 /* answers waiting for one client; a client that reads none is dropped */

struct unsent {
	struct td_list link;
	json_t *msg;
};

static struct ev_loop *ctl_loop;
static ev_io listener, handed; /* one of the two is active: see opener_take_listener() */
static ev_timer accept_again;
static struct td_list calls = TD_LIST_INIT(calls);
static char socket_path[sizeof((struct sockaddr_un *)0)->sun_path];

static void drop_unsent(struct ctl_call *call)
{
	struct td_list *l;

	while ((l = td_list_pop(&call->unsent))) {
		struct unsent *u = td_entry(l, struct unsent, link);

		json_decref(u->msg);
		free(u);
	}
}

static void call_free(struct ctl_call *call)
{
	ev_io_stop(ctl_loop, &call->in);
	ev_io_stop(ctl_loop, &call->out);
	td_list_del(&call->link);
	drop_unsent(call);
	for (int i = 0; i < call->nfds; i++)
		if (call->fds[i] >= 0)
			close(call->fds[i]);
	json_decref(call->req);
	close(call->fd);
	free(call);
}

/* The other side has left: at once, or when the fiber that answers is through. */
static void call_gone(struct ctl_call *call)
{
	call->gone = true;
	ev_io_stop(ctl_loop, &call->in);
	ev_io_stop(ctl_loop, &call->out);
	drop_unsent(call);
	if (!call->working)
		call_free(call);
}

static void call_finish_if_sent(struct ctl_call *call)
{
	if (!call->working && !call->watching && td_list_empty(&call->unsent))
		call_free(call);
}

static void on_writable(struct ev_loop *loop, ev_io *w, int revents)
{
	struct ctl_call *call = w->data;

	while (!td_list_empty(&call->unsent)) {
		struct unsent *u = td_entry(call->unsent.next, struct unsent, link);
		int rc = td_msg_send(call->fd, u->msg, NULL, 0);

		if (rc == -EAGAIN)
			return;
		if (rc < 0) {
			call_gone(call);
			return;
		}
		td_list_del(&u->link);
		json_decref(u->msg);
		free(u);
	}
	ev_io_stop(loop, &call->out);
	call_finish_if_sent(call);
}

static void send_later(struct ctl_call *call, json_t *msg)
{
	struct unsent *u = malloc(sizeof *u);
	unsigned n = 0;

	td_list_each (l, &call->unsent)
		n++;
	if (!u || n >= UNSENT_MAX) {
		free(u);
		json_decref(msg);
		/* its end comes in through on_readable or on_writable */
		shutdown(call->fd, SHUT_RDWR);
		return;
	}
	u->msg = msg;
	td_list_add(&call->unsent, &u->link);
	ev_io_start(ctl_loop, &call->out);
}

void ctl_send(struct ctl_call *call, json_t *msg)
{
	int rc = -EAGAIN;

	if (call->gone || !msg) {
		json_decref(msg);
		return;
	}
	if (td_list_empty(&call->unsent))
		rc = td_msg_send(call->fd, msg, NULL, 0);
	if (rc == -EAGAIN) {
		send_later(call, msg);
		return;
	}
	if (rc == -EMSGSIZE)
		td_log(LOG_WARNING, "an answer was too long to be sent");
	json_decref(msg);
}

static void call_fiber(void *arg)
{
	struct ctl_call *call = arg;

	ctl_ops_run(call);
	call->working = false;
	call->disk = -1;
	if (call->gone)
		call_free(call);
	else
		call_finish_if_sent(call);
}

static void call_begin(struct ctl_call *call)
{
	call->working = true;
	if (td_fiber_start(ctl_loop, call_fiber, call) < 0) {
		call->working = false;
		call_gone(call);
	}
}

/* The question; after it, a watcher's socket becomes readable only at its end. */
static void on_readable(struct ev_loop *loop, ev_io *w, int revents)
{
	struct ctl_call *call = w->data;
	int rc;

	if (call->req) {
		char c;

		if (recv(call->fd, &c, 1, MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		call_gone(call); /* the end, or a second message, which there is not */
		return;
	}
	call->nfds = TD_MSG_FDS;
	rc = td_msg_recv(call->fd, &call->req, call->fds, &call->nfds);
	if (rc < 0) {
		call->nfds = 0;
		if (rc != -EAGAIN)
			call_gone(call);
		return;
	}
	call_begin(call);
}

static bool trusted(int fd)
{
	struct ucred c;
	socklen_t len = sizeof c;

	return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c, &len) &&
	       (c.uid == 0 || c.uid == geteuid());
}

/* Out of descriptors, say: clients wait, and this process must not spin meanwhile. */
static void on_accept_again(struct ev_loop *loop, ev_timer *w, int revents)
{
	ev_timer_stop(loop, w);
	ev_io_start(loop, &listener);
}

/* fd: taken over. */
static struct ctl_call *call_new(int fd)
{
	struct ctl_call *call = calloc(1, sizeof *call);

	if (!call) {
		close(fd);
		return NULL;
	}
	call->fd = fd;
	call->minor = call->disk = -1;
	td_list_init(&call->unsent);
	td_list_add(&calls, &call->link);
	ev_io_init(&call->in, on_readable, fd, EV_READ);
	ev_io_init(&call->out, on_writable, fd, EV_WRITE);
	call->in.data = call->out.data = call;
	ev_io_start(ctl_loop, &call->in);
	return call;
}

static void on_accept(struct ev_loop *loop, ev_io *w, int revents)
{
	int fd = accept4(w->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0 && errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) {
		ev_io_stop(loop, w);
		ev_timer_again(loop, &accept_again);
	}
	if (fd >= 0 && trusted(fd))
		call_new(fd);
	else if (fd >= 0)
		close(fd);
}

/* The opener has died (OP3 of tapdisk/opener/opener.h), as main.c says. */
static void hear_itself(struct ev_loop *loop)
{
	ev_io_stop(loop, &handed);
	close(handed.fd);
	ev_io_start(loop, &listener);
}

/* A connection, and what it has said, from the opener. */
static void on_handed(struct ev_loop *loop, ev_io *w, int revents)
{
	int fds[TD_MSG_FDS], nfds = TD_MSG_FDS, rc;
	struct ctl_call *call;
	json_t *msg = NULL;

	rc = td_msg_recv(w->fd, &msg, fds, &nfds);
	if (rc == -EAGAIN)
		return;
	if (rc == -ENODATA || rc == -ECONNRESET)
		hear_itself(loop);
	if (rc < 0)
		return;
	call = nfds > 0 ? call_new(fds[0]) : NULL;
	if (!call) {
		json_decref(msg);
		for (int i = 1; i < nfds; i++)
			close(fds[i]);
		return;
	}
	call->req = msg;
	call->nfds = nfds - 1;
	memcpy(call->fds, fds + 1, (size_t)call->nfds * sizeof *fds);
	call_begin(call);
}

int ctl_start(struct ev_loop *loop, struct td_err *err)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd, from_opener, rc = td_ctl_mkdirs(err);

	if (rc < 0)
		return rc;
	if ((size_t)snprintf(sa.sun_path, sizeof sa.sun_path, "%s/ctl%d", td_ctl_dir(),
			     (int)getpid()) >= sizeof sa.sun_path)
		return td_fail(err, ENAMETOOLONG,
			       "the control directory's name %s is too long for a socket",
			       td_ctl_dir());
	td_ctl_remove_sockets(getpid()); /* a dead process had our pid */
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof sa) < 0 ||
	    chmod(sa.sun_path, 0600) < 0 || listen(fd, 64) < 0) {
		rc = td_fail(err, errno, "cannot listen on %s: %s", sa.sun_path, strerror(errno));
		if (fd >= 0)
			close(fd);
		return rc;
	}
	strcpy(socket_path, sa.sun_path);
	ctl_loop = loop;
	ctl_ops_init();
	ev_io_init(&listener, on_accept, fd, EV_READ);
	from_opener = opener_take_listener(fd);
	if (from_opener >= 0) {
		fcntl(from_opener, F_SETFL, fcntl(from_opener, F_GETFL) | O_NONBLOCK);
		ev_io_init(&handed, on_handed, from_opener, EV_READ);
	} else if (from_opener != -ENOSYS) {
		close(fd);
		return td_fail(err, -from_opener,
			       "cannot give the control socket to the opener: %s",
			       strerror(-from_opener));
	}
	ev_init(&accept_again, on_accept_again);
	accept_again.repeat = 0.1;
	ev_io_start(loop, from_opener >= 0 ? &handed : &listener);
	return 0;
}

void ctl_stop(void)
{
	if (!ctl_loop)
		return;
	ev_io_stop(ctl_loop, &listener);
	ev_io_stop(ctl_loop, &handed);
	ev_timer_stop(ctl_loop, &accept_again);
	close(listener.fd);
	unlink(socket_path);
	td_list_each_safe (l, tmp, &calls) {
		struct ctl_call *call = td_entry(l, struct ctl_call, link);

		if (!call->working)
			call_free(call);
	}
}

bool ctl_may_wait(struct ctl_call *call, int minor)
{
	unsigned n = 0;

	td_list_each (l, &calls)
		n += td_entry(l, struct ctl_call, link)->disk == minor;
	if (n >= CTL_WAITING)
		return false;
	call->disk = minor;
	return true;
}

void ctl_each_watcher(void (*fn)(struct ctl_call *call, void *arg), void *arg)
{
	td_list_each_safe (l, tmp, &calls) {
		struct ctl_call *call = td_entry(l, struct ctl_call, link);

		if (call->watching && !call->gone)
			fn(call, arg);
	}
}
