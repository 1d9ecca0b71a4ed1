/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/msg.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A buffer of control data has the alignment of its header. */
union msg_control {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(TD_MSG_FDS * sizeof(int))];
};

static void msg_attach_fds(struct msghdr *mh, union msg_control *control, const int *fds, int nfds)
{
	struct cmsghdr *c;

	memset(control, 0, sizeof *control);
	mh->msg_control = control->bytes;
	mh->msg_controllen = CMSG_SPACE(nfds * sizeof(int));
	c = CMSG_FIRSTHDR(mh);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
	memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
}

int td_msg_send(int fd, const json_t *msg, const int *fds, int nfds)
{
	union msg_control control;
	struct msghdr mh = {};
	struct iovec iov;
	ssize_t n;

	if (!json_is_object(msg) || nfds < 0 || nfds > TD_MSG_FDS)
		return -EINVAL;
	iov.iov_base = json_dumps(msg, JSON_COMPACT);
	if (!iov.iov_base)
		return -ENOMEM;
	iov.iov_len = strlen(iov.iov_base);
	mh.msg_iov = &iov;
	mh.msg_iovlen = 1;
	if (nfds)
		msg_attach_fds(&mh, &control, fds, nfds);
	if (iov.iov_len > TD_MSG_MAX) {
		n = -1;
		errno = EMSGSIZE;
	} else {
		do
			n = sendmsg(fd, &mh, MSG_NOSIGNAL);
		while (n < 0 && errno == EINTR);
	}
	n = n < 0 ? -errno : 0;
	free(iov.iov_base);
	return n;
}

/* Hands the descriptors that came along to the caller, and closes those that it has no room for. */
static void msg_take_fds(struct msghdr *mh, int *fds, int room, int *taken)
{
	*taken = 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(mh); c; c = CMSG_NXTHDR(mh, c)) {
		size_t n =
			c->cmsg_len >= CMSG_LEN(0) ? (c->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			int got;

			memcpy(&got, CMSG_DATA(c) + i * sizeof got, sizeof got);
			if (*taken < room)
				fds[(*taken)++] = got;
			else
				close(got);
		}
	}
}

static int msg_parse(const char *text, size_t len, json_t **msg)
{
	*msg = json_loadb(text, len, 0, NULL);
	if (!*msg)
		return -EBADMSG;
	if (json_is_object(*msg))
		return 0;
	json_decref(*msg);
	*msg = NULL;
	return -EBADMSG;
}

int td_msg_recv(int fd, json_t **msg, int *fds, int *nfds)
{
	int room = fds && nfds ? *nfds : 0, taken, err;
	union msg_control control;
	struct iovec iov = {.iov_len = TD_MSG_MAX};
	struct msghdr mh = {.msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = control.bytes,
			    .msg_controllen = sizeof control.bytes};
	ssize_t n;

	*msg = NULL;
	if (nfds)
		*nfds = 0;
	iov.iov_base = malloc(TD_MSG_MAX);
	if (!iov.iov_base)
		return -ENOMEM;
	do
		n = recvmsg(fd, &mh, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0) {
		err = -errno;
		free(iov.iov_base);
		return err;
	}
	msg_take_fds(&mh, fds, room, &taken);
	if (n == 0)
		err = -ENODATA;
	else if (mh.msg_flags & MSG_TRUNC)
		err = -EMSGSIZE;
	else
		err = msg_parse(iov.iov_base, n, msg);
	free(iov.iov_base);
	if (!err && nfds)
		*nfds = taken;
	for (int i = 0; err && i < taken; i++)
		close(fds[i]);
	return err;
}
