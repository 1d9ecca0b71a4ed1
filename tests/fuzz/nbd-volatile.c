/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/fuzz/nbd-volatile.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { ROOM = 1 << 20, ALL = NBD_CMDS + NBD_OWN, PAST = 64 };
enum stage { FLAGS, OPTIONS, COMMANDS };

struct command {
	uint64_t cookie, off, write[COMMAND_SECTORS];
	uint32_t len;
	uint16_t type, flags;
	bool done;
};

uint64_t safe[SECTORS];

static uint64_t now[SECTORS];
static struct sockaddr_un at = {.sun_family = AF_UNIX};
static int listener = -1, fd = -1;
static enum stage stage;
static struct nbdc_offer offered, x; /* to the next connection; of this one */
static unsigned how, greets, cut;    /* likewise; bytes that it may still say, 0: any number */
static bool structured;
static uint8_t heard[ROOM], said[ROOM];
static size_t have, from, to;
static struct command asked[ALL];
static unsigned nasked;
static uint64_t past[PAST]; /* cookies */
static unsigned npast;

void server_start(const char *path)
{
	FUZZ_ASSERT(strlen(path) < sizeof at.sun_path);
	strcpy(at.sun_path, path);
}

void server_listens(bool yes)
{
	if (listener >= 0)
		close(listener);
	unlink(at.sun_path);
	listener = -1;
	if (!yes)
		return;
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	FUZZ_ASSERT(listener >= 0);
	FUZZ_ASSERT(!bind(listener, (struct sockaddr *)&at, sizeof at) && !listen(listener, 8));
}

void server_begin(void)
{
	memset(safe, 0, sizeof safe);
	memset(now, 0, sizeof now);
	npast = 0;
	server_listens(true);
}

static void note_past(uint64_t cookie)
{
	past[npast++ % PAST] = cookie;
}

void server_drop(void)
{
	if (fd >= 0)
		close(fd);
	fd = -1;
	for (unsigned i = 0; i < nasked; i++)
		note_past(asked[i].cookie);
	nasked = 0;
	have = from = to = 0;
}

void server_end(void)
{
	server_drop();
	server_listens(false);
}

void server_crash(uint64_t lost)
{
	server_drop();
	for (unsigned s = 0; s < SECTORS; s++) {
		if (!(lost >> s & 1))
			safe[s] = now[s];
		now[s] = safe[s];
	}
}

void server_offers(const struct nbdc_offer *offer, unsigned greeting, unsigned cut_at)
{
	offered = *offer;
	how = greeting;
	cut = cut_at;
}

void server_says(const void *p, size_t n)
{
	if (fd < 0 || !n || n > ROOM - to)
		return;
	memcpy(said + to, p, n);
	to += n;
}

bool server_talks(void)
{
	return fd >= 0 && stage == COMMANDS;
}

/* --- the greeting --- */

static void say_export(void)
{
	uint8_t b[8 + 4 + NBD_OLD_ZEROES] = {0};

	if (greets & GREET_OLDSTYLE)
		nbd_put32(nbd_put64(b, x.size), x.flags & 0xffff);
	else
		nbd_put16(nbd_put64(b, x.size), (uint16_t)x.flags);
	server_says(b, greets & GREET_OLDSTYLE ? sizeof b : 10);
	stage = COMMANDS;
}

static void greet(void)
{
	uint8_t b[18];

	x = offered;
	greets = how;
	structured = false;
	stage = FLAGS;
	nbd_put64(nbd_put64(b, NBD_MAGIC),
		  greets & GREET_OLDSTYLE ? NBD_OLD_MAGIC : NBD_OPTION_MAGIC);
	nbd_put16(b + 16, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
	server_says(b, greets & GREET_OLDSTYLE ? 16 : 18);
	if (greets & GREET_OLDSTYLE)
		say_export();
}

static void say_option(uint32_t option, uint32_t type, const void *p, uint32_t len)
{
	uint8_t b[NBD_ANSWER_SIZE];

	nbd_put32(nbd_put32(nbd_put32(nbd_put64(b, NBD_REPLY_MAGIC), option), type), len);
	server_says(b, sizeof b);
	server_says(p, len);
}

static void go(void)
{
	uint8_t export[12], sizes[14];

	nbd_put16(nbd_put64(nbd_put16(export, NBD_INFO_EXPORT), x.size), (uint16_t)x.flags);
	nbd_put32(nbd_put32(nbd_put32(nbd_put16(sizes, NBD_INFO_BLOCK_SIZE), x.min), x.preferred),
		  x.max);
	say_option(NBD_OPT_GO, NBD_REP_INFO, export, sizeof export);
	if (!(greets & GREET_NO_SIZES))
		say_option(NBD_OPT_GO, NBD_REP_INFO, sizes, sizeof sizes);
	say_option(NBD_OPT_GO, NBD_REP_ACK, NULL, 0);
	stage = COMMANDS;
}

static size_t hear_option(void)
{
	uint32_t option = nbd_get32(heard + 8), len = nbd_get32(heard + 12);

	if (have < NBD_OPTION_SIZE || have - NBD_OPTION_SIZE < len)
		return 0;
	FUZZ_ASSERT(nbd_get64(heard) == NBD_OPTION_MAGIC);
	if (option == NBD_OPT_STRUCTURED_REPLY && greets & GREET_STRUCTURED) {
		structured = true;
		say_option(option, NBD_REP_ACK, NULL, 0);
	} else if (option == NBD_OPT_SET_META_CONTEXT) {
		say_option(option, NBD_REP_ACK, NULL, 0);
	} else if (option == NBD_OPT_GO && !(greets & GREET_NO_GO)) {
		go();
	} else if (option == NBD_OPT_EXPORT_NAME) {
		say_export();
	} else {
		say_option(option, NBD_REP_ERR_UNSUP, NULL, 0);
	}
	return NBD_OPTION_SIZE + len;
}

/* --- commands --- */

static void check(const struct command *c)
{
	static const uint32_t wanted[] = {
		[NBD_CMD_FLUSH] = NBD_FLAG_SEND_FLUSH,
		[NBD_CMD_TRIM] = NBD_FLAG_SEND_TRIM,
		[NBD_CMD_WRITE_ZEROES] = NBD_FLAG_SEND_WRITE_ZEROES,
	};

	FUZZ_ASSERT(c->type <= NBD_CMD_WRITE_ZEROES && c->type != 5);
	FUZZ_ASSERT((x.flags & wanted[c->type]) == wanted[c->type]);
	FUZZ_ASSERT(!(c->flags & NBD_CMD_FUA) || x.flags & NBD_FLAG_SEND_FUA);
	FUZZ_ASSERT(c->type == NBD_CMD_READ || c->type == NBD_CMD_FLUSH ||
		    !(x.flags & NBD_FLAG_READ_ONLY));
	FUZZ_ASSERT(c->type == NBD_CMD_FLUSH ? !c->off && !c->len : c->len > 0);
	FUZZ_ASSERT(c->off <= x.size && c->len <= x.size - c->off);
	FUZZ_ASSERT(c->off % 512 == 0 && c->len % 512 == 0);
	if (c->type == NBD_CMD_READ || c->type == NBD_CMD_WRITE)
		FUZZ_ASSERT(c->len <= COMMAND_SECTORS * 512 && c->len <= x.max);
	for (unsigned i = 0; i < nasked; i++)
		FUZZ_ASSERT(asked[i].cookie != c->cookie);
	FUZZ_ASSERT(nasked < ALL);
}

static void take_data(struct command *c, const uint8_t *p)
{
	for (uint32_t i = 0; i < c->len; i += 8) {
		uint64_t word, sector = (c->off + i) / 512;

		memcpy(&word, p + i, 8);
		if (i % 512 == 0)
			c->write[i / 512] = word << 8 >> 16;
		FUZZ_ASSERT(word && word == sector_word(c->write[i / 512], sector));
	}
}

/* The bytes of a message; 0: it is not whole yet. */
static size_t hear_command(void)
{
	struct command c = {.flags = nbd_get16(heard + 4),
			    .type = nbd_get16(heard + 6),
			    .cookie = nbd_get64(heard + 8),
			    .off = nbd_get64(heard + 16),
			    .len = nbd_get32(heard + 24)};
	size_t n = NBD_REQUEST_SIZE;

	if (have < n)
		return 0;
	FUZZ_ASSERT(nbd_get32(heard) == NBD_REQUEST_MAGIC);
	if (c.type == NBD_CMD_DISC)
		return n;
	if (c.type == NBD_CMD_WRITE)
		n += c.len;
	FUZZ_ASSERT(n <= ROOM);
	if (have < n)
		return 0;
	check(&c);
	if (c.type == NBD_CMD_WRITE)
		take_data(&c, heard + NBD_REQUEST_SIZE);
	asked[nasked++] = c;
	return n;
}

static size_t hear_one(void)
{
	if (!have)
		return 0;
	if (stage == COMMANDS)
		return hear_command();
	if (stage == OPTIONS)
		return hear_option();
	if (have < 4)
		return 0;
	stage = OPTIONS;
	return 4;
}

static void hear(void)
{
	ssize_t n;
	size_t used;

	while ((n = recv(fd, heard + have, ROOM - have, MSG_DONTWAIT)) > 0) {
		have += (size_t)n;
		while ((used = hear_one()) != 0) {
			have -= used;
			memmove(heard, heard + used, have);
		}
	}
	if (!n || errno != EAGAIN)
		server_drop(); /* which it does too when it is told of no more */
}

void server_turn(size_t most)
{
	size_t n;
	ssize_t k;

	if (fd < 0 && listener >= 0 &&
	    (fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0)
		greet();
	if (fd >= 0)
		hear();
	if (fd < 0)
		return;
	n = to - from < most ? to - from : most;
	if (cut && n >= cut)
		n = cut;
	k = n ? send(fd, said + from, n, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
	from += k > 0 ? (size_t)k : 0;
	if (from == to)
		from = to = 0;
	if (cut && k > 0 && (cut -= (unsigned)k) == 0)
		server_drop();
}

/* --- answers --- */

unsigned server_asked(void)
{
	return nasked;
}

static void carry_out(struct command *c)
{
	uint64_t s = c->off / 512, n = c->len / 512;

	if (c->done)
		return;
	c->done = true;
	if (c->type == NBD_CMD_FLUSH)
		memcpy(safe, now, sizeof safe);
	for (uint64_t i = 0; i < n && c->type != NBD_CMD_READ && c->type != NBD_CMD_TRIM; i++) {
		now[s + i] = c->type == NBD_CMD_WRITE ? c->write[i] : 0;
		if (c->flags & NBD_CMD_FUA)
			safe[s + i] = now[s + i];
	}
}

void server_do(unsigned i)
{
	if (nasked)
		carry_out(&asked[i % nasked]);
}

static void say_simple(uint64_t cookie, uint32_t error)
{
	uint8_t b[NBD_SIMPLE_SIZE];

	nbd_put64(nbd_put32(nbd_put32(b, NBD_SIMPLE_MAGIC), error), cookie);
	server_says(b, sizeof b);
}

static void say_data(uint64_t s, uint64_t n)
{
	for (; n--; s++) {
		uint64_t word = sector_word(now[s], s);

		for (int k = 0; k < 64; k++)
			server_says(&word, 8);
	}
}

static void say_chunk(const struct command *c, uint16_t type, uint64_t s, uint32_t n, bool last)
{
	uint8_t b[NBD_CHUNK_SIZE + 12], *p = nbd_put32(b, NBD_STRUCTURED_MAGIC);
	bool hole = type == NBD_CHUNK_HOLE;

	p = nbd_put64(nbd_put16(nbd_put16(p, last ? NBD_CHUNK_DONE : 0), type), c->cookie);
	p = nbd_put64(nbd_put32(p, hole ? 12 : 8 + n * 512), s * 512);
	if (hole)
		p = nbd_put32(p, n * 512);
	server_says(b, (size_t)(p - b));
	if (!hole)
		say_data(s, n);
}

/* Sectors of zeroes as holes, if so it is; the halves in their order, or the other. */
static void say_chunks(const struct command *c, unsigned which)
{
	uint64_t s = c->off / 512;
	uint32_t n = c->len / 512, half = n / 2;
	struct {
		uint64_t s;
		uint32_t n;
	} part[2] = {{s, half}, {s + half, n - half}};

	for (unsigned i = 0; i < 2; i++) {
		unsigned k = which & 1 ? 1 - i : i;
		bool zero = which & 2;

		for (uint32_t j = 0; j < part[k].n; j++)
			zero = zero && !now[part[k].s + j];
		if (part[k].n)
			say_chunk(c, zero ? NBD_CHUNK_HOLE : NBD_CHUNK_DATA, part[k].s, part[k].n,
				  i == 1 || !half);
	}
}

void server_answer(unsigned i, uint32_t error, unsigned which)
{
	struct command c;

	if (!nasked || !server_talks())
		return;
	i %= nasked;
	if (!error)
		carry_out(&asked[i]);
	c = asked[i];
	memmove(asked + i, asked + i + 1, (--nasked - i) * sizeof *asked);
	note_past(c.cookie);
	fuzz_count++;
	if (structured && which & 4 && c.type == NBD_CMD_READ && !error) {
		say_chunks(&c, which);
		return;
	}
	say_simple(c.cookie, error);
	if (c.type == NBD_CMD_READ && !error)
		say_data(c.off / 512, c.len / 512);
}

bool server_repeats(unsigned i)
{
	uint64_t cookie = npast ? past[i % (npast < PAST ? npast : PAST)] : 0;

	for (unsigned k = 0; k < nasked; k++)
		if (asked[k].cookie == cookie)
			return false; /* it was sent again */
	if (!cookie || !server_talks())
		return false;
	say_simple(cookie, 0);
	return true;
}
