/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/fuzz/nbd-volatile.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { ROOM = 1 << 20, ALL = NBD_CMDS + NBD_OWN, PAST = 64, LINKS = 8 };
enum stage { FLAGS, OPTIONS, COMMANDS, SILENCE };

struct command {
	uint64_t cookie, off, write[COMMAND_SECTORS];
	uint32_t len;
	uint16_t type, flags;
	bool done;
};

struct link {            /* a connection */
	int fd;          /* -1: there is none */
	unsigned serial; /* no other has had it */
	enum stage stage;
	struct nbdc_offer x;
	unsigned greets, cut; /* cut: bytes that it may still say, 0: any number */
	bool structured, changes;
	uint8_t heard[ROOM], said[ROOM];
	size_t have, from, to;
	struct command asked[ALL];
	unsigned nasked;
};

uint64_t safe[SECTORS];

static uint64_t now[SECTORS];
static unsigned writer[SECTORS]; /* the serial of the link that has written it */
static struct sockaddr_un at = {.sun_family = AF_UNIX};
static int listener = -1;
static struct link links[LINKS];
static unsigned serials;
static struct nbdc_offer offered; /* to the next connection */
static unsigned how, cut, most;
static bool silent;
static uint64_t past[PAST]; /* cookies */
static unsigned npast;

void server_start(const char *path)
{
	FUZZ_ASSERT(strlen(path) < sizeof at.sun_path);
	strcpy(at.sun_path, path);
	for (struct link *l = links; l < links + LINKS; l++)
		l->fd = -1;
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

void server_begin(unsigned most_links, bool is_silent)
{
	memset(safe, 0, sizeof safe);
	memset(now, 0, sizeof now);
	memset(writer, 0, sizeof writer);
	npast = 0;
	most = most_links;
	silent = is_silent;
	server_listens(true);
}

static unsigned live(void)
{
	unsigned n = 0;

	for (const struct link *l = links; l < links + LINKS; l++)
		n += l->fd >= 0;
	return n;
}

/* The i-th of those that are there, or NULL. */
static struct link *link_at(unsigned i)
{
	unsigned n = live();
	struct link *l = links;

	if (!n)
		return NULL;
	for (i %= n; i || l->fd < 0; l++)
		i -= l->fd >= 0;
	return l;
}

static void note_past(uint64_t cookie)
{
	past[npast++ % PAST] = cookie;
}

static void drop(struct link *l)
{
	close(l->fd);
	l->fd = -1;
	for (unsigned i = 0; i < l->nasked; i++)
		note_past(l->asked[i].cookie);
	l->nasked = 0;
}

void server_drop(unsigned i)
{
	struct link *l = link_at(i);

	if (l)
		drop(l);
}

void server_drop_all(void)
{
	for (struct link *l = links; l < links + LINKS; l++)
		if (l->fd >= 0)
			drop(l);
}

void server_end(void)
{
	server_drop_all();
	server_listens(false);
}

void server_crash(uint64_t lost)
{
	server_drop_all();
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

static void say(struct link *l, const void *p, size_t n)
{
	if (!n || n > ROOM - l->to)
		return;
	memcpy(l->said + l->to, p, n);
	l->to += n;
}

void server_says(unsigned i, const void *p, size_t n)
{
	struct link *l = link_at(i);

	if (l)
		say(l, p, n);
}

/* --- the greeting --- */

static void say_export(struct link *l)
{
	uint8_t b[8 + 4 + NBD_OLD_ZEROES] = {0};

	if (l->greets & GREET_OLDSTYLE)
		nbd_put32(nbd_put64(b, l->x.size), l->x.flags & 0xffff);
	else
		nbd_put16(nbd_put64(b, l->x.size), (uint16_t)l->x.flags);
	say(l, b, l->greets & GREET_OLDSTYLE ? sizeof b : 10);
	l->stage = COMMANDS;
}

static void greet(struct link *l)
{
	uint8_t b[18];

	nbd_put64(nbd_put64(b, NBD_MAGIC),
		  l->greets & GREET_OLDSTYLE ? NBD_OLD_MAGIC : NBD_OPTION_MAGIC);
	nbd_put16(b + 16, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
	say(l, b, l->greets & GREET_OLDSTYLE ? 16 : 18);
	if (l->greets & GREET_OLDSTYLE)
		say_export(l);
}

static void say_option(struct link *l, uint32_t option, uint32_t type, const void *p, uint32_t len)
{
	uint8_t b[NBD_ANSWER_SIZE];

	nbd_put32(nbd_put32(nbd_put32(nbd_put64(b, NBD_REPLY_MAGIC), option), type), len);
	say(l, b, sizeof b);
	say(l, p, len);
}

static void go(struct link *l)
{
	uint8_t export[12], sizes[14];

	nbd_put16(nbd_put64(nbd_put16(export, NBD_INFO_EXPORT), l->x.size), (uint16_t)l->x.flags);
	nbd_put32(nbd_put32(nbd_put32(nbd_put16(sizes, NBD_INFO_BLOCK_SIZE), l->x.min),
			    l->x.preferred),
		  l->x.max);
	say_option(l, NBD_OPT_GO, NBD_REP_INFO, export, sizeof export);
	if (!(l->greets & GREET_NO_SIZES))
		say_option(l, NBD_OPT_GO, NBD_REP_INFO, sizes, sizeof sizes);
	say_option(l, NBD_OPT_GO, NBD_REP_ACK, NULL, 0);
	l->stage = COMMANDS;
}

static size_t hear_option(struct link *l)
{
	uint32_t option = nbd_get32(l->heard + 8), len = nbd_get32(l->heard + 12);

	if (l->have < NBD_OPTION_SIZE || l->have - NBD_OPTION_SIZE < len)
		return 0;
	FUZZ_ASSERT(nbd_get64(l->heard) == NBD_OPTION_MAGIC);
	if (option == NBD_OPT_STRUCTURED_REPLY && l->greets & GREET_STRUCTURED) {
		l->structured = true;
		say_option(l, option, NBD_REP_ACK, NULL, 0);
	} else if (option == NBD_OPT_SET_META_CONTEXT) {
		say_option(l, option, NBD_REP_ACK, NULL, 0);
	} else if (option == NBD_OPT_GO && !(l->greets & GREET_NO_GO)) {
		go(l);
	} else if (option == NBD_OPT_EXPORT_NAME) {
		say_export(l);
	} else {
		say_option(l, option, NBD_REP_ERR_UNSUP, NULL, 0);
	}
	return NBD_OPTION_SIZE + len;
}

/* --- commands --- */

/* KC1: what is no read is always on the same one; before that is followed by another, it has
 * ended. */
static void check_link(struct link *l, const struct command *c)
{
	l->changes = l->changes || c->type != NBD_CMD_READ;
	for (const struct link *o = links; l->changes && o < links + LINKS; o++)
		FUZZ_ASSERT(o == l || o->fd < 0 || !o->changes);
	for (unsigned i = 0; i < l->nasked; i++)
		FUZZ_ASSERT(l->asked[i].cookie != c->cookie);
	FUZZ_ASSERT(l->nasked < ALL);
}

static void check(const struct nbdc_offer *x, const struct command *c)
{
	static const uint32_t wanted[] = {
		[NBD_CMD_FLUSH] = NBD_FLAG_SEND_FLUSH,
		[NBD_CMD_TRIM] = NBD_FLAG_SEND_TRIM,
		[NBD_CMD_WRITE_ZEROES] = NBD_FLAG_SEND_WRITE_ZEROES,
	};

	FUZZ_ASSERT(c->type <= NBD_CMD_WRITE_ZEROES && c->type != 5);
	FUZZ_ASSERT((x->flags & wanted[c->type]) == wanted[c->type]);
	FUZZ_ASSERT(!(c->flags & NBD_CMD_FUA) || x->flags & NBD_FLAG_SEND_FUA);
	FUZZ_ASSERT(c->type == NBD_CMD_READ || c->type == NBD_CMD_FLUSH ||
		    !(x->flags & NBD_FLAG_READ_ONLY));
	FUZZ_ASSERT(c->type == NBD_CMD_FLUSH ? !c->off && !c->len : c->len > 0);
	FUZZ_ASSERT(c->off <= x->size && c->len <= x->size - c->off);
	FUZZ_ASSERT(c->off % 512 == 0 && c->len % 512 == 0);
	if (c->type == NBD_CMD_READ || c->type == NBD_CMD_WRITE)
		FUZZ_ASSERT(c->len <= COMMAND_SECTORS * 512 && c->len <= x->max);
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
static size_t hear_command(struct link *l)
{
	const uint8_t *p = l->heard;
	struct command c = {.flags = nbd_get16(p + 4),
			    .type = nbd_get16(p + 6),
			    .cookie = nbd_get64(p + 8),
			    .off = nbd_get64(p + 16),
			    .len = nbd_get32(p + 24)};
	size_t n = NBD_REQUEST_SIZE;

	if (l->have < n)
		return 0;
	FUZZ_ASSERT(nbd_get32(p) == NBD_REQUEST_MAGIC);
	if (c.type == NBD_CMD_DISC)
		return n;
	if (c.type == NBD_CMD_WRITE)
		n += c.len;
	FUZZ_ASSERT(n <= ROOM);
	if (l->have < n)
		return 0;
	check(&l->x, &c);
	check_link(l, &c);
	if (c.type == NBD_CMD_WRITE)
		take_data(&c, p + NBD_REQUEST_SIZE);
	l->asked[l->nasked++] = c;
	return n;
}

static size_t hear_one(struct link *l)
{
	if (!l->have)
		return 0;
	if (l->stage == COMMANDS)
		return hear_command(l);
	if (l->stage == OPTIONS)
		return hear_option(l);
	if (l->stage == SILENCE)
		return l->have;
	if (l->have < 4)
		return 0;
	l->stage = OPTIONS;
	return 4;
}

static void hear(struct link *l)
{
	ssize_t n;
	size_t used;

	while ((n = recv(l->fd, l->heard + l->have, ROOM - l->have, MSG_DONTWAIT)) > 0) {
		l->have += (size_t)n;
		while ((used = hear_one(l)) != 0) {
			l->have -= used;
			memmove(l->heard, l->heard + used, l->have);
		}
	}
	if (!n || errno != EAGAIN)
		drop(l); /* which it does too when it is told of no more */
}

static void talk(struct link *l, size_t upto)
{
	size_t n = l->to - l->from < upto ? l->to - l->from : upto;
	ssize_t k;

	if (l->cut && n >= l->cut)
		n = l->cut;
	k = n ? send(l->fd, l->said + l->from, n, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
	l->from += k > 0 ? (size_t)k : 0;
	if (l->from == l->to)
		l->from = l->to = 0;
	if (l->cut && k > 0 && (l->cut -= (unsigned)k) == 0)
		drop(l);
}

/* KC4: it has no room for more than `most'. */
static void let_in(int fd)
{
	bool full = most && live() >= most;
	struct link *l = links;

	while (l < links + LINKS && l->fd >= 0)
		l++;
	if (l == links + LINKS || (full && !silent)) {
		close(fd);
		return;
	}
	l->fd = fd;
	l->serial = ++serials;
	l->x = offered;
	l->greets = how;
	l->cut = cut;
	cut = 0;
	l->stage = full ? SILENCE : FLAGS;
	l->structured = l->changes = false;
	l->have = l->from = l->to = 0;
	if (!full)
		greet(l);
}

void server_turn(size_t upto)
{
	int fd;

	for (struct link *l = links; l < links + LINKS; l++)
		if (l->fd >= 0)
			hear(l);
	while (listener >= 0 &&
	       (fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0)
		let_in(fd);
	for (struct link *l = links; l < links + LINKS; l++)
		if (l->fd >= 0)
			talk(l, upto);
}

/* --- answers --- */

unsigned server_asked(void)
{
	unsigned n = 0;

	for (const struct link *l = links; l < links + LINKS; l++)
		n += l->fd >= 0 ? l->nasked : 0;
	return n;
}

/* The *i-th of all, by its link and its place there, or NULL. */
static struct link *find(unsigned *i)
{
	unsigned n = server_asked();
	struct link *l = links;

	if (!n)
		return NULL;
	for (*i %= n; l->fd < 0 || *i >= l->nasked; l++)
		*i -= l->fd >= 0 ? l->nasked : 0;
	return l;
}

static void carry_out(const struct link *l, struct command *c)
{
	uint64_t s = c->off / 512, n = c->len / 512;

	if (c->done)
		return;
	c->done = true;
	if (c->type == NBD_CMD_FLUSH)
		memcpy(safe, now, sizeof safe);
	for (uint64_t i = 0; i < n && c->type != NBD_CMD_READ && c->type != NBD_CMD_TRIM; i++) {
		now[s + i] = c->type == NBD_CMD_WRITE ? c->write[i] : 0;
		writer[s + i] = l->serial;
		if (c->flags & NBD_CMD_FUA)
			safe[s + i] = now[s + i];
	}
}

void server_do(unsigned i)
{
	struct link *l = find(&i);

	if (l)
		carry_out(l, &l->asked[i]);
}

/* What no flush covers is shown to its writer alone, while that is there: no server need do more
 * (KC2). */
static uint64_t shown(const struct link *l, uint64_t s)
{
	for (const struct link *o = links; o < links + LINKS; o++)
		if (o != l && o->fd >= 0 && o->serial == writer[s])
			return safe[s];
	return now[s];
}

static void say_simple(struct link *l, uint64_t cookie, uint32_t error)
{
	uint8_t b[NBD_SIMPLE_SIZE];

	nbd_put64(nbd_put32(nbd_put32(b, NBD_SIMPLE_MAGIC), error), cookie);
	say(l, b, sizeof b);
}

static void say_data(struct link *l, uint64_t s, uint64_t n)
{
	for (; n--; s++) {
		uint64_t word = sector_word(shown(l, s), s);

		for (int k = 0; k < 64; k++)
			say(l, &word, 8);
	}
}

static void say_chunk(struct link *l, const struct command *c, uint16_t type, uint64_t s,
		      uint32_t n, bool last)
{
	uint8_t b[NBD_CHUNK_SIZE + 12], *p = nbd_put32(b, NBD_STRUCTURED_MAGIC);
	bool hole = type == NBD_CHUNK_HOLE;

	p = nbd_put64(nbd_put16(nbd_put16(p, last ? NBD_CHUNK_DONE : 0), type), c->cookie);
	p = nbd_put64(nbd_put32(p, hole ? 12 : 8 + n * 512), s * 512);
	if (hole)
		p = nbd_put32(p, n * 512);
	say(l, b, (size_t)(p - b));
	if (!hole)
		say_data(l, s, n);
}

/* Sectors of zeroes as holes, if so it is; the halves in their order, or the other. */
static void say_chunks(struct link *l, const struct command *c, unsigned which)
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
			zero = zero && !shown(l, part[k].s + j);
		if (part[k].n)
			say_chunk(l, c, zero ? NBD_CHUNK_HOLE : NBD_CHUNK_DATA, part[k].s,
				  part[k].n, i == 1 || !half);
	}
}

void server_answer(unsigned i, uint32_t error, unsigned which)
{
	struct link *l = find(&i);
	struct command c;

	if (!l)
		return;
	if (!error)
		carry_out(l, &l->asked[i]);
	c = l->asked[i];
	memmove(l->asked + i, l->asked + i + 1, (--l->nasked - i) * sizeof *l->asked);
	note_past(c.cookie);
	fuzz_count++;
	if (l->structured && which & 4 && c.type == NBD_CMD_READ && !error) {
		say_chunks(l, &c, which);
		return;
	}
	say_simple(l, c.cookie, error);
	if (c.type == NBD_CMD_READ && !error)
		say_data(l, c.off / 512, c.len / 512);
}

bool server_repeats(unsigned i, bool (*waits)(uint64_t cookie))
{
	uint64_t cookie = npast ? past[i % (npast < PAST ? npast : PAST)] : 0;
	struct link *l = link_at(i / PAST);

	if (waits(cookie))
		return false;
	for (const struct link *o = links; o < links + LINKS; o++)
		for (unsigned k = 0; o->fd >= 0 && k < o->nasked; k++)
			if (o->asked[k].cookie == cookie)
				return false; /* it was sent again */
	if (!cookie || !l || l->stage != COMMANDS)
		return false;
	say_simple(l, cookie, 0);
	return true;
}

bool server_answers_elsewhere(unsigned i)
{
	struct link *l = find(&i), *other = link_at(i / 16);
	const struct command *c = l ? &l->asked[i] : NULL;
	uint64_t none = UINT64_C(0xee) << 56;

	if (!l || other == l || other->stage != COMMANDS)
		return false;
	say_simple(other, c->cookie, 0);
	for (uint32_t k = 0; c->type == NBD_CMD_READ && k < c->len; k += 8)
		say(other, &none, 8);
	return true;
}
