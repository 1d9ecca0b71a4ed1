/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An NBD client's way to TLS: the options up to STARTTLS here, the rest by whoever has the plain
 * end, who meets the greeting once more. */
#include <ctype.h>
#include <errno.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/nbd-proto.h"
#include "lib/pass-fd.h"
#include "lib/tls/tls.h"

enum { ANSWER_MAX = 4096, FLAGS_SIZE = 4, GREETING = 18 };

static int no_tls(const struct td_tls *t, const char *why, struct td_err *err)
{
	return td_fail(err, EOPNOTSUPP, "%s offers no TLS (%s), and nothing is sent to it without",
		       t->peer, why);
}

static int hear_greeting(struct td_tls_client *c, struct td_err *err)
{
	uint8_t b[GREETING];
	int rc = td_tls_hear(&c->tls, b, 16, err);

	if (rc < 0)
		return rc;
	if (nbd_get64(b) != NBD_MAGIC)
		return td_fail(err, EPROTO, "%s is no NBD server", c->peer);
	if (nbd_get64(b + 8) != NBD_OPTION_MAGIC)
		return no_tls(&c->tls, "its handshake is oldstyle", err);
	rc = td_tls_hear(&c->tls, b, 2, err);
	if (rc < 0)
		return rc;
	c->flags = nbd_get16(b) & (NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
	return c->flags & NBD_FIXED_NEWSTYLE ? 0
					     : no_tls(&c->tls, "its handshake is not fixed", err);
}

/* TL1 */
static int ask_for_tls(struct td_tls_client *c, struct td_err *err)
{
	uint8_t b[FLAGS_SIZE + NBD_OPTION_SIZE], answer[ANSWER_MAX];
	uint32_t type, len, n = 0;
	char why[200];
	int rc;

	nbd_put32(b, c->flags);
	nbd_put32(nbd_put32(nbd_put64(b + FLAGS_SIZE, NBD_OPTION_MAGIC), NBD_OPT_STARTTLS), 0);
	rc = td_tls_say(&c->tls, b, sizeof b, err);
	if (!rc)
		rc = td_tls_hear(&c->tls, answer, NBD_ANSWER_SIZE, err);
	if (rc < 0)
		return rc;
	type = nbd_get32(answer + 12);
	len = nbd_get32(answer + 16);
	if (nbd_get64(answer) != NBD_REPLY_MAGIC || nbd_get32(answer + 8) != NBD_OPT_STARTTLS ||
	    len > sizeof answer || (type == NBD_REP_ACK && len))
		return td_fail(err, EPROTO,
			       "%s breaks the protocol: it answers something else "
			       "to STARTTLS",
			       c->peer);
	if (type == NBD_REP_ACK)
		return 0;
	rc = td_tls_hear(&c->tls, answer, len, err);
	if (rc < 0)
		return rc;
	for (; n < len && n < sizeof why - 1; n++)
		why[n] = isprint(answer[n]) ? (char)answer[n] : '?';
	why[n] = 0;
	return no_tls(&c->tls, n ? why : "it refuses STARTTLS", err);
}

struct ssl_ctx_st *td_tls_client_context(const struct nbd_uri *u, struct td_err *err)
{
	struct td_tls_keys keys = {.user = u->user};

	if (u->psk)
		keys.psk_file = u->keys;
	else
		keys.dir = u->keys;
	return td_tls_context(&keys, false, err);
}

int td_tls_client_start(struct td_tls_client *c, int wire, const struct nbd_uri *u,
			struct ssl_ctx_st *ctx, int cancel, struct td_err *err)
{
	const char *host = u->psk ? NULL : *u->tls_host ? u->tls_host : u->host;
	int rc;

	if (u->way == NBD_VSOCK)
		snprintf(c->peer, sizeof c->peer, "the NBD server at vsock address %u port %u",
			 u->cid, u->vsock_port);
	else
		snprintf(c->peer, sizeof c->peer, "the NBD server at %s port %u", u->host, u->port);
	td_tls_begin(&c->tls, wire, cancel, c->peer);
	rc = hear_greeting(c, err);
	if (!rc)
		rc = ask_for_tls(c, err);
	return rc < 0 ? rc : td_tls_handshake(&c->tls, ctx, host, false, err);
}

int td_tls_client_meet(struct td_tls_client *c, int plain, struct td_err *err)
{
	uint8_t greeting[GREETING];
	int rc = td_pass_fd(plain, c->tls.wire, "", 1);

	nbd_put16(nbd_put64(nbd_put64(greeting, NBD_MAGIC), NBD_OPTION_MAGIC), c->flags);
	if (!rc && send(plain, greeting, sizeof greeting, MSG_NOSIGNAL) != sizeof greeting)
		rc = -errno;
	return rc ? td_fail(err, -rc, "TLS: cannot pass a socket: %s", strerror(-rc)) : 0;
}

void td_tls_client_run(struct td_tls_client *c, int plain)
{
	uint8_t flags[FLAGS_SIZE];

	nbd_put32(flags, c->flags);
	td_tls_relay(&c->tls, plain, flags, sizeof flags);
}

/* --- in a thread --- */

struct thread {
	struct td_tls_client client;
	int plain;
};

static void *relay_thread(void *arg)
{
	struct thread *t = arg;

	td_tls_client_run(&t->client, t->plain);
	td_tls_end(&t->client.tls);
	close(t->client.tls.wire);
	close(t->plain);
	free(t);
	return NULL;
}

/* With all signals blocked: they are for the loop. */
static int start_relay(struct thread *t)
{
	sigset_t all, was;
	pthread_attr_t attr;
	pthread_t id;
	int rc;

	sigfillset(&all);
	sigdelset(&all, SIGSYS);
	pthread_sigmask(SIG_SETMASK, &all, &was);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	rc = pthread_create(&id, &attr, relay_thread, t);
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &was, NULL);
	return -rc;
}

static int run_in_thread(struct thread *t, int wire, const struct nbd_uri *u, SSL_CTX *ctx,
			 int cancel, struct td_err *err)
{
	int sv[2], rc = td_tls_client_start(&t->client, wire, u, ctx, cancel, err);

	if (!rc && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv) < 0)
		rc = td_fail(err, errno, "TLS: cannot make a pair of sockets: %s", strerror(errno));
	if (rc < 0)
		return rc;
	t->plain = sv[0];
	rc = td_tls_client_meet(&t->client, t->plain, err);
	if (!rc)
		rc = start_relay(t);
	if (!rc)
		return sv[1];
	close(sv[0]);
	close(sv[1]);
	return td_fail(err, -rc, "TLS: cannot start a thread: %s", strerror(-rc));
}

int td_tls_client_here(int wire, const struct nbd_uri *u, int cancel, struct td_err *err)
{
	struct thread *t = calloc(1, sizeof *t);
	SSL_CTX *ctx = td_tls_client_context(u, err);
	int fd = !t ? -ENOMEM : !ctx ? -err->code : run_in_thread(t, wire, u, ctx, cancel, err);

	SSL_CTX_free(ctx); /* the connection has its own reference */
	if (fd >= 0)
		return fd;
	if (t)
		td_tls_end(&t->client.tls);
	free(t);
	close(wire);
	return td_fail(err, -fd, "TLS: %s", strerror(-fd));
}
