/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One NBD client: shared by nbd-conn.c (bytes), nbd-cmd.c (requests), nbd-reply.c, nbd-status.c
 * (block status), nbd-turn.c and nbd-after.c, and by nobody else.
 *
 * A turn of the loop: bytes in (one recvmsg) > requests (check, submit to the cache layer) >
 * completions > replies, as many as there are in one sendmsg.  What a client may hold is bounded:
 * NBD_REQS requests, and buffers by its share (nbd_share).  At its bound, nothing is read from it
 * until replies have gone.
 *
 * What clients cost a turn is bounded too, or requests that are answered at once (of no length, of
 * an unknown kind, of holes) would make one turn of all that was read, while other disks and the
 * control socket wait: see nbd_turn_lets().  What is left is for the next turn.
 */
#ifndef TAPDISK_NBD_CONN_H
#define TAPDISK_NBD_CONN_H

#include "lib/nbd-proto.h"
#include "lib/io/pool.h"
#include "tapdisk/nbd/nbd-handshake.h"
#include "tapdisk/nbd/nbd.h"

#define NBD_REQS     128    /* of a client; pieces of long ones count too */
#define NBD_BUF      65536u /* bytes of a buffer */
#define NBD_BUFS_MAX 128u   /* of a client */
#define NBD_BUFS_ALL 1024u  /* that the clients of a process share, */
#define NBD_BUFS_MIN 4u     /* except for this much, which each can have at any time */
#define NBD_CLIENTS  256u   /* of a process */
#define NBD_PIECE    16u    /* buffers of one request to the image; longer ones go in pieces */
#define NBD_IN       32768  /* bytes read ahead */
/* In a turn of the loop: requests, options, and buffers of data */
#define NBD_TURN     128u /* of a client */
#define NBD_TURN_ALL 512u /* of a process, */
#define NBD_TURN_MIN 4u   /* except for this much, which each client can have in any turn */
/* bytes of a write from which on its data is not read ahead, but into place */
#define NBD_BIG        8192u
#define NBD_LENGTH_MAX (64u << 20) /* bytes of a read or write */
#define NBD_HEAD_MAX   128         /* bytes before a reply's data */

#define NBD_CONN_MAGIC 0x6e626463u

struct nbd_conn;

/* A request, or a piece of a long one. */
struct nbd_req {
	struct td_req req;
	struct nbd_conn *conn;
	/* on the free list, or among the replies, or the block status requests */
	struct nbd_req *next;
	struct nbd_req *whole; /* of a piece: what it is a piece of */
	uint64_t cookie, off;
	uint32_t len;
	uint16_t type, flags; /* as on the wire */
	uint32_t cut;         /* of a whole: bytes that pieces have been made of */
	unsigned pieces;      /* of a whole: under way */
	int err;
	uint64_t start; /* ns, when it was taken; 0: not counted */
	unsigned bufs;  /* buffers in iov; 0 too where iov points elsewhere */
	struct iovec iov[NBD_PIECE];
	uint32_t data;     /* bytes of iov that belong to the reply */
	uint32_t head_len; /* 0: a piece that has nothing to say */
	uint8_t head[NBD_HEAD_MAX];
};

/* How a client is served. */
struct nbd_manner {
	bool oldstyle;  /* its handshake */
	bool read_only; /* N7 */
	bool alone;     /* it is not told that several connections are as one */
};

struct nbd_conn {
	unsigned magic;
	struct nbd *n;
	struct td_list link; /* struct nbd.conns */
	int fd;
	ev_io in, out;
	ev_prepare respond; /* never started: fed at TD_PRI_RING */
	ev_idle more;       /* the next turn, for what this one has no room for */
	ev_timer patience;  /* with the handshake, and with one that has ended */
	ev_timer pace;      /* until the disk's limit lets the next request go */
	struct limit_place place;
	bool transmission; /* past the handshake */
	bool begun;        /* and past N6: requests are taken */
	bool read_only, alone;
	bool ending; /* nothing is read any more; it goes when all is answered */
	bool gone;   /* nothing can be sent any more either */
	struct nbd_handshake hs;
	struct nbd_answer *answer; /* what the handshake has to say; NULL when that is over */
	size_t answered;           /* bytes of it that are sent */

	uint8_t input[NBD_IN];
	unsigned in_at, in_len; /* input[in_at .. in_len) is not looked at yet */
	bool big; /* the last request was a long write: only the next one's head is read ahead */
	struct nbd_req *filling; /* the write, or piece of one, whose data is coming */
	uint32_t filled;         /* bytes of it that have come */
	struct nbd_req *whole; /* a long read or write that is being cut into pieces; no request is
				  taken meanwhile */
	uint32_t skip;         /* bytes to come of the data of a write that is not done, */
	struct nbd_req *refused; /* and if it was refused at once, its answer comes then */

	struct nbd_req *reqs, *free;
	struct nbd_req *replies, **replies_tail;
	size_t sent;                           /* bytes of the first reply */
	struct nbd_req *status, **status_tail; /* block status requests that wait */
	bool status_running;                   /* a fiber answers them */
	unsigned inflight;                     /* with the cache layer or a fiber */
	unsigned batch;                        /* submitted in this look at what was read */
	unsigned turn, spent;                  /* NBD_TURN: how much, and in which */
	unsigned status_turn;                  /* in which block status was last asked for */
	struct td_pool *pool;
	unsigned held; /* buffers */
};

struct nbd {
	struct ev_loop *loop;
	const struct nbd_disk *disk;
	int minor;
	bool held;
	struct td_list conns;
	struct td_list receivers; /* connections that are about to pass a socket */
	ev_io listen[6];
	unsigned listening; /* of these */
	unsigned inflight, clients;
	ev_timer retry; /* of accept(), when there are no descriptors */
	ev_timer trim;
	uint64_t trim_seen;
	struct stats_source stats;
	unsigned turn;
	uint64_t now; /* ns, in this turn of the loop */
	struct nbd_stats n;
	struct td_log_limit limit;
};

/* --- nbd-conn.c --- */
void nbd_conn_new(struct nbd *n, int fd, const struct nbd_manner *how); /* takes fd over */
void nbd_conn_kick(struct nbd_conn *c); /* looks again for what can be done, later in this turn */
void nbd_conn_end(struct nbd_conn *c);  /* reads nothing more; goes when all is said */
void nbd_conn_free(struct nbd_conn *c); /* nothing in flight */
void nbd_conn_drop(struct nbd_conn *c, const char *why); /* it broke the rules */

unsigned nbd_share(void); /* buffers that a client may hold now */

/* --- nbd-turn.c --- */
void nbd_turn_spend(struct nbd_conn *c, unsigned n);
/* May this turn do more for it?  If not, the next one looks again. */
bool nbd_turn_lets(struct nbd_conn *c);
void nbd_turn_next(struct nbd_conn *c); /* the next turn looks again */

/* --- nbd-passed.c --- */

/*
 * Takes one connection to a receiver: when a descriptor and a name have come, got(owner, fd, name)
 * has fd; until then it is on the list. Takes conn over.
 */
void nbd_receive(struct ev_loop *loop, struct td_list *list, int conn,
		 void (*got)(void *owner, int fd, const char *name), void *owner);
void nbd_receive_none(struct td_list *list); /* drops all that are on it */

/* A listening socket of that name in the control directory; the file is this process's to remove.
 * shown: the name that /proc/net/unix has for it and its connections, which no file may have yet;
 * NULL: the same. */
int nbd_socket(const char *name, const char *shown, struct td_err *err);
void nbd_socket_remove(const char *name);

/* --- nbd-after.c --- */
bool nbd_may_begin(struct nbd_conn *c); /* N6; when it may, it is kicked */
void nbd_begin_others(struct nbd *n);   /* a connection is gone */

/* --- nbd-cmd.c: what is done to a request --- */

/* Takes the next request, whose head is at p.  False: there is no room for it now, and it is to
 * come again. */
bool nbd_take(struct nbd_conn *c, const uint8_t *p);
/* Goes on with a long request.  False: not now. */
bool nbd_cut(struct nbd_conn *c);
bool nbd_beyond(const struct nbd *n, uint64_t off, uint64_t len); /* is that not within the disk? */
void nbd_filled(struct nbd_conn *c); /* the data of c->filling is there */

/* --- nbd-reply.c --- */
struct nbd_req *nbd_req_get(struct nbd_conn *c); /* c->free is not empty */
void nbd_req_put(struct nbd_req *r);             /* back to the free list, with its buffers */
uint32_t nbd_piece(void);                        /* bytes: longer ones go in pieces */
/* at most a piece; false: it holds its share */
bool nbd_take_buffers(struct nbd_req *r, uint32_t len);
void nbd_count_begin(struct nbd_req *r);           /* in the statistics it is under way */
void nbd_count_answer(struct nbd_req *r, int err); /* and over */
void nbd_simple_head(struct nbd_req *r, int err);
void nbd_data_chunk(struct nbd_req *r, uint16_t flags);
/* writes a chunk's head; the place behind it */
uint8_t *nbd_chunk(struct nbd_req *r, uint16_t type, uint16_t flags, uint32_t len);
void nbd_queue(struct nbd_req *r); /* among the replies that are to be sent */
/* r is done: counts it, makes its reply and queues it */
void nbd_reply(struct nbd_req *r, int err);

/* --- nbd-status.c --- */
void nbd_status_add(struct nbd_req *r);
void nbd_status_run(struct nbd_conn *c); /* there is an image */
void nbd_status_cancel(struct nbd_conn *c, int err);

#endif
