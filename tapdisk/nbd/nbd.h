/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The NBD server of one disk: its sockets in the control directory, and the clients that connect to
 * them.
 *
 *   nbd<pid>.<minor>            newstyle: connect to it
 *   nbd-ro<pid>.<minor>         newstyle, and read-only: for a disk that stands on this one
 *   nbd-old<pid>.<minor>        oldstyle
 *   nbdserver<pid>.<minor>      takes a connected socket as an SCM_RIGHTS descriptor, and serves
 *                               it oldstyle
 *   nbdserver-new<pid>.<minor>  the same, newstyle
 *   nbdexport<pid>.<minor>      the same, newstyle; with words instead of a name: "read-only", and
 *                               "alone", a client beside which there is no other of its kind
 *   nbdclient<pid>              one for each process: takes a connected socket, and keeps it under
 *   the
 *                               name that comes with it, for drivers/nbd
 *
 * A client's requests go into the same cache layer as the ring's.  Everything runs in the queue's
 * thread.  States:
 *
 *   nbd_new > no sockets, held --nbd_listen--> sockets, held <--nbd_hold / nbd_run--> running
 *   (any) > nbd_close > no sockets, held
 *
 * Held: clients wait; nothing is read from them, and no new one is accepted.
 */
#ifndef TAPDISK_NBD_H
#define TAPDISK_NBD_H

#include "tapdisk/cache/cache.h"
#include "tapdisk/limit.h"
#include "tapdisk/stats/stats.h"

struct nbd;

/* What clients see; the disk keeps it up to date. */
struct nbd_disk {
	struct cache *cache;
	struct stats *stats;
	const char *name;   /* type:path */
	uint64_t size;      /* bytes */
	uint32_t preferred; /* bytes: the best unit of a request */
	uint32_t block;     /* bytes: what changes something must be multiples of it; 0: of 512 */
	bool read_only, trim;
	struct limit *limit; /* of the disk; NULL: there is none */
	void *owner;
	void (*idle)(void *owner); /* nothing is in flight any more */
};

struct nbd_stats {
	uint64_t clients;         /* so far */
	uint64_t taken, answered; /* requests */
	uint64_t errors;          /* answered with an error */
	uint64_t dropped;         /* clients that broke the protocol */
};

/* NULL: no memory. */
struct nbd *nbd_new(struct ev_loop *loop, const struct nbd_disk *disk, int minor);
void nbd_free(struct nbd *n); /* closed; NULL is fine */

/* Makes the sockets; 0 or -errno with text, and then none is left. */
int nbd_listen(struct nbd *n, struct td_err *err);

/* NULL is fine for all that follow but nbd_stats: a disk without an NBD server. */
void nbd_hold(struct nbd *n);
void nbd_run(struct nbd *n);

/* Held: answers what waits for an image and is not in the cache layer (block status) with an error.
 */
void nbd_cancel(struct nbd *n);

/* On a fiber; held, nothing in flight: clients hear what they have not heard yet, and are let go;
 * the sockets are removed. */
void nbd_close(struct nbd *n);

/* is it a request of one of its clients? */
bool nbd_owns(const struct nbd *n, const struct td_req *req);
unsigned nbd_inflight(const struct nbd *n); /* taken and not answered */
unsigned nbd_clients(const struct nbd *n);  /* of those that are past the handshake */
const struct nbd_stats *nbd_stats(const struct nbd *n);

/* The process's nbdclient<pid>: descriptors that were passed, by name. */
int nbd_passed_start(struct ev_loop *loop, struct td_err *err);
void nbd_passed_stop(void);

#endif
