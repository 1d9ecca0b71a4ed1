/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of the NBD client.  nbd-connect.c: a connected socket; nbd-greet.c: from a connected
 * socket to an export; nbd-wire.c: the socket of an export; nbd-command.c: requests as commands;
 * nbd-reply.c: what comes back; nbd-keep.c: copies of what a server acknowledged and has not
 * flushed; nbd-again.c: another connection after the first has ended; nbd-silent.c: a host that
 * does not answer; nbd-under.c: the connection beneath TLS; nbd-left.c: what a connection leaves to
 * the next process; nbd-fence.c: the server's ends of dead connections; nbd-server.c: which process
 * the server is; nbd-more.c, nbd-spread.c: further connections, for reads (KC1 to KC4, in
 * nbd-more.h); nbd.c: opens and closes.
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
 *    so (CAN_MULTI_CONN) and is the process that it was (K14).  Otherwise, where changes of an
 *    earlier connection were acknowledged and covered by no flush, the disk counts as one whose
 *    flush has failed, and the guest that was promised them gets the error (S2 of lib/settle.h)
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
 * K14 the process that has acknowledged what no flush has covered yet is noted for the next
 *    connection (nbdc_left.server): if the server has been started anew since, it may have lost
 *    that, and its flush covers nothing of it.  A server that cannot be told from a later one
 *    counts as another
 *
 * K17 a copy (of a mirror) on a server without flush, opened again after a pause, is what it was if
 *    the connection is (a socket that was given back), or the server is the process that it was: it
 *    has all that it had answered.  Otherwise the open fails
 *
 * A server on another host:
 *
 * K15 a host that does not answer is noticed after nbdc_silent_after.  Where no change is
 *    unanswered, another connection is made at once.  Else the server may have got them and may
 *    carry them out at any time, and only the end of that very connection would show that it does
 *    not (K11): so the connection is kept, which goes on where it was when the link is back, and
 *    ends by a reset when the host was started anew.  Meanwhile the disk shows as one that
 *    reconnects, and its limit counts.  Without attempts (K3) the image is given up
 *
 * K16 where the server gives structured replies, a read is done when each of its bytes has come
 * once, as data or as a hole, in any order; nothing that was in its memory before is left there.  A
 *    hole is known (extents) if the server says that it reads as zeroes, and no change of it was
 *    under way while it was asked
 *
 * TLS:
 *
 * K18 what the relay (lib/tls/tls.h) has accepted may never reach the server, and its end, which
 * may be its death, does not show the server's.  So the connection beneath is at hand, too (under),
 *    which names the server, tells of silence (K15) and of its end: when the relay has ended and
 *    changes were not answered, our side of that connection is closed, and nothing is sent anew
 *    before its end of file, or a reset, has come (K11)
 */
#ifndef DRIVERS_NBD_H
#define DRIVERS_NBD_H

#include <time.h>

#include "drivers/nbd/nbd-more.h"
#include "drivers/nbd/nbd-wire.h"
#include "lib/nbd-proto.h"
#include "lib/nbd-uri.h"
#include "td/block.h"

#define NBD_CMDS 128 /* commands with the server at once */
#define NBD_OWN  16  /* and of our own: what is written again, a flush */

#define NBD_KEEP_BYTES   (32u << 20) /* K10 */
#define NBD_KEEP_ENTRIES 16384u

/* The process at the other end; all zeroes: not known. */
struct nbdc_server {
	uint64_t pid, start; /* start: in clock ticks since the host's */
};

/* What connections of a disk leave to the next, also where the process has died; each count is
 * stored before what follows from it. */
struct nbdc_left {
	/* failed: NBD_LEFT_* */
	uint32_t magic, failed;
	uint64_t sent, answered; /* commands that change something: put together for the socket, and
				    replied to */
	uint64_t changed, covered; /* those that were acknowledged without being durable; and how
				      many of these a flush has covered */
	struct nbdc_server server; /* K14 */
	char name[4184];           /* of the server, as in nbd:NAME */
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
	/* of a connection that was not passed: there are structured replies; base:allocation's
	 * number plus 1, 0: the server does not tell of holes */
	uint32_t structured;
	uint64_t context;
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
	/* K16: of a READ, bytes that have come; where the next are expected; the error so far, and
	 * how many there were */
	uint32_t got, next_at;
	int err;
	unsigned errors;
	struct nbdc_ask *ask;   /* of a BLOCK_STATUS */
	struct nbdc_conn *conn; /* in whose load it is; NULL: none's */
	uint8_t head[NBD_REQUEST_SIZE];
};

/* A chunk of a structured reply. */
struct nbdc_chunk {
	uint16_t flags, type;
	uint64_t cookie, off; /* off: of data and holes, bytes of the disk */
	uint32_t n;           /* of a hole, bytes; of an error, which; of a status, its context */
	uint32_t body;        /* bytes that follow */
};

#define NBD_CHUNK_TEXT_MAX 8192 /* bytes of an error's text and place */

/* A question for holes and zeroes, on its fiber's stack. */
struct nbdc_ask {
	struct td_fiber *fiber;
	struct nbdc_ask *next;
	struct td_extent *out;
	int max, n;
	uint64_t off, end, at, heard; /* at: what out tells so far; heard: what the server does */
	bool full, over, ok, spoilt;
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
	const char *name; /* for texts: title */
	char title[4200];
	struct nbd_uri uri;
	struct td_image *image;
	struct ev_loop *loop;
	int lock; /* the host's, or -1 */
	int past; /* K18: beneath the connection before, or -1 */
	struct nbdc_offer x;
	struct nbdc_offer said;      /* by the first connection of now; x: by that of the open */
	bool nosync;                 /* TD_FILE_NOSYNC: nothing need be durable */
	bool copy;                   /* TD_FILE_COPY: a server without flush will do */
	bool lost;                   /* K3 */
	struct nbdc_left *left, own; /* left: the file's, or own where no successor can be */
	struct nbdc_server server;   /* of this connection */

	struct td_list waiting; /* td_req.link: not all of it is in commands yet; td_req.state[0]
				   says how much is */
	struct nbdc_cmd *free, *own_free;
	uint64_t cookies;
	struct nbdc_conn first;
	struct nbdc_more more;
	ev_prepare send; /* never started: fed, at TD_PRI_COMMIT: all of a turn in one sendmsg */
	struct nbdc_ask *asking;
	struct nbdc_cmd cmds[NBD_CMDS + NBD_OWN];

	struct nbdc_keep keep;
	enum nbdc_phase phase;
	unsigned changing, flushes, ours; /* commands under way: changes, flushes, our own */
	unsigned behind,
		behind_changes; /* of those that are sent again, and the changes of these */

	/* nbd-again.c */
	int reconnect;            /* td_image.reconnect */
	uint64_t lock_at;         /* the byte of the lock */
	double since;             /* of td_clock_s(): when the connection ended; 0: it has not */
	time_t since_date;        /* that, for people */
	double delay;             /* s before the next attempt */
	double made;              /* of td_clock_s(): the last connection */
	int trying;               /* the socket of an attempt, or -1 */
	bool attempts, closing;   /* a fiber makes attempts; the image is closed */
	struct td_fiber *sleeper; /* that fiber, between attempts */
	struct td_fiber *closer;  /* waits for its end */
	ev_timer limit;
	ev_timer look; /* K15 */
	bool silent;   /* the connection is there, and the server's host does not answer */
	char why[160]; /* what the last attempt has come to */
};

/* On a fiber: a connection to the server of n->uri, with *under (K18), and its lock; or -errno with
 * text.  *trying: what is shut down to give up meanwhile.  The lock stays where it is for a further
 * one, for which a server at another place is -ESTALE (KC3). */
int nbdc_connect(struct nbdc_client *n, bool further, int *trying, int *under, struct td_err *err);

/* nbd-under.c, K18.  fd, or what is beneath it: to be looked at. */
int nbdc_under(int fd, int under);
void nbdc_under_leave(struct nbdc_client *n); /* this connection has ended */
/* The server has closed its end of the one before, or has answered all that came through it. */
bool nbdc_under_over(struct nbdc_client *n);
void nbdc_under_close(struct nbdc_client *n); /* all of them */

/* Talks to the server until there is an export; on a fiber.  0 or -errno with text; fd stays the
 * caller's. */
int nbdc_greet(const struct nbdc_client *n, int fd, double patience, struct nbdc_offer *x,
	       struct td_err *err);
#define NBD_PATIENCE 20.0 /* s that it may take in all */
extern double nbdc_further_patience;

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
/* Nothing of another server's is uncovered: what follows is acknowledged by this one (K14). */
void nbdc_left_server(struct nbdc_client *n);
/* May something be lost, or come late?  blind: nbdc_fence() was.  multi: a flush covers other
 * connections' writes. */
bool nbdc_left_doubt(const struct nbdc_left *was, bool blind, bool multi);
/* nothing is unanswered any more; durable: nor uncovered */
void nbdc_left_settled(struct nbdc_client *n, bool durable);

/* On a fiber: waits for the server's ends of connections whose client is gone; fd: a connection to
 * that server, with its greeting over. */
enum { NBD_FENCE_CLEAR, NBD_FENCE_BUSY, NBD_FENCE_BLIND = -1 };
int nbdc_fence(struct td_io *io, int fd, double patience);

/* On a fiber: who is at the other end of fd.  Same: both are known, and are one process. */
struct nbdc_server nbdc_server_of(struct td_io *io, int fd);
bool nbdc_server_same(const struct nbdc_server *a, const struct nbdc_server *b);
/* K17: is the server that of before?  same: so is the connection.  0 or -ESTALE with text. */
int nbdc_server_check(const struct nbdc_client *n, bool same, struct td_err *err);

/* --- nbd-wire.c --- */

/* n->name, uri, loop, first.fd, x, nosync and left are set, the rest is zeroed. */
void nbdc_wire_start(struct nbdc_client *n);
/* Nothing is in flight.  True: the connection is as it was, and may be used again. */
bool nbdc_wire_stop(struct nbdc_client *n);
void nbdc_wire_schedule(struct nbdc_client *n);              /* on_send() at the turn's end */
void nbdc_wire_lose(struct nbdc_client *n, const char *why); /* K3 */
/* The connection is over, and what was under way waits; then: there is another, on fd. */
void nbdc_wire_hold(struct nbdc_client *n);
void nbdc_wire_resume(struct nbdc_client *n, int fd, int under);

/* --- nbd-command.c --- */

static inline bool nbdc_is_change(uint16_t type)
{
	return type == NBD_CMD_WRITE || type == NBD_CMD_TRIM || type == NBD_CMD_WRITE_ZEROES;
}

/* As td_driver.submit; the server can do it. */
void nbdc_cmd_submit(struct nbdc_client *n, struct td_req *req);
/* All that waits and may be sent becomes commands, in its order; a change that must wait holds the
 * changes behind it, and nothing else.  True: one waits for room. */
bool nbdc_cut_waiting(struct nbdc_client *n);
/* A part of the request is over; err: 0 or -errno.  With the last one so is the request. */
void nbdc_req_put(struct nbdc_client *n, struct td_req *req, int err);
/* The server has replied to a command; it ends without a reply; it is free again. */
void nbdc_cmd_done(struct nbdc_client *n, struct nbdc_cmd *cmd, int err);
void nbdc_cmd_end(struct nbdc_client *n, struct nbdc_cmd *cmd, int err);
void nbdc_cmd_free(struct nbdc_client *n, struct nbdc_cmd *cmd);
/* The places of a command's data from `skip' on; their number, at most max. */
int nbdc_cmd_iov(const struct nbdc_cmd *cmd, uint32_t skip, struct iovec *iov, int max);
/* It is to be sent, under a cookie of its own; again, under the one it has.  flags:
 * NBD_CMD_FUA, ... */
void nbdc_cmd_launch(struct nbdc_client *n, struct nbdc_cmd *cmd, uint16_t flags);
void nbdc_cmd_enqueue(struct nbdc_cmd *cmd, struct nbdc_conn *c);
void nbdc_cmd_detach(struct nbdc_cmd *cmd); /* it is no connection's */
void nbdc_cmd_anew(struct nbdc_cmd *cmd);   /* nothing of it was sent, and nothing has come */
/* Is [off, off + len) part of one of cmds [from, to), of which at most `left' are changes? */
bool nbdc_overlaps(const struct nbdc_client *n, unsigned from, unsigned to, unsigned left,
		   uint64_t off, uint32_t len);
/* One of our own: n->own_free is not NULL. */
struct nbdc_cmd *nbdc_own_cmd(struct nbdc_client *n);
/* K10: one at a time, and none where a guest's is under way. */
void nbdc_flush_early(struct nbdc_client *n, bool no_room);
/* Will a change of [off, off + len) be done, or is one under way?  K16: a question is sent. */
bool nbdc_cmd_changes(const struct nbdc_client *n, uint64_t off, uint64_t len);
void nbdc_cmd_ask(struct nbdc_client *n, struct nbdc_ask *a);

/* nbd-status.c: td_driver.extents; a descriptor of the answer; a change was submitted; it is
 * over. */
int nbdc_extents(struct td_image *image, uint64_t off, uint64_t len, struct td_extent *out,
		 int max);
void nbdc_ask_take(struct nbdc_ask *a, uint32_t len, uint32_t state);
void nbdc_ask_spoil(struct nbdc_client *n, const struct td_req *req);
void nbdc_ask_end(struct nbdc_client *n, struct nbdc_ask *a);

/* nbd-chunk.c: the head of a chunk, of `have' bytes at p: its bytes; 0: more are needed; -EPROTO.
 * Data or a hole within what cmd reads, and no more than it still lacks. */
int nbdc_chunk_parse(const uint8_t *p, unsigned have, struct nbdc_chunk *c);
bool nbdc_chunk_fits(const struct nbdc_chunk *c, const struct nbdc_cmd *cmd);

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
 * and *under; or -errno with text; *ended: no further attempt can help. */
int nbdc_connect_again(struct nbdc_client *n, int *under, bool *ended, struct td_err *err);

/* good-bye, if polite */
void nbdc_hang_up(int fd, int under, bool polite); /* each may be -1 */

/* The connection has ended; clear: by the server, so that its end is closed (K11).  Then there are
 * attempts, or the image is lost. */
void nbdc_again(struct nbdc_client *n, const char *why, bool clear);
void nbdc_again_over(struct nbdc_client *n); /* all that was behind is done, or the image is lost */
void nbdc_again_stop(struct nbdc_client *n); /* on a fiber: the image is closed */
void nbdc_again_start(struct nbdc_client *n); /* the image is open */
/* K15: nothing has come for `quiet' s, and the connection is kept. */
void nbdc_again_silent(struct nbdc_client *n, const char *why, double quiet);

/* nbd-silent.c: while the image is open. */
void nbdc_silent_start(struct nbdc_client *n);
void nbdc_silent_stop(struct nbdc_client *n);
extern double nbdc_silent_after; /* s; tests have less */

#endif
