/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The NBD client, against a server over a socket.  An input is a server and a disk's user: one
 * server keeps to the protocol, whatever it offers; a wild one sends any bytes and replies, and
 * leaves at any time.  Requests end once, and touch no memory but their own; with a server that
 * keeps to the protocol reads bring its data, and a request fails only if the server says so.
 * What the client sends is checked too (nbd-peer.h).
 */
#include <errno.h>
#include <sys/socket.h>

#include "drivers/nbd/nbd.h"
#include "lib/passed.h"
#include "tests/fuzz/dir.h"
#include "tests/fuzz/nbd-peer.h"
#include "tests/support/drive.h"

const char fuzz_name[] = "nbd-client", fuzz_unit[] = "commands answered";
const char *const fuzz_words[] = {"NBDMAGIC", "IHAVEOPT", "\x67\x44\x66\x98", NULL};

enum { OPS = 8, PIECE_MAX = 24 << 10, PIECES = 3, GUARD = 64 };
/* an input's head: server, its greeting, how the disk is opened */
enum { WILD = 1, NO_OPTIONS = 2, NO_GO = 4, OLDSTYLE = 8, BLOCK_SIZES = 16, LARGE = 32 };
enum { OPEN_READ_ONLY = 1, OPEN_NOSYNC = 2 };

enum step {
	STEP_REQUEST, /* more often than others: up to STEP_LIKELY */
	STEP_LIKELY = 3,
	STEP_ANSWER,
	STEP_ANSWER_TOO,
	STEP_SEND,
	STEP_TURNS,
	TAME_STEPS,
	STEP_RAW = TAME_STEPS,
	STEP_REPLY,
	STEP_CLOSE,
	STEPS
};

struct user_op {
	struct td_req req;
	struct iovec iov[PIECES];
	int done, result;
	bool out;
	uint8_t mem[PIECES][GUARD + PIECE_MAX + GUARD];
};

static struct user_op ops[OPS];
static struct nbdc_offer offer;
static int server;
static bool wild, errors; /* errors: the server has answered with one, or has left */

/* --- the server --- */

static void server_turn(size_t most)
{
	peer_send(most);
	turns(1);
	peer_hear();
}

static void close_server(void)
{
	errors = true;
	shutdown(server, SHUT_RDWR);
}

/* A wild one's greeting: a few bytes of it are others, and more may follow. */
static void say_greeting(struct fuzz_in *in, uint8_t *b, size_t len)
{
	static const uint8_t more[8192];
	uint8_t n = wild ? fuzz_u8(in) : 0;

	for (unsigned i = 0; i < n % 4; i++) {
		size_t at = fuzz_u8(in) % len;

		b[at] = fuzz_u8(in);
	}
	peer_say(b, len);
	if (n & 64)
		peer_say(more, sizeof more);
}

static void greet(struct fuzz_in *in, uint8_t how)
{
	uint8_t b[256] = {0}, *p = nbd_put64(b, NBD_MAGIC);

	if (how & OLDSTYLE) {
		p = nbd_put64(nbd_put64(p, NBD_OLD_MAGIC), offer.size);
		nbd_put32(p, offer.flags & 0xffff);
		say_greeting(in, b, 152);
		return;
	}
	p = nbd_put16(nbd_put64(p, NBD_OPTION_MAGIC),
		      (how & NO_OPTIONS ? 0 : NBD_FIXED_NEWSTYLE) | NBD_NO_ZEROES);
	if (!(how & (NO_OPTIONS | NO_GO))) {
		p = nbd_put32(nbd_put64(p, NBD_REPLY_MAGIC), NBD_OPT_GO);
		p = nbd_put16(nbd_put32(nbd_put32(p, NBD_REP_INFO), 12), NBD_INFO_EXPORT);
		p = nbd_put16(nbd_put64(p, offer.size), (uint16_t)offer.flags);
		if (how & BLOCK_SIZES) {
			p = nbd_put32(nbd_put64(p, NBD_REPLY_MAGIC), NBD_OPT_GO);
			p = nbd_put32(nbd_put32(p, NBD_REP_INFO), 14);
			p = nbd_put32(nbd_put16(p, NBD_INFO_BLOCK_SIZE), offer.min);
			p = nbd_put32(nbd_put32(p, offer.preferred), offer.max);
		}
		p = nbd_put32(nbd_put64(p, NBD_REPLY_MAGIC), NBD_OPT_GO);
		p = nbd_put32(nbd_put32(p, NBD_REP_ACK), 0);
	} else {
		if (how & NO_GO && !(how & NO_OPTIONS)) {
			p = nbd_put32(nbd_put64(p, NBD_REPLY_MAGIC), NBD_OPT_GO);
			p = nbd_put32(nbd_put32(p, NBD_REP_ERR_UNSUP), 0);
		}
		p = nbd_put16(nbd_put64(p, offer.size), (uint16_t)offer.flags);
	}
	say_greeting(in, b, (size_t)(p - b));
}

static void read_offer(struct fuzz_in *in, uint8_t how)
{
	offer = (struct nbdc_offer){.min = 1, .preferred = 4096, .max = 32u << 20};
	offer.flags = NBD_FLAG_HAS_FLAGS | (fuzz_u16(in) & 0xffff);
	offer.size = how & LARGE ? fuzz_u64(in) : (fuzz_u16(in) + 1) * 512ull;
	if (how & BLOCK_SIZES && !(how & (OLDSTYLE | NO_OPTIONS | NO_GO))) {
		uint8_t b = fuzz_u8(in);

		offer.min = 1u << b % 11;
		offer.preferred = offer.min << b / 11 % 4;
		offer.max = offer.min + fuzz_u32(in) % (1u << 26);
	}
}

/* --- the disk's user --- */

static void user_done(struct td_req *req, int result)
{
	struct user_op *o = td_entry(req, struct user_op, req);

	FUZZ_ASSERT(o->out && !o->done);
	o->done++;
	o->result = result;
}

static void fill(struct user_op *o)
{
	uint64_t at = o->req.off;

	for (int i = 0; i < o->req.iovcnt; i++) {
		memset(o->mem[i], 0x5a, sizeof o->mem[i]);
		for (size_t k = 0; k < o->iov[i].iov_len; k += 8, at += 8) {
			uint64_t v = peer_number('W', at / 512);

			memcpy((char *)o->iov[i].iov_base + k, &v, 8);
		}
	}
}

static void check_data(const struct user_op *o)
{
	uint64_t at = o->req.off;

	for (int i = 0; i < o->req.iovcnt; i++)
		for (size_t k = 0; k < o->iov[i].iov_len; k += 8, at += 8) {
			uint64_t v = peer_number('D', at / 512);

			FUZZ_ASSERT(!memcmp((char *)o->iov[i].iov_base + k, &v, 8));
		}
}

static void check_guards(const struct user_op *o)
{
	for (int i = 0; i < o->req.iovcnt; i++)
		for (int k = 0; k < GUARD; k++)
			FUZZ_ASSERT(o->mem[i][k] == 0x5a &&
				    o->mem[i][GUARD + o->iov[i].iov_len + k] == 0x5a);
}

static void collect(void)
{
	for (struct user_op *o = ops; o < ops + OPS; o++) {
		if (!o->out || !o->done)
			continue;
		FUZZ_ASSERT(!o->result || errors || wild ||
			    (o->req.op == TD_WRITE_ZEROES && o->result == -EOPNOTSUPP &&
			     !(offer.flags & NBD_FLAG_SEND_WRITE_ZEROES)));
		check_guards(o);
		if (!o->result && o->req.op == TD_READ && !wild)
			check_data(o);
		o->out = false;
	}
}

static void request(struct fuzz_in *in)
{
	static const enum td_op likely[] = {TD_READ,  TD_WRITE,   TD_READ,        TD_WRITE,
					    TD_FLUSH, TD_DISCARD, TD_WRITE_ZEROES};
	uint8_t what = fuzz_u8(in), how = fuzz_u8(in);
	uint64_t sectors = leaf->info.size / 512, at = fuzz_u32(in) % sectors, all = 0;
	struct user_op *o = ops;

	while (o < ops + OPS && o->out)
		o++;
	if (o == ops + OPS)
		return;
	o->req = (struct td_req){.op = likely[what % 7],
				 .off = at * 512,
				 .iov = o->iov,
				 .done = user_done,
				 .io = fio.io};
	if (leaf->file_flags & TD_FILE_RDONLY && o->req.op != TD_FLUSH)
		o->req.op = TD_READ;
	if (o->req.op == TD_FLUSH)
		o->req.off = 0;
	if (how & 1)
		o->req.flags = o->req.op == TD_WRITE          ? TD_FUA
			       : o->req.op == TD_WRITE_ZEROES ? TD_UNMAP
							      : 0;
	if (o->req.op == TD_READ || o->req.op == TD_WRITE)
		for (int i = 0; i <= (how & 4 ? 1 : 0) && all < sectors - at; i++) {
			uint64_t n = 1 + fuzz_u8(in) % (PIECE_MAX / 512);

			n = n < sectors - at - all ? n : sectors - at - all;
			o->iov[o->req.iovcnt++] = (struct iovec){o->mem[i] + GUARD, n * 512};
			all += n;
		}
	else if (o->req.op != TD_FLUSH)
		all = 1 + (how & 8 ? fuzz_u32(in) >> 8 : fuzz_u8(in)) % (sectors - at);
	o->req.len = all * 512;
	fill(o);
	o->out = true;
	o->done = 0;
	td_submit(leaf, &o->req);
}

/* --- steps --- */

static void wild_step(struct fuzz_in *in, unsigned what)
{
	uint8_t b[1024];
	size_t n;

	switch (what) {
	case STEP_RAW:
		n = 1 + fuzz_u8(in) * 4u;
		peer_say(b, fuzz_take(in, b, n < sizeof b ? n : sizeof b));
		break;
	case STEP_REPLY:
		n = fuzz_u8(in);
		nbd_put64(nbd_put32(nbd_put32(b, n & 1 ? fuzz_u32(in) : NBD_SIMPLE_MAGIC),
				    n & 2 ? fuzz_u32(in) : 0),
			  n & 4 ? fuzz_u64(in) : peer_cookie((unsigned)n >> 3));
		peer_say(b, NBD_SIMPLE_SIZE);
		break;
	default:
		close_server();
	}
}

static void step(struct fuzz_in *in)
{
	static const uint32_t answers[] = {0, 0, 0, 0, NBD_EIO, NBD_ENOSPC, NBD_ENOTSUP, 12345};
	unsigned what = fuzz_u8(in) % (wild ? STEPS : TAME_STEPS);
	uint8_t b;

	switch (what) {
	case STEP_ANSWER:
	case STEP_ANSWER_TOO:
		b = fuzz_u8(in);
		errors |= answers[b >> 5] != 0;
		peer_answer(b & 31, answers[b >> 5]);
		break;
	case STEP_SEND:
		server_turn(fuzz_u8(in));
		break;
	case STEP_TURNS:
		server_turn(SIZE_MAX);
		collect();
		break;
	default:
		if (what <= STEP_LIKELY)
			request(in);
		else
			wild_step(in, what);
	}
}

/* --- the whole --- */

struct opening {
	struct td_how how;
	bool done;
	int rc;
};

static void open_it(void *arg)
{
	struct opening *o = arg;

	err = (struct td_err){0};
	o->rc = chain_open("nbd:fuzz", &o->how, fio.io, &leaf, &err);
	o->done = true;
}

static void close_it(void *arg)
{
	chain_close(leaf);
	*(bool *)arg = true;
}

/* A fiber, while the server answers; one that leaves it waiting goes, so that this ends. */
static void beside_server(void (*fn)(void *arg), void *arg, const bool *done)
{
	FUZZ_ASSERT(!td_fiber_start(loop, fn, arg));
	for (int i = 0; !*done; i++) {
		server_turn(SIZE_MAX);
		if (!wild || i > 4)
			while (peer_asked())
				peer_answer(0, 0);
		if (i == 50)
			close_server();
		FUZZ_ASSERT(i < 100000); /* it hangs */
	}
}

static void requests(struct fuzz_in *in)
{
	bool closed = false;

	while (in->left)
		step(in);
	for (int i = 0; i < 1000; i++) {
		bool out = false;

		for (int k = 0; k < OPS; k++)
			out |= ops[k].out;
		if (!out)
			break;
		while (peer_asked())
			peer_answer(0, 0);
		if (wild && i > 50)
			close_server();
		server_turn(SIZE_MAX);
		collect();
	}
	for (int k = 0; k < OPS; k++)
		FUZZ_ASSERT(!ops[k].out);
	beside_server(close_it, &closed, &closed);
}

size_t fuzz_seed(unsigned n, uint8_t *p)
{
	const uint8_t *start = p;

	if (n >= 20)
		return 0;
	*p++ = (uint8_t)((n & 1 ? WILD : 0) | (n / 2 == 1   ? NO_OPTIONS
					       : n / 2 == 2 ? NO_GO
					       : n / 2 == 3 ? OLDSTYLE
							    : BLOCK_SIZES));
	*p++ = n / 2 == 4 ? OPEN_READ_ONLY : n / 2 == 5 ? OPEN_NOSYNC : 0;
	*p++ = n / 2 == 6 ? 4 : 0x2d | 0x40; /* flags: all, or FLUSH alone */
	*p++ = 1;
	*p++ = 255;
	*p++ = 63;
	if (*start & LARGE)
		p = fuzz_put(p, "\xff\xff\xff\xff\xff\x7f", 6);
	if (*start & BLOCK_SIZES)
		p = fuzz_put(p, "\x09\x00\x40\x00\x00", 5); /* 512, 512, 16896 */
	if (*start & WILD)
		*p++ = n == 3 ? 65 : 0;
	for (uint8_t i = 0; i < 12; i++) {
		const uint8_t r[] = {STEP_REQUEST,     i, (uint8_t)(i & 7), i, 0, 0, 0,
				     (uint8_t)(i * 5), 3, STEP_TURNS};
		bool data = i % 7 < 4;

		p = fuzz_put(p, r, 7);
		p = fuzz_put(p, r + 7, data ? 1 + (i >> 2 & 1) : 1);
		*p++ = STEP_TURNS;
		*p++ = STEP_ANSWER;
		*p++ = (uint8_t)(n >= 14 ? i * 32 : 0);
		*p++ = STEP_SEND;
		*p++ = (uint8_t)(i * 13);
	}
	return (size_t)(p - start);
}

void fuzz_start(void)
{
	fuzz_dir();
	loop = ev_loop_new(EVFLAG_AUTO);
	fault_io_new(&fio, loop, 512, 512);
}

int fuzz_one(const uint8_t *data, size_t size)
{
	struct fuzz_in in = {data, size};
	uint8_t who = fuzz_u8(&in), how = fuzz_u8(&in);
	struct opening o = {.how.flags = (how & OPEN_READ_ONLY ? TD_FILE_RDONLY : 0) |
					 (how & OPEN_NOSYNC ? TD_FILE_NOSYNC : 0)};
	int pair[2];

	wild = who & WILD;
	errors = false;
	read_offer(&in, who);
	FUZZ_ASSERT(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair));
	server = pair[0];
	FUZZ_ASSERT(!td_passed_keep("fuzz", pair[1], NULL, 0));
	peer_begin(server, &offer, !wild);
	if (wild && who & 128)
		wild_step(&in, STEP_RAW); /* instead of a greeting, or before it */
	greet(&in, who);
	beside_server(open_it, &o, &o.done);
	if (!o.rc)
		requests(&in);
	else
		FUZZ_ASSERT(err.code == -o.rc && err.text[0]);
	td_passed_close_all();
	close(server);
	return 0;
}
