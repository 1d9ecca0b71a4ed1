/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A client's way to TLS, as a server goes it: nothing but STARTTLS is done for it before (TL1). */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "lib/nbd-proto.h"
#include "lib/tls/tls.h"

enum {
	GREETING = 18,
	FLAGS_SIZE = 4,
	OPTIONS_MAX = 16,  /* that are refused; then the client is left */
	OPTION_MAX = 4096, /* bytes of their data */
	OURS = NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES,
};

/* As the disk's own server says it, who is heard later. */
static void put_greeting(uint8_t *b)
{
	nbd_put16(nbd_put64(nbd_put64(b, NBD_MAGIC), NBD_OPTION_MAGIC), OURS);
}

static int say_answer(struct td_tls *t, uint32_t option, uint32_t type, const char *text,
		      struct td_err *err)
{
	uint8_t b[NBD_ANSWER_SIZE + 100], *p = nbd_put64(b, NBD_REPLY_MAGIC);
	size_t len = strlen(text);

	p = nbd_put32(p, option);
	p = nbd_put32(p, type);
	p = nbd_put32(p, (uint32_t)len);
	memcpy(p, text, len);
	return td_tls_say(t, b, NBD_ANSWER_SIZE + len, err);
}

static int hear_flags(struct td_tls_server *s, struct td_err *err)
{
	uint8_t b[GREETING];
	uint32_t flags;
	int rc;

	put_greeting(b);
	rc = td_tls_say(&s->tls, b, sizeof b, err);
	if (!rc)
		rc = td_tls_hear(&s->tls, b, FLAGS_SIZE, err);
	if (rc < 0)
		return rc;
	flags = nbd_get32(b);
	if (flags & ~(uint32_t)OURS)
		return td_fail(err, EPROTO, "%s is no NBD client", s->tls.peer);
	if (!(flags & NBD_FIXED_NEWSTYLE))
		return td_fail(err, EPROTO, "%s is an NBD client that knows no TLS", s->tls.peer);
	s->flags = (uint8_t)flags;
	return 0;
}

/* 1: TLS is next. */
static int hear_option(struct td_tls *t, struct td_err *err)
{
	uint8_t b[OPTION_MAX];
	uint32_t option, len;
	int rc = td_tls_hear(t, b, NBD_OPTION_SIZE, err);

	if (rc < 0)
		return rc;
	option = nbd_get32(b + 8);
	len = nbd_get32(b + 12);
	if (nbd_get64(b) != NBD_OPTION_MAGIC || len > sizeof b)
		return td_fail(err, EPROTO, "%s breaks NBD's protocol before TLS", t->peer);
	rc = td_tls_hear(t, b, len, err);
	if (rc < 0)
		return rc;
	if (option == NBD_OPT_STARTTLS && !len)
		return say_answer(t, option, NBD_REP_ACK, "", err) ?: 1;
	if (option == NBD_OPT_STARTTLS)
		return say_answer(t, option, NBD_REP_ERR_INVALID, "STARTTLS has no data", err);
	if (option == NBD_OPT_ABORT)
		say_answer(t, option, NBD_REP_ACK, "", NULL);
	if (option == NBD_OPT_ABORT || option == NBD_OPT_EXPORT_NAME) /* which has no refusal */
		return td_fail(err, EPROTO, "%s wants no TLS", t->peer);
	return say_answer(t, option, NBD_REP_ERR_TLS, "this disk is served over TLS alone", err);
}

int td_tls_server_start(struct td_tls_server *s, int wire, struct ssl_ctx_st *ctx, int cancel,
			const char *peer, struct td_err *err)
{
	int rc, options = 0;

	td_tls_begin(&s->tls, wire, cancel, peer);
	s->tls.serves = true;
	if (!ctx)
		return 0;
	rc = hear_flags(s, err);
	while (!rc) {
		rc = hear_option(&s->tls, err);
		if (!rc && ++options == OPTIONS_MAX)
			rc = td_fail(err, EPROTO, "%s does not come to TLS", peer);
	}
	return rc < 0 ? rc : td_tls_handshake(&s->tls, ctx, NULL, true, err);
}

void td_tls_server_run(struct td_tls_server *s, int plain)
{
	uint8_t flags[FLAGS_SIZE], greeting[GREETING];

	nbd_put32(flags, s->flags);
	put_greeting(greeting);
	if (!s->tls.ssl)
		td_tls_relay(&s->tls, plain, NULL, 0);
	else if (send(plain, flags, sizeof flags, MSG_NOSIGNAL) == sizeof flags)
		td_tls_relay(&s->tls, plain, greeting, sizeof greeting);
}
