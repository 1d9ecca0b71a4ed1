/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* From a connected socket to one whose ends are verified, within TL4's limit. */
#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "lib/tls/tls.h"

static int64_t clock_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void td_tls_begin(struct td_tls *t, int wire, int cancel, const char *peer)
{
	*t = (struct td_tls){.wire = wire,
			     .cancel = cancel,
			     .until = clock_ms() + TLS_LIMIT * 1000,
			     .peer = peer};
}

void td_tls_end(struct td_tls *t)
{
	SSL_free(t->ssl);
	t->ssl = NULL;
}

static int await_peer(struct td_tls *t, short events, struct td_err *err)
{
	struct pollfd p[2] = {{.fd = t->wire, .events = events}, {.fd = t->cancel}};
	int64_t left = t->until - clock_ms();
	int n = left > 0 ? poll(p, 2, (int)left) : 0;

	if (n < 0 && errno == EINTR)
		return 0;
	if (n < 0)
		return td_fail(err, errno, "TLS with %s: %s", t->peer, strerror(errno));
	if (n > 0 && p[1].revents)
		return td_fail(err, ECANCELED, "nobody waits for the connection any more");
	return n ? 0
		 : td_fail(err, ETIMEDOUT, "TLS with %s: no answer within %d s", t->peer,
			   TLS_LIMIT);
}

static int move_all(struct td_tls *t, void *buf, size_t len, bool out, struct td_err *err)
{
	while (len) {
		ssize_t n = out ? send(t->wire, buf, len, MSG_NOSIGNAL | MSG_DONTWAIT)
				: recv(t->wire, buf, len, MSG_DONTWAIT);
		int rc = 0;

		if (n > 0) {
			buf = (char *)buf + n;
			len -= (size_t)n;
		} else if (n < 0 && errno == EAGAIN) {
			rc = await_peer(t, out ? POLLOUT : POLLIN, err);
		} else if (n == 0 || errno != EINTR) {
			rc = td_fail(err, n ? errno : ECONNRESET,
				     "TLS with %s: it has closed the connection: %s", t->peer,
				     n ? strerror(errno) : "before TLS has begun");
		}
		if (rc < 0)
			return rc;
	}
	return 0;
}

int td_tls_hear(struct td_tls *t, void *buf, size_t len, struct td_err *err)
{
	return move_all(t, buf, len, false, err);
}

int td_tls_say(struct td_tls *t, const void *buf, size_t len, struct td_err *err)
{
	return move_all(t, (void *)buf, len, true, err);
}

/* TL2: whom the certificate must name. */
static bool expect_host(SSL *ssl, const char *host)
{
	X509_VERIFY_PARAM *p = SSL_get0_param(ssl);
	char a[sizeof(struct in6_addr)];

	X509_VERIFY_PARAM_set_hostflags(p, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	if (inet_pton(AF_INET, host, a) == 1 || inet_pton(AF_INET6, host, a) == 1)
		return X509_VERIFY_PARAM_set1_ip_asc(p, host) == 1;
	return X509_VERIFY_PARAM_set1_host(p, host, 0) == 1 &&
	       SSL_set_tlsext_host_name(ssl, host) == 1;
}

static int failed(struct td_tls *t, const char *host, struct td_err *err)
{
	long verdict = SSL_get_verify_result(t->ssl);
	unsigned long e = ERR_peek_error();
	const char *why = ERR_reason_error_string(e);
	int was = errno;
	bool other = verdict == X509_V_ERR_HOSTNAME_MISMATCH ||
		     verdict == X509_V_ERR_IP_ADDRESS_MISMATCH;

	ERR_clear_error();
	if (verdict != X509_V_OK)
		return td_fail(err, EPROTO, "TLS: the certificate of %s is refused: %s%s%s",
			       t->peer, X509_verify_cert_error_string(verdict),
			       other ? "; it must name " : "", other ? host : "");
	if (!e)
		return td_fail(err, ECONNRESET, "TLS with %s: it has closed the connection: %s",
			       t->peer, was ? strerror(was) : "it does not want us");
	return td_fail(err, EPROTO, "TLS with %s: %s", t->peer, why ?: "the handshake has failed");
}

int td_tls_handshake(struct td_tls *t, struct ssl_ctx_st *ctx, const char *host, bool server,
		     struct td_err *err)
{
	int rc = 0;

	t->ssl = SSL_new(ctx);
	if (!t->ssl || SSL_set_fd(t->ssl, t->wire) != 1 || (host && !expect_host(t->ssl, host)))
		return td_fail(err, ENOMEM, "TLS with %s: no memory", t->peer);
	while (!rc) {
		int n, why;

		errno = 0;
		n = server ? SSL_accept(t->ssl) : SSL_connect(t->ssl);
		if (n == 1)
			return 0;
		why = SSL_get_error(t->ssl, n);
		if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE)
			return failed(t, host, err);
		rc = await_peer(t, why == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, err);
	}
	return rc;
}
