/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The NBD handshake, byte by byte: what is answered, what is refused, and what cannot be made of
 * it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tapdisk/nbd/nbd-handshake.h"
#include "lib/nbd-proto.h"
#include "tests/support/suite.h"

static const struct nbd_export export = {.size = 1 << 30,
					 .flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH,
					 .block = 512,
					 .preferred = 4096,
					 .max = 64 << 20,
					 .description = "aio:/x"};
static struct nbd_handshake h;
static struct nbd_answer a;
static uint8_t msg[NBD_OPTION_MAX + 64];
static size_t len;

static long step(void)
{
	a.len = 0;
	return nbd_handshake_step(&h, &export, msg, len, &a);
}

static void begin(uint32_t flags)
{
	a.len = 0;
	nbd_handshake_begin(&h, &export, false, &a);
	ck_assert_uint_eq(a.len, 18);
	ck_assert_uint_eq(nbd_get64(a.bytes), NBD_MAGIC);
	ck_assert_uint_eq(nbd_get64(a.bytes + 8), NBD_OPTION_MAGIC);
	ck_assert_uint_eq(nbd_get16(a.bytes + 16), NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
	nbd_put32(msg, flags);
	len = 3;
	ck_assert_int_eq(step(), 0); /* three of four bytes */
	len = 4;
	ck_assert_int_eq(step(), 4);
	ck_assert_uint_eq(a.len, 0);
}

static void option(uint32_t number, const void *data, uint32_t n)
{
	nbd_put32(nbd_put32(nbd_put64(msg, NBD_OPTION_MAGIC), number), n);
	memmove(msg + 16, data, n); /* data may lie in msg */
	len = 16 + n;
}

/* Sends an option, in two halves too. */
static void send_option(uint32_t number, const void *data, uint32_t n)
{
	option(number, data, n);
	len -= 1;
	ck_assert_int_eq(step(), 0);
	ck_assert_uint_eq(a.len, 0);
	len += 1;
	ck_assert_int_eq(step(), (long)len);
}

/* The reply at p: its type; *data and *n its contents. */
static uint32_t reply_at(const uint8_t *p, uint32_t number, const uint8_t **data, uint32_t *n)
{
	ck_assert_uint_eq(nbd_get64(p), NBD_REPLY_MAGIC);
	ck_assert_uint_eq(nbd_get32(p + 8), number);
	*n = nbd_get32(p + 16);
	*data = p + 20;
	return nbd_get32(p + 12);
}

static uint32_t only_reply(uint32_t number)
{
	const uint8_t *d;
	uint32_t n, type = reply_at(a.bytes, number, &d, &n);

	ck_assert_uint_eq(a.len, 20 + n);
	return type;
}

START_TEST(oldstyle_says_all_at_once)
{
	a.len = 0;
	nbd_handshake_begin(&h, &export, true, &a);
	ck_assert_uint_eq(a.len, 8 + 8 + 8 + 4 + 124);
	ck_assert_uint_eq(nbd_get64(a.bytes), NBD_MAGIC);
	ck_assert_uint_eq(nbd_get64(a.bytes + 8), NBD_OLD_MAGIC);
	ck_assert_uint_eq(nbd_get64(a.bytes + 16), 1 << 30);
	ck_assert_uint_eq(nbd_get32(a.bytes + 24), export.flags);
	ck_assert_int_eq(h.phase, NBD_HS_GO);
}
END_TEST

START_TEST(export_name_with_and_without_zeroes)
{
	for (unsigned no_zeroes = 0; no_zeroes < 2; no_zeroes++) {
		begin(no_zeroes ? NBD_NO_ZEROES : 0); /* not even fixed newstyle: this option is all
							 that such a client has */
		send_option(NBD_OPT_EXPORT_NAME, "any", 3);
		ck_assert_uint_eq(a.len, no_zeroes ? 10 : 134);
		ck_assert_uint_eq(nbd_get64(a.bytes), 1 << 30);
		ck_assert_uint_eq(nbd_get16(a.bytes + 8), export.flags);
		ck_assert_int_eq(h.phase, NBD_HS_GO);
	}
}
END_TEST

static const uint8_t go_all[] = {0,   0,
				 0,   2,
				 'h', 'i',
				 0,   3,
				 0,   NBD_INFO_NAME,
				 0,   NBD_INFO_DESCRIPTION,
				 0,   NBD_INFO_BLOCK_SIZE};

START_TEST(go_tells_all_that_was_asked)
{
	static const uint16_t want[] = {NBD_INFO_EXPORT, NBD_INFO_BLOCK_SIZE, NBD_INFO_NAME,
					NBD_INFO_DESCRIPTION};
	uint32_t number[] = {NBD_OPT_INFO, NBD_OPT_GO};

	begin(NBD_FIXED_NEWSTYLE);
	for (unsigned i = 0; i < 2; i++) {
		const uint8_t *p = a.bytes, *d;
		uint32_t n;

		send_option(number[i], go_all, sizeof go_all);
		for (unsigned k = 0; k < 4; k++) {
			ck_assert_uint_eq(reply_at(p, number[i], &d, &n), NBD_REP_INFO);
			ck_assert_uint_eq(nbd_get16(d), want[k]);
			if (k == 0)
				ck_assert(n == 12 && nbd_get64(d + 2) == 1 << 30 &&
					  nbd_get16(d + 10) == export.flags);
			if (k == 1)
				ck_assert(n == 14 && nbd_get32(d + 2) == 512 &&
					  nbd_get32(d + 6) == 4096 &&
					  nbd_get32(d + 10) == 64 << 20);
			if (k == 2)
				ck_assert(n == 4 && !memcmp(d + 2, "hi", 2));
			if (k == 3)
				ck_assert(n == 8 && !memcmp(d + 2, "aio:/x", 6));
			p = d + n;
		}
		ck_assert_uint_eq(reply_at(p, number[i], &d, &n), NBD_REP_ACK);
		ck_assert_ptr_eq(d + n, a.bytes + a.len);
		ck_assert_int_eq(h.phase, i ? NBD_HS_GO : NBD_HS_OPTIONS);
	}
}
END_TEST

START_TEST(go_that_does_not_add_up_is_refused)
{
	uint8_t d[sizeof go_all + 2];

	begin(NBD_FIXED_NEWSTYLE);
	for (uint32_t n = 0; n < sizeof go_all; n++) {
		send_option(NBD_OPT_GO, go_all, n);
		ck_assert_uint_eq(only_reply(NBD_OPT_GO), NBD_REP_ERR_INVALID);
	}
	memset(d, 0, sizeof d);
	memcpy(d, go_all, sizeof go_all);
	send_option(NBD_OPT_GO, d, sizeof d);
	ck_assert_uint_eq(only_reply(NBD_OPT_GO), NBD_REP_ERR_INVALID);
	memset(d, 0xff, 4); /* a name of 4 GiB */
	send_option(NBD_OPT_GO, d, sizeof go_all);
	ck_assert_uint_eq(only_reply(NBD_OPT_GO), NBD_REP_ERR_INVALID);
	ck_assert_int_eq(h.phase, NBD_HS_OPTIONS);
}
END_TEST

static uint32_t context(uint8_t *d, const char *query)
{
	uint8_t *p = nbd_put32(d, 0);

	p = nbd_put32(p, query ? 1 : 0);
	if (query) {
		p = nbd_put32(p, (uint32_t)strlen(query));
		memcpy(p, query, strlen(query));
		p += strlen(query);
	}
	return (uint32_t)(p - d);
}

/* Was base:allocation among the answers? */
static bool offered(uint32_t number)
{
	const uint8_t *d;
	uint32_t n, type = reply_at(a.bytes, number, &d, &n);

	if (type == NBD_REP_ACK)
		return false;
	ck_assert_uint_eq(type, NBD_REP_META_CONTEXT);
	ck_assert(n == 19 && !memcmp(d + 4, "base:allocation", 15));
	ck_assert_uint_eq(reply_at(d + n, number, &d, &n), NBD_REP_ACK);
	return true;
}

START_TEST(contexts_after_structured_replies_only)
{
	uint8_t d[256];
	uint32_t n = context(d, "base:allocation");

	begin(NBD_FIXED_NEWSTYLE);
	send_option(NBD_OPT_SET_META_CONTEXT, d, n);
	ck_assert_uint_eq(only_reply(NBD_OPT_SET_META_CONTEXT), NBD_REP_ERR_INVALID);
	send_option(NBD_OPT_STRUCTURED_REPLY, "x", 1);
	ck_assert_uint_eq(only_reply(NBD_OPT_STRUCTURED_REPLY), NBD_REP_ERR_INVALID);
	send_option(NBD_OPT_STRUCTURED_REPLY, "", 0);
	ck_assert_uint_eq(only_reply(NBD_OPT_STRUCTURED_REPLY), NBD_REP_ACK);
	ck_assert(!h.allocation);
	send_option(NBD_OPT_SET_META_CONTEXT, d, n);
	ck_assert(offered(NBD_OPT_SET_META_CONTEXT) && h.allocation);
	/* the last word counts */
	send_option(NBD_OPT_SET_META_CONTEXT, d, context(d, "x-other:thing"));
	ck_assert(!offered(NBD_OPT_SET_META_CONTEXT) && !h.allocation);
	send_option(NBD_OPT_SET_META_CONTEXT, d, context(d, "base:"));
	ck_assert(!offered(NBD_OPT_SET_META_CONTEXT) && !h.allocation);
	send_option(NBD_OPT_LIST_META_CONTEXT, d, context(d, NULL));
	ck_assert(offered(NBD_OPT_LIST_META_CONTEXT) && !h.allocation);
	send_option(NBD_OPT_LIST_META_CONTEXT, d, context(d, "base:"));
	ck_assert(offered(NBD_OPT_LIST_META_CONTEXT));
	send_option(NBD_OPT_LIST_META_CONTEXT, d, context(d, "base:alloc"));
	ck_assert(!offered(NBD_OPT_LIST_META_CONTEXT));
	/* cut short anywhere */
	n = context(d, "base:allocation");
	for (uint32_t i = 0; i < n; i++) {
		send_option(NBD_OPT_SET_META_CONTEXT, d, i);
		ck_assert_uint_eq(only_reply(NBD_OPT_SET_META_CONTEXT), NBD_REP_ERR_INVALID);
	}
}
END_TEST

START_TEST(other_options)
{
	begin(NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
	send_option(NBD_OPT_LIST, "x", 1);
	ck_assert_uint_eq(only_reply(NBD_OPT_LIST), NBD_REP_ERR_INVALID);
	send_option(NBD_OPT_LIST, "", 0);
	ck_assert_uint_eq(a.len, 20 + 4 + 20);
	ck_assert_uint_eq(nbd_get32(a.bytes + 12), NBD_REP_SERVER);
	send_option(NBD_OPT_STARTTLS, "", 0);
	ck_assert_uint_eq(only_reply(NBD_OPT_STARTTLS), NBD_REP_ERR_UNSUP);
	send_option(0xdeadbeef, "what", 4);
	ck_assert_uint_eq(only_reply(0xdeadbeef), NBD_REP_ERR_UNSUP);
	send_option(NBD_OPT_ABORT, "", 0);
	ck_assert_uint_eq(only_reply(NBD_OPT_ABORT), NBD_REP_ACK);
	ck_assert_int_eq(h.phase, NBD_HS_END);
}
END_TEST

START_TEST(a_long_option_is_skipped_and_the_next_is_heard)
{
	uint32_t size = 1 << 20, sent = 0;

	begin(NBD_FIXED_NEWSTYLE);
	option(NBD_OPT_INFO, "", 0);
	nbd_put32(msg + 12, size);
	ck_assert_int_eq(step(), 16);
	ck_assert_uint_eq(only_reply(NBD_OPT_INFO), NBD_REP_ERR_TOO_BIG);
	memset(msg, 0xee, 4096);
	while (sent < size) {
		len = size - sent < 4096 ? size - sent : 4096;
		ck_assert_int_eq(step(), (long)len);
		ck_assert_uint_eq(a.len, 0);
		sent += (uint32_t)len;
	}
	send_option(NBD_OPT_LIST, "", 0);
	ck_assert_uint_eq(nbd_get32(a.bytes + 12), NBD_REP_SERVER);
}
END_TEST

START_TEST(who_breaks_the_rules_is_dropped)
{
	a.len = 0;
	nbd_handshake_begin(&h, &export, false, &a);
	nbd_put32(msg, 4); /* a flag that was not offered */
	len = 4;
	ck_assert_int_lt(step(), 0);

	begin(NBD_FIXED_NEWSTYLE);
	option(NBD_OPT_LIST, "", 0);
	msg[0] ^= 1; /* no magic */
	ck_assert_int_lt(step(), 0);

	begin(0); /* an old client with a new option */
	option(NBD_OPT_LIST, "", 0);
	ck_assert_int_lt(step(), 0);

	begin(NBD_FIXED_NEWSTYLE);
	option(NBD_OPT_INFO, "", 0);
	nbd_put32(msg + 12, 0xffffffff); /* 4 GiB to come */
	ck_assert_int_lt(step(), 0);

	begin(NBD_FIXED_NEWSTYLE);
	option(NBD_OPT_EXPORT_NAME, "", 0);
	nbd_put32(msg + 12, 5000); /* a name that no one may have, and no way to say so */
	ck_assert_int_lt(step(), 0);

	begin(NBD_FIXED_NEWSTYLE); /* who never comes to an end */
	option(NBD_OPT_LIST, "", 0);
	for (unsigned i = 0; i < 1000; i++)
		ck_assert_int_eq(step(), 16);
	ck_assert_int_lt(step(), 0);
}
END_TEST

/* Whatever comes, a step uses no more than there is, says no more than there is room for, and comes
 * to an end. */
START_TEST(random_bytes)
{
	unsigned seed = getenv("SEED") ? (unsigned)atoi(getenv("SEED")) : (unsigned)time(NULL);

	fprintf(stderr, "seed %u\n", seed);
	srand(seed);
	for (unsigned round = 0; round < 5000; round++) {
		begin(NBD_FIXED_NEWSTYLE);
		h.structured = rand() % 2;
		for (unsigned i = 0; i < 8 && h.phase == NBD_HS_OPTIONS; i++) {
			uint32_t n = (uint32_t)rand() % (rand() % 8 ? 48 : NBD_OPTION_MAX);
			uint8_t *exact;
			long used;

			option((uint32_t)rand() % 13, msg + 32, n);
			for (unsigned k = 0; k < n; k++)
				msg[16 + k] = rand() % 3   ? 0
					      : rand() % 2 ? (uint8_t)rand()
							   : (uint8_t)(rand() % 32);
			if (rand() % 16 == 0)
				msg[rand() % 16] ^= (uint8_t)(1 << rand() % 8);
			if (rand() % 8 == 0)
				len = (size_t)rand() % (len + 1);
			exact = malloc(len ? len : 1); /* so that a sanitizer sees a byte too far */
			memcpy(exact, msg, len);
			a.len = 0;
			used = nbd_handshake_step(&h, &export, exact, len, &a);
			free(exact);
			ck_assert_int_le(used, (long)len);
			ck_assert_uint_le(a.len, sizeof a.bytes);
			if (used < 0)
				break;
		}
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("nbd-handshake");

	SUITE_ADD(s, oldstyle_says_all_at_once);
	SUITE_ADD(s, export_name_with_and_without_zeroes);
	SUITE_ADD(s, go_tells_all_that_was_asked);
	SUITE_ADD(s, go_that_does_not_add_up_is_refused);
	SUITE_ADD(s, contexts_after_structured_replies_only);
	SUITE_ADD(s, other_options);
	SUITE_ADD(s, a_long_option_is_skipped_and_the_next_is_heard);
	SUITE_ADD(s, who_breaks_the_rules_is_dropped);
	SUITE_ADD(s, random_bytes);
	return suite_run(s);
}
