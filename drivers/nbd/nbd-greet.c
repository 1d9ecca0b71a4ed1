/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The handshake of an NBD client, newstyle and oldstyle, in straight-line code. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "drivers/nbd/nbd.h"
#include "lib/fiber/fiber.h"
#include "lib/io/clock.h"

#define ANSWERS     64          /* to one option; a server that goes on for ever is left */
#define ANSWER_MAX  4096        /* bytes of one */
#define DEFAULT_MAX (32u << 20) /* bytes of a request, where the server names no other */

struct talk {
	struct ev_loop *loop;
	ev_io io;
	struct td_fiber *fiber;
	double until; /* of td_clock_s() */
	int fd;
	const char *name, *export;
	bool more; /* a passed connection may go on in an older process */
	struct td_err *err;
};

static void on_ready(struct ev_loop *loop, ev_io *w, int revents)
{
	struct talk *t = w->data;

	ev_io_stop(loop, w);
	td_fiber_wake(t->fiber);
}

/* Waits until the socket is ready; false when the time is over. */
static bool ready(struct talk *t, int events)
{
	double left = t->until - td_clock_s();
	bool woken;

	ev_io_init(&t->io, on_ready, t->fd, events);
	t->io.data = t;
	ev_io_start(t->loop, &t->io);
	woken = left > 0 && td_fiber_wait_for(left);
	ev_io_stop(t->loop, &t->io);
	return woken;
}

static int move_all(struct talk *t, void *buf, size_t len, bool out)
{
	while (len) {
		ssize_t n = out ? send(t->fd, buf, len, MSG_NOSIGNAL | MSG_DONTWAIT)
				: recv(t->fd, buf, len, MSG_DONTWAIT);

		if (n > 0) {
			buf = (char *)buf + n;
			len -= (size_t)n;
		} else if (n < 0 && errno == EAGAIN) {
			if (!ready(t, out ? EV_WRITE : EV_READ) && td_clock_s() >= t->until)
				return td_fail(t->err, ETIMEDOUT, "%s: the server does not answer",
					       t->name);
		} else if (n == 0 || errno != EINTR) {
			return td_fail(t->err, n ? errno : ECONNRESET,
				       "%s: the server has closed the connection: %s", t->name,
				       n ? strerror(errno)
					 : "it does not want us, or serves somebody else");
		}
	}
	return 0;
}

static int hear(struct talk *t, void *buf, size_t len)
{
	return move_all(t, buf, len, false);
}

static int say(struct talk *t, void *buf, size_t len)
{
	return move_all(t, buf, len, true);
}

static int broken(struct talk *t, const char *what)
{
	return td_fail(t->err, EPROTO, "%s: the server breaks the protocol: %s", t->name, what);
}

/* The end of a handshake that is not GO's: size, flags, and zeroes that nobody needs. */
static int hear_export(struct talk *t, struct nbdc_offer *x, bool oldstyle, bool zeroes)
{
	uint8_t b[8 + 4 + NBD_OLD_ZEROES];
	size_t len = oldstyle ? 12 : 10;
	int rc = hear(t, b, len + (zeroes ? NBD_OLD_ZEROES : 0));

	if (rc < 0)
		return rc;
	x->size = nbd_get64(b);
	x->flags = nbd_get16(b + len - 2);
	return 0;
}

/* One NBD_REP_INFO; others than the two that count are left aside. */
static int take_info(struct talk *t, const uint8_t *p, uint32_t len, struct nbdc_offer *x,
		     bool *known)
{
	unsigned type = len >= 2 ? nbd_get16(p) : 0xffff;

	if (len < 2 || (type == NBD_INFO_EXPORT && len != 12) ||
	    (type == NBD_INFO_BLOCK_SIZE && len != 14))
		return broken(t, "its answer has the wrong length");
	if (type == NBD_INFO_EXPORT) {
		x->size = nbd_get64(p + 2);
		x->flags = nbd_get16(p + 10);
		*known = true;
	} else if (type == NBD_INFO_BLOCK_SIZE) {
		x->min = nbd_get32(p + 2);
		x->preferred = nbd_get32(p + 6);
		x->max = nbd_get32(p + 10);
	}
	return 0;
}

static int refused(struct talk *t, uint32_t type, const uint8_t *p, uint32_t len)
{
	char text[200];
	uint32_t n;

	for (n = 0; n < len && n < sizeof text - 1; n++)
		text[n] = isprint(p[n]) ? (char)p[n] : '?';
	text[n] = 0;
	return td_fail(t->err, ECONNREFUSED, "%s: the server refuses with its error %u%s%s",
		       t->name, type & ~NBD_REP_ERROR, n ? ": " : "",
		       n ? text
		       : *t->export
			       ? " (it may want TLS, or have no export of that name)"
			       : " (it may want TLS, or an export's name, which is empty here)");
}

/* One answer to an option: its type and its bytes, or -errno. */
static int hear_answer(struct talk *t, uint32_t option, uint8_t answer[ANSWER_MAX], uint32_t *type,
		       uint32_t *len)
{
	uint8_t b[NBD_ANSWER_SIZE];
	int rc = hear(t, b, sizeof b);

	if (rc < 0)
		return rc;
	*type = nbd_get32(b + 12);
	*len = nbd_get32(b + 16);
	if (nbd_get64(b) != NBD_REPLY_MAGIC || nbd_get32(b + 8) != option || *len > ANSWER_MAX)
		return broken(t, "what it answers is no answer");
	return hear(t, answer, *len);
}

/* Structured replies, and holes: a server that has none says so, and all goes on without. */
static int ask_for_more(struct talk *t, struct nbdc_offer *x)
{
	static const char context[] = "base:allocation";
	uint32_t name = (uint32_t)strlen(t->export), text = sizeof context - 1, type, len;
	uint8_t b[NBD_OPTION_SIZE + 12 + NBD_NAME_MAX + sizeof context], answer[ANSWER_MAX], *p;
	int rc;

	nbd_put32(nbd_put32(nbd_put64(b, NBD_OPTION_MAGIC), NBD_OPT_STRUCTURED_REPLY), 0);
	rc = say(t, b, NBD_OPTION_SIZE);
	if (!rc)
		rc = hear_answer(t, NBD_OPT_STRUCTURED_REPLY, answer, &type, &len);
	if (rc < 0 || type & NBD_REP_ERROR)
		return rc;
	if (type != NBD_REP_ACK)
		return broken(t, "what it answers is no answer");
	x->structured = true;
	p = nbd_put32(nbd_put64(b, NBD_OPTION_MAGIC), NBD_OPT_SET_META_CONTEXT);
	p = nbd_put32(nbd_put32(p, 12 + name + text), name);
	memcpy(p, t->export, name);
	p = nbd_put32(nbd_put32(p + name, 1), text);
	memcpy(p, context, text);
	rc = say(t, b, NBD_OPTION_SIZE + 12 + name + text);
	for (int i = 0; !rc && i < ANSWERS; i++) {
		rc = hear_answer(t, NBD_OPT_SET_META_CONTEXT, answer, &type, &len);
		if (rc < 0 || type == NBD_REP_ACK)
			return rc;
		if (type & NBD_REP_ERROR) {
			x->context = 0;
			return 0;
		}
		if (type == NBD_REP_META_CONTEXT && len == 4 + text &&
		    !memcmp(answer + 4, context, text))
			x->context = (uint64_t)nbd_get32(answer) + 1;
	}
	return rc ? rc : broken(t, "its answer has no end");
}

/* 0, 1 where the server does not know GO, or -errno. */
static int go(struct talk *t, struct nbdc_offer *x)
{
	uint32_t name = (uint32_t)strlen(t->export);
	uint8_t b[NBD_OPTION_SIZE + 8 + NBD_NAME_MAX], answer[ANSWER_MAX],
		*p = nbd_put32(nbd_put32(nbd_put64(b, NBD_OPTION_MAGIC), NBD_OPT_GO), 8 + name);
	bool known = false;
	int rc;

	/* the export, and one wish */
	p = nbd_put32(p, name);
	memcpy(p, t->export, name);
	nbd_put16(nbd_put16(p + name, 1), NBD_INFO_BLOCK_SIZE);
	rc = say(t, b, NBD_OPTION_SIZE + 8 + name);
	for (int i = 0; !rc && i < ANSWERS; i++) {
		uint32_t type, len;

		rc = hear_answer(t, NBD_OPT_GO, answer, &type, &len);
		if (rc < 0)
			return rc;
		if (type == NBD_REP_ACK)
			return known ? 0 : broken(t, "it says nothing of the export");
		if (type == NBD_REP_ERR_UNSUP)
			return 1;
		if (type & NBD_REP_ERROR)
			return refused(t, type, answer, len);
		if (type == NBD_REP_INFO)
			rc = take_info(t, answer, len, x, &known);
	}
	return rc ? rc : broken(t, "its answer has no end");
}

static int newstyle(struct talk *t, struct nbdc_offer *x)
{
	uint8_t b[NBD_OPTION_SIZE];
	unsigned theirs;
	int rc = hear(t, b, 2);

	if (rc < 0)
		return rc;
	theirs = nbd_get16(b);
	nbd_put32(b, theirs & (NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES));
	rc = say(t, b, 4);
	if (!rc && (theirs & NBD_FIXED_NEWSTYLE) && t->more)
		rc = ask_for_more(t, x);
	if (!rc && (theirs & NBD_FIXED_NEWSTYLE)) {
		rc = go(t, x);
		if (rc <= 0)
			return rc;
	}
	if (rc < 0)
		return rc;
	nbd_put32(nbd_put32(nbd_put64(b, NBD_OPTION_MAGIC), NBD_OPT_EXPORT_NAME),
		  (uint32_t)strlen(t->export));
	rc = say(t, b, sizeof b);
	if (!rc)
		rc = say(t, (void *)t->export, strlen(t->export));
	return rc < 0 ? rc : hear_export(t, x, false, !(theirs & NBD_NO_ZEROES));
}

/* K1 */
static int check_offer(struct talk *t, struct nbdc_offer *x)
{
	if (x->size > INT64_MAX)
		return broken(t, "the size of its export is beyond all bounds");
	if (!x->min || x->min & (x->min - 1) || x->min > 65536 ||
	    x->preferred & (x->preferred - 1) || x->preferred < x->min || x->max < x->min ||
	    x->max < 512)
		return broken(t, "the block sizes that it names make no sense");
	if (x->max > DEFAULT_MAX)
		x->max = DEFAULT_MAX;
	if (!(x->flags & NBD_FLAG_HAS_FLAGS))
		x->flags = NBD_FLAG_HAS_FLAGS; /* then none of the others counts */
	return 0;
}

int nbdc_greet(const struct nbdc_client *n, int fd, double patience, struct nbdc_offer *x,
	       struct td_err *err)
{
	struct talk t = {.loop = n->loop,
			 .fiber = td_fiber_self(),
			 .until = td_clock_s() + patience,
			 .fd = fd,
			 .name = n->name,
			 .export = n->uri.export,
			 .more = n->uri.way != NBD_PASSED,
			 .err = err};
	uint8_t b[16];
	int rc = hear(&t, b, sizeof b);

	if (rc < 0)
		return rc;
	*x = (struct nbdc_offer){.min = 1, .preferred = 4096, .max = DEFAULT_MAX};
	if (nbd_get64(b) != NBD_MAGIC)
		rc = td_fail(err, EPROTO, "%s: what listens there is no NBD server", t.name);
	else if (nbd_get64(b + 8) == NBD_OPTION_MAGIC)
		rc = newstyle(&t, x);
	else if (nbd_get64(b + 8) == NBD_OLD_MAGIC)
		rc = *t.export ? td_fail(err, ENOENT,
					 "%s: the server is oldstyle, and has one export "
					 "without a name",
					 t.name)
			       : hear_export(&t, x, true, true);
	else
		rc = broken(&t, "its greeting is neither newstyle nor oldstyle");
	return rc < 0 ? rc : check_offer(&t, x);
}
