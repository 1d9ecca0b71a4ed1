/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * All disks of one backend type: finds them in xenstore and tells each when to look again.
 *
 * Nothing is done while an event is handled: an event marks a disk, and before the loop sleeps each
 * marked disk reads all that it needs.  So lost, repeated and reordered events do no harm, and a
 * guest that causes a storm of events costs one look a turn.
 */
#ifndef TD_CONTROL_DEVICES_H
#define TD_CONTROL_DEVICES_H

#include <ev.h>

#include "control/store.h"
#include "td/list.h"

enum order { ORDER_AUTO, ORDER_LIBXL, ORDER_XENOPSD };

struct devices_options {
	const char *name; /* backend type: the directory backend/<name> */
	int only_domid;   /* -1: all */
	bool no_barrier;
	unsigned max_queues; /* rings that a guest may have for a disk */
	unsigned hold_s; /* a guest whose tapdisk has no successor waits, and another is tried for
			    so often; 0: it gets errors */
	bool no_revive;  /* a tapdisk that dies takes its guests' disks along */
	bool shutdown_request; /* announce that shutdown-request is answered, by every backend of
				  this domain */
	enum order order;
	double timeout_s; /* for a tapdisk's answer */
};

struct devices {
	struct ev_loop *loop;
	struct store *store;
	struct devices_options opt;
	struct td_list devices; /* struct device by link */
	struct td_list dirty;   /* those to look at, by dirty */
	char root[64];          /* backend/<name> */
	ev_io io, hangup;
	ev_timer watchdog; /* looks at all disks' tapdisks */
	ev_prepare prepare;
	bool lost; /* xenstored went away */
};

/* Watches and scans; disks are served from the loop.  Stops the loop when xenstored is lost (then
 * m->lost). */
int devices_open(struct devices *m, struct ev_loop *loop, const struct devices_options *opt,
		 struct td_err *err);
/* Lets go of everything in memory; neither xenstore nor any ring is touched, so that the next
 * daemon takes over. */
void devices_close(struct devices *m);

#endif
