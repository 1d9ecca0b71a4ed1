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

enum { WAITING_MAX = 128 }; /* connections that have not said anything yet */

static int listener, to_tapdisk;
static struct pollfd waits[2 + WAITING_MAX];
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
		waits[nwaits++] = (struct pollfd){.fd = fd, .events = POLLIN};
	else if (fd >= 0)
		close(fd);
}

/* What the tapdisk gets is what was understood here. */
static void hand_over(int fd)
{
	int fds[TD_MSG_FDS], nfds = TD_MSG_FDS - 1;
	json_t *msg = NULL;
	int rc = td_msg_recv(fd, &msg, fds + 1, &nfds);

	if (rc < 0) {
		close(fd);
		return;
	}
	rights_learn(msg);
	fds[0] = fd;
	td_msg_send(to_tapdisk, msg, fds, nfds + 1);
	json_decref(msg);
	for (int i = 0; i <= nfds; i++)
		close(fds[i]);
}

static void *hear(void *arg)
{
	waits[0] = (struct pollfd){.fd = listener, .events = POLLIN};
	waits[1] = (struct pollfd){.fd = to_tapdisk, .events = POLLIN};
	for (;;) {
		waits[0].fd = nwaits < 2 + WAITING_MAX ? listener : -1;
		if (poll(waits, nwaits, -1) < 0)
			continue;
		if (waits[1].revents) /* it listens no more */
			break;
		for (unsigned i = nwaits; i-- > 2;)
			if (waits[i].revents) {
				hand_over(waits[i].fd);
				waits[i] = waits[--nwaits];
			}
		if (waits[0].revents && nwaits < 2 + WAITING_MAX)
			take_connection();
	}
	for (unsigned i = 2; i < nwaits; i++)
		close(waits[i].fd);
	close(to_tapdisk);
	close(listener);
	return arg;
}

int opener_listen(int fd)
{
	static bool listens;
	pthread_attr_t attr;
	pthread_t t;
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
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	rc = pthread_create(&t, &attr, hear, NULL);
	pthread_attr_destroy(&attr);
	if (!rc)
		return sv[1];
	close(sv[0]);
	close(sv[1]);
	close(own);
	return -rc;
}
