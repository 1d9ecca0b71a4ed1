/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bytes between a plain socket and a TLS connection: one buffer each way, and whoever sends waits
 * while it is full (TL4). */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "lib/tls/tls.h"

enum { BUFFER = 256 << 10, LINGER = 10 /* s: for what is left when the plain end is closed */ };

struct way {
	uint8_t *buf;
	size_t at, len; /* bytes [at, len) are to go on */
	bool ended;     /* nothing more comes in */
};

struct relay {
	struct td_tls *t;
	int plain;
	struct way up, down; /* to the peer, from it */
	bool hung;           /* plain is closed on both sides */
	time_t until;        /* s of the monotonic clock: how long a hung one goes on */
	bool deaf;           /* the peer is not to be reached any more */
	bool cut;            /* the wire is closed both ways: no call on it blocks */
	bool told;           /* TL7: plain has heard that nothing more comes */
	bool done;
	/* what would have blocked */
	bool plain_in, plain_out, wire_in, wire_out;
	const uint8_t *eaten;
	size_t eat;
};

static int read_wire(struct relay *r)
{
	if (r->t->ssl)
		return SSL_read(r->t->ssl, r->down.buf, BUFFER);
	return (int)recv(r->t->wire, r->down.buf, BUFFER, MSG_DONTWAIT);
}

static int write_wire(struct relay *r, const void *buf, size_t len)
{
	if (r->t->ssl)
		return SSL_write(r->t->ssl, buf, (int)len);
	return (int)send(r->t->wire, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* What a call that gave rc waits for; plainly: without TLS.  False: the wire has ended. */
static bool wire_waits(struct relay *r, int rc, bool *plainly)
{
	if (!r->t->ssl) {
		*plainly = rc < 0 && errno == EAGAIN;
		return rc < 0 && (errno == EAGAIN || errno == EINTR);
	}
	switch (SSL_get_error(r->t->ssl, rc)) {
	case SSL_ERROR_WANT_READ:
		r->wire_in = true;
		return true;
	case SSL_ERROR_WANT_WRITE:
		r->wire_out = true;
		return true;
	default:
		ERR_clear_error();
		return false;
	}
}

/* A client's answer to a greeting that it had from us.  False: it is another one. */
static bool eat(struct relay *r)
{
	size_t n = r->up.len < r->eat ? r->up.len : r->eat;

	if (memcmp(r->up.buf, r->eaten, n))
		return false;
	r->up.at = n;
	r->eaten += n;
	r->eat -= n;
	return true;
}

static time_t clock_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec;
}

/* What is left has LINGER from here on, however long the relay has waited for it. */
static void hang_up(struct relay *r)
{
	if (!r->hung)
		r->until = clock_s() + LINGER;
	r->hung = true;
}

static bool fill_up(struct relay *r)
{
	ssize_t n = recv(r->plain, r->up.buf, BUFFER, MSG_DONTWAIT);

	if (n < 0) {
		r->plain_in = errno == EAGAIN;
		if (errno != EAGAIN && errno != EINTR) {
			r->up.ended = true;
			hang_up(r);
		}
		return false;
	}
	r->up.at = 0;
	r->up.len = (size_t)n;
	if (n > 0 && r->eat && !eat(r))
		r->done = true;
	if (n)
		return true;
	/* the peer hears that nothing more comes, and may still answer */
	r->up.ended = true;
	if (r->t->ssl)
		SSL_shutdown(r->t->ssl);
	ERR_clear_error();
	shutdown(r->t->wire, SHUT_WR);
	return true;
}

/* A step to the peer; whether there was one. */
static bool step_up(struct relay *r)
{
	struct way *w = &r->up;
	int n;

	if (w->at == w->len)
		return !w->ended && !r->plain_in && fill_up(r);
	if (r->deaf) {
		w->at = w->len;
		return true;
	}
	if (r->wire_out)
		return false;
	n = write_wire(r, w->buf + w->at, w->len - w->at);
	if (n > 0)
		w->at += (size_t)n;
	else if (!wire_waits(r, n, &r->wire_out))
		*(r->t->serves ? &r->deaf : &r->done) = true;
	return n > 0 || r->deaf;
}

static bool fill_down(struct relay *r)
{
	int n = read_wire(r);

	if (n > 0) {
		r->down.at = 0;
		r->down.len = (size_t)n;
	} else if (!wire_waits(r, n, &r->wire_in)) {
		r->down.ended = true;
	}
	return n > 0 || r->down.ended;
}

/* TL7: a server then answers what it has, and closes its end. */
static bool tell_plain(struct relay *r)
{
	if (!r->t->serves || r->told)
		return false;
	r->told = true;
	shutdown(r->plain, SHUT_WR);
	return true;
}

static bool step_down(struct relay *r)
{
	struct way *w = &r->down;
	ssize_t n;

	if (w->at == w->len)
		return w->ended ? tell_plain(r) : !r->wire_in && fill_down(r);
	if (r->plain_out)
		return false;
	n = send(r->plain, w->buf + w->at, w->len - w->at, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n > 0)
		w->at += (size_t)n;
	else if (errno == EAGAIN)
		r->plain_out = true;
	else if (errno != EINTR)
		w->at = w->len; /* nobody is there */
	return n > 0;
}

static bool is_finished(const struct relay *r)
{
	bool sent = r->up.at == r->up.len && r->up.ended;

	if (r->t->serves)
		return r->done || sent;
	return r->done || (r->down.ended && r->down.at == r->down.len) || (r->hung && sent);
}

/* Until something is ready that was not.  False: too long. */
static bool wait_for_more(struct relay *r)
{
	/* whoever has hung up would be told of over and over */
	struct pollfd p[2] = {
		{.fd = r->hung ? -1 : r->plain,
		 .events = (short)((r->plain_in ? POLLIN : 0) | (r->plain_out ? POLLOUT : 0))},
		{.fd = r->deaf || r->cut ? -1 : r->t->wire,
		 .events = (short)((r->wire_in ? POLLIN : 0) | (r->wire_out ? POLLOUT : 0))}};
	int n = poll(p, 2, r->hung ? 1000 : -1);

	if (r->hung && clock_s() > r->until)
		return false;
	if (n < 0)
		return errno == EINTR;
	if (p[0].revents & (POLLHUP | POLLERR))
		hang_up(r);
	if (p[0].revents & ~POLLOUT)
		r->plain_in = false;
	if (p[0].revents & ~POLLIN)
		r->plain_out = false;
	if (p[1].revents & POLLHUP)
		r->cut = true;
	if ((p[1].revents & (POLLHUP | POLLERR)) && r->down.ended)
		r->deaf = true;
	if (p[1].revents & ~POLLOUT)
		r->wire_in = false;
	if (p[1].revents & ~POLLIN)
		r->wire_out = false;
	return true;
}

static void run_relay(struct relay *r)
{
	while (!is_finished(r)) {
		bool up = step_up(r), down = step_down(r);

		if (!up && !down && !is_finished(r) && !wait_for_more(r))
			break;
	}
}

void td_tls_relay(struct td_tls *t, int plain, const uint8_t *eaten, size_t n)
{
	struct relay r = {.t = t, .plain = plain, .eaten = eaten, .eat = n};

	r.up.buf = malloc(BUFFER);
	r.down.buf = malloc(BUFFER);
	if (r.up.buf && r.down.buf)
		run_relay(&r);
	free(r.up.buf);
	free(r.down.buf);
}
