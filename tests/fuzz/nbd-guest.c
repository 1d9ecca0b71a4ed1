/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/fuzz/nbd-guest.h"

#include <errno.h>
#include <sys/socket.h>

#define REQS 64
#define ROOM (4u << 20) /* bytes heard and not looked at yet; more than any message */

enum phase { GREETING, ASKING, WAITS_EXPORT, TRANSMISSION, OVER };

struct request {
	uint64_t cookie, off;
	uint32_t len, got; /* got: bytes of a read's data */
	uint16_t type, flags;
	bool out, valid, failed;
};

static const struct nbd_disk *disk;
static int fd;
static enum phase phase;
static bool oldstyle, no_zeroes, structured, allocation, image_failed, good_bye;
static bool asking;     /* an option is being answered: */
static uint32_t option; /* this one */
static struct request reqs[REQS];
static unsigned out;
static uint32_t serial;
static uint8_t buf[ROOM];
static size_t have;

uint64_t client_number(int what, uint64_t sector)
{
	return (uint64_t)what << 56 | sector;
}

void client_begin(int socket, const struct nbd_disk *d, bool old)
{
	fd = socket;
	disk = d;
	oldstyle = old;
	phase = GREETING;
	no_zeroes = structured = allocation = image_failed = good_bye = false;
	asking = false;
	memset(reqs, 0, sizeof reqs);
	out = serial = 0;
	have = 0;
}

void client_failed(void)
{
	image_failed = true;
}

bool client_may_ask(void)
{
	return phase == ASKING && !asking;
}

bool client_may_send(void)
{
	return phase == TRANSMISSION && !good_bye && !reqs[serial % REQS].out;
}

bool client_waits(void)
{
	return phase != OVER && (phase == GREETING || phase == WAITS_EXPORT || asking || out);
}

bool client_is_over(void)
{
	return phase == OVER;
}

/* --- what is said --- */

size_t client_flags(uint32_t flags, uint8_t *to)
{
	no_zeroes = flags & NBD_NO_ZEROES;
	nbd_put32(to, NBD_FIXED_NEWSTYLE | (flags & NBD_NO_ZEROES));
	return 4;
}

size_t client_option(uint32_t o, const uint8_t *data, uint32_t len, uint8_t *to)
{
	option = o;
	asking = true;
	if (o == NBD_OPT_EXPORT_NAME)
		phase = WAITS_EXPORT;
	if (o == NBD_OPT_SET_META_CONTEXT)
		allocation = false; /* what an earlier one has selected is so no more */
	memcpy(nbd_put32(nbd_put32(nbd_put64(to, NBD_OPTION_MAGIC), o), len), data, len);
	return NBD_OPTION_SIZE + len;
}

static bool is_valid(const struct request *r)
{
	static const uint16_t allowed[] = {
		[NBD_CMD_READ] = NBD_CMD_FUA | NBD_CMD_DF,
		[NBD_CMD_WRITE] = NBD_CMD_FUA,
		[NBD_CMD_FLUSH] = NBD_CMD_FUA,
		[NBD_CMD_TRIM] = NBD_CMD_FUA,
		[NBD_CMD_WRITE_ZEROES] = NBD_CMD_FUA | NBD_CMD_NO_HOLE | NBD_CMD_FAST_ZERO,
		[NBD_CMD_BLOCK_STATUS] = NBD_CMD_FUA | NBD_CMD_REQ_ONE,
	};
	bool changes = r->type != NBD_CMD_READ && r->type != NBD_CMD_BLOCK_STATUS;
	uint32_t unit = changes && disk->block ? disk->block : 512;

	if (r->type >= sizeof allowed / sizeof *allowed || !allowed[r->type] ||
	    r->flags & ~allowed[r->type] || (r->flags & NBD_CMD_DF && !structured))
		return false;
	if (r->type == NBD_CMD_FLUSH)
		return true;
	if (r->type == NBD_CMD_BLOCK_STATUS && (!allocation || !r->len))
		return false;
	if (changes && disk->read_only)
		return false;
	if (r->flags & NBD_CMD_DF && r->len > 1u << 20)
		return false;
	return r->off % unit == 0 && r->len % unit == 0 && r->off <= disk->size &&
	       r->len <= disk->size - r->off;
}

size_t client_request(uint16_t type, uint16_t flags, uint64_t off, uint32_t len, uint8_t *to)
{
	struct request *r = &reqs[serial % REQS];
	uint8_t *p = nbd_put16(nbd_put16(nbd_put32(to, NBD_REQUEST_MAGIC), flags), type);

	if (type == NBD_CMD_WRITE && len > CLIENT_DATA)
		len = CLIENT_DATA;
	*r = (struct request){.cookie = (uint64_t)(serial * 0x9e3779b9u) << 32 | serial,
			      .off = off,
			      .len = len,
			      .type = type,
			      .flags = flags,
			      .out = type != NBD_CMD_DISC};
	serial++;
	out += r->out;
	good_bye |= type == NBD_CMD_DISC;
	r->valid = is_valid(r);
	p = nbd_put32(nbd_put64(nbd_put64(p, r->cookie), off), len);
	if (type == NBD_CMD_WRITE) {
		for (uint32_t i = 0; i + 8 <= len; i += 8) {
			uint64_t v = client_number(CLIENT_WRITTEN, (off + i) / 512);

			memcpy(p + i, &v, 8);
		}
		memset(p + len / 8 * 8, 0, len % 8);
		p += len;
	}
	return (size_t)(p - to);
}

/* --- what is heard; each returns the bytes of a whole message, or 0: more are needed --- */

static size_t hear_greeting(void)
{
	size_t n = oldstyle ? 152 : 18;

	if (have < n)
		return 0;
	FUZZ_ASSERT(nbd_get64(buf) == NBD_MAGIC);
	FUZZ_ASSERT(nbd_get64(buf + 8) == (oldstyle ? NBD_OLD_MAGIC : NBD_OPTION_MAGIC));
	FUZZ_ASSERT(!oldstyle || nbd_get64(buf + 16) == disk->size);
	phase = oldstyle ? TRANSMISSION : ASKING;
	return n;
}

static void acknowledged(void)
{
	if (option == NBD_OPT_GO)
		phase = TRANSMISSION;
	if (option == NBD_OPT_STRUCTURED_REPLY)
		structured = true;
	if (option == NBD_OPT_ABORT)
		good_bye = true;
	asking = false;
}

static size_t hear_option(void)
{
	uint32_t type, len;

	if (have < NBD_ANSWER_SIZE)
		return 0;
	type = nbd_get32(buf + 12);
	len = nbd_get32(buf + 16);
	FUZZ_ASSERT(nbd_get64(buf) == NBD_REPLY_MAGIC && asking && nbd_get32(buf + 8) == option);
	FUZZ_ASSERT(len <= 16384);
	if (have < NBD_ANSWER_SIZE + len)
		return 0;
	if (type == NBD_REP_META_CONTEXT && option == NBD_OPT_SET_META_CONTEXT)
		allocation = true;
	if (type == NBD_REP_INFO && len == 12 && !nbd_get16(buf + 20))
		FUZZ_ASSERT(nbd_get64(buf + 22) == disk->size);
	if (type == NBD_REP_ACK)
		acknowledged();
	else if (type & NBD_REP_ERROR)
		asking = false;
	else
		FUZZ_ASSERT(type >= NBD_REP_SERVER && type <= NBD_REP_META_CONTEXT);
	return NBD_ANSWER_SIZE + len;
}

static size_t hear_export(void)
{
	size_t n = no_zeroes ? 10 : 134;

	if (have < n)
		return 0;
	FUZZ_ASSERT(nbd_get64(buf) == disk->size);
	phase = TRANSMISSION;
	asking = false;
	return n;
}

static struct request *named(uint64_t cookie)
{
	struct request *r = &reqs[(uint32_t)cookie % REQS];

	FUZZ_ASSERT(r->out && r->cookie == cookie);
	return r;
}

static void answered(struct request *r, bool ok)
{
	FUZZ_ASSERT(!ok || r->valid);
	FUZZ_ASSERT(ok || !r->valid || image_failed);
	FUZZ_ASSERT(!ok || r->type != NBD_CMD_READ || r->got == r->len);
	r->out = false;
	out--;
	fuzz_count++;
}

static void check_data(const uint8_t *p, uint64_t off, uint32_t len)
{
	FUZZ_ASSERT(off % 512 == 0 && len % 512 == 0);
	for (uint32_t i = 0; i < len; i += 8) {
		uint64_t v = client_number(CLIENT_DISK, (off + i) / 512);

		FUZZ_ASSERT(!memcmp(p + i, &v, 8));
	}
}

static size_t hear_simple(void)
{
	struct request *r = named(nbd_get64(buf + 8));
	uint32_t error = nbd_get32(buf + 4);
	size_t n = NBD_SIMPLE_SIZE;

	FUZZ_ASSERT(!structured || (r->type != NBD_CMD_READ && r->type != NBD_CMD_BLOCK_STATUS) ||
		    (!r->valid && error));
	if (r->type == NBD_CMD_READ && !error) {
		n += r->len;
		if (have < n) {
			FUZZ_ASSERT(n <= ROOM);
			return 0;
		}
		check_data(buf + NBD_SIMPLE_SIZE, r->off, r->len);
		r->got = r->len;
	}
	answered(r, !error);
	return n;
}

static void hear_extents(struct request *r, const uint8_t *p, uint32_t len)
{
	uint64_t all = 0;

	FUZZ_ASSERT(r->type == NBD_CMD_BLOCK_STATUS && len >= 12 && len % 8 == 4);
	FUZZ_ASSERT(nbd_get32(p) == 1);
	FUZZ_ASSERT(len == 12 || !(r->flags & NBD_CMD_REQ_ONE));
	for (uint32_t i = 4; i < len; i += 8) {
		FUZZ_ASSERT(nbd_get32(p + i) && nbd_get32(p + i + 4) <= 3);
		all += nbd_get32(p + i);
	}
	FUZZ_ASSERT(all <= r->len);
}

static size_t hear_chunk(void)
{
	uint16_t flags = nbd_get16(buf + 4), type = nbd_get16(buf + 6);
	struct request *r = named(nbd_get64(buf + 8));
	uint32_t len = nbd_get32(buf + 16);
	const uint8_t *p = buf + NBD_CHUNK_SIZE;

	FUZZ_ASSERT(structured && (flags & ~NBD_CHUNK_DONE) == 0);
	FUZZ_ASSERT(len <= ROOM - NBD_CHUNK_SIZE);
	if (have < NBD_CHUNK_SIZE + len)
		return 0;
	switch (type) {
	case NBD_CHUNK_NONE:
		FUZZ_ASSERT(!len && (flags & NBD_CHUNK_DONE));
		break;
	case NBD_CHUNK_DATA:
		FUZZ_ASSERT(r->type == NBD_CMD_READ && len > 8);
		FUZZ_ASSERT(!(r->flags & NBD_CMD_DF) || len == 8 + r->len);
		FUZZ_ASSERT(nbd_get64(p) >= r->off && nbd_get64(p) + len - 8 <= r->off + r->len);
		check_data(p + 8, nbd_get64(p), len - 8);
		r->got += len - 8;
		FUZZ_ASSERT(r->got <= r->len);
		break;
	case NBD_CHUNK_STATUS:
		hear_extents(r, p, len);
		break;
	default:
		FUZZ_ASSERT(type == NBD_CHUNK_ERROR && len >= 6 && nbd_get32(p));
		FUZZ_ASSERT(nbd_get16(p + 4) == len - 6);
		r->failed = true;
	}
	if (flags & NBD_CHUNK_DONE)
		answered(r, !r->failed);
	return NBD_CHUNK_SIZE + len;
}

static size_t hear_reply(void)
{
	if (have < NBD_CHUNK_SIZE && (have < 4 || nbd_get32(buf) != NBD_SIMPLE_MAGIC))
		return 0;
	if (nbd_get32(buf) == NBD_SIMPLE_MAGIC)
		return have < NBD_SIMPLE_SIZE ? 0 : hear_simple();
	FUZZ_ASSERT(nbd_get32(buf) == NBD_STRUCTURED_MAGIC);
	return hear_chunk();
}

static size_t hear_one(void)
{
	switch (phase) {
	case GREETING:
		return hear_greeting();
	case ASKING:
		return hear_option();
	case WAITS_EXPORT:
		return hear_export();
	case TRANSMISSION:
		return hear_reply();
	default:
		return 0;
	}
}

bool client_hear(void)
{
	ssize_t n;
	size_t used;

	if (phase == OVER)
		return false;
	n = recv(fd, buf + have, sizeof buf - have, MSG_DONTWAIT);
	if (n < 0 && errno == EAGAIN)
		return false;
	if (n <= 0) {
		/* a good-bye; or a long read failed behind its head, which has no other way */
		FUZZ_ASSERT(good_bye || (image_failed && !structured && phase == TRANSMISSION));
		phase = OVER;
		return true;
	}
	have += (size_t)n;
	while ((used = hear_one()) != 0) {
		have -= used;
		memmove(buf, buf + used, have);
	}
	FUZZ_ASSERT(have < sizeof buf);
	return true;
}
