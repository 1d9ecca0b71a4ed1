/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The opener hears the host first: it takes connections on the control socket, reads the one
 * message of each, and hands both to the tapdisk, which answers.  So it knows what the host has
 * named (OR1), whatever the tapdisk says.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/msg.h"
#include "tapdisk/opener/opener-rights.h"
#include "tapdisk/opener/opener.h"

enum {
	WAITING_MAX = 128, /* connections that have not said anything yet */
	THREAD_STACK = 256 * 1024
};

static int listener, to_tapdisk;
static struct pollfd awaited[2 + WAITING_MAX];
static unsigned nwaits = 2;

static bool is_trusted(int fd)
{
	struct ucred c;
	socklen_t len = sizeof c;

	return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c, &len) &&
	       (c.uid == 0 || c.uid == geteuid());
}

static void take_connection(void)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0 && errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
		usleep(100 * 1000); /* out of descriptors, say */
	if (fd >= 0 && is_trusted(fd))
		awaited[nwaits++] = (struct pollfd){.fd = fd, .events = POLLIN};
	else if (fd >= 0)
		close(fd);
}

/* --- one message --- */

struct heard {
	json_t *msg;
	int fds[TD_MSG_FDS], nfds; /* the connection, and what came with the message */
};

/* What the tapdisk gets is what was understood here. */
static void *hand_over(void *arg)
{
	struct heard *h = arg;

	rights_learn(h->msg);
	td_msg_send(to_tapdisk, h->msg, h->fds, h->nfds);
	json_decref(h->msg);
	for (int i = 0; i < h->nfds; i++)
		close(h->fds[i]);
	free(h);
	return NULL;
}

static int start_hearing(void *(*fn)(void *), void *arg)
{
	pthread_attr_t attr;
	pthread_t t;
	int rc;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, THREAD_STACK);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	rc = pthread_create(&t, &attr, fn, arg);
	pthread_attr_destroy(&attr);
	return rc;
}

/* An image that hangs holds up nobody else's message. */
static void take_message(int fd)
{
	struct heard *h = malloc(sizeof *h);
	int n = TD_MSG_FDS - 1, rc = -ENOMEM;

	if (h) {
		h->msg = NULL;
		rc = td_msg_recv(fd, &h->msg, h->fds + 1, &n);
	}
	if (rc < 0) {
		close(fd);
		free(h);
		return;
	}
	h->fds[0] = fd;
	h->nfds = n + 1;
	if (!rights_takes_time(h->msg) || start_hearing(hand_over, h))
		hand_over(h);
}

/* --- all of them --- */

static void *hear_host(void *arg)
{
	awaited[0] = (struct pollfd){.fd = listener, .events = POLLIN};
	awaited[1] = (struct pollfd){.fd = to_tapdisk, .events = POLLIN};
	for (;;) {
		awaited[0].fd = nwaits < 2 + WAITING_MAX ? listener : -1;
		if (poll(awaited, nwaits, -1) < 0)
			continue;
		if (awaited[1].revents) /* it listens no more */
			break;
		for (unsigned i = nwaits; i-- > 2;)
			if (awaited[i].revents) {
				take_message(awaited[i].fd);
				awaited[i] = awaited[--nwaits];
			}
		if (awaited[0].revents && nwaits < 2 + WAITING_MAX)
			take_connection();
	}
	for (unsigned i = 2; i < nwaits; i++)
		close(awaited[i].fd);
	close(listener);
	return arg;
}

int opener_listen(int fd)
{
	static bool listens;
	int sv[2], own = fcntl(fd, F_DUPFD_CLOEXEC, 0), rc;

	/* once, while it has heard nothing from anybody */
	if (own < 0 || __atomic_exchange_n(&listens, true, __ATOMIC_SEQ_CST) ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0) {
		if (own >= 0)
			close(own);
		return -EACCES;
	}
	listener = own;
	to_tapdisk = sv[0];
	rc = start_hearing(hear_host, NULL);
	if (!rc)
		return sv[1];
	close(sv[0]);
	close(sv[1]);
	close(own);
	return -rc;
}
