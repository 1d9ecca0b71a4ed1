/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/fuzz/tls-peer.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/bytes.h"
#include "lib/nbd-proto.h"

enum { QUEUE = 1 << 20, GREETING = 18, FLAGS = 4, ANSWER_TEXT = 4096 };

struct tls_peer tls_peer;
static SSL_CTX *contexts[2]; /* a client's, a server's */
static SSL *ssl;             /* NULL before TLS */
static unsigned handshakes;  /* a client's that have ended, a server's that have begun */
static uint8_t queue[QUEUE];
static uint8_t hello[NBD_ANSWER_SIZE + ANSWER_TEXT]; /* what it hears before TLS */
static size_t heard, want;                           /* bytes of that */
static unsigned asked;                               /* options */

uint8_t tls_stream(bool up, size_t i)
{
	uint32_t word = (uint32_t)(i / 4) * 2654435761u + (up ? 0x9e3779b9u : 0x51ed270bu);

	return (uint8_t)(word >> (8 * (i % 4)));
}

/* --- keys --- */

static unsigned own_key(unsigned char *key, unsigned room)
{
	unsigned n = sizeof TLS_PEER_KEY / 2;

	FUZZ_ASSERT(n <= room && td_get_hex(TLS_PEER_KEY, key, n));
	if (tls_peer.how & TLS_PEER_OTHER_KEY)
		key[n - 1] ^= 1;
	return n;
}

static unsigned key_as_client(SSL *s, const char *hint, char *user, unsigned user_room,
			      unsigned char *key, unsigned room)
{
	snprintf(user, user_room, "%s", TLS_PEER_USER);
	return own_key(key, room);
}

static unsigned key_as_server(SSL *s, const char *user, unsigned char *key, unsigned room)
{
	return own_key(key, room);
}

static void on_info(const SSL *s, int where, int rc)
{
	if (where & SSL_CB_HANDSHAKE_DONE)
		handshakes++;
}

static int on_hello(SSL *s, int *alert, void *arg)
{
	handshakes++;
	return SSL_CLIENT_HELLO_SUCCESS;
}

void tls_peer_start(void)
{
	for (int server = 0; server < 2; server++) {
		SSL_CTX *c = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());

		FUZZ_ASSERT(c && SSL_CTX_set_cipher_list(c, "kECDHEPSK:kDHEPSK:kPSK"));
		contexts[server] = c;
		if (server) {
			SSL_CTX_set_psk_server_callback(c, key_as_server);
			SSL_CTX_set_client_hello_cb(c, on_hello, NULL);
		} else {
			SSL_CTX_set_psk_client_callback(c, key_as_client);
			SSL_CTX_set_info_callback(c, on_info);
		}
	}
}

/* --- the queue and the wire --- */

static void put(const void *p, size_t n)
{
	if (n > QUEUE - tls_peer.queued) { /* a hole in the stream: no book has that */
		tls_peer.broken = true;
		return;
	}
	memcpy(queue + tls_peer.queued, p, n);
	tls_peer.queued += n;
}

void tls_peer_raw(const void *p, size_t n)
{
	tls_peer.broken = true;
	put(p, n);
}

void tls_peer_drop(size_t n)
{
	n = n < tls_peer.queued ? n : tls_peer.queued;
	memmove(queue, queue + n, tls_peer.queued - n);
	tls_peer.queued -= n;
	tls_peer.broken |= n > 0;
}

void tls_peer_spoil(size_t at)
{
	if (!tls_peer.queued)
		return;
	queue[at % tls_peer.queued] ^= 1 << at % 8;
	tls_peer.broken = true;
}

void tls_peer_send(size_t n)
{
	bool was = tls_peer.broken;
	ssize_t k;

	n = n < tls_peer.queued ? n : tls_peer.queued;
	if (!n || tls_peer.fd < 0)
		return;
	k = send(tls_peer.fd, queue, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (k <= 0)
		return;
	tls_peer.moved += (size_t)k;
	tls_peer_drop((size_t)k);
	tls_peer.broken = was;
}

/* What TLS has for the wire. */
static void take_flight(void)
{
	static uint8_t b[20000];
	int n;

	while ((n = BIO_read(SSL_get_wbio(ssl), b, sizeof b)) > 0)
		put(b, (size_t)n);
}

/* --- TLS --- */

static void begin_tls(void)
{
	ssl = SSL_new(contexts[!!(tls_peer.how & TLS_PEER_SERVES)]);
	FUZZ_ASSERT(ssl);
	SSL_set_bio(ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
	if (tls_peer.how & (TLS_PEER_OLD | TLS_PEER_GUESSABLE))
		SSL_set_max_proto_version(ssl, TLS1_2_VERSION);
	if (tls_peer.how & TLS_PEER_GUESSABLE)
		FUZZ_ASSERT(SSL_set_cipher_list(ssl, "kPSK"));
	if (tls_peer.how & TLS_PEER_SERVES)
		SSL_set_accept_state(ssl);
	else
		SSL_set_connect_state(ssl);
	handshakes = 0;
}

static void check_stream(const uint8_t *b, size_t n)
{
	for (size_t i = 0; i < n; i++)
		FUZZ_ASSERT(b[i] == tls_stream(true, tls_peer.got + i));
	tls_peer.got += n;
}

/* After what has come: as far as it goes. */
static void run_tls(void)
{
	static uint8_t b[20000];
	int n, why;

	while ((n = SSL_read(ssl, b, sizeof b)) > 0)
		check_stream(b, (size_t)n);
	why = SSL_get_error(ssl, n);
	if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE &&
	    why != SSL_ERROR_ZERO_RETURN)
		tls_peer.broken = true;
	ERR_clear_error();
	tls_peer.secure |= SSL_is_init_finished(ssl) == 1;
	/* TL2: no renegotiation.  (A new key of TLS 1.3, and its second hello, are none.) */
	FUZZ_ASSERT(handshakes <= 1 || SSL_version(ssl) > TLS1_2_VERSION);
	take_flight();
}

void tls_peer_write(size_t n)
{
	static uint8_t b[65536];
	int done = 0;

	if (!tls_peer.secure || n > sizeof b || tls_peer.queued + n + n / 8 + 1024 > QUEUE)
		return;
	for (size_t i = 0; i < n; i++)
		b[i] = tls_stream(false, tls_peer.wrote + i);
	if (!ssl) {
		put(b, n);
		done = (int)n;
	} else if (n) {
		done = SSL_write(ssl, b, (int)n);
		ERR_clear_error();
		take_flight();
	}
	tls_peer.wrote += done > 0 ? (size_t)done : 0;
}

void tls_peer_again(bool both)
{
	if (!ssl || !tls_peer.secure)
		return;
	if (SSL_version(ssl) > TLS1_2_VERSION) {
		/* OpenSSL ends a connection if it is to answer while something written waits */
		tls_peer.broken |= both;
		SSL_key_update(ssl, both ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED);
	} else {
		tls_peer.broken = true; /* it is refused */
		SSL_renegotiate(ssl);
	}
	SSL_do_handshake(ssl);
	ERR_clear_error();
	take_flight();
}

void tls_peer_notify(void)
{
	tls_peer.left = true;
	if (!ssl || !tls_peer.secure)
		return;
	SSL_shutdown(ssl);
	ERR_clear_error();
	take_flight();
}

/* --- before it --- */

static void ask_option(void)
{
	static const uint8_t others[] = {NBD_OPT_LIST, NBD_OPT_INFO, NBD_OPT_STRUCTURED_REPLY};
	bool other = asked < tls_peer.options;
	uint8_t b[NBD_OPTION_SIZE + 3] = {0};

	nbd_put32(nbd_put32(nbd_put64(b, NBD_OPTION_MAGIC),
			    other ? others[asked % sizeof others] : NBD_OPT_STARTTLS),
		  other ? 3 : 0);
	asked++;
	put(b, other ? sizeof b : NBD_OPTION_SIZE);
	heard = 0;
	want = NBD_ANSWER_SIZE;
}

static void meet_greeting(void)
{
	uint8_t b[FLAGS];

	FUZZ_ASSERT(nbd_get64(hello) == NBD_MAGIC && nbd_get64(hello + 8) == NBD_OPTION_MAGIC);
	nbd_put32(b, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
	put(b, sizeof b);
	ask_option();
}

static void meet_answer(void)
{
	uint32_t type = nbd_get32(hello + 12), len = nbd_get32(hello + 16);

	FUZZ_ASSERT(nbd_get64(hello) == NBD_REPLY_MAGIC && len <= ANSWER_TEXT);
	if (heard < NBD_ANSWER_SIZE + len) {
		want = NBD_ANSWER_SIZE + len;
		return;
	}
	/* TL1 */
	FUZZ_ASSERT(tls_peer.broken || (type == NBD_REP_ACK) == (asked > tls_peer.options));
	if (type == NBD_REP_ACK)
		begin_tls();
	else
		ask_option();
}

/* A client's flags, and STARTTLS: TL1, it asks for nothing else. */
static void meet_client(void)
{
	uint8_t b[NBD_ANSWER_SIZE + 5] = {0}, *p;
	bool refused = tls_peer.how & TLS_PEER_REFUSES;

	FUZZ_ASSERT(nbd_get64(hello + FLAGS) == NBD_OPTION_MAGIC);
	FUZZ_ASSERT(nbd_get32(hello + FLAGS + 8) == NBD_OPT_STARTTLS);
	FUZZ_ASSERT(!nbd_get32(hello + FLAGS + 12));
	p = nbd_put32(nbd_put64(b, NBD_REPLY_MAGIC), NBD_OPT_STARTTLS);
	p = nbd_put32(p, refused ? NBD_REP_ERR_UNSUP : NBD_REP_ACK);
	nbd_put32(p, refused ? 5 : 0);
	memcpy(b + NBD_ANSWER_SIZE, "\033[31m", 5);
	put(b, NBD_ANSWER_SIZE + (refused ? 5 : 0));
	if (refused)
		tls_peer.quiet = true;
	else
		begin_tls();
}

static void greet(void)
{
	uint8_t b[GREETING];

	nbd_put16(nbd_put64(nbd_put64(b, NBD_MAGIC), NBD_OPTION_MAGIC),
		  NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
	put(b, sizeof b);
}

/* The rest of what came, which is TLS's. */
static size_t hear_plain(const uint8_t *p, size_t n)
{
	size_t used = 0;

	while (used < n && !ssl && !tls_peer.quiet) {
		size_t k = want - heard < n - used ? want - heard : n - used;

		memcpy(hello + heard, p + used, k);
		heard += k;
		used += k;
		if (heard < want)
			continue;
		if (tls_peer.how & TLS_PEER_SERVES)
			meet_client();
		else if (!asked)
			meet_greeting();
		else
			meet_answer();
	}
	return used;
}

void tls_peer_hear(size_t n)
{
	static uint8_t b[65536];
	size_t used;
	ssize_t k;

	if (tls_peer.fd < 0)
		return;
	k = recv(tls_peer.fd, b, n < sizeof b ? n : sizeof b, MSG_DONTWAIT);
	if (k <= 0)
		return;
	tls_peer.moved += (size_t)k;
	if (tls_peer.how & TLS_PEER_MUTE)
		return;
	if (tls_peer.how & TLS_PEER_BARE) {
		check_stream(b, (size_t)k);
		return;
	}
	used = hear_plain(b, (size_t)k);
	FUZZ_ASSERT(!tls_peer.quiet || used == (size_t)k); /* TL1 */
	if (!ssl)
		return;
	BIO_write(SSL_get_rbio(ssl), b + used, (int)((size_t)k - used));
	run_tls();
}

/* --- its life --- */

void tls_peer_begin(int fd, unsigned how, unsigned options)
{
	tls_peer = (struct tls_peer){.fd = fd, .how = how, .options = options};
	tls_peer.secure = how & TLS_PEER_BARE;
	tls_peer.broken = how & TLS_PEER_MUTE;
	heard = asked = 0;
	want = how & TLS_PEER_SERVES ? FLAGS + NBD_OPTION_SIZE : GREETING;
	if ((how & (TLS_PEER_SERVES | TLS_PEER_MUTE)) == TLS_PEER_SERVES)
		greet();
}

size_t tls_peer_hello(unsigned how, uint8_t *out)
{
	size_t n;

	tls_peer_begin(-1, how, 0);
	nbd_put64(nbd_put64(hello, NBD_MAGIC), NBD_OPTION_MAGIC);
	meet_greeting();
	begin_tls();
	run_tls();
	n = tls_peer.queued;
	FUZZ_ASSERT(n && n <= 1000);
	memcpy(out, queue, n);
	tls_peer_end();
	return n;
}

void tls_peer_shut(void)
{
	tls_peer.left = true;
	if (tls_peer.fd >= 0)
		shutdown(tls_peer.fd, SHUT_WR);
}

void tls_peer_close(void)
{
	tls_peer.left = true;
	if (tls_peer.fd >= 0)
		close(tls_peer.fd);
	tls_peer.fd = -1;
}

void tls_peer_end(void)
{
	tls_peer_close();
	SSL_free(ssl);
	ssl = NULL;
}
