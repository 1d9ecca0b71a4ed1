/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ring transport: how a backend reaches a frontend's pages and its event channel.  There are
 * two: Xen (grants and event channels) and memory (a sealed memfd and two eventfds), with which the
 * same ring consumer runs without Xen.  A transport never looks inside a page.  All calls come from
 * the ring's own thread.
 */
#ifndef TD_XPORT_H
#define TD_XPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "td/log.h"

#define TD_XPORT_FDS 3     /* descriptors of which a transport is made, at most */
#define TD_PAGE      4096u /* bytes: XEN_PAGE_SIZE, whatever the host's pages are */

struct td_xport;

/* One piece of guest memory to copy; at most one page: off + len <= TD_PAGE. */
struct td_copy {
	void *local;
	uint32_t ref; /* grant reference; transport memory: page number in the memfd */
	uint16_t off, len;
	bool to_guest;
	int16_t err; /* out: 0 or -errno, for each on its own */
};

struct td_xport_ops {
	const char *name;
	/* Maps n pages, contiguously, for reading and writing; NULL and err. */
	void *(*map_ring)(struct td_xport *x, const uint32_t *refs, unsigned n, struct td_err *err);
	void (*unmap_ring)(struct td_xport *x, void *ring, unsigned n);
	/* Binds to the frontend's event channel; a file descriptor that becomes readable on an
	 * event, or -errno. */
	int (*bind)(struct td_xport *x, uint32_t port, struct td_err *err);
	void (*unbind)(struct td_xport *x);
	bool (*ack)(struct td_xport *x);    /* the descriptor is readable: take the event; false if
					       there was none */
	void (*notify)(struct td_xport *x); /* wakes the frontend */
	/* Copies n pieces in one system call; each has its own err, the call as a whole cannot
	 * fail. */
	void (*copy)(struct td_xport *x, struct td_copy *c, unsigned n);
	void (*close)(struct td_xport *x);
	/* Copies of the descriptors of which another process makes the same transport: their
	 * number, or -errno.  NULL: it needs none. */
	int (*share)(struct td_xport *x, int fds[TD_XPORT_FDS]);
	/* Both or none: one page, for reading and writing, until unmap; NULL: it cannot be had. */
	void *(*map)(struct td_xport *x, uint32_t ref);
	void (*unmap)(struct td_xport *x, void *page);
};

struct td_xport {
	const struct td_xport_ops *ops;
};

/* Xen: domid's grants and event channels.  -ENOSYS where built without Xen. */
int td_xport_xen(uint16_t domid, struct td_xport **out, struct td_err *err);

/*
 * Memory: memfd (sealed against shrinking) holds the pages; kick is read for the frontend's events,
 * call is written to wake it. Takes the three descriptors over, also on failure.
 */
int td_xport_mem(int memfd, int kick, int call, struct td_xport **out, struct td_err *err);

#endif
