/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The NBD client's reconnect (K8 to K14 of drivers/nbd/nbd.h), against a server that goes away at
 * any byte and comes back: with what it was, or with another size, other abilities, structured
 * replies or none; that crashes, and loses of its volatile cache what it likes; that answers in any
 * order, repeats answers, and gives those of an earlier connection; and a wild one, which sends any
 * bytes as well.  It may take several connections (KC1 to KC4 of drivers/nbd/nbd-more.h), any of
 * which may end, lead to something else, or bring what belongs to another one.  An input is the
 * server and the disk's user.
 *
 * Checked: requests end once, and touch no memory but their own; none fails before the server has
 * said an error, or has come back as less than it was.  And until the server has lied, a model of
 * the promise: a sector that is read, or durable after a flush or a durable write that did well,
 * has its last write that was acknowledged before, or a later one.  What the server checks is in
 * nbd-volatile.h.
 */
#include <errno.h>

#include "tests/fuzz/dir.h"
#include "tests/fuzz/nbd-volatile.h"
#include "tests/support/drive.h"

const char fuzz_name[] = "nbd-again", fuzz_unit[] = "commands answered";
const char *const fuzz_words[] = {"\x67\x44\x66\x98", "\x66\x8e\x33\xef", NULL};

enum { OPS = 8, PIECES = 2, GUARD = 64, PIECE_MAX = COMMAND_SECTORS * 512 };
enum { NOSYNC = 1, LIMITED = 2, STRUCTURED = 4, OLDSTYLE = 8, NO_GO = 16, MULTI = 32, WILD = 128 };

enum step {
	STEP_REQUEST, /* more often than others: up to STEP_LIKELY */
	STEP_LIKELY = 3,
	STEP_ANSWER,
	STEP_ANSWER_TOO,
	STEP_DO,
	STEP_TURNS,
	STEP_TURNS_TOO,
	STEP_DROP,
	STEP_CRASH,
	STEP_LISTEN,
	STEP_OFFER,
	STEP_REPEAT,
	TAME_STEPS,
	STEP_RAW = TAME_STEPS,
	STEPS
};

struct user_op {
	struct td_req req;
	struct iovec iov[PIECES];
	int done, result;
	bool out, zeroes, counts; /* counts: the model knows it */
	uint64_t write;           /* its number, of one that changes what is read */
	uint64_t base[SECTORS];   /* what was acknowledged before it */
	uint8_t mem[PIECES][GUARD + PIECE_MAX + GUARD];
};

static struct user_op ops[OPS];
static struct nbdc_offer offer;
static unsigned greeting;
static uint64_t writes;          /* numbers given */
static uint64_t acked[SECTORS];  /* the last that was acknowledged */
static uint64_t zeroed[SECTORS]; /* the last that wrote zeroes, acknowledged or not */
static bool wild, lied, nosync;  /* lied: the promise is not judged any more */
static bool errors;              /* the server has said one, or is less than it was */

static struct nbdc_client *client(void)
{
	return leaf->priv;
}

/* --- the model --- */

/* May a sector hold `write' when `base' was acknowledged before? */
static bool may_hold(uint64_t s, uint64_t write, uint64_t base)
{
	if (!write)
		return !base || zeroed[s] >= base;
	return write >= base && write <= writes;
}

static void check_durable(const struct user_op *o)
{
	if (nosync || lied)
		return;
	for (uint64_t s = 0; s < SECTORS; s++)
		if (o->req.op == TD_FLUSH)
			FUZZ_ASSERT(may_hold(s, safe[s], o->base[s]));
		else if (s >= o->req.off / 512 && s < (o->req.off + o->req.len) / 512)
			FUZZ_ASSERT(may_hold(s, safe[s], o->write));
}

static void check_read(const struct user_op *o)
{
	uint64_t s = o->req.off / 512;

	for (int i = 0; i < o->req.iovcnt; i++)
		for (size_t k = 0; k < o->iov[i].iov_len; k += 512, s++) {
			const uint8_t *p = (const uint8_t *)o->iov[i].iov_base + k;
			uint64_t word, write, w;

			memcpy(&word, p, 8);
			write = word << 8 >> 16;
			FUZZ_ASSERT(word == sector_word(write, s));
			FUZZ_ASSERT(may_hold(s, write, o->base[s]));
			for (int j = 8; j < 512; j += 8) {
				memcpy(&w, p + j, 8);
				FUZZ_ASSERT(w == word);
			}
		}
}

static void note_acked(const struct user_op *o)
{
	uint64_t n = o->write ? o->req.len / 512 : 0;

	for (uint64_t s = o->req.off / 512; n--; s++)
		if (acked[s] < o->write)
			acked[s] = o->write;
}

/* --- the disk's user --- */

static void user_done(struct td_req *req, int result)
{
	struct user_op *o = td_entry(req, struct user_op, req);

	FUZZ_ASSERT(o->out && !o->done);
	o->done++;
	o->result = result;
	FUZZ_ASSERT(!result || errors || lied);
	if (result)
		return;
	note_acked(o);
	if (req->op == TD_FLUSH || req->flags & TD_FUA)
		check_durable(o);
}

static void collect(void)
{
	for (struct user_op *o = ops; o < ops + OPS; o++) {
		if (!o->out || !o->done)
			continue;
		for (int i = 0; i < o->req.iovcnt; i++)
			for (int k = 0; k < GUARD; k++)
				FUZZ_ASSERT(o->mem[i][k] == 0x5a &&
					    o->mem[i][GUARD + o->iov[i].iov_len + k] == 0x5a);
		if (!o->result && o->req.op == TD_READ && !lied)
			check_read(o);
		o->out = false;
	}
}

static void fill(struct user_op *o)
{
	uint64_t at = o->req.off;

	for (int i = 0; i < o->req.iovcnt; i++) {
		memset(o->mem[i], 0x5a, sizeof o->mem[i]);
		for (size_t k = 0; k < o->iov[i].iov_len; k += 8, at += 8) {
			uint64_t v = sector_word(o->write, at / 512);

			memcpy((char *)o->iov[i].iov_base + k, &v, 8);
		}
	}
}

static bool can(enum td_op op)
{
	return op == TD_DISCARD        ? offer.flags & NBD_FLAG_SEND_TRIM
	       : op == TD_WRITE_ZEROES ? offer.flags & NBD_FLAG_SEND_WRITE_ZEROES
				       : true;
}

static void request(uint8_t what, uint8_t how, uint8_t at, uint8_t len)
{
	static const enum td_op likely[8] = {TD_WRITE, TD_READ,  TD_WRITE,   TD_FLUSH,
					     TD_WRITE, TD_WRITE, TD_DISCARD, TD_WRITE_ZEROES};
	struct user_op *o = ops;
	uint64_t s = at % SECTORS, n = 1 + len % COMMAND_SECTORS;

	while (o < ops + OPS && o->out)
		o++;
	if (o == ops + OPS || !can(likely[what % 8]))
		return;
	n = n < SECTORS - s ? n : SECTORS - s;
	o->req = (struct td_req){.op = likely[what % 8],
				 .off = s * 512,
				 .len = n * 512,
				 .iov = o->iov,
				 .done = user_done,
				 .io = fio.io};
	if (o->req.op == TD_FLUSH)
		o->req.off = o->req.len = 0;
	if (how & 1 && o->req.op == TD_WRITE)
		o->req.flags = TD_FUA;
	if (o->req.op == TD_READ || o->req.op == TD_WRITE) {
		uint64_t first = how & 2 && n > 1 ? n / 2 : n;

		o->iov[0] = (struct iovec){o->mem[0] + GUARD, first * 512};
		o->iov[1] = (struct iovec){o->mem[1] + GUARD, (n - first) * 512};
		o->req.iovcnt = first < n ? 2 : 1;
	}
	o->write = o->req.op == TD_WRITE || o->req.op == TD_WRITE_ZEROES ? ++writes : 0;
	for (uint64_t k = s; o->req.op == TD_WRITE_ZEROES && k < s + n; k++)
		zeroed[k] = writes;
	memcpy(o->base, acked, sizeof acked);
	fill(o);
	o->out = true;
	o->done = 0;
	td_submit(leaf, &o->req);
}

/* --- steps --- */

/* Nobody waits for the time between two attempts. */
static void turn(size_t most)
{
	server_turn(most);
	if (leaf && client()->sleeper)
		td_fiber_wake(client()->sleeper);
	if (leaf && client()->more.sleeper)
		td_fiber_wake(client()->more.sleeper);
	turns(1);
	server_turn(0);
	collect();
}

/* Another export, or the same as before. */
static void offer_another(struct fuzz_in *in)
{
	uint8_t what = fuzz_u8(in), by = fuzz_u8(in);
	struct nbdc_offer x = offer;
	unsigned g = greeting, cut = what & 0x80 ? 1 + by : 0;

	switch (what % 8) {
	case 0:
		x.size = (1 + by % (2 * SECTORS)) * 512ull;
		break;
	case 1:
		x.flags &= by | ~0xffu;
		break;
	case 2:
		x.flags |= by;
		break;
	case 3:
		x.max = 512 + by * 512u;
		break;
	case 4:
		x.min = 1u << by % 11;
		x.preferred = x.min;
		break;
	case 5:
		g = by & (GREET_OLDSTYLE | GREET_NO_GO | GREET_STRUCTURED | GREET_NO_SIZES);
		break;
	default:
		g ^= by & GREET_STRUCTURED;
	}
	x.flags |= NBD_FLAG_HAS_FLAGS;
	/* its block sizes are not told then */
	if (g & (GREET_OLDSTYLE | GREET_NO_GO | GREET_NO_SIZES)) {
		x.min = 1;
		x.preferred = 4096;
		x.max = 32u << 20;
	}
	errors = errors || x.size != offer.size || (offer.flags & ~x.flags) ||
		 x.flags & NBD_FLAG_READ_ONLY || x.max < offer.max || x.min > 512;
	server_offers(&x, g, cut);
}

static void answer(uint8_t which, uint8_t how)
{
	static const uint32_t answers[] = {0, 0, 0,       0,          0,           0,
					   0, 0, NBD_EIO, NBD_ENOSPC, NBD_ENOTSUP, 12345};
	uint32_t error = how & 0x80 ? answers[how / 8 % 12] : 0;

	if (how == 0xff)
		error = NBD_ESHUTDOWN;
	else
		errors |= error != 0;
	server_answer(which, error, how);
	if (how == 0xff) /* and waits for the client's end */
		turn(SIZE_MAX);
}

static bool client_waits(uint64_t cookie)
{
	for (int i = 0; i < NBD_CMDS + NBD_OWN; i++)
		if (leaf && client()->cmds[i].cookie == cookie)
			return true;
	return false;
}

static void say_raw(unsigned through, struct fuzz_in *in)
{
	uint8_t b[256];
	size_t n = fuzz_u8(in);

	lied = true;
	server_says(through, b, fuzz_take(in, b, n));
}

static void step(struct fuzz_in *in)
{
	unsigned what = fuzz_u8(in) % (wild ? STEPS : TAME_STEPS);
	uint8_t a = fuzz_u8(in);

	switch (what) {
	case STEP_ANSWER:
	case STEP_ANSWER_TOO:
		answer(a, fuzz_u8(in));
		break;
	case STEP_DO:
		server_do(a);
		break;
	case STEP_TURNS:
		turn(a);
		break;
	case STEP_TURNS_TOO:
		for (int i = 0; i < 1 + a % 8; i++)
			turn(SIZE_MAX);
		break;
	case STEP_DROP:
		server_drop(a);
		break;
	case STEP_CRASH:
		server_crash(a * UINT64_C(0x9e3779b97f4a7c15));
		break;
	case STEP_LISTEN:
		server_listens(a & 1);
		break;
	case STEP_OFFER:
		offer_another(in);
		break;
	case STEP_REPEAT:
		server_turn(0);
		if (a & 0x80 && server_answers_elsewhere(a)) {
			errors = true;
			turn(SIZE_MAX); /* before the command can come to that connection */
		} else {
			errors |= server_repeats(a, client_waits);
		}
		break;
	case STEP_RAW:
		say_raw(a, in);
		break;
	default: {
		uint8_t how = fuzz_u8(in), at = fuzz_u8(in);

		request(a, how, at, fuzz_u8(in));
	}
	}
}

/* --- the whole --- */

struct opening {
	struct td_how how;
	const char *spec;
	bool done;
	int rc;
};

static struct opening o;

static void open_it(void *arg)
{
	err = (struct td_err){0};
	o.rc = chain_open(o.spec, &o.how, fio.io, &leaf, &err);
	o.done = true;
}

static void close_it(void *arg)
{
	chain_close(leaf);
	*(bool *)arg = true;
}

static void beside_server(void (*fn)(void *arg), void *arg, const bool *done)
{
	FUZZ_ASSERT(!td_fiber_start(loop, fn, arg));
	for (int i = 0; !*done; i++) {
		server_turn(SIZE_MAX);
		while (server_asked())
			server_answer(0, 0, 0);
		server_turn(SIZE_MAX);
		turns(1);
		if (i > 100)
			usleep(100);     /* a timer is awaited */
		FUZZ_ASSERT(i < 100000); /* it hangs */
	}
}

static bool any_out(void)
{
	bool out = false;

	for (int k = 0; k < OPS; k++)
		out |= ops[k].out;
	return out;
}

/* It is there again as it was, and does what it is asked. */
static void settle(void)
{
	server_offers(&offer, greeting, 0);
	server_listens(true);
	for (int i = 0; any_out(); i++) {
		if (i == 20 || (wild && i % 100 == 99))
			server_drop_all(); /* one with other wishes, or that waits for what was raw
					    */
		while (server_asked())
			server_answer((unsigned)i, 0, 4 | (unsigned)i % 4);
		turn(SIZE_MAX);
		FUZZ_ASSERT(i < 10000); /* it hangs */
	}
}

static void run_steps(struct fuzz_in *in)
{
	bool closed = false;

	while (in->left)
		step(in);
	settle();
	if (!client()->lost) { /* whatever was lost on the way is written again */
		request(3, 0, 0, 0);
		for (unsigned s = 0; s < SECTORS; s += COMMAND_SECTORS) {
			settle();
			request(1, 0, (uint8_t)s, COMMAND_SECTORS - 1);
		}
		settle();
	}
	beside_server(close_it, &closed, &closed);
	leaf = NULL;
}

void fuzz_start(void)
{
	static char spec[300];

	snprintf(spec, sizeof spec, "nbd:%s/s", fuzz_dir());
	server_start(spec + 4);
	o.spec = spec;
	loop = ev_loop_new(EVFLAG_AUTO);
	fault_io_new(&fio, loop, 512, 512);
	nbdc_spread_chunk = nbdc_spread_busy = 9; /* of so small a disk */
}

int fuzz_one(const uint8_t *data, size_t size)
{
	struct fuzz_in in = {data, size};
	uint8_t how = fuzz_u8(&in), few;

	wild = how & WILD;
	nosync = how & NOSYNC;
	errors = lied = false;
	writes = 0;
	memset(acked, 0, sizeof acked);
	memset(zeroed, 0, sizeof zeroed);
	offer = (struct nbdc_offer){
		.size = SECTORS * 512, .min = 1, .preferred = 4096, .max = 32u << 20};
	offer.flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH |
		      (fuzz_u8(&in) &
		       (NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES));
	greeting = (how & STRUCTURED ? GREET_STRUCTURED : 0) |
		   (how & OLDSTYLE ? GREET_OLDSTYLE : 0) | (how & NO_GO ? GREET_NO_GO : 0);
	if (!(greeting & (GREET_OLDSTYLE | GREET_NO_GO)))
		offer.max = 512 * (1u + fuzz_u8(&in));
	few = how & MULTI ? fuzz_u8(&in) : 0;
	offer.flags |= how & MULTI ? NBD_FLAG_CAN_MULTI_CONN : 0;
	o.how = (struct td_how){.flags = nosync ? TD_FILE_NOSYNC : 0,
				.reconnect = how & LIMITED ? 1000 : -1,
				.connections = few / 8 % 8 / 2};
	o.done = false;
	server_begin(few % 8, few & 0x80);
	server_offers(&offer, greeting, 0);
	beside_server(open_it, NULL, &o.done);
	if (o.rc)
		fprintf(stderr, "%s: %s\n", fuzz_name, err.text);
	FUZZ_ASSERT(!o.rc);
	run_steps(&in);
	server_end();
	return 0;
}

/* --- seeds --- */

static uint8_t *put(uint8_t *p, uint8_t a, uint8_t b)
{
	*p++ = a;
	*p++ = b;
	return p;
}

static uint8_t *put_request(uint8_t *p, uint8_t what, uint8_t how, uint8_t at, uint8_t len)
{
	p = put(p, STEP_REQUEST, what);
	p = put(p, how, at);
	*p++ = len;
	return put(p, STEP_TURNS, 255);
}

static uint8_t *put_answer(uint8_t *p, uint8_t which, uint8_t how)
{
	p = put(p, STEP_ANSWER, which);
	*p++ = how;
	return put(p, STEP_TURNS_TOO, 1);
}

/* Reads enough to need several connections, beside what was written and what was flushed. */
static uint8_t *put_reads(uint8_t *p)
{
	p = put(p, STEP_TURNS_TOO, 7);
	for (uint8_t k = 0; k < 5; k++)
		p = put_request(p, 1, 0, (uint8_t)(8 * k), 7);
	return p;
}

/* Of several connections, something happens to one; then more. */
static uint8_t *put_trouble(uint8_t *p, unsigned which, uint8_t i)
{
	switch (which) {
	case 0:
		return put(p, STEP_DROP, (uint8_t)(1 + i));
	case 1:
		return put(p, STEP_DROP, 0);
	case 2: /* further ones lead elsewhere */
		p = put(put(p, STEP_OFFER, 0), 3 * i, 0);
		return put(p, STEP_DROP, 1);
	case 3:
		return put_answer(p, 3, 0xff);
	case 4:
		return put(p, STEP_REPEAT, (uint8_t)(0x80 + 37 * i));
	case 5: /* cut in the greeting */
		p = put(put(p, STEP_OFFER, 0x86), 0, (uint8_t)(40 * i));
		return put(p, STEP_DROP, 1);
	case 6: /* in the middle of an answer */
		p = put(p, STEP_ANSWER, (uint8_t)(2 + i));
		*p++ = 4;
		return put(put(p, STEP_TURNS, 200), STEP_DROP, (uint8_t)(1 + i));
	default:
		return put(p, STEP_CRASH, (uint8_t)(1 + i));
	}
}

/* An eighth of a seed's `few' says how many connections are asked for, twice. */
static size_t seed_multi(unsigned n, uint8_t *p)
{
	static const uint8_t few[] = {0, 3 * 16, 3, 0x80 | 2, 5 * 16 | 2, 1 * 16};
	const uint8_t *start = p;

	if (n >= 8 * 6)
		return 0;
	*p++ = MULTI | (n / 8 % 2 ? STRUCTURED : 0) | (n / 8 == 5 ? WILD : 0);
	*p++ = 0xff;
	*p++ = 255;
	*p++ = few[n / 8];
	for (uint8_t i = 0; i < 3; i++) {
		for (uint8_t k = 0; k < 4; k++)
			p = put_answer(put_request(p, 0, k == 3, (uint8_t)(k * 8), 7), 0, 0);
		p = put_answer(put_request(p, 3, 0, 0, 0), 0, 0);
		p = put_answer(put_request(p, 0, 0, (uint8_t)(16 * i), 3), 0, 0);
		p = put_trouble(put_reads(p), n % 8, i);
		p = put(p, STEP_TURNS_TOO, 7);
		for (uint8_t k = 0; k < 8; k++)
			p = put_answer(p, (uint8_t)(7 * k), k & 7);
	}
	return (size_t)(p - start);
}

/* Writes, some of which are answered, and a flush under way; then something happens; then more. */
size_t fuzz_seed(unsigned n, uint8_t *p)
{
	static const uint8_t heads[] = {0,     STRUCTURED,           NOSYNC, OLDSTYLE,
					NO_GO, STRUCTURED | LIMITED, WILD};
	const uint8_t *start = p;

	if (n >= 7 * 7)
		return seed_multi(n - 7 * 7, p);
	*p++ = heads[n % 7];
	*p++ = n / 7 % 2 ? 0xff : 0;
	if (!(heads[n % 7] & (OLDSTYLE | NO_GO)))
		*p++ = n / 7 % 3 ? 255 : 3;
	for (uint8_t i = 0; i < 3; i++) {
		for (uint8_t k = 0; k < 4; k++)
			p = put_answer(put_request(p, 0, k == 3, (uint8_t)(k * 2), 3), 0, 0);
		p = put_request(p, 3, 0, 0, 0);
		p = put(p, n / 7 == 6 ? STEP_DO : STEP_TURNS, 0);
		p = put_answer(put_request(p, 2, 0, 4, 7), 1, 0); /* not the flush */
		p = put_request(p, 7, 0, 2, 3);
		p = put_request(p, 1, 2, 0, 15);
		p = put_answer(p, 1, (uint8_t)(4 + i));
		switch (n / 7) {
		case 0:
			p = put(p, STEP_DROP, 0);
			break;
		case 1:
			p = put(p, STEP_CRASH, (uint8_t)(1 + i));
			break;
		case 2:
			p = put(p, STEP_OFFER, 0);
			p = put(put(p, (uint8_t)(i * 3), 0xfe), STEP_CRASH, 3);
			break;
		case 3:
			p = put(put(p, STEP_LISTEN, 0), STEP_CRASH, 7);
			p = put(put(p, STEP_TURNS_TOO, 3), STEP_LISTEN, 1);
			break;
		case 4:
			p = put_answer(p, 0, 0xff);
			break;
		case 6: /* the flush, which was carried out before the last write */
			p = put(put_answer(p, 0, 0), STEP_CRASH, 255);
			break;
		default:
			p = put(p, STEP_DROP, 0);
			p = put(put(p, STEP_TURNS_TOO, 5), STEP_REPEAT, i);
		}
		p = put(p, STEP_TURNS_TOO, 7);
		for (uint8_t k = 0; k < 8; k++)
			p = put_answer(p, (uint8_t)(7 * k), k & 7);
	}
	return (size_t)(p - start);
}
