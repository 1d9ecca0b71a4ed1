/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sockets that are passed: a toolstack that has an NBD connection open (through TLS, or HTTP)
 * connects to a receiver, and sends its descriptor with a name.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/ctl-dir.h"
#include "lib/fiber/call.h"
#include "lib/passed.h"
#include "tapdisk/nbd/nbd-conn.h"

#define RECEIVERS_MAX 16   /* connections at once to one receiver */
#define RECEIVE_TIME  10.0 /* s for the message to come */

/* --- sockets in the control directory --- */

struct listen {
	const char *name, *shown;
};

/* Through the directory's descriptor, since a socket's address has less room than a path. */
static int bind_in_dir(int fd, const struct listen *l)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int dir = open(td_ctl_dir(), O_PATH | O_DIRECTORY | O_CLOEXEC), rc = 0;
	char name[sizeof sa.sun_path];

	if (dir < 0)
		return -errno;
	snprintf(name, sizeof name, "/proc/self/fd/%d/%s", dir, l->name);
	snprintf(sa.sun_path, sizeof sa.sun_path, "/proc/self/fd/%d/%s", dir, l->shown);
	unlink(sa.sun_path); /* a dead process had our pid */
	/* nobody gets in before listen() */
	if (bind(fd, (struct sockaddr *)&sa, sizeof sa) < 0 || chmod(sa.sun_path, 0600) < 0 ||
	    (l->shown != l->name && rename(sa.sun_path, name) < 0))
		rc = -errno;
	close(dir);
	return rc;
}

static long listen_run(void *arg)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int rc = fd < 0 ? -errno : bind_in_dir(fd, arg);

	if (!rc && listen(fd, 128) < 0)
		rc = -errno;
	if (!rc)
		return fd;
	if (fd >= 0)
		close(fd);
	return rc;
}

int nbd_socket(const char *name, const char *shown, struct td_err *err)
{
	struct listen l = {name, shown ?: name};
	int fd = (int)td_call(listen_run, &l);

	return fd >= 0 ? fd
		       : td_fail(err, -fd, "cannot listen on %s/%s: %s", td_ctl_dir(), name,
				 strerror(-fd));
}

void nbd_socket_remove(const char *name)
{
	char path[4200];

	snprintf(path, sizeof path, "%s/%s", td_ctl_dir(), name);
	td_call_unlink(path);
}

/* --- receiving --- */

struct receiver {
	struct td_list link;
	struct ev_loop *loop;
	ev_io in;
	ev_timer patience;
	void (*got)(void *owner, int fd, const char *name);
	void *owner;
};

static void receiver_free(struct receiver *r)
{
	ev_io_stop(r->loop, &r->in);
	ev_timer_stop(r->loop, &r->patience);
	close(r->in.fd);
	td_list_del(&r->link);
	free(r);
}

/* The first of the descriptors that came; others are closed. */
static int take_fd(struct msghdr *m)
{
	int fd = -1, got;

	for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h; h = CMSG_NXTHDR(m, h)) {
		size_t n =
			h->cmsg_len >= CMSG_LEN(0) ? (h->cmsg_len - CMSG_LEN(0)) / sizeof got : 0;

		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			memcpy(&got, CMSG_DATA(h) + i * sizeof got, sizeof got);
			if (fd < 0)
				fd = got;
			else
				close(got);
		}
	}
	return fd;
}

static bool is_stream(int fd)
{
	int type;
	socklen_t len = sizeof type;

	return !getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) && type == SOCK_STREAM;
}

static void on_message(struct ev_loop *loop, ev_io *w, int revents)
{
	struct receiver *r = w->data;
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(4 * sizeof(int))];
	} control;
	char name[TD_PASSED_NAME + 1];
	struct iovec iov = {name, TD_PASSED_NAME};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = control.bytes,
			   .msg_controllen = sizeof control.bytes};
	ssize_t n = recvmsg(w->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	int fd;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	fd = n > 0 ? take_fd(&m) : -1;
	name[n > 0 ? n : 0] = 0;
	if (fd >= 0 && is_stream(fd)) {
		r->got(r->owner, fd, name);
	} else {
		td_log(LOG_WARNING, "an NBD receiver got %s",
		       fd < 0 ? "no descriptor" : "a descriptor that is no stream socket");
		if (fd >= 0)
			close(fd);
	}
	receiver_free(r);
}

static void on_late(struct ev_loop *loop, ev_timer *w, int revents)
{
	receiver_free(w->data);
}

void nbd_receive(struct ev_loop *loop, struct td_list *list, int conn,
		 void (*got)(void *owner, int fd, const char *name), void *owner)
{
	struct receiver *r;
	unsigned n = 0;

	td_list_each (l, list)
		n++;
	r = n < RECEIVERS_MAX ? calloc(1, sizeof *r) : NULL;
	if (!r) {
		close(conn);
		return;
	}
	r->loop = loop;
	r->got = got;
	r->owner = owner;
	ev_io_init(&r->in, on_message, conn, EV_READ);
	ev_timer_init(&r->patience, on_late, RECEIVE_TIME, 0);
	r->in.data = r->patience.data = r;
	ev_io_start(loop, &r->in);
	ev_timer_start(loop, &r->patience);
	td_list_add(list, &r->link);
}

void nbd_receive_none(struct td_list *list)
{
	td_list_each_safe (l, tmp, list)
		receiver_free(td_entry(l, struct receiver, link));
}

/* --- nbdclient<pid> --- */

static ev_io passed_listener;
static ev_timer passed_again;
static struct ev_loop *passed_loop;
static struct td_list passed_receivers = TD_LIST_INIT(passed_receivers);

static void passed_keep(void *owner, int fd, const char *name)
{
	int rc = td_passed_keep(name, fd, NULL, 0);

	if (rc < 0)
		td_log(LOG_WARNING, "an NBD server's socket that was passed is not kept: %s",
		       rc == -EINVAL ? "it came without a name" : strerror(-rc));
	else
		td_log(LOG_INFO, "an NBD server's socket has been passed, for nbd:%s", name);
}

static void on_passed_again(struct ev_loop *loop, ev_timer *w, int revents)
{
	ev_timer_stop(loop, w);
	ev_io_start(loop, &passed_listener);
}

static void on_passed(struct ev_loop *loop, ev_io *w, int revents)
{
	int fd = accept4(w->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd >= 0) {
		nbd_receive(loop, &passed_receivers, fd, passed_keep, NULL);
	} else if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) {
		/* out of descriptors, say: nobody is to spin */
		ev_io_stop(loop, w);
		ev_timer_again(loop, &passed_again);
	}
}

static void passed_name(char *out, size_t len)
{
	snprintf(out, len, "nbdclient%d", (int)getpid());
}

int nbd_passed_start(struct ev_loop *loop, struct td_err *err)
{
	char name[64];
	int fd;

	passed_name(name, sizeof name);
	fd = nbd_socket(name, NULL, err);
	if (fd < 0)
		return fd;
	passed_loop = loop;
	ev_io_init(&passed_listener, on_passed, fd, EV_READ);
	ev_init(&passed_again, on_passed_again);
	passed_again.repeat = 0.1;
	ev_io_start(loop, &passed_listener);
	return 0;
}

void nbd_passed_stop(void)
{
	char name[64];

	if (!passed_loop)
		return;
	nbd_receive_none(&passed_receivers);
	td_passed_close_all();
	ev_io_stop(passed_loop, &passed_listener);
	ev_timer_stop(passed_loop, &passed_again);
	close(passed_listener.fd);
	passed_name(name, sizeof name);
	nbd_socket_remove(name);
	passed_loop = NULL;
}
