/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/crash/image-check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct check {
	const struct pages *f;
	char *text;
	size_t len;
};

static int wrong(struct check *k, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int wrong(struct check *k, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(k->text, k->len, fmt, ap);
	va_end(ap);
	return -1;
}

static uint32_t be32(const unsigned char *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint64_t be64(const unsigned char *p)
{
	return (uint64_t)be32(p) << 32 | be32(p + 4);
}

/* --- qcow2 --- */

struct qcow2 {
	struct check k;
	unsigned version, bits, l2_bytes, refbits;
	uint64_t incompat, cluster, size, l1_at, ref_at;
	uint32_t l1, ref; /* entries; clusters */
	unsigned char *reftable;
	bool ext, dirty, outside; /* the data are in another file */
	uint64_t *use;            /* clusters in use, unordered */
	size_t nuse, room;
	uint64_t block; /* of counts, that is in `counts' */
	unsigned char *counts;
};

static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

static void note(struct qcow2 *q, uint64_t at, uint64_t bytes)
{
	for (uint64_t c = at >> q->bits; c <= (at + bytes - 1) >> q->bits; c++) {
		if (q->nuse == q->room) {
			q->room = q->room ? 2 * q->room : 256;
			q->use = must(realloc(q->use, q->room * sizeof *q->use));
		}
		q->use[q->nuse++] = c;
	}
}

static uint64_t count_of(struct qcow2 *q, uint64_t cluster)
{
	uint64_t per = q->cluster * 8 / q->refbits, i = cluster / per, at, v = 0, bit;
	const unsigned char *p;

	if (i >= (uint64_t)q->ref << q->bits >> 3)
		return 0;
	at = be64(q->reftable + 8 * i) & ~UINT64_C(0x1ff);
	if (!at)
		return 0;
	if (q->block != at) {
		pages_read(q->k.f, at, q->counts, q->cluster);
		q->block = at;
	}
	bit = cluster % per * q->refbits;
	p = q->counts + bit / 8;
	if (q->refbits < 8)
		return *p >> bit % 8 & ((1u << q->refbits) - 1);
	for (unsigned b = 0; b < q->refbits / 8; b++)
		v = v << 8 | p[b];
	return v;
}

static int header(struct qcow2 *q)
{
	unsigned char h[112];

	pages_read(q->k.f, 0, h, sizeof h);
	if (be32(h) != 0x514649fb)
		return wrong(&q->k, "it is no qcow2");
	q->version = be32(h + 4);
	q->bits = be32(h + 20);
	q->size = be64(h + 24);
	q->l1 = be32(h + 36);
	q->l1_at = be64(h + 40);
	q->ref_at = be64(h + 48);
	q->ref = be32(h + 56);
	if (q->version == 3) {
		q->incompat = be64(h + 72);
		q->refbits = 1u << be32(h + 96);
	} else {
		q->refbits = 16;
	}
	q->cluster = UINT64_C(1) << q->bits;
	q->dirty = q->incompat & 1;
	q->outside = q->incompat & 4;
	q->ext = q->incompat & 16;
	q->l2_bytes = q->ext ? 16 : 8;
	if (q->incompat & 2)
		return wrong(&q->k, "it says that it is corrupt");
	if (q->bits < 9 || q->bits > 21 || q->refbits > 64 || !q->ref ||
	    (q->l1_at | q->ref_at) % q->cluster || !q->l1_at || !q->ref_at)
		return wrong(&q->k, "its header makes no sense");
	return 0;
}

static int walk_tables(struct qcow2 *q)
{
	unsigned char *l1 = must(malloc((size_t)q->l1 * 8 + 1)), *l2 = must(malloc(q->cluster));
	int rc = 0;

	pages_read(q->k.f, q->l1_at, l1, (size_t)q->l1 * 8);
	for (uint32_t i = 0; i < q->l1 && !rc; i++) {
		uint64_t e = be64(l1 + 8 * i), at = e & UINT64_C(0x00fffffffffffe00);

		if (!at)
			continue;
		if (at % q->cluster)
			rc = wrong(&q->k, "entry %u of the first table, 0x%llx, is on no cluster",
				   i, (unsigned long long)e);
		note(q, at, q->cluster);
		if (!q->dirty && e >> 63 && count_of(q, at >> q->bits) != 1 && !rc)
			rc = wrong(&q->k,
				   "the second table at 0x%llx is told to be counted once, and its "
				   "count is %llu",
				   (unsigned long long)at,
				   (unsigned long long)count_of(q, at >> q->bits));
		pages_read(q->k.f, at, l2, q->cluster);
		for (uint64_t k = 0; k < q->cluster / q->l2_bytes && !rc; k++) {
			uint64_t d = be64(l2 + k * q->l2_bytes),
				 data = d & UINT64_C(0x00fffffffffffe00);

			/* compressed: sectors, that may be shared; the lab makes none */
			if (d >> 62 & 1) {
				continue;
			}
			if (!data || q->outside)
				continue;
			if (data % q->cluster)
				rc = wrong(&q->k,
					   "entry %llu of the table at 0x%llx, 0x%llx, is on no "
					   "cluster",
					   (unsigned long long)k, (unsigned long long)at,
					   (unsigned long long)d);
			note(q, data, q->cluster);
			if (!rc && !q->dirty && d >> 63 && count_of(q, data >> q->bits) != 1)
				rc = wrong(&q->k,
					   "the data at 0x%llx are told to be counted once, and "
					   "their count is %llu",
					   (unsigned long long)data,
					   (unsigned long long)count_of(q, data >> q->bits));
		}
	}
	free(l1);
	free(l2);
	return rc;
}

static void walk_counts(struct qcow2 *q)
{
	for (uint64_t i = 0; i < (uint64_t)q->ref << q->bits >> 3; i++) {
		uint64_t at = be64(q->reftable + 8 * i) & ~UINT64_C(0x1ff);

		if (at)
			note(q, at, q->cluster);
	}
}

/* The extension of the header, if its bit says that it counts: directory, tables, and what they
 * refer to. */
static int walk_bitmaps(struct qcow2 *q)
{
	unsigned char h[512];
	uint32_t at, type, len;

	pages_read(q->k.f, 0, h, sizeof h);
	if (q->version < 3 || !(be64(h + 88) & 1))
		return 0;
	for (at = be32(h + 100); at + 8 <= sizeof h; at += 8 + (len + 7) / 8 * 8) {
		type = be32(h + at);
		len = be32(h + at + 4);
		if (!type)
			return 0;
		if (type == 0x23852875 && at + 32 <= sizeof h) {
			uint32_t n = be32(h + at + 8);
			uint64_t bytes = be64(h + at + 16), dir = be64(h + at + 24), pos = 0;
			unsigned char *d;

			if (bytes > 65536 || !bytes || dir % q->cluster)
				return wrong(&q->k, "the directory of bitmaps makes no sense");
			note(q, dir, bytes);
			d = must(malloc(bytes));
			pages_read(q->k.f, dir, d, bytes);
			for (uint32_t i = 0; i < n && pos + 24 <= bytes; i++) {
				uint64_t table = be64(d + pos);
				uint32_t entries = be32(d + pos + 8), extra = be32(d + pos + 20);
				unsigned name = (unsigned)d[pos + 18] << 8 | d[pos + 19];

				if (entries && entries < 65536)
					note(q, table, (uint64_t)entries * 8);
				for (uint32_t e = 0; e < entries && e < 65536; e++) {
					unsigned char b[8];

					pages_read(q->k.f, table + 8 * e, b, 8);
					if (be64(b) & UINT64_C(0x00fffffffffffe00))
						note(q, be64(b) & UINT64_C(0x00fffffffffffe00),
						     q->cluster);
				}
				pos += (24 + name + extra + 7) / 8 * 8;
			}
			free(d);
		}
	}
	return 0;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static int judge(struct qcow2 *q)
{
	qsort(q->use, q->nuse, sizeof *q->use, by_value);
	for (size_t i = 0; i < q->nuse; i++) {
		if (i && q->use[i] == q->use[i - 1])
			return wrong(&q->k, "two things stand in the cluster at 0x%llx",
				     (unsigned long long)(q->use[i] << q->bits));
		if (!q->dirty && !count_of(q, q->use[i]))
			return wrong(&q->k, "the cluster at 0x%llx is in use, and its count is 0",
				     (unsigned long long)(q->use[i] << q->bits));
	}
	return 0;
}

static int check_qcow2(struct qcow2 *q)
{
	int rc = header(q);

	if (rc)
		return rc;
	q->counts = must(malloc(q->cluster));
	q->reftable = must(malloc((size_t)q->ref << q->bits));
	pages_read(q->k.f, q->ref_at, q->reftable, (size_t)q->ref << q->bits);
	note(q, 0, q->cluster);
	note(q, q->l1_at, (uint64_t)q->l1 * 8);
	note(q, q->ref_at, (uint64_t)q->ref << q->bits);
	walk_counts(q);
	rc = walk_tables(q);
	if (!rc)
		rc = walk_bitmaps(q);
	if (!rc)
		rc = judge(q);
	free(q->counts);
	free(q->reftable);
	free(q->use);
	return rc;
}

/* --- VHD --- */

static bool sums_up(const unsigned char *b, size_t n, size_t sum)
{
	uint32_t s = 0;

	for (size_t i = 0; i < n; i++)
		if (i < sum || i >= sum + 4)
			s += b[i];
	return ~s == be32(b + sum);
}

struct span {
	uint64_t from, to;
	int what; /* a block, or -1: the tables */
};

static int by_from(const void *a, const void *b)
{
	const struct span *x = a, *y = b;

	return x->from < y->from ? -1 : x->from > y->from;
}

static int check_vhd(struct check *k)
{
	unsigned char f[512], h[1024], *bat;
	uint64_t table, header_at, bitmap;
	uint32_t n, block;
	struct span *s;
	size_t ns = 0;
	int rc = 0;

	pages_read(k->f, 0, f, sizeof f);
	if (memcmp(f, "conectix", 8) != 0) { /* a fixed one has its footer at the end alone */
		pages_read(k->f, k->f->size - 512, f, sizeof f);
		if (memcmp(f, "conectix", 8) != 0 || !sums_up(f, 512, 64))
			return wrong(k, "it has no footer");
		return 0;
	}
	if (!sums_up(f, 512, 64))
		return wrong(k, "the copy of the footer has a wrong sum");
	header_at = be64(f + 16);
	pages_read(k->f, header_at, h, sizeof h);
	if (memcmp(h, "cxsparse", 8) != 0 || !sums_up(h, 1024, 36))
		return wrong(k, "its header is damaged");
	table = be64(h + 16);
	n = be32(h + 28);
	block = be32(h + 32);
	if (n > 1u << 20 || block < 512 || block & (block - 1))
		return wrong(k, "its header makes no sense");
	bitmap = (block / 512 / 8 + 511) / 512 * 512;
	bat = must(malloc((size_t)n * 4 + 1));
	s = must(malloc((n + 12) * sizeof *s));
	pages_read(k->f, table, bat, (size_t)n * 4);
	s[ns++] = (struct span){0, 512, -1};
	s[ns++] = (struct span){header_at, header_at + 1024, -1};
	s[ns++] = (struct span){table, table + ((uint64_t)n * 4 + 511) / 512 * 512, -1};
	for (uint32_t i = 0; i < n; i++) {
		uint64_t at = (uint64_t)be32(bat + 4 * i) * 512;

		if (be32(bat + 4 * i) == 0xffffffff)
			continue;
		s[ns++] = (struct span){at, at + bitmap + block, (int)i};
	}
	qsort(s, ns, sizeof *s, by_from);
	for (size_t i = 1; i < ns && !rc; i++)
		if (s[i].from < s[i - 1].to && (s[i].what >= 0 || s[i - 1].what >= 0))
			rc = wrong(k, "%s %d and %s %d overlap",
				   s[i - 1].what < 0 ? "a table" : "block", s[i - 1].what,
				   s[i].what < 0 ? "a table" : "block", s[i].what);
	free(bat);
	free(s);
	return rc;
}

int image_check(const char *type, const struct pages *file, char *text, size_t len)
{
	struct check k = {file, text, len};

	if (!strcmp(type, "qcow2"))
		return check_qcow2(&(struct qcow2){.k = k});
	if (!strcmp(type, "vhd"))
		return check_vhd(&k);
	return 0;
}
