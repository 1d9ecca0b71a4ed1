/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of the NBD client.  nbd-greet.c: from a connected socket to an export; nbd-wire.c:
 * commands and replies; nbd-keep.c: copies of what a server acknowledged and has not flushed;
 * nbd-again.c: another connection after the first has ended; nbd-left.c: what a connection leaves
 * to the next process; nbd-fence.c: the server's ends of dead connections; nbd.c: connects, opens
 * and closes.
 *
 * It is our own code and not libnbd, which takes one buffer a command (a guest's request has up to
 * 11), allocates and locks for each, and brings libraries for TLS and XML into every tapdisk.
 * Facts of the protocol: NetworkBlockDevice/nbd, doc/proto.md.
 *
 * K1 a server is not trusted: each number that it sends is bounded before it is used, and a reply
 *    that the protocol does not allow ends the connection
 * K2 bytes of a reply go only into the memory of the command that it answers; the command must have
 *    been sent in full, and is answered once
 * K3 a connection that has ended is made again only if td_image.reconnect says so and K8 to K13 can
 *    be kept: what the server had acknowledged and not flushed may be lost, and a flush on a new
 *    connection would not tell.  Otherwise all requests fail with EIO from then on, also flushes
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
 *
 * Another connection, while the image stays open:
 *
 * K8 of each change that was acknowledged, and that no flush has covered since, a copy is kept, in
 *    the order of the acknowledgements; a durable one is kept too if there is an older one, which
 *    would be written over it.  On a new connection these are written again before anything else;
 *    then the changes that had not been answered are sent again; and when all of these are
 *    answered, everything else is
 * K9 changes that overlap are never under way at once: else the server would choose their order,
 *    and could choose another one when they are sent again.  A change that overlaps waits
 * K10 copies take NBD_KEEP_BYTES at most.  When half of that is used, the client flushes by
 *    itself; when all of it is, changes wait for that flush.  (Durable writes would do as well,
 *    but would cost the store as much for each write as one flush does for many megabytes.)  A
 *    flush of our own that fails ends the image, as K3 says
 * K11 nothing is sent on a new connection before the server has closed its end of the old one
 *    (K4).  Where the kernel does not show that, the end of file, or a reset, that came through
 *    the old connection has shown it; if our side has given up, and changes were not answered, K3
 *    holds
 * K12 the server must be what it was: size, abilities, longest request, and for a disk that is
 *    written, writable.  Otherwise K3 holds, and so it does when the server fails to write again
 *    what it had acknowledged.  Nobody can tell another disk of the same size from the same one
 * K13 while copies are not written again, a process that dies takes them along: nbdc_left.failed
 *    says so before the first attempt, so that a successor's flush is not taken for the lost one
 *    (K6)
 */
#ifndef DRIVERS_NBD_H
#define DRIVERS_NBD_H

#include "lib/nbd-proto.h"
#include "td/block.h"

#define NBD_CMDS 128 /* commands with the server at once */
#define NBD_OWN  16  /* and of our own: what is written again, a flush */
#define NBD_READ 512 /* bytes read ahead: the heads of so many short replies at once */

#define NBD_KEEP_BYTES   (32u << 20) /* K10 */
#define NBD_KEEP_ENTRIES 16384u

/* What connections of a disk leave to the next, also where the process has died; each count is
 * stored before what follows from it. */
struct nbdc_left {
	/* failed: NBD_LEFT_* */
	uint32_t magic, failed;
	uint64_t sent, answered; /* commands that change something: put together for the socket, and
				    replied to */
	uint64_t changed, covered; /* those that were acknowledged without being durable; and how
				      many of these a flush has covered */
	char name[4200];           /* of the server, as in nbd:NAME */
};

enum {
	NBD_LEFT_FLUSH = 1, /* a flush, or a durable write, was answered with an error */
	NBD_LEFT_AWAY = 2,  /* K13 */
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
	struct td_req *req;    /* NULL: free, or our own */
	struct nbdc_cmd *next; /* on the list of the free ones, or of those to be sent */
	uint64_t from;         /* bytes of the request before this part */
	uint64_t off;          /* bytes of the disk */
	uint32_t len;          /* bytes; of a READ or WRITE of its data */
	uint16_t type;         /* NBD_CMD_* */
	bool sent;             /* the server has all of it */
	bool again;            /* it was under way when a connection ended */
	uint64_t covers;       /* of a FLUSH: nbdc_left.changed when it was made ... */
	uint64_t mark;         /* ... and nbdc_keep.end */
	/* its place in cmds in the low byte; no other command has had it; 0: free */
	uint64_t cookie;
	struct iovec kept[2]; /* of a WRITE of our own: its data */
	uint8_t head[NBD_REQUEST_SIZE];
};

/* K8: the copy of a change. */
struct nbdc_kept {
	uint64_t off, at; /* at: of its data, as nbdc_keep.data_end counts */
	uint32_t len;     /* bytes of the disk; of a WRITE, of data too */
	uint16_t type, flags;
};

/* Copies in the order of acknowledgement: two rings, whose places are counted for ever. */
struct nbdc_keep {
	uint8_t *data;           /* NBD_KEEP_BYTES; NULL: nothing is kept */
	struct nbdc_kept *entry; /* NBD_KEEP_ENTRIES */
	uint64_t first, end;     /* entries [first, end) */
	uint64_t data_first, data_end;
	uint64_t next;           /* the next to be written again */
	uint64_t reserved_bytes; /* for changes under way */
	uint32_t reserved;       /* entries for them */
	uint64_t touched;        /* bytes since memory was given back */
};

/* Where the client is. */
enum nbdc_phase {
	NBD_RUNS,     /* connected, and all that was before is over */
	NBD_AWAY,     /* no connection */
	NBD_REWRITES, /* K8: what was kept */
	NBD_RESENDS,  /* K8: changes that had not been answered */
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
	struct nbdc_cmd *free, *own_free, *unsent, **unsent_tail;
	size_t sent; /* bytes of the first unsent one */
	uint64_t cookies;
	ev_io in, out;
	ev_prepare send; /* never started: fed, at TD_PRI_COMMIT: all of a turn in one sendmsg */

	struct nbdc_cmd *filling; /* a READ whose data comes in */
	uint32_t filled;
	uint8_t input[NBD_READ];
	unsigned in_at, in_len;
	struct nbdc_cmd cmds[NBD_CMDS + NBD_OWN];

	struct nbdc_keep keep;
	enum nbdc_phase phase;
	unsigned changing, flushes, ours; /* commands under way: changes, flushes, our own */
	unsigned behind,
		behind_changes; /* of those that are sent again, and the changes of these */
	bool leaving;           /* the server ends: nothing more is sent */

	/* nbd-again.c */
	int reconnect;            /* td_image.reconnect */
	uint64_t lock_at;         /* the byte of the lock */
	double since;             /* of ev_time(): when the connection ended; 0: it has not */
	double delay;             /* s before the next attempt */
	double made;              /* of ev_time(): the last connection */
	int trying;               /* the socket of an attempt, or -1 */
	bool attempts, closing;   /* a fiber makes attempts; the image is closed */
	struct td_fiber *sleeper; /* that fiber, between attempts */
	struct td_fiber *closer;  /* waits for its end */
	ev_timer limit;
	char why[160]; /* what the last attempt has come to */
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
/* K13; whether */
void nbdc_left_away(struct nbdc_client *n, bool away);
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
/* The connection is over, and what was under way waits; then: there is another, on fd. */
void nbdc_wire_hold(struct nbdc_client *n);
void nbdc_wire_resume(struct nbdc_client *n, int fd);

/* 0 or -ENOMEM; without it nothing is kept, and the other calls are to no effect. */
int nbdc_keep_open(struct nbdc_keep *k);
void nbdc_keep_close(struct nbdc_keep *k);
/* Room for a change that is to be sent; false: it waits for a flush, or for another one's end. */
bool nbdc_keep_reserve(struct nbdc_keep *k, uint16_t type, uint32_t len);
/* It is over: it failed; or it was acknowledged.  True: its data follow, piece by piece. */
void nbdc_keep_forget(struct nbdc_keep *k, const struct nbdc_cmd *cmd);
bool nbdc_keep_add(struct nbdc_keep *k, const struct nbdc_cmd *cmd, uint16_t flags, bool durable);
void nbdc_keep_data(struct nbdc_keep *k, const struct iovec *piece);
void nbdc_keep_flushed(struct nbdc_keep *k, uint64_t mark);
bool nbdc_keep_is_half(const struct nbdc_keep *k);
/* The next to be written again; NULL: all are.  Its data, of a WRITE, are at iov. */
const struct nbdc_kept *nbdc_keep_next(const struct nbdc_keep *k, struct iovec iov[2]);

/* nbd.c: another connection of an image that is open, with its greeting and its lock: a socket,
 * or -errno with text; *ended: no further attempt can help. */
int nbdc_connect_again(struct nbdc_client *n, bool *ended, struct td_err *err);

/* The connection has ended; clear: by the server, so that its end is closed (K11).  Then there are
 * attempts, or the image is lost. */
void nbdc_again(struct nbdc_client *n, const char *why, bool clear);
void nbdc_again_over(struct nbdc_client *n); /* all that was behind is done, or the image is lost */
void nbdc_again_stop(struct nbdc_client *n); /* on a fiber: the image is closed */
void nbdc_again_start(struct nbdc_client *n); /* the image is open */

#endif
