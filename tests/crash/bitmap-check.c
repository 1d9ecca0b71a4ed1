/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/crash/bitmap-check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXTENSION 0x23852875u
#define OFFSET    UINT64_C(0x00fffffffffffe00)
#define DIR_MAX   65536u

enum { IN_USE = 1, AUTO = 2 };

static uint32_t be32(const unsigned char *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint64_t be64(const unsigned char *p)
{
	return (uint64_t)be32(p) << 32 | be32(p + 4);
}

struct bitmap {
	const struct pages *f;
	uint64_t table, cluster;
	uint32_t entries;
	unsigned shift;
};

static bool is_set(const struct bitmap *b, uint64_t bit)
{
	unsigned char e[8], byte;
	uint64_t at = bit / 8, i = at / b->cluster;

	if (i >= b->entries)
		return false;
	pages_read(b->f, b->table + 8 * i, e, sizeof e);
	if (!(be64(e) & OFFSET))
		return be64(e) & 1;
	pages_read(b->f, (be64(e) & OFFSET) + at % b->cluster, &byte, 1);
	return byte >> (bit % 8) & 1;
}

static int check_one(const struct bitmap *b, const struct gtrace *guest, uint32_t at,
		     uint32_t which, char *text, size_t len)
{
	for (size_t i = 0; i < guest->nops; i++) {
		const struct gop *op = &guest->op[i];

		if (!op->n || op->kind == GOP_READ || op->kind > GOP_DISCARD || op->status ||
		    op->ack >= at)
			continue;
		for (uint64_t s = op->sector; s < op->sector + op->n; s++)
			if (!is_set(b, s * SECTOR >> b->shift)) {
				snprintf(text, len,
					 "bitmap %u is to be believed, and does not know of "
					 "request %zu, sector %llu",
					 which, i + 1, (unsigned long long)s);
				return -1;
			}
	}
	return 0;
}

static int check_directory(const unsigned char *d, uint64_t bytes, uint32_t n, struct bitmap *b,
			   const struct gtrace *guest, uint32_t at, char *text, size_t len)
{
	uint64_t pos = 0;
	int rc = 0;

	for (uint32_t i = 0; i < n && !rc && pos + 24 <= bytes; i++) {
		const unsigned char *p = d + pos;
		uint32_t flags = be32(p + 12);

		b->table = be64(p);
		b->entries = be32(p + 8);
		b->shift = p[17];
		if ((flags & AUTO) && !(flags & IN_USE) && b->shift < 64)
			rc = check_one(b, guest, at, i + 1, text, len);
		pos += (24 + ((uint64_t)p[18] << 8 | p[19]) + be32(p + 20) + 7) / 8 * 8;
	}
	return rc;
}

int bitmap_check(const struct pages *file, const struct gtrace *guest, uint32_t at, char *text,
		 size_t len)
{
	struct bitmap b = {.f = file};
	unsigned char h[512], *d;
	uint32_t ext;
	int rc = 0;

	pages_read(file, 0, h, sizeof h);
	if (memcmp(h, "QFI\xfb", 4) != 0 || be32(h + 4) < 3 || !(be64(h + 88) & 1) ||
	    be32(h + 20) > 21)
		return 0; /* without that bit nobody believes them */
	b.cluster = UINT64_C(1) << be32(h + 20);
	for (ext = be32(h + 100);
	     ext + 32 <= sizeof h && be32(h + ext) && be32(h + ext) != EXTENSION;
	     ext += 8 + (be32(h + ext + 4) + 7) / 8 * 8)
		;
	if (ext + 32 > sizeof h || be32(h + ext) != EXTENSION || !be64(h + ext + 16) ||
	    be64(h + ext + 16) > DIR_MAX)
		return 0;
	d = malloc(be64(h + ext + 16));
	if (!d)
		abort();
	pages_read(file, be64(h + ext + 24), d, be64(h + ext + 16));
	rc = check_directory(d, be64(h + ext + 16), be32(h + ext + 8), &b, guest, at, text, len);
	free(d);
	return rc;
}
