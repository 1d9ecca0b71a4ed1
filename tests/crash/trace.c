/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/crash/trace.h"

#include <stdlib.h>
#include <string.h>

#include "tests/crash/rng.h"

/* Room for one more element; arrays grow by doubling. */
static void *grow(void *array, size_t n, size_t size)
{
	if (n & (n - 1) || (n && n < 16))
		return array;
	array = realloc(array, (n ? 2 * n : 16) * size);
	if (!array)
		abort();
	return array;
}

static void add_event(struct flog *l, uint32_t at, size_t op, bool end)
{
	l->event = grow(l->event, l->nevents, sizeof *l->event);
	l->event[l->nevents++] = (struct flog_event){at, (uint32_t)op, end};
}

size_t flog_begin(struct flog *l, struct fop op)
{
	l->op = grow(l->op, l->nops, sizeof *l->op);
	op.end = NEVER;
	l->op[l->nops] = op;
	add_event(l, op.begin, l->nops, false);
	return l->nops++;
}

void flog_end(struct flog *l, size_t op, uint32_t at, int64_t res)
{
	l->op[op].end = at;
	l->op[op].res = res;
	add_event(l, at, op, true);
}

void flog_free(struct flog *l)
{
	for (size_t i = 0; i < l->nops; i++)
		free(l->op[i].data);
	free(l->op);
	free(l->event);
	memset(l, 0, sizeof *l);
}

size_t gtrace_add(struct gtrace *t, struct gop op)
{
	t->op = grow(t->op, t->nops, sizeof *t->op);
	t->op[t->nops] = op;
	return t->nops++;
}

void gtrace_free(struct gtrace *t)
{
	free(t->op);
	memset(t, 0, sizeof *t);
}

#define WORDS (SECTOR / 8)
#define MAGIC UINT64_C(0x7061717565747461)

static uint64_t word(uint64_t key, unsigned i)
{
	uint64_t x = (key + i) * UINT64_C(0x9e3779b97f4a7c15);

	return x ^ x >> 29;
}

/* What was there at first is the same for every run. */
static uint64_t key_of(uint64_t seed, uint64_t tag, uint64_t sector)
{
	return mix64((tag == TAG_INITIAL ? 0 : seed) ^ tag << 40 ^ sector);
}

/* Word 0: who; word 1: where; the others follow from both and their place. */
void sector_fill(void *buf, uint64_t seed, uint32_t tag, uint64_t sector)
{
	uint64_t *w = buf, key = key_of(seed, tag, sector);

	w[0] = MAGIC ^ tag;
	w[1] = sector;
	for (unsigned i = 2; i < WORDS; i++)
		w[i] = word(key, i);
}

static bool all(const uint64_t *w, uint64_t v)
{
	for (unsigned i = 0; i < WORDS; i++)
		if (w[i] != v)
			return false;
	return true;
}

uint32_t sector_tag(const void *buf, uint64_t seed, uint64_t sector)
{
	uint64_t w[WORDS], tag, key;

	memcpy(w, buf, sizeof w);
	if (!w[0])
		return all(w, 0) ? TAG_ZERO : TAG_TORN;
	if (w[0] == UINT64_C(0xeeeeeeeeeeeeeeee))
		return all(w, w[0]) ? TAG_FILLED : TAG_TORN;
	tag = w[0] ^ MAGIC;
	if (tag > TAG_FILLED || w[1] != sector)
		return TAG_TORN;
	key = key_of(seed, tag, sector);
	for (unsigned i = 2; i < WORDS; i++)
		if (w[i] != word(key, i))
			return TAG_TORN;
	return (uint32_t)tag; /* TAG_INITIAL: a parent's */
}
