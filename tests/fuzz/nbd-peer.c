/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/fuzz/nbd-peer.h"

#include <sys/socket.h>

#define HEARD (4u << 20) /* bytes; more than all that the client can have under way */
#define SAID  (4u << 20)

struct command {
	uint64_t cookie, off;
	uint32_t len;
	uint16_t type;
};

static int fd;
static const struct nbdc_offer *x;
static bool believed, options;
static uint8_t heard[HEARD], said[SAID];
static size_t have, from, to; /* of heard; said[from .. to) is to be sent */
static struct command asked[NBD_CMDS];
static unsigned nasked;

uint64_t peer_number(int what, uint64_t sector)
{
	return (uint64_t)what << 56 | sector;
}

void peer_begin(int socket, const struct nbdc_offer *offer, bool is_believed)
{
	fd = socket;
	x = offer;
	believed = is_believed;
	options = false;
	have = from = to = 0;
	nasked = 0;
}

void peer_say(const void *p, size_t n)
{
	if (n > SAID - to)
		return; /* of a wild one's replies: they are longer than any client wants */
	memcpy(said + to, p, n);
	to += n;
}

void peer_send(size_t most)
{
	size_t n = to - from < most ? to - from : most;
	ssize_t k = n ? send(fd, said + from, n, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;

	from += k > 0 ? (size_t)k : 0;
	if (from == to)
		from = to = 0;
}

/* --- what comes --- */

static void check_command(const struct command *c, uint16_t flags)
{
	static const uint32_t wanted[] = {
		[NBD_CMD_READ] = 0,
		[NBD_CMD_WRITE] = 0,
		[NBD_CMD_FLUSH] = NBD_FLAG_SEND_FLUSH,
		[NBD_CMD_TRIM] = NBD_FLAG_SEND_TRIM,
		[NBD_CMD_WRITE_ZEROES] = NBD_FLAG_SEND_WRITE_ZEROES,
	};

	FUZZ_ASSERT(c->type <= NBD_CMD_WRITE_ZEROES && c->type != 5 && c->type != NBD_CMD_DISC);
	FUZZ_ASSERT((x->flags & wanted[c->type]) == wanted[c->type]);
	FUZZ_ASSERT(!(flags & NBD_CMD_FUA) || x->flags & NBD_FLAG_SEND_FUA);
	FUZZ_ASSERT(!(flags & ~(NBD_CMD_FUA | NBD_CMD_NO_HOLE)));
	FUZZ_ASSERT(!(flags & NBD_CMD_NO_HOLE) || c->type == NBD_CMD_WRITE_ZEROES);
	FUZZ_ASSERT(c->type == NBD_CMD_READ || c->type == NBD_CMD_FLUSH ||
		    !(x->flags & NBD_FLAG_READ_ONLY));
	FUZZ_ASSERT(c->type != NBD_CMD_FLUSH || (!c->off && !c->len));
	FUZZ_ASSERT(c->type == NBD_CMD_FLUSH || c->len);
	FUZZ_ASSERT(c->off <= x->size && c->len <= x->size - c->off);
	FUZZ_ASSERT(c->off % x->min == 0 && c->len % x->min == 0);
	FUZZ_ASSERT((c->type != NBD_CMD_READ && c->type != NBD_CMD_WRITE) || c->len <= x->max);
	for (unsigned i = 0; i < nasked; i++)
		FUZZ_ASSERT(asked[i].cookie != c->cookie);
	FUZZ_ASSERT(nasked < NBD_CMDS);
}

static void check_data(const struct command *c, const uint8_t *p)
{
	for (uint32_t i = 0; i < c->len; i += 8) {
		uint64_t v = peer_number('W', (c->off + i) / 512);

		FUZZ_ASSERT(!memcmp(p + i, &v, 8));
	}
}

/* The bytes of a message; 0: it is not whole yet. */
static size_t hear_command(void)
{
	struct command c = {.type = nbd_get16(heard + 6),
			    .cookie = nbd_get64(heard + 8),
			    .off = nbd_get64(heard + 16),
			    .len = nbd_get32(heard + 24)};
	size_t n = NBD_REQUEST_SIZE;

	if (have < n)
		return 0;
	if (c.type == NBD_CMD_DISC)
		return n;
	if (c.type == NBD_CMD_WRITE)
		n += c.len;
	FUZZ_ASSERT(n <= HEARD);
	if (have < n)
		return 0;
	if (believed)
		check_command(&c, nbd_get16(heard + 4));
	if (c.type == NBD_CMD_WRITE)
		check_data(&c, heard + NBD_REQUEST_SIZE);
	if (nasked < NBD_CMDS)
		asked[nasked++] = c;
	return n;
}

static size_t hear_one(void)
{
	if (have < 4)
		return 0;
	if (nbd_get32(heard) == NBD_REQUEST_MAGIC)
		return hear_command();
	if (have >= 8 && nbd_get64(heard) == NBD_OPTION_MAGIC) {
		size_t n = have >= NBD_OPTION_SIZE ? NBD_OPTION_SIZE + nbd_get32(heard + 12) : 0;

		return n <= have ? n : 0;
	}
	if (nbd_get32(heard) == (uint32_t)(NBD_OPTION_MAGIC >> 32))
		return 0;
	FUZZ_ASSERT(!options); /* its flags come once, and first */
	options = true;
	return 4;
}

void peer_hear(void)
{
	ssize_t n;
	size_t used;

	while ((n = recv(fd, heard + have, HEARD - have, MSG_DONTWAIT)) > 0) {
		have += (size_t)n;
		while ((used = hear_one()) != 0) {
			have -= used;
			memmove(heard, heard + used, have);
		}
	}
}

/* --- answers --- */

unsigned peer_asked(void)
{
	return nasked;
}

uint64_t peer_cookie(unsigned i)
{
	return nasked ? asked[i % nasked].cookie : 0;
}

void peer_answer(unsigned i, uint32_t error)
{
	struct command c;
	uint8_t head[NBD_SIMPLE_SIZE];

	if (!nasked)
		return;
	i %= nasked;
	c = asked[i];
	memmove(asked + i, asked + i + 1, (--nasked - i) * sizeof *asked);
	nbd_put64(nbd_put32(nbd_put32(head, NBD_SIMPLE_MAGIC), error), c.cookie);
	peer_say(head, sizeof head);
	if (c.type == NBD_CMD_READ && !error)
		for (uint32_t at = 0; at < c.len; at += 8) {
			uint64_t v = peer_number('D', (c.off + at) / 512);

			peer_say(&v, 8);
		}
	fuzz_count++;
}
