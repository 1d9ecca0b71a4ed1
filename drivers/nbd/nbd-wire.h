/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One connection of the NBD client: its socket, what goes out, and the reply that comes in.  Here
 * is the state of a socket alone; the disk's is in nbd.h, which includes this. */
#ifndef DRIVERS_NBD_WIRE_H
#define DRIVERS_NBD_WIRE_H

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

#define NBD_IOV  256 /* places of a system call */
#define NBD_READ 512 /* bytes read ahead: the heads of so many short replies at once */

struct nbdc_client;
struct nbdc_cmd;

struct nbdc_conn {
	struct nbdc_client *n;
	int fd, under; /* under: K18, beneath fd; each may be -1 */
	bool leaving;  /* the server ends: nothing more is sent */
	ev_io in, out;

	struct nbdc_cmd *unsent, **unsent_tail;
	size_t sent;   /* bytes of the first unsent one */
	uint64_t load; /* bytes of its commands under way */

	struct nbdc_cmd *filling;  /* a READ whose data comes in */
	uint32_t filled, fill_end; /* bytes of it: where they go, and up to where */
	bool fill_last;            /* nothing of this reply follows */
	uint32_t skip;             /* bytes that come, and that nobody needs */
	struct nbdc_cmd *telling;  /* a BLOCK_STATUS whose answer comes in: so many descriptors */
	uint32_t tells;
	bool tells_last;
	uint8_t input[NBD_READ];
	unsigned in_at, in_len;
};

/* A socket for it, and its end; without one, fd is -1. */
void nbdc_wire_init(struct nbdc_conn *c, struct nbdc_client *n);
void nbdc_wire_set(struct nbdc_conn *c, int fd, int under);
void nbdc_wire_unset(struct nbdc_conn *c); /* fd and under are the caller's */
/* It has ended; clear: by the server, so that its end is closed. */
void nbdc_conn_ended(struct nbdc_conn *c, const char *why, bool clear);

/* nbd-reply.c: libev's, of c->in. */
void nbdc_on_readable(struct ev_loop *loop, ev_io *w, int revents);

#endif
