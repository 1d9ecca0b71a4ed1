/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Messages: one JSON object a packet over a SOCK_SEQPACKET Unix socket, with file descriptors
 * alongside.
 */
#ifndef TD_LIB_MSG_H
#define TD_LIB_MSG_H

#include <jansson.h>

#define TD_MSG_MAX (160 * 1024) /* bytes of JSON text */
#define TD_MSG_FDS 27           /* a marker, two connections, and three a ring for eight of them */

/* Sends msg (a reference is not taken) and nfds descriptors.  0 or -errno; -EAGAIN when a
 * non-blocking socket is full; -EMSGSIZE over TD_MSG_MAX.  Never raises SIGPIPE. */
int td_msg_send(int fd, const json_t *msg, const int *fds, int nfds);

/*
 * Receives one message.  *msg is a new reference; fds has room for *nfds descriptors and they are
 * the caller's (close-on-exec), *nfds becomes their number; more than that are closed.  fds may be
 * NULL.  0, -ENODATA at the end of the connection, -EBADMSG for what is not a JSON object,
 * -EMSGSIZE, or -errno.
 */
int td_msg_recv(int fd, json_t **msg, int *fds, int *nfds);

#endif
