/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * TLS for NBD, by a relay between a plain socket and the connection to the peer.  Whoever is at the
 * plain end, a tapdisk that a guest may have taken over, has neither the keys nor what would be
 * needed to decrypt.  The peer is a server, or, of a disk that is exported (tap-ctl export), a
 * client.
 *
 * TL1 Nothing is sent in plain but the options up to STARTTLS.  A server that does not offer it, or
 *    refuses it, is left: there is no way back to plain.  A client is given nothing before it, and
 *    begins anew after it.  What is read before TLS is read to the byte, so that nothing that was
 *    sent in plain is taken for a part of what comes after
 * TL2 The peer is always verified: by certificates against the CA in the directory, and a server's
 *    must name the host; or both sides have the same key (PSK), with a Diffie-Hellman exchange, so
 *    that a key that is found out later decrypts nothing.  TLS 1.2 at least; no renegotiation, no
 *    compression, no resumption
 * TL3 Keys are read from files, by the relay alone; they are in no command line, log or record
 * TL4 A peer is not trusted: its handshake has TLS_LIMIT s and a few short options; what is
 *    buffered for it has a fixed size, and then its sender waits
 * TL5 The relay is a process without rights (tls-jail.c), which ends with either end; a tapdisk
 *    that has no opener runs it in a thread
 * TL6 Bytes that the plain end had accepted may be lost when the relay dies.  So a relay's end is
 *    the end of a connection and no more: its NBD client looks at the connection itself for the
 *    server's (K18 of drivers/nbd/nbd.h)
 * TL7 Before a server, a relay ends after it: the connection to the client is closed when the
 *    server has closed its end, and not before, since until then the server may work for that
 *    client (K4, K11)
 *
 * OpenSSL and not GnuTLS, which QEMU and nbdkit have: it is linked for keys and hashes already, and
 * talks to theirs (tests/it/nbd-tls.sh).  All functions block, and may be called in any thread.
 */
#ifndef TD_LIB_TLS_H
#define TD_LIB_TLS_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/nbd-uri.h"

#define TLS_LIMIT    15  /* s: from the first byte until both ends are verified */
#define TLS_USER_MAX 256 /* bytes of a user's name, with its end */
#define TLS_KEY_MAX  512 /* bytes of a pre-shared key */

struct ssl_st;
struct ssl_ctx_st;

/* What a side has to show, and whom it takes.  At most one of dir and psk_file. */
struct td_tls_keys {
	/* ca-cert.pem; ca-crl.pem if there; server-cert.pem and server-key.pem, or, if there,
	 * client-cert.pem and client-key.pem */
	const char *dir;
	const char *psk_file; /* lines of USER:HEXADECIMAL, as psktool writes them */
	const char *user;     /* of a client; NULL or "": the only one of the file */
};

/* A context that holds the keys, or NULL with text.  For SSL_CTX_free(). */
struct ssl_ctx_st *td_tls_context(const struct td_tls_keys *keys, bool server, struct td_err *err);

/* Can there be such a context?  0 or -errno with text. */
int td_tls_check(const struct td_tls_keys *keys, bool server, struct td_err *err);

/* tls-psk.c: the callbacks of the context, which holds the file's text. */
int td_tls_psk_set(struct ssl_ctx_st *ctx, const char *path, const char *user, bool server,
		   struct td_err *err);

/* One side's connection. */
struct td_tls {
	struct ssl_st *ssl; /* NULL: none yet */
	int wire;           /* to the peer, non-blocking */
	int cancel;         /* hung up when nobody waits; -1: it never is */
	bool serves;        /* the plain end is a server's: TL7 */
	int64_t until;      /* ms of the monotonic clock: the end of TL4's limit */
	const char *peer;   /* for texts */
};

void td_tls_begin(struct td_tls *t, int wire, int cancel, const char *peer);
/* All of it, in plain, within the limit.  0 or -errno with text. */
int td_tls_hear(struct td_tls *t, void *buf, size_t len, struct td_err *err);
int td_tls_say(struct td_tls *t, const void *buf, size_t len, struct td_err *err);
/* TLS's handshake.  host: what a server's certificate must name; NULL: this is the server, or there
 * is no certificate. */
int td_tls_handshake(struct td_tls *t, struct ssl_ctx_st *ctx, const char *host, bool server,
		     struct td_err *err);

/*
 * Moves bytes between t, which may have no TLS, and the plain socket, which may be half closed,
 * until either is closed (TL7: until plain is); closes neither.  eaten: bytes that come first from
 * plain, and are not for the peer: they must be these.
 */
void td_tls_relay(struct td_tls *t, int plain, const uint8_t *eaten, size_t n);
void td_tls_end(struct td_tls *t); /* frees */

/* For good, for a process: no file, socket or process can be made any more, and no memory be
 * executed that is not yet.  False: this system has no such filter. */
bool td_tls_jail(void);

/* --- an NBD client (tls-client.c) --- */

struct td_tls_client {
	struct td_tls tls;
	char peer[300];
	uint8_t flags; /* the handshake's */
};

/* Connected to u's server on wire: up to where both ends are verified. */
int td_tls_client_start(struct td_tls_client *c, int wire, const struct nbd_uri *u,
			struct ssl_ctx_st *ctx, int cancel, struct td_err *err);
struct ssl_ctx_st *td_tls_client_context(const struct nbd_uri *u, struct td_err *err);

/*
 * plain: one of a pair of stream sockets; the other is for an NBD client, which first takes the
 * wire from it (td_dial_under() of lib/dial.h) and then meets a server's greeting.  meet() sends
 * both, run() moves what follows, until the end.  0 or -errno with text.
 */
int td_tls_client_meet(struct td_tls_client *c, int plain, struct td_err *err);
void td_tls_client_run(struct td_tls_client *c, int plain);

/* All of it, with a thread for the relay; takes wire, also when it fails.  For td_dial_tls. */
int td_tls_client_here(int wire, const struct nbd_uri *u, int cancel, struct td_err *err);

/* --- before an NBD server (tls-server.c) --- */

struct td_tls_server {
	struct td_tls tls;
	uint8_t flags; /* the client's */
};

/* A client is connected on wire: up to where both ends are verified; ctx: NULL for a client without
 * TLS, to which nothing is said. */
int td_tls_server_start(struct td_tls_server *s, int wire, struct ssl_ctx_st *ctx, int cancel,
			const char *peer, struct td_err *err);
/* plain: connected to the server, or will be. */
void td_tls_server_run(struct td_tls_server *s, int plain);

#endif
