/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tapdisk/nbd/nbd-handshake.h"

#include <assert.h>
#include <errno.h>

#include "lib/nbd-proto.h"

#define OPTIONS_MAX     1000        /* a client that haggles on for ever is dropped */
#define SKIP_MAX        (64u << 20) /* bytes of an option that are read only to be able to go on */
#define NAME_MAX_BYTES  4096
#define DESCRIPTION_MAX 4200

static const char allocation[] = "base:allocation";

/* --- answers --- */

static uint8_t *room(struct nbd_answer *a, size_t n)
{
	uint8_t *p = a->bytes + a->len;

	assert(n <= sizeof a->bytes - a->len);
	a->len += n;
	return p;
}

/* The head of one reply to an option; `len' bytes of data follow, at the place that it gives. */
static uint8_t *reply(struct nbd_answer *a, uint32_t option, uint32_t type, size_t len)
{
	uint8_t *p = room(a, 20 + len);

	p = nbd_put64(p, NBD_REPLY_MAGIC);
	p = nbd_put32(p, option);
	p = nbd_put32(p, type);
	return nbd_put32(p, (uint32_t)len);
}

static void refuse(struct nbd_answer *a, uint32_t option, uint32_t type, const char *why)
{
	size_t len = strlen(why);

	memcpy(reply(a, option, type, len), why, len);
}

static uint16_t export_flags(const struct nbd_handshake *h, const struct nbd_export *x)
{
	return x->flags | (h->structured ? NBD_FLAG_SEND_DF : 0);
}

/* --- options --- */

static void info(const struct nbd_handshake *h, const struct nbd_export *x, uint32_t option,
		 struct nbd_answer *a)
{
	uint8_t *p = reply(a, option, NBD_REP_INFO, 12);

	p = nbd_put16(p, NBD_INFO_EXPORT);
	p = nbd_put64(p, x->size);
	nbd_put16(p, export_flags(h, x));
	p = reply(a, option, NBD_REP_INFO, 14);
	p = nbd_put16(p, NBD_INFO_BLOCK_SIZE);
	p = nbd_put32(p, x->block);
	p = nbd_put32(p, x->preferred);
	nbd_put32(p, x->max);
}

static void info_text(struct nbd_answer *a, uint32_t option, uint16_t what, const void *text,
		      size_t len)
{
	memcpy(nbd_put16(reply(a, option, NBD_REP_INFO, 2 + len), what), text, len);
}

/* INFO and GO: name length 4, name, number of questions 2, questions of 2. */
static void opt_info(struct nbd_handshake *h, const struct nbd_export *x, uint32_t option,
		     const uint8_t *d, uint32_t len, struct nbd_answer *a)
{
	bool name = false, description = false;
	uint32_t name_len = len >= 4 ? nbd_get32(d) : 0;
	uint16_t n;

	if (len < 6 || name_len > NAME_MAX_BYTES || name_len > len - 6) {
		refuse(a, option, NBD_REP_ERR_INVALID,
		       "the option is cut short, or its name is too long");
		return;
	}
	n = nbd_get16(d + 4 + name_len);
	if (len != 6 + name_len + 2u * n) {
		refuse(a, option, NBD_REP_ERR_INVALID,
		       "the option's length does not fit its contents");
		return;
	}
	for (uint32_t i = 0; i < n; i++) {
		uint16_t what = nbd_get16(d + 6 + name_len + 2 * i);

		name |= what == NBD_INFO_NAME;
		description |= what == NBD_INFO_DESCRIPTION;
	}
	info(h, x, option, a);
	if (name)
		info_text(a, option, NBD_INFO_NAME, d + 4, name_len);
	if (description && x->description)
		info_text(a, option, NBD_INFO_DESCRIPTION, x->description,
			  strnlen(x->description, DESCRIPTION_MAX));
	reply(a, option, NBD_REP_ACK, 0);
	if (option == NBD_OPT_GO)
		h->phase = NBD_HS_GO;
}

/* Does a query ask for base:allocation?  A list may ask for all of a namespace. */
static bool asks_allocation(const uint8_t *q, uint32_t len, bool list)
{
	if (len == sizeof allocation - 1 && !memcmp(q, allocation, len))
		return true;
	return list && len == 5 && !memcmp(q, "base:", 5);
}

/* Name length 4, name, number of queries 4, and for each its length 4 and text.  1: asked for, 0:
 * not, -1: malformed. */
static int parse_queries(const uint8_t *d, uint32_t len, bool list)
{
	uint32_t at, n, asked = 0;

	if (len < 8 || nbd_get32(d) > NAME_MAX_BYTES || nbd_get32(d) > len - 8)
		return -1;
	at = 4 + nbd_get32(d);
	n = nbd_get32(d + at);
	at += 4;
	if (!n)
		asked = list; /* no query: all that there is */
	for (; n; n--) {
		uint32_t q;

		if (len - at < 4 || nbd_get32(d + at) > len - at - 4)
			return -1;
		q = nbd_get32(d + at);
		asked |= asks_allocation(d + at + 4, q, list);
		at += 4 + q;
	}
	return at == len ? (int)asked : -1;
}

static void opt_context(struct nbd_handshake *h, uint32_t option, const uint8_t *d, uint32_t len,
			struct nbd_answer *a)
{
	bool list = option == NBD_OPT_LIST_META_CONTEXT;
	int asked = h->structured ? parse_queries(d, len, list) : -1;

	if (!list)
		h->allocation = false; /* the last question counts */
	if (asked < 0) {
		refuse(a, option, NBD_REP_ERR_INVALID,
		       h->structured ? "the option's length does not fit its contents"
				     : "structured replies come first");
		return;
	}
	if (asked) {
		uint8_t *p = reply(a, option, NBD_REP_META_CONTEXT, 4 + sizeof allocation - 1);

		memcpy(nbd_put32(p, list ? 0 : NBD_CONTEXT_ALLOCATION), allocation,
		       sizeof allocation - 1);
		if (!list)
			h->allocation = true;
	}
	reply(a, option, NBD_REP_ACK, 0);
}

static void opt_list(uint32_t len, struct nbd_answer *a)
{
	if (len) {
		refuse(a, NBD_OPT_LIST, NBD_REP_ERR_INVALID, "a list takes no data");
		return;
	}
	nbd_put32(reply(a, NBD_OPT_LIST, NBD_REP_SERVER, 4), 0); /* one export, of the empty name */
	reply(a, NBD_OPT_LIST, NBD_REP_ACK, 0);
}

static void opt_structured(struct nbd_handshake *h, uint32_t len, struct nbd_answer *a)
{
	if (len) {
		refuse(a, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ERR_INVALID,
		       "this option takes no data");
		return;
	}
	h->structured = true;
	reply(a, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, 0);
}

/* The old way to choose, which cannot be refused. */
static void opt_export_name(struct nbd_handshake *h, const struct nbd_export *x,
			    struct nbd_answer *a)
{
	uint8_t *p = room(a, h->no_zeroes ? 10 : 134);

	memset(p, 0, h->no_zeroes ? 10 : 134);
	nbd_put16(nbd_put64(p, x->size), export_flags(h, x));
	h->phase = NBD_HS_GO;
}

static void answer_option(struct nbd_handshake *h, const struct nbd_export *x, uint32_t option,
			  const uint8_t *d, uint32_t len, struct nbd_answer *a)
{
	switch (option) {
	case NBD_OPT_EXPORT_NAME:
		opt_export_name(h, x, a);
		break;
	case NBD_OPT_ABORT:
		reply(a, option, NBD_REP_ACK, 0);
		h->phase = NBD_HS_END;
		break;
	case NBD_OPT_LIST:
		opt_list(len, a);
		break;
	case NBD_OPT_INFO:
	case NBD_OPT_GO:
		opt_info(h, x, option, d, len, a);
		break;
	case NBD_OPT_STRUCTURED_REPLY:
		opt_structured(h, len, a);
		break;
	case NBD_OPT_LIST_META_CONTEXT:
	case NBD_OPT_SET_META_CONTEXT:
		opt_context(h, option, d, len, a);
		break;
	default:
		refuse(a, option, NBD_REP_ERR_UNSUP, "this server does not know the option");
	}
}

/* --- messages --- */

static long client_flags(struct nbd_handshake *h, const uint8_t *in, size_t len)
{
	uint32_t flags;

	if (len < 4)
		return 0;
	flags = nbd_get32(in);
	if (flags & ~(uint32_t)(NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES))
		return -EPROTO;
	h->fixed = flags & NBD_FIXED_NEWSTYLE;
	h->no_zeroes = flags & NBD_NO_ZEROES;
	h->phase = NBD_HS_OPTIONS;
	return 4;
}

static long skip_rest(struct nbd_handshake *h, size_t len)
{
	uint32_t n = len < h->skip ? (uint32_t)len : h->skip;

	h->skip -= n;
	return n;
}

/* Magic 8, option 4, length 4, data. */
static long one_option(struct nbd_handshake *h, const struct nbd_export *x, const uint8_t *in,
		       size_t len, struct nbd_answer *a)
{
	uint32_t option, data;

	if (len < 16)
		return 0;
	option = nbd_get32(in + 8);
	data = nbd_get32(in + 12);
	if (nbd_get64(in) != NBD_OPTION_MAGIC || h->options >= OPTIONS_MAX)
		return -EPROTO;
	if (!h->fixed && option != NBD_OPT_EXPORT_NAME)
		return -EPROTO; /* such a client would not understand the answer */
	if (data > NBD_OPTION_MAX || (option == NBD_OPT_EXPORT_NAME && data > NAME_MAX_BYTES)) {
		if (data > SKIP_MAX || option == NBD_OPT_EXPORT_NAME)
			return -EMSGSIZE;
		refuse(a, option, NBD_REP_ERR_TOO_BIG, "the option is too long");
		h->options++;
		h->skip = data;
		return 16;
	}
	if (len < 16 + data)
		return 0;
	h->options++;
	answer_option(h, x, option, in + 16, data, a);
	return 16 + (long)data;
}

long nbd_handshake_step(struct nbd_handshake *h, const struct nbd_export *x, const uint8_t *in,
			size_t len, struct nbd_answer *a)
{
	assert(!a->len && (h->phase == NBD_HS_FLAGS || h->phase == NBD_HS_OPTIONS));
	if (h->phase == NBD_HS_FLAGS)
		return client_flags(h, in, len);
	return h->skip ? skip_rest(h, len) : one_option(h, x, in, len, a);
}

void nbd_handshake_begin(struct nbd_handshake *h, const struct nbd_export *x, bool oldstyle,
			 struct nbd_answer *a)
{
	uint8_t *p = a->bytes;

	memset(h, 0, sizeof *h);
	p = nbd_put64(p, NBD_MAGIC);
	if (oldstyle) {
		p = nbd_put64(p, NBD_OLD_MAGIC);
		p = nbd_put64(p, x->size);
		p = nbd_put32(p, x->flags);
		memset(p, 0, 124);
		p += 124;
		h->phase = NBD_HS_GO;
	} else {
		p = nbd_put64(p, NBD_OPTION_MAGIC);
		p = nbd_put16(p, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
	}
	a->len = (size_t)(p - a->bytes);
}
