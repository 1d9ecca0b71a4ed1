/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Further connections of an NBD client, for reads; nbd.h includes this.  nbd-more.c makes them and
 * notices their ends; nbd-spread.c says which connection a read takes.
 *
 * KC1 further connections are made where the disk's words ask for them, since no measurement had
 *    them faster (bench/results.md), and the server offers them (CAN_MULTI_CONN), while the first
 *    one is there, and carry reads alone.  Whatever changes the disk, flushes, and asks for holes
 *    is on the first, so that K3 to K18 need not know of the others: what one of these leaves
 *    behind when it ends is a read, which is sent again on a connection that is there.  When the
 *    first ends all are closed, their reads wait with the others (K8), and when all is done again
 *    new ones are made
 * KC2 a read takes a further connection only if the server must show the same there.  The protocol
 *    (doc/proto.md, "Transmission flags", NBD_FLAG_CAN_MULTI_CONN) says that the server has no
 *    cache, or one that all connections share; but what it demands in particular is only that a
 *    FLUSH, and a command with FUA, has its effect on all of them when it is answered.  So a read
 *    takes the first connection if a change of what it reads is under way, has failed, or was
 *    acknowledged without FUA and no flush that was sent afterwards has been answered.  (nbdkit and
 *    qemu-nbd would show such a change everywhere: but no flag says it.)  Under cache=unsafe
 *    nothing is flushed, and what was written is read through the first for ever
 * KC3 a further connection must lead to what the first leads to: to the same socket or address,
 *    whose lock is the disk's; to the same process, where the kernel shows one (K14); and to an
 *    export of the same size, flags, block sizes and replies.  Another one is closed, and no more
 *    are made until the first is made anew
 * KC4 a server may take fewer than are wanted: it does not answer, or hangs up (`qemu-nbd -e N').
 *    Then there are fewer, and nothing waits for the rest
 */
#ifndef DRIVERS_NBD_MORE_H
#define DRIVERS_NBD_MORE_H

#include "drivers/nbd/nbd-wire.h"

/* KC2: what is known of some of the disk's chunks, those with one remainder. */
struct nbdc_slot {
	uint64_t seen; /* once nbdc_left.covered has reached this, all connections show them */
	unsigned busy; /* changes of them under way */
};

struct nbdc_more {
	struct nbdc_conn *conns; /* NULL: the server, or the host, wants none */
	unsigned wanted, up;     /* of them: how many are wanted, and are there */
	bool working;            /* a fiber makes them */
	bool refused;            /* KC3, KC4: no more until the first is made anew */
	bool told;               /* that an attempt has failed */
	unsigned epoch;          /* of the first connection */
	int trying;              /* the socket of an attempt, or -1 */
	double delay, made; /* s before the next; of td_clock_s(): the last one that was made */
	struct td_fiber *sleeper, *closer;

	struct nbdc_slot *slots; /* KC2 */
	struct nbdc_slot wide;   /* of changes that would fill them */
	uint64_t top;            /* the highest `seen' */
};

struct td_err;

/* --- nbd-more.c --- */

void nbdc_more_start(struct nbdc_client *n); /* the image is open */
void nbdc_more_stop(struct nbdc_client *n);  /* on a fiber: it is closed, and n->closing */
/* The first is there, and nothing is behind; or it is not. */
void nbdc_more_go(struct nbdc_client *n);
void nbdc_more_drop(struct nbdc_client *n);
/* This one has ended: its reads are sent on the first. */
void nbdc_more_end(struct nbdc_conn *c, const char *why);

/* --- nbd-spread.c --- */

/* Exponents of 2 (16: 64 KiB); tests have smaller ones.  Of a chunk of the disk, which is one to
 * the table; of the bytes under way on a connection from which the next one is worth its system
 * calls. */
extern unsigned nbdc_spread_chunk, nbdc_spread_busy;

int nbdc_spread_open(struct nbdc_more *m); /* 0 or -ENOMEM */
void nbdc_spread_close(struct nbdc_more *m);
/* A change is under way, or no more: by 1 or -1; the server has replied to it. */
void nbdc_spread_count(struct nbdc_more *m, const struct nbdc_cmd *cmd, unsigned by);
void nbdc_spread_done(struct nbdc_client *n, const struct nbdc_cmd *cmd, bool durable, int err);
/* Whose command it becomes. */
struct nbdc_conn *nbdc_spread_to(struct nbdc_client *n, const struct nbdc_cmd *cmd);

#endif
