/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A successor for a tapdisk that has died: `tap-ctl revive', run beside the loop.
 */
#ifndef TD_CONTROL_REVIVE_H
#define TD_CONTROL_REVIVE_H

#include <ev.h>
#include <sys/types.h>

struct revive;

/* pid: the successor's, or -errno and what tap-ctl said.  The revive is gone when this runs. */
typedef void revive_done(void *arg, pid_t pid, const char *text);

/* loop: the default one, which hears of ended children.  Never calls fn before it has returned.
 * NULL when it cannot be started: errno. */
struct revive *revive_start(struct ev_loop *loop, int minor, revive_done *fn, void *arg);
/* Forgets it: fn will not run; a tap-ctl that is at it goes on.  NULL is fine. */
void revive_drop(struct revive *r);

#endif
