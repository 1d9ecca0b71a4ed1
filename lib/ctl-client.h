/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Asking a tapdisk (td/ctl.h): what tap-ctl, tapback and the tests share.  Blocking, with a time
 * limit on every wait.
 */
#ifndef TD_LIB_CTL_CLIENT_H
#define TD_LIB_CTL_CLIENT_H

#include <jansson.h>
#include <sys/types.h>

#include "lib/ctl-dir.h"

/* Removes what a tapdisk of that pid has left: its sockets ctl<pid> and the NBD server's, and its
 * statistics. */
void td_ctl_remove_sockets(pid_t pid);

/* A connection to tapdisk pid.  -ENOENT when there is none; a dead one's socket and statistics are
 * removed on the way. */
int td_ctl_connect(pid_t pid, int timeout_s, struct td_err *err);

/*
 * One question and its whole answer.  req: stolen.  rows: called for each row, or NULL.  reply (may
 * be NULL): a new reference to the final object.  0, or -errno with the tapdisk's own text;
 * -ETIMEDOUT when it did not answer in time.
 */
int td_ctl_call(pid_t pid, json_t *req, const int *fds, int nfds, int timeout_s,
		void (*rows)(json_t *row, void *arg), void *arg, json_t **reply,
		struct td_err *err);

/* Calls fn for each pid that has a socket ctl<pid> in the control directory, in ascending order,
 * until it returns non-zero, and returns that.  It does not connect. */
int td_ctl_each(int (*fn)(pid_t pid, void *arg), void *arg);

#endif
