/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tap-ctl export: one disk, served over TCP.  Between its tapdisk and each client is a process that
 * has the keys and no rights (lib/tls/tls.h); the front, which this command is, accepts clients and
 * reads nothing that they send.
 *
 * X1 Nothing is served without TLS, except on a loopback address, or if the user says --plain
 * X2 An export is of one disk, and not of a number: it ends when the minor's marker is removed,
 *    although another disk may get that number
 * X3 Until its client is verified, a connection is not known to the tapdisk.  There are
 *    EXPORT_SHAKING such connections at most, and the oldest of them gives way (TL4: its time)
 * X4 What is promised of a client (read-only, alone) its tapdisk keeps (nbd-cmd.c, N7), which
 *    turns away a client with a promise that it does not know
 * X5 While the disk has no tapdisk that answers, clients wait.  A client's connection ends with
 *    the tapdisk that has it: what that had not answered is for the client to send again
 * X6 Keys and certificates are read for each client: a list of revoked ones counts at once
 */
#ifndef CONTROL_TAP_CTL_EXPORT_H
#define CONTROL_TAP_CTL_EXPORT_H

#include "control/tap-ctl/tap-ctl.h"
#include "lib/tls/tls.h"

#define EXPORT_CLIENTS 16  /* at once, by default; connections are counted */
#define EXPORT_MOST    128 /* that may be asked for */
#define EXPORT_SHAKING 32  /* that are not verified yet */
#define EXPORT_PEER    64  /* bytes of a client's address as text */

struct exported {
	int minor, marker; /* its marker, open */
	struct td_tls_keys keys;
	bool tls, read_only;
	int clients;
	int listener;
};

/* tap-ctl-export-listen.c.  where: [ADDRESS][:PORT], or NULL.  A socket that listens there, and the
 * URI of it; or -errno with text.  plain: X1 does not matter. */
int export_listen(const char *where, bool tls, bool plain, char *uri, size_t size,
		  struct td_err *err);
/* A client, non-blocking, and who it is; -errno: none. */
int export_accept(int listener, char *peer);

/* tap-ctl-export-disk.c */
int export_disk_open(struct exported *e, struct td_err *err);
bool export_disk_gone(const struct exported *e); /* X2 */
/* Gives the tapdisk fd, a connection to a client.  0; -ENODEV: X2; or another -errno: not now. */
int export_disk_give(const struct exported *e, int fd);

/* tap-ctl-export-client.c.  In a child: until the client has left, or is not let in.  talk: a
 * packet socket to the front, which hears EXPORT_VERIFIED, or why not.  server: the disk's end is
 * given to its tapdisk when that has been heard. */
#define EXPORT_VERIFIED "verified"
void export_client(const struct exported *e, int wire, int talk, int server, const char *peer)
	__attribute__((noreturn));
/* No capabilities from now on, and no way to new ones. */
int export_drop_rights(struct td_err *err);

#endif
