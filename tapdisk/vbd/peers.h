/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Two hosts write one disk, and one of them keeps a part of it in its memory: that host does not
 * see what the other writes, and can overwrite newer data with an old copy.
 *
 * O1 a disk is not opened for writing while the peer of a DRBD that it stands on is Primary, unless
 *    it is raw with cache=none or cache=directsync, which keep nothing of it in this host's memory;
 *    or the disk has the option two-primaries=yes
 * O2 a peer that becomes Primary later is reported in the log, the state and xenstore.  The disk
 *    stays open: the peer may only be getting ready, as in a migration, and this host cannot tell
 * O3 a successor (revive, upgrade) is never refused by O1, since its disk is in use; O2 reports it
 *
 * O4 a disk with shared=yes whose peer is not connected is reported likewise, unless DRBD knows
 * that the peer's half is outdated, as it does once a fence agent has turned the peer off.  Each
 * host may then write a half that the other does not see
 *
 * So a live migration works with none and directsync, whatever the roles are.  With the other
 * modes, hosts that are Primary one after the other cannot be told from hosts that are Primary at
 * the same time: the host that the guest leaves closes its disk after the guest runs on the new one
 * (libxl), and what it writes back then is old.  DRBD's allow-two-primaries does not tell either:
 * both uses need it.
 */
#ifndef TAPDISK_PEERS_H
#define TAPDISK_PEERS_H

#include "lib/peers.h"
#include "tapdisk/options.h"
#include "td/io.h"

struct peers_look;

struct peers {
	struct ev_loop *loop;
	struct td_io *io;
	ev_timer timer;          /* runs while O2 has something to watch */
	struct peers_look *look; /* under way in a worker thread, or NULL */
	struct td_peers below;
	bool shared;                      /* the disk is for several hosts: O4 instead of O2 */
	bool wrong;                       /* as reason says */
	char reason[256];                 /* what is wrong with the peer; else "" */
	const char *mode;                 /* the disk's cache mode, for texts */
	void (*changed)(struct peers *p); /* reason has changed */
};

void peers_init(struct peers *p, struct ev_loop *loop, void (*changed)(struct peers *p));

/* On a fiber, before the image is opened.  type: the driver's name.  O1, unless `successor'. */
int peers_check(struct peers *p, const char *type, const char *path, const struct vbd_options *o,
		bool successor, struct td_io *io, struct td_err *err);
/* The image is open: from now on, until peers_stop(), which is on a fiber. */
void peers_watch(struct peers *p);
void peers_stop(struct peers *p);

#endif
