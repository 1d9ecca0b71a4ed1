/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of the NBD client.  nbd-greet.c: from a connected socket to an export; nbd-wire.c:
 * commands and replies; nbd-left.c: what a connection leaves to the next; nbd-fence.c: the server's
 * ends of dead connections; nbd.c: connects, opens and closes.
 *
 * It is our own code and not libnbd, which takes one buffer a command (a guest's request has up to
 * 11), allocates and locks for each, and brings libraries for TLS and XML into every tapdisk.
 * Facts of the protocol: NetworkBlockDevice/nbd, doc/proto.md.
 *
 * K1 a server is not trusted: each number that it sends is bounded before it is used, and a reply
 *    that the protocol does not allow ends the connection
 * K2 bytes of a reply go only into the memory of the command that it answers; the command must have
 *    been sent in full, and is answered once
 * K3 a connection that has ended is not made again while the image is open: what the server had
 *    acknowledged and not flushed may be lost, and a flush on a new connection would not tell.
 *    All requests then fail with EIO, also flushes
 * K4 a request that failed, or whose sender has died, may still be carried out by the server
 *    until the server has closed its end of that connection: until then no request is sent whose
 *    data it could overwrite, neither on this connection (K3) nor on the next (K5)
 * K5 before a disk is written through a new connection, the server has closed its end of every
 *    connection whose client is gone.  The open waits 10 s for that, and is then refused.  Where
 *    the kernel does not show the server's end (TCP, another network namespace, the far side of a
 *    proxy), changes of the disk were unanswered, and a guest has been promised something, the disk
 *    counts as one whose flush has failed (S2)
 * K6 a flush need not cover what was acknowledged on another connection, unless the server says
 *    so (CAN_MULTI_CONN).  Where it does not, and changes of an earlier connection were
 *    acknowledged and covered by no flush, the disk counts as one whose flush has failed, and the
 *    guest that was promised them gets the error (S2 of lib/settle.h)
 * K7 therefore a connection that drops flushes (cache=unsafe) is flushed before it is closed: the
 *    next one may promise something
 */
#ifndef DRIVERS_NBD_H
#define DRIVERS_NBD_H

#include "lib/nbd-proto.h"
#include "td/block.h"

#define NBD_CMDS 128 /* commands with the server at once */
#define NBD_READ 512 /* bytes read ahead: the heads of so many short replies at once */

/* What connections of a disk leave to the next, also where the process has died; each count is
 * stored before what follows from it. */
struct nbdc_left {
	/* failed: a flush, or a durable write, was answered with an error */
	uint32_t magic, failed;
	uint64_t sent, answered; /* commands that change something: put together for the socket, and
				    replied to */
	uint64_t changed, covered; /* those that were acknowledged without being durable; and how
				      many of these a flush has covered */
	char name[4200];           /* of the server, as in nbd:NAME */
};

/* What the server has said of its export; fixed while connected.  A socket that is given back
 * (lib/passed.h) keeps it. */
struct nbdc_offer {
	uint64_t size;           /* bytes */
	uint32_t min, preferred; /* bytes: units of a request */
	uint32_t max;            /* bytes: the longest read or write */
	uint32_t flags;          /* NBD_FLAG_*; HAS_FLAGS always */
};

/* A part of a request, and the command for it. */
struct nbdc_cmd {
	struct td_req *req;    /* NULL: free */
	struct nbdc_cmd *next; /* on the list of the free ones, or of those to be sent */
	uint64_t from;         /* bytes of the request before this part */
	uint32_t len;          /* bytes; of a READ or WRITE of its data */
	uint16_t type;         /* NBD_CMD_* */
	bool sent;             /* the server has all of it */
	uint64_t covers;       /* of a FLUSH: nbdc_left.changed when it was made */
	uint64_t cookie;       /* its place in cmds in the low byte; no other command has had it */
	uint8_t head[NBD_REQUEST_SIZE];
};

struct nbdc_client {
	const char *name; /* what stands behind nbd: */
	struct td_image *image;
	struct ev_loop *loop;
	int fd, lock; /* lock: the host's, or -1 */
	struct nbdc_offer x;
	bool nosync;                 /* TD_FILE_NOSYNC: nothing need be durable */
	bool copy;                   /* TD_FILE_COPY: a server without flush will do */
	bool lost;                   /* K3 */
	struct nbdc_left *left, own; /* left: the file's, or own where no successor can be */

	struct td_list waiting; /* td_req.link: not all of it is in commands yet; td_req.state[0]
				   says how much is */
	struct nbdc_cmd *free, *unsent, **unsent_tail;
	size_t sent; /* bytes of the first unsent one */
	uint64_t cookies;
	ev_io in, out;
	ev_prepare send; /* never started: fed, at TD_PRI_COMMIT: all of a turn in one sendmsg */

	struct nbdc_cmd *filling; /* a READ whose data comes in */
	uint32_t filled;
	uint8_t input[NBD_READ];
	unsigned in_at, in_len;
	struct nbdc_cmd cmds[NBD_CMDS];
};

/* Talks to the server until there is an export; on a fiber.  name: for texts.  0 or -errno with
 * text; fd stays the caller's. */
int nbdc_greet(struct ev_loop *loop, int fd, const char *name, struct nbdc_offer *x,
	       struct td_err *err);

/*
 * The file image->left: a new one, or `again' the one that is there, for this server.  *was: its
 * counts, which stay there until nbdc_left_settled().  0 or -errno with text.  Then, while open: a
 * command is put together; it was replied to.
 */
int nbdc_left_open(struct nbdc_client *n, const struct td_image *image, bool again,
		   struct nbdc_left *was, struct td_err *err);
void nbdc_left_close(struct nbdc_client *n);
void nbdc_left_sent(struct nbdc_client *n, struct nbdc_cmd *cmd);
void nbdc_left_answered(struct nbdc_client *n, const struct nbdc_cmd *cmd, bool durable, int err);
/* May something be lost, or come late?  blind: nbdc_fence() was.  multi: a flush covers other
 * connections' writes. */
bool nbdc_left_doubt(const struct nbdc_left *was, bool blind, bool multi);
/* nothing is unanswered any more; durable: nor uncovered */
void nbdc_left_settled(struct nbdc_client *n, bool durable);

/* On a fiber: waits for the server's ends of connections whose client is gone; fd: a connection to
 * that server, with its greeting over. */
enum { NBD_FENCE_CLEAR, NBD_FENCE_BUSY, NBD_FENCE_BLIND = -1 };
int nbdc_fence(struct td_io *io, int fd, double patience);

/* n->name, loop, fd, x, nosync and left are set, the rest is zeroed. */
void nbdc_wire_start(struct nbdc_client *n);
/* Nothing is in flight.  True: the connection is as it was, and may be used again. */
bool nbdc_wire_stop(struct nbdc_client *n);
/* As td_driver.submit; the server can do it. */
void nbdc_wire_submit(struct nbdc_client *n, struct td_req *req);
void nbdc_wire_lose(struct nbdc_client *n, const char *why); /* K3 */

#endif
