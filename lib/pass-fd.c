/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/pass-fd.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

int td_pass_fd(int to, int fd, const void *data, size_t len)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof fd)];
	} control = {0};
	struct iovec iov = {(void *)data, len};
	struct msghdr mh = {.msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof control};
	struct cmsghdr *m = &control.align;
	ssize_t n;

	m->cmsg_level = SOL_SOCKET;
	m->cmsg_type = SCM_RIGHTS;
	m->cmsg_len = CMSG_LEN(sizeof fd);
	memcpy(CMSG_DATA(m), &fd, sizeof fd);
	do
		n = sendmsg(to, &mh, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : (size_t)n == len ? 0 : -EMSGSIZE;
}
