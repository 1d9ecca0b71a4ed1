/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The first part of an NBD connection, until the client has chosen an export and requests follow:
 * bytes in, bytes out, no socket. Whatever name a client asks for, it gets the disk.
 */
#ifndef TAPDISK_NBD_HANDSHAKE_H
#define TAPDISK_NBD_HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* bytes of an option's data that are looked at; names are at most 4,096 */
#define NBD_OPTION_MAX 8192
#define NBD_ANSWER_MAX 16384 /* bytes: more than the answer to one option ever takes */

/* What a client is told about the disk. */
struct nbd_export {
	uint64_t size;  /* bytes */
	uint16_t flags; /* NBD_FLAG_*, except SEND_DF, which follows from the handshake */
	/* bytes: requests must be, and had best be, multiples of these */
	uint32_t block, preferred;
	uint32_t max;            /* bytes: the longest read or write */
	const char *description; /* for people; at most 4,200 bytes are sent */
};

struct nbd_handshake {
	/* GO: requests follow; END: the client has said good-bye */
	enum { NBD_HS_FLAGS, NBD_HS_OPTIONS, NBD_HS_GO, NBD_HS_END } phase;
	bool fixed, no_zeroes; /* what the client is able to */
	bool structured;       /* replies are structured */
	bool allocation;       /* block status may be asked for, with the context below */
	uint32_t skip;         /* bytes of a too long option to come */
	unsigned options;      /* so far */
};

#define NBD_CONTEXT_ALLOCATION 1 /* the number of base:allocation */

struct nbd_answer {
	uint8_t bytes[NBD_ANSWER_MAX];
	size_t len;
};

/* What a server says first; h is new.  With oldstyle that is all, and requests follow. */
void nbd_handshake_begin(struct nbd_handshake *h, const struct nbd_export *x, bool oldstyle,
			 struct nbd_answer *a);

/*
 * Takes one message from the client.  a is empty before, and holds what is to be sent after.  The
 * number of bytes used, 0 when there are not enough yet, or -errno: the client breaks the rules and
 * is to be dropped, with a last word or without.
 */
long nbd_handshake_step(struct nbd_handshake *h, const struct nbd_export *x, const uint8_t *in,
			size_t len, struct nbd_answer *a);

#endif
