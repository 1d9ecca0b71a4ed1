/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The relay that has TLS between a stranger (tls-peer.h) and a tapdisk that may have been taken
 * over, from the first byte of the handshake: before an NBD server and for a client.  An input is
 * both ends: how they are, and a row of steps, one for each time that the relay waits: bytes of
 * either, cut anywhere, ends of either, at any byte.  Time passes only there.  When the steps are
 * used up, both ends take and give all that there is, then the plain end closes, then the peer.
 *
 * Checked: what comes out is what went in, in order; all of it, between two ends that keep to the
 * rules; no TLS with a peer of another key, or of a guessable exchange; before TLS nothing but
 * STARTTLS (TL1), and a handshake within its limit (TL4); a relay before a server ends after it
 * (TL7); no relay waits for ends that have gone, or turns in circles.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "lib/nbd-proto.h"
#include "lib/tls/tls.h"
#include "td/log.h"
#include "tests/fuzz/dir.h"
#include "tests/fuzz/tls-peer.h"

const char fuzz_name[] = "tls", fuzz_unit[] = "relays that moved bytes";
const char *const fuzz_words[] = {"NBDMAGIC",         "IHAVEOPT",         "\x16\x03\x03",
				  "\x17\x03\x03",     "\x15\x03\x03",     "\x14\x03\x03",
				  "\x03\xe8\x89\x04", "\x16\x03\x01\x40", NULL};

/* An input's second byte: the ends. */
enum { SMALL = 1, PEER_DEAF = 2, OTHER_GREETING = 4, OPTIONS = 0xf8 };

enum step {
	PEER_SENDS, /* more often than others: up to PEER_LIKELY */
	PEER_LIKELY = 2,
	PEER_HEARS,
	PEER_WRITES,
	PLAIN_SAYS,
	PLAIN_HEARS,
	TIME_PASSES,
	PEER_AGAIN,
	TAME_STEPS,
	PLAIN_SHUTS = TAME_STEPS,
	PLAIN_CLOSES,
	PEER_NOTIFIES,
	PEER_SHUTS,
	PEER_CLOSES,
	PEER_RAW,
	PEER_DROPS,
	PEER_SPOILS,
	PEER_HUGE,
	STEPS
};

enum { LINGERS = 14000 /* ms */, LINGERED = 9000, SPINS = 64, WAITS = 100000 };

static SSL_CTX *contexts[2]; /* a client's, a server's */
static struct nbd_uri server;

static struct {
	bool runs, relays; /* in the code under test; past its handshake */
	unsigned ends;     /* the second byte */
	struct fuzz_in in;
	int64_t now, closed;          /* ms; closed: when plain was, 0: not yet */
	int plain;                    /* its end; -1: closed */
	bool gone;                    /* nothing more comes from it: shut or closed */
	bool told;                    /* it has heard that nothing more comes to it */
	bool early;                   /* it was closed before there was a relay */
	uint8_t first[24], meets[24]; /* what it says first, and hears first */
	size_t nfirst, nmeets;
	size_t said, heard; /* bytes */
	unsigned closing, spins, waits;
} w;

/* --- the plain end --- */

static uint8_t plain_byte(size_t i)
{
	return i < w.nfirst ? w.first[i] : tls_stream(true, i - w.nfirst);
}

static size_t plain_say(size_t n)
{
	static uint8_t b[65536];
	ssize_t k;

	if (w.plain < 0 || w.gone)
		return 0;
	n = n < sizeof b ? n : sizeof b;
	for (size_t i = 0; i < n; i++)
		b[i] = plain_byte(w.said + i);
	k = send(w.plain, b, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	w.said += k > 0 ? (size_t)k : 0;
	return k > 0 ? (size_t)k : 0;
}

static size_t plain_hear(size_t n)
{
	static uint8_t b[65536];
	ssize_t k = w.plain < 0 ? 0 : recv(w.plain, b, n < sizeof b ? n : sizeof b, MSG_DONTWAIT);

	w.told |= w.plain >= 0 && !k && n;
	w.heard += k > 0 ? (size_t)k : 0;
	if (tls_peer.how & TLS_PEER_BARE && tls_peer.broken)
		return k > 0 ? (size_t)k : 0; /* nobody sees to it what comes */
	for (ssize_t i = 0; i < k; i++) {
		size_t at = w.heard - (size_t)(k - i);

		/* flags that were spoilt before there was TLS are passed on */
		FUZZ_ASSERT(
			b[i] == (at < w.nmeets ? w.meets[at] : tls_stream(false, at - w.nmeets)) ||
			(at < w.nmeets && tls_peer.broken));
	}
	/* nothing but what the peer has written */
	FUZZ_ASSERT(w.heard <= w.nmeets + tls_peer.wrote);
	return k > 0 ? (size_t)k : 0;
}

static void plain_shut(void)
{
	w.gone = true;
	if (w.plain >= 0)
		shutdown(w.plain, SHUT_WR);
}

static void plain_close(void)
{
	w.gone = true;
	if (w.plain < 0)
		return;
	w.closed = w.now;
	close(w.plain);
	w.plain = -1;
}

/* --- steps --- */

static size_t length(struct fuzz_in *in)
{
	uint8_t b = fuzz_u8(in);

	return b < 128 ? b : (b - 127u) * 512;
}

/* A handshake's message that says that it is of 16 MiB. */
static void send_huge(void)
{
	static uint8_t b[5 + 16384] = {0x16, 3, 3, 0x40, 0, 1, 0xff, 0xff, 0xff, 3, 3};

	tls_peer_raw(b, sizeof b);
}

static void strange_step(struct fuzz_in *in, unsigned what)
{
	static uint8_t raw[1024];
	size_t n;

	switch (what) {
	case PLAIN_SHUTS:
		plain_shut();
		break;
	case PLAIN_CLOSES:
		plain_close();
		break;
	case PEER_NOTIFIES:
		tls_peer_notify();
		break;
	case PEER_SHUTS:
		tls_peer_shut();
		break;
	case PEER_CLOSES:
		tls_peer_close();
		break;
	case PEER_RAW:
		n = fuzz_u16(in) % sizeof raw;
		tls_peer_raw(raw, fuzz_take(in, raw, n));
		break;
	case PEER_DROPS:
		tls_peer_drop(1 + fuzz_u8(in));
		break;
	case PEER_SPOILS:
		tls_peer_spoil(fuzz_u16(in));
		break;
	default:
		send_huge();
	}
}

/* limit: ms that the relay waits at most; -1: for ever. */
static void step(struct fuzz_in *in, int limit)
{
	unsigned what = fuzz_u8(in);
	int ms;

	/* most inputs are to come further than to the first end */
	what = what < 192 ? what % TAME_STEPS : TAME_STEPS + what % (STEPS - TAME_STEPS);
	switch (what) {
	case PEER_HEARS:
		tls_peer_hear(length(in));
		break;
	case PEER_WRITES:
		tls_peer_write(length(in));
		break;
	case PLAIN_SAYS:
		plain_say(length(in));
		break;
	case PLAIN_HEARS:
		plain_hear(length(in));
		break;
	case TIME_PASSES:
		ms = fuzz_u8(in) * 100;
		w.now += limit >= 0 && limit < ms ? limit : ms;
		break;
	case PEER_AGAIN:
		tls_peer_again(fuzz_u8(in) & 1);
		break;
	default:
		if (what <= PEER_LIKELY)
			tls_peer_send(length(in));
		else
			strange_step(in, what);
	}
}

/* --- the end of an input --- */

/* Neither end has anything more to do. */
static void check_all_there(void)
{
	/* TL7: a server hears that its client is gone */
	FUZZ_ASSERT(!w.relays || tls_peer.fd >= 0 || w.told || w.plain < 0);
	if (tls_peer.broken || tls_peer.left || tls_peer.quiet || w.gone ||
	    w.ends & (PEER_DEAF | OTHER_GREETING))
		return;
	FUZZ_ASSERT(tls_peer.secure && !tls_peer.queued);
	FUZZ_ASSERT(w.heard == w.nmeets + tls_peer.wrote);
	FUZZ_ASSERT(w.said == w.nfirst + tls_peer.got);
}

/* All that either end can do now; was there anything? */
static bool settle(void)
{
	size_t was = tls_peer.moved, moved;

	tls_peer_send(SIZE_MAX);
	if (!(w.ends & PEER_DEAF))
		tls_peer_hear(SIZE_MAX);
	moved = plain_hear(SIZE_MAX);
	if (w.relays && w.said < w.nfirst)
		moved += plain_say(w.nfirst - w.said);
	return moved || was != tls_peer.moved;
}

static int look(struct pollfd *p, nfds_t n)
{
	struct timespec none = {0};
	long rc;

	do /* ends.c has a signal each second */
		rc = syscall(SYS_ppoll, p, n, &none, NULL, 0);
	while (rc < 0 && errno == EINTR);
	FUZZ_ASSERT(rc >= 0);
	return (int)rc;
}

static int wait_at_the_end(struct pollfd *p, nfds_t n, int limit)
{
	FUZZ_ASSERT(++w.waits < WAITS);
	for (;;) {
		bool moved = settle();
		int ready = look(p, n);

		w.spins = moved || !ready ? 0 : w.spins + 1;
		FUZZ_ASSERT(w.spins < SPINS);
		if (ready)
			return ready;
		if (moved)
			continue;
		if (!w.closing)
			check_all_there();
		if (w.closing == 2) {
			FUZZ_ASSERT(limit >= 0); /* it waits for nobody */
			w.now += limit;
			return 0;
		}
		if (w.closing++ == 0)
			plain_close();
		else if (!w.relays || limit < 0)
			tls_peer_close();
	}
}

/* These two take the place of the C library's while the code under test runs. */
int poll(struct pollfd *p, nfds_t n, int limit)
{
	struct timespec t = {.tv_sec = limit / 1000, .tv_nsec = limit % 1000 * 1000000L};

	if (!w.runs)
		return (int)syscall(SYS_ppoll, p, n, limit < 0 ? NULL : &t, NULL, 0);
	FUZZ_ASSERT(!w.relays || !w.closed || w.now - w.closed < LINGERS);
	while (w.in.left) {
		int64_t was = w.now;
		int ready;

		step(&w.in, limit);
		ready = look(p, n);
		if (ready || (limit >= 0 && w.now - was >= limit))
			return ready;
		limit -= limit < 0 ? 0 : (int)(w.now - was);
	}
	return wait_at_the_end(p, n, limit);
}

int clock_gettime(clockid_t id, struct timespec *t)
{
	if (!w.runs || id != CLOCK_MONOTONIC)
		return (int)syscall(SYS_clock_gettime, id, t);
	t->tv_sec = w.now / 1000;
	t->tv_nsec = w.now % 1000 * 1000000;
	return 0;
}

/* --- what is checked of a relay --- */

static void check_refusal(int rc, const struct td_err *err)
{
	FUZZ_ASSERT(rc == -err->code && err->text[0]);
	for (const char *c = err->text; *c; c++)
		FUZZ_ASSERT((unsigned char)*c >= ' ' && *c != 127);
	FUZZ_ASSERT(tls_peer.broken || tls_peer.left || tls_peer.quiet || w.closing ||
		    tls_peer.options >= 16 || w.now > TLS_LIMIT * 1000 ||
		    tls_peer.how & (TLS_PEER_OTHER_KEY | TLS_PEER_GUESSABLE));
}

/* A handshake that has ended, well or not. */
static bool is_secure(int rc, const struct td_err *err, int64_t since)
{
	FUZZ_ASSERT(w.now - since <= TLS_LIMIT * 1000); /* TL4 */
	if (rc < 0) {
		check_refusal(rc, err);
		return false;
	}
	/* TL2; no input can have the key */
	FUZZ_ASSERT(!(tls_peer.how & (TLS_PEER_OTHER_KEY | TLS_PEER_GUESSABLE)));
	FUZZ_ASSERT(!(tls_peer.how & (TLS_PEER_REFUSES | TLS_PEER_MUTE)));
	return true;
}

static void put_greeting(uint8_t *b)
{
	nbd_put16(nbd_put64(nbd_put64(b, NBD_MAGIC), NBD_OPTION_MAGIC),
		  NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
}

/* What the plain end says and hears first. */
static void set_greetings(void)
{
	bool to_client = tls_peer.how & TLS_PEER_SERVES;

	if (tls_peer.how & TLS_PEER_BARE)
		return;
	/* a client's is behind a byte that has the wire */
	put_greeting(to_client ? w.meets + 1 : w.first);
	nbd_put32(to_client ? w.first : w.meets, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
	w.nmeets = to_client ? 19 : 4;
	w.nfirst = to_client ? 4 : 18;
	if (w.ends & OTHER_GREETING)
		w.first[w.in.left % w.nfirst] ^= 1;
}

static void begin_relay(void)
{
	w.early = w.closed;
	if (w.closed)
		w.closed = w.now;
	w.relays = true;
}

static void before_server(int wire, int plain)
{
	static struct td_tls_server s;
	struct td_err err = {0};
	SSL_CTX *ctx = tls_peer.how & TLS_PEER_BARE ? NULL : contexts[1];
	int64_t since = w.now;
	int rc = td_tls_server_start(&s, wire, ctx, -1, "the client", &err);

	if (tls_peer.how & TLS_PEER_BARE ? !rc : is_secure(rc, &err, since)) {
		begin_relay();
		td_tls_server_run(&s, plain);
		/* TL7: it has not left a server that works */
		FUZZ_ASSERT(w.gone || (w.ends & OTHER_GREETING && w.said && w.nfirst));
	}
	td_tls_end(&s.tls);
}

static void for_client(int wire, int plain)
{
	static struct td_tls_client c;
	struct td_err err = {0};
	int64_t since = w.now;
	int rc = td_tls_client_start(&c, wire, &server, contexts[0], -1, &err);

	if (is_secure(rc, &err, since)) {
		begin_relay();
		if (!td_tls_client_meet(&c, plain, &err))
			td_tls_client_run(&c, plain);
		else
			FUZZ_ASSERT(w.plain < 0);
	}
	td_tls_end(&c.tls);
}

/* The relay has ended, and its process with it. */
static void check_end(void)
{
	bool whole = !tls_peer.broken && !tls_peer.left && !(w.ends & PEER_DEAF) && !w.early &&
		     (!w.closed || w.now - w.closed < LINGERED);

	while (settle())
		;
	if (w.ends & OTHER_GREETING && w.nfirst)
		FUZZ_ASSERT(!tls_peer.got);
	else if (whole && w.relays && w.said >= w.nfirst)
		FUZZ_ASSERT(w.said == w.nfirst + tls_peer.got);
	fuzz_count += tls_peer.got && w.heard > w.nmeets;
}

/* --- seeds --- */

static const uint8_t tails[][4] = {{TIME_PASSES, 1}, {PLAIN_SHUTS},        {PLAIN_CLOSES},
				   {PEER_NOTIFIES},  {PEER_SHUTS},         {PEER_CLOSES},
				   {PEER_DROPS, 7},  {PEER_SPOILS, 40, 0}, {PEER_HUGE},
				   {PEER_AGAIN},     {PEER_WRITES, 3},     {PEER_RAW, 2, 0, 23}};
static const uint8_t kinds[][2] = {
	{0, 0},
	{TLS_PEER_SERVES, 0},
	{0, SMALL},
	{TLS_PEER_SERVES, SMALL},
	{TLS_PEER_OLD, 3 << 3},
	{TLS_PEER_SERVES | TLS_PEER_OLD, 0},
	{TLS_PEER_BARE, 0},
	{TLS_PEER_BARE, SMALL | PEER_DEAF},
	{0, SMALL | PEER_DEAF},
	{TLS_PEER_SERVES, SMALL | PEER_DEAF},
	{0, OTHER_GREETING},
	{TLS_PEER_SERVES, OTHER_GREETING},
};
static const uint8_t refused[][2] = {{TLS_PEER_GUESSABLE, 0},
				     {TLS_PEER_SERVES | TLS_PEER_GUESSABLE, 0},
				     {TLS_PEER_OTHER_KEY, 0},
				     {TLS_PEER_SERVES | TLS_PEER_OTHER_KEY, 0},
				     {TLS_PEER_SERVES | TLS_PEER_REFUSES, 0},
				     {0, 20 << 3}};
enum {
	TAILS = sizeof tails / sizeof *tails,
	KINDS = sizeof kinds / sizeof *kinds,
	REFUSED = sizeof refused / sizeof *refused
};

static uint8_t *seed_step(uint8_t *p, unsigned what, uint8_t arg)
{
	const uint8_t b[2] = {(uint8_t)what, arg};

	return fuzz_put(p, b, 2);
}

/* Both write, much or little, and hear a part of it; then something happens. */
static uint8_t *seed_relay(uint8_t *p, unsigned n)
{
	const uint8_t *tail = tails[n % TAILS];

	for (int i = 0; i < 8; i++) {
		p = seed_step(p, PEER_HEARS, 250);
		p = seed_step(p, PEER_SENDS, i < 4 ? 30 : 250);
	}
	for (int i = 0; i < 6; i++) {
		p = seed_step(p, PLAIN_SAYS, i < 3 ? 18 : 200);
		p = seed_step(p, PEER_WRITES, i < 3 ? 50 : 180);
		p = seed_step(p, PEER_SENDS, i % 2 ? 3 : 160);
		p = seed_step(p, i % 2 ? PEER_HEARS : PLAIN_HEARS, 130);
	}
	*p++ = tail[0] < TAME_STEPS ? tail[0] : (uint8_t)(198 + tail[0] - TAME_STEPS);
	p = fuzz_put(p, tail + 1, 3);
	p = seed_step(p, PLAIN_SAYS, 9);
	return seed_step(p, PEER_SENDS, 255);
}

size_t fuzz_seed(unsigned n, uint8_t *out)
{
	uint8_t *p = out + 2;

	if (n < KINDS * TAILS) {
		memcpy(out, kinds[n / TAILS], 2);
		p = seed_relay(p, n);
	} else if (n < KINDS * TAILS + REFUSED) {
		memcpy(out, refused[n - KINDS * TAILS], 2);
		p = seed_step(p, PEER_SENDS, 1);
	} else if (n < KINDS * TAILS + REFUSED + 2) { /* one that is slow */
		memcpy(out, kinds[n - KINDS * TAILS - REFUSED], 2);
		for (int i = 0; i < 8; i++) {
			p = seed_step(p, TIME_PASSES, 40);
			p = seed_step(p, PEER_HEARS, 250);
			p = seed_step(p, PEER_SENDS, 3);
		}
	} else if (n < KINDS * TAILS + REFUSED + 4) { /* bytes that can be changed one by one */
		size_t len = tls_peer_hello(n & 1 ? TLS_PEER_OLD : 0, out + 5);

		memcpy(out,
		       (uint8_t[]){TLS_PEER_MUTE, 0, 198 + PEER_RAW - TAME_STEPS, (uint8_t)len,
				   (uint8_t)(len >> 8)},
		       5);
		p = seed_step(out + 5 + len, PEER_SENDS, 255);
	}
	return p == out + 2 ? 0 : (size_t)(p - out);
}

/* --- the whole --- */

static void pair(int *sv)
{
	const int small = 4608;

	FUZZ_ASSERT(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv));
	for (int i = 0; i < 2 && w.ends & SMALL; i++)
		FUZZ_ASSERT(!setsockopt(sv[i], SOL_SOCKET, SO_SNDBUF, &small, sizeof small));
}

int fuzz_one(const uint8_t *data, size_t size)
{
	struct fuzz_in in = {data, size};
	unsigned how = fuzz_u8(&in);
	int wire[2], plain[2];

	if (how & TLS_PEER_SERVES)
		how &= ~(unsigned)TLS_PEER_BARE;
	else
		how &= ~(unsigned)TLS_PEER_REFUSES;
	memset(&w, 0, sizeof w);
	w.now = 1000;
	w.ends = fuzz_u8(&in);
	w.in = in;
	pair(wire);
	pair(plain);
	w.plain = plain[1];
	tls_peer_begin(wire[1], how, (w.ends & OPTIONS) >> 3);
	set_greetings();
	w.runs = true;
	if (how & TLS_PEER_SERVES)
		for_client(wire[0], plain[0]);
	else
		before_server(wire[0], plain[0]);
	w.runs = false;
	close(wire[0]);
	close(plain[0]);
	check_end();
	plain_close();
	tls_peer_end();
	return 0;
}

void fuzz_start(void)
{
	static char path[PATH_MAX];
	static const char line[] = TLS_PEER_USER ":" TLS_PEER_KEY "\n";
	struct td_err err = {0};
	int fd;

	signal(SIGPIPE, SIG_IGN); /* as in all that have a relay */
	snprintf(path, sizeof path, "%s/keys", fuzz_dir());
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	FUZZ_ASSERT(fd >= 0 && write(fd, line, strlen(line)) == (ssize_t)strlen(line));
	close(fd);
	for (int i = 0; i < 2; i++) {
		contexts[i] = td_tls_context(&(struct td_tls_keys){.psk_file = path}, i, &err);
		FUZZ_ASSERT(contexts[i]);
	}
	server = (struct nbd_uri){.way = NBD_TCP, .port = NBD_PORT, .tls = true, .psk = true};
	strcpy(server.host, "store");
	tls_peer_start();
}
