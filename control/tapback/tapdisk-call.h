/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Asking a tapdisk without waiting for it: a question whose answer comes from the loop, so that a
 * tapdisk that hangs holds up its own disk only.  (lib/ctl-client.h is the waiting kind.)
 */
#ifndef TD_CONTROL_TAPDISK_CALL_H
#define TD_CONTROL_TAPDISK_CALL_H

#include <ev.h>
#include <jansson.h>
#include <sys/types.h>

struct tapdisk_call;

/*
 * The end of a question: 0 and the final object (the caller's own reference stays with the call),
 * or -errno and a text: -ENOENT, -ECONNREFUSED: there is no such process; -ENODATA, -ECONNRESET: it
 * died over the question; -ETIMEDOUT; else its own. The call is gone when this runs.
 */
typedef void tapdisk_answer(void *arg, int err, json_t *reply, const char *text);
/* An event of a watch; ev NULL: the watch has ended, and with it most likely the tapdisk (the call
 * is gone). */
typedef void tapdisk_event(void *arg, json_t *ev, const char *text);

/* req: stolen.  Never calls fn before it has returned.  NULL only when out of memory. */
struct tapdisk_call *tapdisk_ask(struct ev_loop *loop, pid_t pid, json_t *req, double timeout_s,
				 tapdisk_answer *fn, void *arg);
struct tapdisk_call *tapdisk_watch(struct ev_loop *loop, pid_t pid, int minor, double timeout_s,
				   tapdisk_event *fn, void *arg);
/* Forgets the question: fn will not run.  NULL is fine. */
void tapdisk_call_drop(struct tapdisk_call *c);

#endif
