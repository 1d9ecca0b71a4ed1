/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Structured replies, as a server may send them that is not to be believed (K1, K16). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/nbd/nbd.h"
#include "tests/support/suite.h"

static struct nbdc_chunk c;

/* A chunk's head, and what follows; have: bytes of it that are there. */
static int parse(uint16_t flags, uint16_t type, uint32_t len, uint64_t a, uint32_t b, unsigned have)
{
	uint8_t p[64];

	nbd_put32(
		nbd_put64(
			nbd_put32(nbd_put64(nbd_put16(nbd_put16(nbd_put32(p, NBD_STRUCTURED_MAGIC),
								flags),
						      type),
					    77),
				  len),
			a),
		b);
	return nbdc_chunk_parse(p, have, &c);
}

static int whole(uint16_t flags, uint16_t type, uint32_t len, uint64_t a, uint32_t b)
{
	return parse(flags, type, len, a, b, 64);
}

START_TEST(heads_of_each_kind)
{
	ck_assert_int_eq(whole(1, NBD_CHUNK_NONE, 0, 0, 0), 20);
	ck_assert_uint_eq(c.cookie, 77);
	ck_assert_int_eq(whole(0, NBD_CHUNK_DATA, 8 + 512, 4096, 0), 28);
	ck_assert(c.off == 4096 && c.body == 512);
	ck_assert_int_eq(whole(0, NBD_CHUNK_HOLE, 12, 4096, 512), 32);
	ck_assert(c.off == 4096 && c.n == 512 && !c.body);
	ck_assert_int_eq(whole(1, NBD_CHUNK_STATUS, 4 + 16, UINT64_C(7) << 32, 0), 24);
	ck_assert(c.n == 7 && c.body == 16);
	ck_assert_int_eq(whole(1, NBD_CHUNK_ERROR, 6 + 3, UINT64_C(5) << 32, 0), 26);
	ck_assert(c.n == 5 && c.body == 3);
	ck_assert_int_eq(whole(1, 0x8002, 6 + 8, UINT64_C(5) << 32, 0), 26);
}
END_TEST

START_TEST(a_part_of_a_head_is_waited_for)
{
	for (unsigned have = 0; have < 32; have++)
		ck_assert_int_eq(parse(0, NBD_CHUNK_HOLE, 12, 0, 512, have), 0);
	ck_assert_int_eq(parse(0, NBD_CHUNK_HOLE, 12, 0, 512, 32), 32);
}
END_TEST

START_TEST(heads_that_make_no_sense)
{
	static const struct {
		uint16_t flags, type;
		uint32_t len;
		uint64_t a;
		uint32_t b;
	} bad[] = {
		{0, NBD_CHUNK_NONE, 0, 0, 0},
		{1, NBD_CHUNK_NONE, 1, 0, 0},
		{0, NBD_CHUNK_DATA, 8, 0, 0},
		{0, NBD_CHUNK_DATA, 7, 0, 0},
		{0, NBD_CHUNK_HOLE, 12, 0, 0},
		{0, NBD_CHUNK_HOLE, 13, 0, 512},
		{0, NBD_CHUNK_HOLE, 8, 0, 512},
		{1, NBD_CHUNK_STATUS, 4, 0, 0},
		{1, NBD_CHUNK_STATUS, 11, 0, 0},
		{1, NBD_CHUNK_STATUS, 13, 0, 0},
		{1, NBD_CHUNK_ERROR, 5, ~0ull, 0},
		{1, NBD_CHUNK_ERROR, 6, 0, 0},
		{1, NBD_CHUNK_ERROR, ~0u, ~0ull, 0},
		{1, 3, 0, 0, 0},
		{1, 0x7fff, 100, 0, 0},
	};

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		ck_assert_msg(whole(bad[i].flags, bad[i].type, bad[i].len, bad[i].a, bad[i].b) ==
				      -EPROTO,
			      "%zu", i);
}
END_TEST

START_TEST(data_is_within_what_is_read)
{
	struct nbdc_cmd cmd = {.type = NBD_CMD_READ, .off = 8192, .len = 4096};
	static const struct {
		uint64_t off;
		uint32_t n;
		bool fits;
	} parts[] = {
		{8192, 4096, true},        {8192 + 4095, 1, true}, {8191, 1, false},
		{8192 + 4096, 1, false},   {8192, 4097, false},    {8192 + 4000, 97, false},
		{UINT64_MAX, 4096, false}, {0, ~0u, false},        {8192, ~0u, false},
	};

	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
		c = (struct nbdc_chunk){
			.type = NBD_CHUNK_HOLE, .off = parts[i].off, .n = parts[i].n};
		ck_assert_msg(nbdc_chunk_fits(&c, &cmd) == parts[i].fits, "%zu", i);
		c = (struct nbdc_chunk){
			.type = NBD_CHUNK_DATA, .off = parts[i].off, .body = parts[i].n};
		ck_assert_msg(nbdc_chunk_fits(&c, &cmd) == parts[i].fits, "%zu", i);
	}
	c = (struct nbdc_chunk){.type = NBD_CHUNK_DATA, .off = 8192, .body = 512};
	cmd.got = 3585; /* and no more than all */
	ck_assert(!nbdc_chunk_fits(&c, &cmd));
	cmd.got = 0;
	cmd.type = NBD_CMD_WRITE;
	ck_assert(!nbdc_chunk_fits(&c, &cmd));
}
END_TEST

/* --- extents --- */

static struct td_extent e[8];
static struct nbdc_ask a;

static void ask(uint64_t off, uint64_t len, int max)
{
	a = (struct nbdc_ask){
		.out = e, .max = max, .off = off, .end = off + len, .at = off, .heard = off};
}

static void is(int i, uint64_t off, uint64_t len, unsigned flags)
{
	ck_assert_msg(e[i].off == off && e[i].len == len && e[i].flags == flags, "%d: %llu %llu %u",
		      i, (unsigned long long)e[i].off, (unsigned long long)e[i].len, e[i].flags);
}

enum { HZ = TD_EXTENT_HOLE | TD_EXTENT_ZERO };

START_TEST(holes_zeroes_and_data)
{
	ask(4096, 8192, 8);
	nbdc_ask_take(&a, 1024, 3);
	nbdc_ask_take(&a, 1024, 2);
	nbdc_ask_take(&a, 1024, 1); /* a hole of which nobody knows what it reads as */
	nbdc_ask_take(&a, 1024, 0);
	nbdc_ask_take(&a, ~0u, 3); /* beyond what was asked */
	ck_assert_int_eq(a.n, 4);
	is(0, 4096, 1024, HZ);
	is(1, 5120, 1024, TD_EXTENT_ZERO);
	is(2, 6144, 2048, 0);
	is(3, 8192, 4096, HZ);
}
END_TEST

START_TEST(a_sector_that_is_zero_in_part_is_data)
{
	ask(0, 4096, 8);
	nbdc_ask_take(&a, 700, 3);
	nbdc_ask_take(&a, 100, 0);
	nbdc_ask_take(&a, 400, 3); /* no whole sector */
	nbdc_ask_take(&a, 2896, 3);
	ck_assert_int_eq(a.n, 3);
	is(0, 0, 512, HZ);
	is(1, 512, 1024, 0);
	is(2, 1536, 2560, HZ);
}
END_TEST

START_TEST(more_than_there_is_room_for)
{
	ask(0, 4096, 2);
	nbdc_ask_take(&a, 512, 3);
	nbdc_ask_take(&a, 512, 0);
	nbdc_ask_take(&a, 512, 3);
	nbdc_ask_take(&a, 512, 0); /* as the last that is told, and not beside it */
	ck_assert_int_eq(a.n, 2);
	is(0, 0, 512, HZ);
	is(1, 512, 512, 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("nbd-chunk");

	SUITE_ADD(s, heads_of_each_kind);
	SUITE_ADD(s, a_part_of_a_head_is_waited_for);
	SUITE_ADD(s, heads_that_make_no_sense);
	SUITE_ADD(s, data_is_within_what_is_read);
	SUITE_ADD(s, holes_zeroes_and_data);
	SUITE_ADD(s, a_sector_that_is_zero_in_part_is_data);
	SUITE_ADD(s, more_than_there_is_room_for);
	return suite_run(s);
}
