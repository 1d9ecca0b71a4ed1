/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Can another host write this device now?  DRBD knows: by the role of its peer.  A device may be
 * DRBD's own, or be on one: a partition, a logical volume, a file in a local file system.
 *
 * DRBD 8.4 tells it in /proc/drbd, DRBD 9 in debugfs, in lines of the same form; both are read
 * without a process and without privileges that a tapdisk in its sandbox lacks.  What cannot be
 * seen here: a LUN of a SAN, a logical volume that is active on two hosts.
 *
 * All of it reads /proc and /sys: in a worker thread.
 */
#ifndef TD_LIB_PEERS_H
#define TD_LIB_PEERS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Where /proc and /sys are looked up, instead of /: for tests. */
#define TD_HOST_ROOT_ENV "TAPDISK_HOST_ROOT"

#define TD_PEERS_MAX 8 /* DRBD devices that one disk stands on */

/* in order of weight: of several peers the last one counts */
enum td_peer {
	TD_PEER_NONE,      /* no DRBD */
	TD_PEER_AWAY,      /* not connected: what it writes does not come here */
	TD_PEER_SECONDARY, /* it does not write */
	TD_PEER_UNSEEN,    /* the host does not tell */
	TD_PEER_PRIMARY,   /* it can write now */
};

struct td_peers {
	unsigned minor[TD_PEERS_MAX]; /* DRBD's minor numbers */
	unsigned n;
};

/* The DRBD devices that dev is, or stands on. */
void td_peers_find(dev_t dev, struct td_peers *out);
/* The same for an image.  A file of a cluster file system stands on none: that keeps the hosts'
 * page caches in agreement itself. */
void td_peers_find_image(const char *path, struct td_peers *out);

struct td_peers_view {
	enum td_peer role; /* of the peers: the one of most weight */
	unsigned device;   /* whose peer that is */
	bool cut_off;      /* a peer is away, this host writes, and DRBD does not know that the
			    * peer's half is outdated */
	unsigned cut;      /* which device's that is */
};

void td_peers_look(const struct td_peers *p, struct td_peers_view *out);

const char *td_peer_name(enum td_peer role); /* "Primary", as DRBD calls it */

/* The path below the root in force; 0, or -ENAMETOOLONG. */
int td_host_path(char *out, size_t size, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
