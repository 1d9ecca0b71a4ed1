/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The stranger at the other end of a relay's wire: an NBD client or server that comes to TLS by the
 * book, and can leave the book at any byte.  It has a queue of bytes for the wire, which go when
 * they are told to.  What it writes and has to read are streams whose bytes are known by their
 * place.
 */
#ifndef TESTS_FUZZ_TLS_PEER_H
#define TESTS_FUZZ_TLS_PEER_H

#include "tests/fuzz/fuzz.h"

#define TLS_PEER_USER "disk"
#define TLS_PEER_KEY  "000102030405060708090a0b0c0d0e0f"

/* How it is; flags. */
enum {
	TLS_PEER_SERVES = 1,    /* it is an NBD server */
	TLS_PEER_BARE = 2,      /* a client without TLS */
	TLS_PEER_OLD = 4,       /* TLS 1.2 */
	TLS_PEER_GUESSABLE = 8, /* with TLS 1.2, and no Diffie-Hellman exchange */
	TLS_PEER_OTHER_KEY = 16,
	TLS_PEER_REFUSES = 32, /* a server, which has no STARTTLS */
	TLS_PEER_MUTE = 64,    /* nothing of that: what it is told to send, and no more */
};

struct tls_peer {
	unsigned how, options; /* a client's, before STARTTLS */
	int fd;                /* -1: closed */
	bool secure;           /* TLS is done with; without TLS from the beginning */
	bool left;             /* it has sent an end, of TLS or of the connection */
	bool broken;           /* it has left the book, or has been refused */
	bool quiet;            /* it has refused TLS: nothing may come any more */
	size_t wrote, got;     /* bytes of the streams */
	size_t queued;         /* bytes that wait for the wire */
	size_t moved;          /* bytes by the wire, both ways */
};
extern struct tls_peer tls_peer;

uint8_t tls_stream(bool up,
		   size_t i); /* the byte at i of what goes to the peer, or comes from it */

void tls_peer_start(void); /* once */
void tls_peer_begin(int fd, unsigned how, unsigned options);
void tls_peer_end(void);
/* What a client sends that waits for no answer, up to TLS's first message: its bytes; at most 1000
 */
size_t tls_peer_hello(unsigned how, uint8_t *out);
void tls_peer_write(size_t n); /* of its stream, into the queue */
void tls_peer_raw(const void *p, size_t n);
void tls_peer_send(size_t n);   /* of the queue, at most */
void tls_peer_hear(size_t n);   /* at most, from the wire */
void tls_peer_drop(size_t n);   /* of the queue */
void tls_peer_spoil(size_t at); /* a byte of the queue */
void tls_peer_again(bool both); /* other keys: TLS 1.3's update, or a handshake once more */
void tls_peer_notify(void);     /* TLS's end */
void tls_peer_shut(void);       /* the connection's, one way */
void tls_peer_close(void);      /* and both */

#endif
