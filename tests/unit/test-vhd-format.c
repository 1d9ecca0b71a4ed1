/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The bytes of a VHD: encoded and decoded, bits and tables against plain loops, names both ways,
 * and what is refused. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/vhd/vhd-format.h"
#include "lib/bytes.h"
#include "tests/support/suite.h"

static struct td_err err;

static struct vhd_footer a_footer(uint32_t type)
{
	struct vhd_footer f = {.features = 2,
			       .version = 0x10000,
			       .data_offset = type == VHD_FIXED ? UINT64_MAX : 512,
			       .timestamp = 7,
			       .app = "tap",
			       .app_version = VHD_TAP_VERSION,
			       .orig_size = 1 << 20,
			       .size = 1 << 20,
			       .geometry = 0x01020304,
			       .type = type,
			       .hidden = 1};

	for (size_t i = 0; i < sizeof f.rest; i++)
		f.rest[i] = (uint8_t)i;
	memset(f.uuid, 0xab, 16);
	return f;
}

static struct vhd_header a_header(uint32_t block, uint32_t entries)
{
	struct vhd_header h = {.data_offset = UINT64_MAX,
			       .table_off = 1536,
			       .version = 0x10000,
			       .entries = entries,
			       .block_size = block};

	h.loc[3] = (struct vhd_locator){VHD_LOC_W2RU, 1, 20, 0, 1 << 20};
	h.rest[255] = 9;
	return h;
}

START_TEST(round_trips)
{
	struct vhd_footer f = a_footer(VHD_DIFF), g;
	struct vhd_header h = a_header(4096, 256), i;
	uint8_t b[VHD_HEADER], c[VHD_HEADER];

	memset(&g, 0, sizeof g);
	vhd_footer_encode(&f, b);
	ck_assert_int_eq(vhd_footer_decode(b, &g, "x", &err), 0);
	ck_assert_int_eq(memcmp(&f, &g, sizeof f), 0);
	memset(&i, 0, sizeof i);
	vhd_header_encode(&h, b);
	ck_assert_int_eq(vhd_header_decode(b, &i, "x", &err), 0);
	vhd_header_encode(&i, c);
	ck_assert_int_eq(memcmp(b, c, VHD_HEADER), 0);
	ck_assert_uint_eq(i.loc[3].off, 1 << 20);
}
END_TEST

/* Every single byte counts: one that is changed is refused, but for the kept ones whose checksum is
 * put right. */
START_TEST(each_byte_is_summed)
{
	struct vhd_footer f = a_footer(VHD_DYNAMIC), g;
	struct vhd_header h = a_header(4096, 256), i;
	uint8_t b[VHD_HEADER];

	vhd_footer_encode(&f, b);
	for (int at = 0; at < 512; at++) {
		b[at] ^= 1;
		ck_assert_msg(vhd_footer_decode(b, &g, "x", NULL) < 0, "byte %d of the footer", at);
		b[at] ^= 1;
	}
	vhd_header_encode(&h, b);
	for (int at = 0; at < 1024; at++) {
		b[at] ^= 1;
		ck_assert_msg(vhd_header_decode(b, &i, "x", NULL) < 0, "byte %d of the header", at);
		b[at] ^= 1;
	}
}
END_TEST

START_TEST(geometry)
{
	/* the specification's own algorithm, by hand: cylinders, heads, sectors */
	static const struct {
		uint64_t mib;
		unsigned c, h, s;
	} known[] = {{1, 30, 4, 17},
		     {10, 301, 4, 17},
		     {100, 1003, 12, 17},
		     {1024, 2080, 16, 63},
		     {2040 << 10, 65535, 16, 255}};

	for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
		uint32_t g = vhd_geometry(known[i].mib << 20);

		ck_assert_msg(g == (known[i].c << 16 | known[i].h << 8 | known[i].s),
			      "%llu MiB: %u/%u/%u", (unsigned long long)known[i].mib, g >> 16,
			      g >> 8 & 255, g & 255);
	}
	/* never more than there is */
	for (uint64_t size = 512; size < 3ull << 40; size = size * 3 / 2 / 512 * 512 + 512) {
		uint32_t g = vhd_geometry(size);

		ck_assert_uint_le((uint64_t)(g >> 16) * (g >> 8 & 255) * (g & 255) * 512, size);
	}
}
END_TEST

START_TEST(bits)
{
	uint8_t map[64], plain[512];

	srand(1);
	for (int round = 0; round < 3000; round++) {
		uint64_t from = (uint64_t)rand() % 512,
			 to = from + 1 + (uint64_t)rand() % (512 - from), n = 0;
		bool on = rand() & 1, set;

		if (round % 100 == 0) {
			memset(map, 0, sizeof map);
			memset(plain, 0, sizeof plain);
		}
		(on ? vhd_bits_set : vhd_bits_clear)(map, from, to);
		memset(plain + from, on, to - from);
		for (uint64_t i = 0; i < 512; i++)
			/* an assertion a bit takes its time on a loaded machine */
			if (vhd_bit(map, i) != plain[i])
				ck_abort_msg("round %d, bit %d", round, (int)i);
		from = (uint64_t)rand() % 512;
		to = from + 1 + (uint64_t)rand() % (512 - from);
		while (from + n < to && plain[from + n] == plain[from])
			n++;
		ck_assert_uint_eq(vhd_bits_run(map, from, to, &set), n);
		ck_assert(set == plain[from]);
	}
	memset(map, 0, sizeof map);
	vhd_bits_set(map, 0, 1);
	ck_assert_uint_eq(map[0], 0x80); /* the first is the most significant */
}
END_TEST

/* The overlap check of a whole table, against all pairs. */
START_TEST(tables)
{
	struct vhd_footer f = a_footer(VHD_DYNAMIC);
	struct vhd_header h = a_header(4096, 256);
	struct vhd_layout l;
	uint32_t bat[64];
	int good = 0, bad = 0;

	srand(2);
	f.size = 64 * 4096;
	ck_assert_int_eq(vhd_layout(&f, &h, 1 << 20, &l, "x", &err), 0);
	ck_assert_uint_eq(l.blocks, 64);
	for (int round = 0; round < 4000; round++) {
		unsigned used = 1 + (unsigned)rand() % 8;
		bool want = true;

		memset(bat, 0xff, sizeof bat);
		for (unsigned i = 0; i < used; i++)
			bat[(unsigned)rand() % 64] = (uint32_t)rand() % 2100;
		for (int i = 0; i < 64; i++) {
			uint64_t at = bat[i] * 512ull;

			if (bat[i] == VHD_UNUSED)
				continue;
			if (at < 1536 + 1024 || at + 512 > 1 << 20)
				want = false;
			for (int j = 0; j < i; j++)
				if (bat[j] != VHD_UNUSED && bat[j] < bat[i] + 9 &&
				    bat[i] < bat[j] + 9)
					want = false;
		}
		ck_assert_msg((vhd_bat_check(&l, bat, 1 << 20, "x", NULL) == 0) == want, "round %d",
			      round);
		want ? good++ : bad++;
	}
	ck_assert_int_gt(good, 100);
	ck_assert_int_gt(bad, 100);
}
END_TEST

/* A million blocks in any order. */
START_TEST(large_table)
{
	struct vhd_footer f = a_footer(VHD_DYNAMIC);
	struct vhd_header h = a_header(2 << 20, 1044480);
	struct vhd_layout l;
	uint32_t *bat = malloc(4 * 1044480), n = 1044480;
	uint64_t file = 3ull << 40;

	f.size = VHD_SIZE_MAX;
	ck_assert_int_eq(vhd_layout(&f, &h, file, &l, "x", &err), 0);
	ck_assert_uint_eq(l.blocks, n);
	for (uint32_t i = 0; i < n; i++)
		bat[i] = 10000 + i * 4097;
	srand(3);
	for (uint32_t i = n - 1; i > 0; i--) {
		uint32_t j = (uint32_t)(((uint64_t)rand() << 16 ^ (uint64_t)rand()) % (i + 1)),
			 t = bat[i];

		bat[i] = bat[j];
		bat[j] = t;
	}
	ck_assert_int_eq(vhd_bat_check(&l, bat, file, "x", &err), 0);
	bat[777777]++;
	err.code = 0;
	ck_assert_int_eq(vhd_bat_check(&l, bat, file, "x", &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "777777"));
	free(bat);
}
END_TEST

START_TEST(layouts)
{
	struct vhd_footer f = a_footer(VHD_DIFF);
	struct vhd_header h = a_header(2 << 20, 1);
	struct vhd_layout l;

	f.size = 2 << 20;
	h.loc[3].off = 4096;
	ck_assert_int_eq(vhd_layout(&f, &h, 1 << 20, &l, "x", &err), 0);
	ck_assert_uint_eq(l.bitmap_bytes, 512);
	ck_assert_uint_eq(l.meta_end, 4608);
	h.loc[3].off = 1600; /* over the table; of a disk without a parent it means nothing */
	ck_assert_int_eq(vhd_layout(&f, &h, 1 << 20, &l, "x", NULL), -EINVAL);
	f.type = VHD_DYNAMIC;
	ck_assert_int_eq(vhd_layout(&f, &h, 1 << 20, &l, "x", NULL), 0);
	f.size += 512; /* one block more than the table has */
	ck_assert_int_eq(vhd_layout(&f, &h, 1 << 20, &l, "x", NULL), -EINVAL);
	f.size = VHD_SIZE_MAX;
	h.block_size = 512; /* more blocks than anybody serves */
	h.entries = UINT32_MAX;
	ck_assert_int_eq(vhd_layout(&f, &h, 1ull << 50, &l, "x", NULL), -EFBIG);
}
END_TEST

START_TEST(footers_picked)
{
	uint8_t dyn[512], fix[512], none[512] = {0}, other[512], poisoned[512];
	struct vhd_footer f = a_footer(VHD_DYNAMIC), g = a_footer(VHD_FIXED), got;
	enum vhd_footers state;

	vhd_footer_encode(&f, dyn);
	vhd_footer_encode(&g, fix);
	f.hidden = 0;
	vhd_footer_encode(&f, other);
	memcpy(poisoned, dyn, 512);
	memcpy(poisoned, "v_poison", 8); /* as a resize begins */
#define PICK(first, last) vhd_footer_pick(first, last, (1 << 20) + 512, &got, &state, "x", NULL)
	ck_assert_int_eq(PICK(dyn, dyn), 0);
	ck_assert_int_eq(state, VHD_FOOTERS_GOOD);
	ck_assert_int_eq(PICK(dyn, none), 0);
	ck_assert_int_eq(state, VHD_FOOTERS_LAST_LOST);
	ck_assert_int_eq(PICK(dyn, other), 0); /* the copy at 0 counts */
	ck_assert_int_eq(state, VHD_FOOTERS_LAST_LOST);
	ck_assert_uint_eq(got.hidden, 1);
	ck_assert_int_eq(PICK(none, dyn), 0);
	ck_assert_int_eq(state, VHD_FOOTERS_FIRST_LOST);
	ck_assert_int_eq(PICK(none, fix), 0);
	ck_assert_int_eq(state, VHD_FOOTERS_GOOD);
	ck_assert_int_eq(PICK(fix, fix), 0);
	ck_assert_int_eq(PICK(fix, none), -EINVAL); /* a fixed disk has one at its end */
	ck_assert_int_eq(PICK(dyn, fix), -EINVAL);  /* one of them is forged */
	ck_assert_int_eq(PICK(none, none), -EINVAL);
	ck_assert_int_eq(PICK(poisoned, dyn), -EUCLEAN);
	/* cut off */
	ck_assert_int_eq(vhd_footer_pick(none, fix, 1 << 20, &got, &state, "x", NULL), -EINVAL);
}
END_TEST

START_TEST(a_footer_of_511_bytes_is_one)
{
	struct vhd_footer f = a_footer(VHD_FIXED), g = a_footer(VHD_DYNAMIC), got;
	uint8_t none[512] = {0}, whole[512], last[512];
	enum vhd_footers state;

	f.size = g.size = 1 << 20;
	f.rest[425] = g.rest[425] = 0; /* the byte that is not there */
	vhd_footer_encode(&f, whole);
	last[0] = 0x77; /* the disk's last byte */
	memcpy(last + 1, whole, 511);
	ck_assert(vhd_footer_old(last, f.size + 511));
	ck_assert(!vhd_footer_old(last, f.size + 512));
	ck_assert_int_eq(vhd_footer_pick(none, last, f.size + 511, &got, &state, "x", NULL), 0);
	ck_assert_int_eq(state, VHD_FOOTERS_GOOD);
	ck_assert_uint_eq(got.size, f.size);
	ck_assert_uint_eq(vhd_limit(&got, last, f.size + 511), f.size);
	/* cut off */
	ck_assert_int_eq(vhd_footer_pick(none, last, f.size - 1, &got, &state, "x", NULL), -EINVAL);
	vhd_footer_encode(&g, whole);
	memcpy(last + 1, whole, 511);
	ck_assert_int_eq(vhd_footer_pick(whole, last, (1 << 20) + 511, &got, &state, "x", NULL), 0);
	ck_assert_int_eq(state, VHD_FOOTERS_GOOD);
	ck_assert_uint_eq(vhd_limit(&got, last, (1 << 20) + 511), 1 << 20);
	ck_assert_uint_eq(vhd_limit(&got, none, (1 << 20) + 512), (1 << 20) + 512);
	got.uuid[0]++; /* the last bytes are a footer of another disk: a guest's */
	ck_assert_uint_eq(vhd_limit(&got, whole, (1 << 20) + 512), (1 << 20) + 512);
}
END_TEST

START_TEST(only_a_fixed_disk_may_have_more_than_2040_gib)
{
	struct vhd_footer f = a_footer(VHD_FIXED), got;
	uint8_t b[512];

	f.size = 32ull << 40;
	vhd_footer_encode(&f, b);
	ck_assert_int_eq(vhd_footer_decode(b, &got, "x", NULL), 0);
	ck_assert_uint_eq(got.size, 32ull << 40);
	f.type = VHD_DYNAMIC;
	f.data_offset = 512;
	vhd_footer_encode(&f, b);
	ck_assert_int_eq(vhd_footer_decode(b, &got, "x", NULL), -EINVAL);
	f.size = VHD_SIZE_MAX;
	vhd_footer_encode(&f, b);
	ck_assert_int_eq(vhd_footer_decode(b, &got, "x", NULL), 0);
	f.type = VHD_FIXED;
	f.size = VHD_FIXED_MAX + 512;
	vhd_footer_encode(&f, b);
	ck_assert_int_eq(vhd_footer_decode(b, &got, "x", NULL), -EINVAL);
}
END_TEST

START_TEST(what_is_lost_is_counted_up_to_the_disks_end)
{
	struct vhd_layout l = {.size = 6 * 4096 - 1024,
			       .block_size = 4096,
			       .block_shift = 12,
			       .block_sectors = 8,
			       .bitmap_bytes = 512,
			       .blocks = 6};
	uint32_t bat[6] = {8, VHD_UNUSED, 100, VHD_UNUSED, 50, 200}, first = 99;
	uint8_t set[512] = {0x4f};
	uint64_t data = 200 * 512 + 512; /* of block 5 */

	ck_assert_uint_eq(vhd_short_block(&l, bat, data + 4096), VHD_UNUSED);
	ck_assert_uint_eq(vhd_short_block(&l, bat, data + 4095), 5);
	/* sectors 6 and 7 are beyond the disk's end */
	ck_assert_uint_eq(vhd_lost(&l, 5, 200, data + 6 * 512, set, &first), 0);
	ck_assert_uint_eq(vhd_lost(&l, 5, 200, data + 6 * 512 - 1, set, &first), 1);
	ck_assert_uint_eq(first, 5);
	/* 4 and 5; 2 and 3 were not written */
	ck_assert_uint_eq(vhd_lost(&l, 5, 200, data + 2 * 512, set, &first), 2);
	ck_assert_uint_eq(first, 4);
	ck_assert_uint_eq(vhd_lost(&l, 5, 200, data, set, &first), 3);
	ck_assert_uint_eq(first, 1);
	/* a whole block: to its end */
	ck_assert_uint_eq(vhd_lost(&l, 4, 50, 50 * 512 + 512, set, &first), 5);
}
END_TEST

START_TEST(a_little_endian_name_is_told_by_its_zeroes)
{
	static const char *const paths[] = {"base.vhd", "grün.vhd", "図.vhd", "x", "𝔘.vhd"};
	char out[VHD_PATH_MAX];
	uint8_t name[512];

	for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
		for (int little = 0; little < 2; little++) {
			ck_assert_int_eq(vhd_name_encode(paths[i], name), 0);
			for (int k = 0; little && k < 512; k += 2) {
				uint8_t t = name[k];

				name[k] = name[k + 1];
				name[k + 1] = t;
			}
			ck_assert_int_eq(vhd_name_decode(name, out), 0);
			ck_assert_str_eq(out, paths[i]);
		}
	/* without a letter of ASCII it is what the specification says, or little-endian */
	ck_assert_int_eq(vhd_name_encode("戀愀", name), 0);
	ck_assert_int_eq(vhd_name_decode(name, out), 0);
}
END_TEST

START_TEST(names)
{
	static const char *const paths[] = {"./a.vhd", "../b c/ü.vhd", "/abs/ĳ/𝔘𐍈.vhd",
					    "./%41%zz.vhd", "./x"};
	static const uint32_t codes[] = {VHD_LOC_W2RU, VHD_LOC_W2KU, VHD_LOC_MACX};
	static uint8_t data[VHD_LOC_MAX];
	char out[VHD_PATH_MAX], longest[VHD_PATH_MAX];
	uint8_t name[512];

	for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
		for (int k = 0; k < 3; k++) {
			int n = vhd_locator_encode(codes[k], paths[i], data);

			ck_assert_int_gt(n, 0);
			ck_assert_int_eq(vhd_locator_decode(codes[k], data, (size_t)n, true, out),
					 0);
			ck_assert_str_eq(out, paths[i]);
		}
	memset(longest, 'x', sizeof longest - 1);
	longest[sizeof longest - 1] = 0;
	for (int k = 0; k < 3; k++) {
		int n = vhd_locator_encode(codes[k], longest, data);

		ck_assert_int_gt(n, 4095);
		ck_assert_int_eq(vhd_locator_decode(codes[k], data, (size_t)n, true, out),
				 k < 2 ? 0 : -ENAMETOOLONG);
	}
	ck_assert_int_eq(vhd_locator_encode(VHD_LOC_W2RU, "\xff", data), -EILSEQ);
	/* a surrogate is no character */
	ck_assert_int_eq(vhd_locator_encode(VHD_LOC_W2RU, "\xed\xa0\x80", data), -EILSEQ);
	/* a slash in two bytes */
	ck_assert_int_eq(vhd_locator_encode(VHD_LOC_W2RU, "\xc0\xaf", data), -EILSEQ);
	ck_assert_int_eq(vhd_locator_decode(VHD_LOC_MAC, data, 10, true, out), -EOPNOTSUPP);
	ck_assert_int_eq(
		vhd_locator_decode(VHD_LOC_MACX, (const uint8_t *)"http://x", 8, true, out),
		-EILSEQ);
	ck_assert_int_eq(
		vhd_locator_decode(VHD_LOC_MACX, (const uint8_t *)"file://a%00b", 12, false, out),
		-EILSEQ);
	ck_assert_int_eq(vhd_locator_decode(VHD_LOC_WI2R, (const uint8_t *)".\\a", 3, true, out),
			 0);
	ck_assert_str_eq(out, "./a");
	ck_assert_int_eq(vhd_name_encode("ü.vhd", name), 0);
	ck_assert_int_eq(vhd_name_decode(name, out), 0);
	ck_assert_str_eq(out, "ü.vhd");
	longest[256] = 0;
	ck_assert_int_eq(vhd_name_encode(longest, name), 0);
	ck_assert_int_eq(vhd_name_decode(name, out), 0);
	ck_assert_str_eq(out, longest);
	longest[256] = 'x';
	ck_assert_int_eq(vhd_name_encode(longest, name), -ENAMETOOLONG);
}
END_TEST

START_TEST(locator_spaces)
{
	static const struct {
		uint32_t space, len;
		uint64_t want;
	} known[] = {{0, 0, 0},       {0, 20, 512},         {1, 20, 512},
		     {2, 20, 1024},   {511, 20, 511 * 512}, {512, 20, 512},
		     {513, 20, 1024}, {1024, 20, 1024}};

	for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
		struct vhd_locator l = {
			.code = VHD_LOC_W2RU, .space = known[i].space, .len = known[i].len};

		ck_assert_uint_eq(vhd_locator_space(&l), known[i].want);
		l.code = 0;
		ck_assert_uint_eq(vhd_locator_space(&l), 0);
	}
}
END_TEST

START_TEST(batmaps)
{
	struct vhd_footer f = a_footer(VHD_DYNAMIC);
	struct vhd_header h = a_header(2 << 20, 512);
	struct vhd_batmap m = {.off = 4096,
			       .sectors = 1,
			       .version = 0x00010002,
			       .marker = 3,
			       .has_key = 1},
			  n;
	uint8_t b[512], map[512] = {0x80, 0xff};
	struct vhd_layout l;

	ck_assert_int_eq(vhd_layout(&f, &h, 1 << 20, &l, "x", &err), 0);
	ck_assert_uint_eq(l.batmap_header, 3584);
	m.checksum = vhd_batmap_checksum(&m, map);
	ck_assert_uint_eq(m.checksum, ~(uint32_t)(0x80 + 0xff));
	memset(m.nonce, 1, 32);
	memset(m.hash, 2, 32);
	vhd_batmap_encode(&m, b);
	ck_assert_uint_eq(b[29], 1);
	ck_assert_uint_eq(b[30], 1);
	ck_assert_uint_eq(b[62], 2);
	ck_assert_int_eq(vhd_batmap_decode(b, &l, 1 << 20, &n, "x", &err), 0);
	ck_assert_uint_eq(n.marker, 3);
	n.version = 0x00010001; /* which adds signed bytes */
	ck_assert_uint_eq(vhd_batmap_checksum(&n, map), ~(uint32_t)(-128 - 1));
	m.sectors = 0;
	vhd_batmap_encode(&m, b);
	ck_assert_int_eq(vhd_batmap_decode(b, &l, 1 << 20, &n, "x", NULL), -EINVAL);
	m.sectors = VHD_BATMAP_MAX / 512 + 1;
	vhd_batmap_encode(&m, b);
	ck_assert_int_eq(vhd_batmap_decode(b, &l, 1ull << 40, &n, "x", NULL), -EINVAL);
	m.sectors = 1;
	m.off = 1536; /* over the table */
	vhd_batmap_encode(&m, b);
	ck_assert_int_eq(vhd_batmap_decode(b, &l, 1 << 20, &n, "x", NULL), -EINVAL);
	b[0] = 0;
	ck_assert_int_eq(vhd_batmap_decode(b, &l, 1 << 20, &n, "x", NULL), -ENOENT);
}
END_TEST

START_TEST(bytes)
{
	uint8_t b[9];
	uint64_t v;

	td_put_be32(b + 1, 0x01020304);
	ck_assert_uint_eq(b[1], 1);
	ck_assert_uint_eq(td_get_be32(b + 1), 0x01020304);
	ck_assert_uint_eq(td_get_le32(b + 1), 0x04030201);
	td_put_le64(b + 1, 0x0102030405060708);
	ck_assert_uint_eq(b[1], 8);
	ck_assert_uint_eq(td_get_be64(b + 1), 0x0807060504030201);
	ck_assert(td_add(UINT64_MAX - 1, 1, &v));
	ck_assert(!td_add(UINT64_MAX, 1, &v));
	ck_assert(!td_mul(1ull << 32, 1ull << 32, &v));
	ck_assert_uint_eq(td_round_up(513, 512), 1024);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vhd-format");

	SUITE_ADD(s, round_trips);
	SUITE_ADD(s, each_byte_is_summed);
	SUITE_ADD(s, geometry);
	SUITE_ADD(s, bits);
	SUITE_ADD(s, tables);
	SUITE_ADD(s, large_table);
	SUITE_ADD(s, layouts);
	SUITE_ADD(s, footers_picked);
	SUITE_ADD(s, a_footer_of_511_bytes_is_one);
	SUITE_ADD(s, only_a_fixed_disk_may_have_more_than_2040_gib);
	SUITE_ADD(s, what_is_lost_is_counted_up_to_the_disks_end);
	SUITE_ADD(s, a_little_endian_name_is_told_by_its_zeroes);
	SUITE_ADD(s, names);
	SUITE_ADD(s, locator_spaces);
	SUITE_ADD(s, batmaps);
	SUITE_ADD(s, bytes);
	return suite_run(s);
}
