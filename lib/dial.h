/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A connection to an NBD server on another host, or in another machine of this one. */
#ifndef TD_LIB_DIAL_H
#define TD_LIB_DIAL_H

#include "lib/nbd-uri.h"

extern int td_dial_ask; /* s without a word after which a peer is asked; tests have less */

#define DIAL_LIMIT 10 /* s that looking a name up and connecting may take */

/*
 * Looks the host's name up and connects, and sets the socket up: small packets are not held back,
 * and a peer is asked now and then whether it is there, but the kernel does not give the connection
 * up (drivers/nbd/nbd-silent.c does).  Blocks, until `cancel' is hung up; -1: it never is.  The
 * socket, non-blocking, or -errno with text.
 */
int td_dial_here(const struct nbd_uri *u, int cancel, struct td_err *err);

/*
 * The same for a disk's path, by whatever process may make connections: by default this one, else
 * the opener (tapdisk/opener/opener-dial.c).  In a worker (lib/io/workers.h).
 */
extern int (*td_dial)(const char *path, int cancel, struct td_err *err);

/*
 * TLS over such a connection (lib/tls/tls.h), for a process that has no other to hold the keys:
 * takes fd, also when it fails, and returns a plain socket.  NULL: this program has no TLS.
 */
extern int (*td_dial_tls)(int fd, const struct nbd_uri *u, int cancel, struct td_err *err);

/* Of a connection that has TLS: fd is a plain socket, whose first byte brings the one to the server
 * beneath it.  That is only to be looked at, and to be closed.  -EPROTO: it has not come. */
int td_dial_under(int fd);

#endif
