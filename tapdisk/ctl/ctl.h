/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The control socket: bytes and descriptors.  What an operation means is ctl-ops.c's.
 */
#ifndef TAPDISK_CTL_H
#define TAPDISK_CTL_H

#include <ev.h>
#include <jansson.h>
#include <stdbool.h>

#include "lib/msg.h"
#include "td/list.h"
#include "td/log.h"

/* One connection, which is one question. */
struct ctl_call {
	struct td_list link;
	int fd;
	ev_io in, out;
	struct td_list unsent; /* answers that the socket had no room for */
	bool watching;         /* stays open for events */
	int minor;             /* of a watch: the disk, or -1 for all */
	bool working;          /* a fiber answers it */
	int disk;              /* whose operations it has to wait for, or -1 */
	bool gone;             /* the other side has left */
	json_t *req;
	int fds[TD_MSG_FDS]; /* -1 where an operation has taken one over */
	int nfds;
};

/* Listens on ctl<pid> in the control directory. */
int ctl_start(struct ev_loop *loop, struct td_err *err);
void ctl_stop(void); /* removes the socket */

/* Sends a row, an event or the final object; msg is stolen. */
void ctl_send(struct ctl_call *call, json_t *msg);

/*
 * The call is going to wait for the operations on that disk.  False: CTL_WAITING of them do.  An
 * operation stays when its caller has left, as one does whose time is over; where a store hangs,
 * and somebody asks again and again, they would use all of the process's descriptors.
 */
#define CTL_WAITING 64
bool ctl_may_wait(struct ctl_call *call, int minor);

/* Calls fn for each connection that watches. */
void ctl_each_watcher(void (*fn)(struct ctl_call *call, void *arg), void *arg);

/* --- ctl-ops.c --- */

/* Answers call->req; on a fiber. */
void ctl_ops_run(struct ctl_call *call);
void ctl_ops_init(void);

#endif
