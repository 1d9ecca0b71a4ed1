/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/crash/judge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* a request has this sector in its range */
struct touch {
	uint64_t sector;
	uint32_t op;
};

struct judge {
	const struct gtrace *t;
	struct touch *touch; /* ascending by sector, then by request */
	size_t ntouch;
	uint64_t *sector;
	size_t nsectors;
	bool *promised; /* for the cut at hand, by request */
	bool *visible;
};

static bool changes(const struct gop *op)
{
	return op->kind == GOP_WRITE || op->kind == GOP_ZERO || op->kind == GOP_DISCARD;
}

static bool is_flush(const struct gop *op)
{
	if (op->flags & GOP_VOID)
		return false;
	return op->kind == GOP_FLUSH || op->kind == GOP_SETTLE ||
	       (op->flags & (GOP_PREFLUSH | GOP_BARRIER));
}

static bool covers(const struct gop *op, uint64_t sector)
{
	return op->n && sector >= op->sector && sector - op->sector < op->n;
}

static int by_sector(const void *a, const void *b)
{
	const struct touch *x = a, *y = b;

	if (x->sector != y->sector)
		return x->sector < y->sector ? -1 : 1;
	return x->op < y->op ? -1 : x->op > y->op;
}

static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

static void list_sectors(struct judge *j)
{
	j->sector = must(malloc((3 * j->ntouch + 1) * sizeof *j->sector));
	for (size_t i = 0; i < j->ntouch; i++) {
		uint64_t s = j->touch[i].sector;

		for (uint64_t k = s ? s - 1 : 0; k <= s + 1 && k < j->t->sectors; k++)
			if (!j->nsectors || j->sector[j->nsectors - 1] < k)
				j->sector[j->nsectors++] = k;
	}
}

struct judge *judge_new(const struct gtrace *t)
{
	struct judge *j = must(calloc(1, sizeof *j));
	size_t n = 0;

	j->t = t;
	for (size_t i = 0; i < t->nops; i++)
		n += changes(&t->op[i]) ? t->op[i].n : 0;
	j->touch = must(malloc((n + 1) * sizeof *j->touch));
	for (size_t i = 0; i < t->nops; i++)
		for (uint32_t k = 0; changes(&t->op[i]) && k < t->op[i].n; k++)
			j->touch[j->ntouch++] = (struct touch){t->op[i].sector + k, (uint32_t)i};
	qsort(j->touch, j->ntouch, sizeof *j->touch, by_sector);
	list_sectors(j);
	j->promised = must(malloc(t->nops + 1));
	j->visible = must(malloc(t->nops + 1));
	return j;
}

void judge_free(struct judge *j)
{
	if (!j)
		return;
	free(j->touch);
	free(j->sector);
	free(j->promised);
	free(j->visible);
	free(j);
}

const uint64_t *judge_sectors(const struct judge *j, size_t *n)
{
	*n = j->nsectors;
	return j->sector;
}

static bool succeeded(const struct gop *op, uint32_t at)
{
	return op->ack < at && !op->status;
}

/*
 * The newest flush that was answered before the cut, or one whose own data shows that it has come
 * as far: what was acknowledged before it was issued is promised.
 */
static uint32_t promise_mark(const struct judge *j, uint32_t at)
{
	uint32_t mark = 0;

	for (size_t i = 0; i < j->t->nops; i++) {
		const struct gop *op = &j->t->op[i];

		if (is_flush(op) && (succeeded(op, at) || j->visible[i]) && op->issue > mark)
			mark = op->issue;
	}
	return mark;
}

/* The newest request on the ring of which something is on the disk. */
static size_t last_visible(const struct judge *j)
{
	size_t last = 0;

	for (size_t i = 0; i < j->t->nops; i++)
		if (j->visible[i] && (j->t->op[i].flags & GOP_RING))
			last = i;
	return last;
}

/* I2: the last barrier on the ring that something visible came after, or is of; nops when there is
 * none. */
static size_t passed_barrier(const struct judge *j, size_t last)
{
	size_t barrier = j->t->nops;

	for (size_t i = 0; i <= last && i < j->t->nops; i++) {
		const struct gop *op = &j->t->op[i];

		/* one that failed, or may have, holds nothing together */
		if ((op->flags & GOP_BARRIER) && !(op->flags & GOP_VOID) &&
		    (op->ack == NEVER ? !j->t->hard_fault : !op->status))
			barrier = i;
	}
	return barrier;
}

static void find_promises(struct judge *j, uint32_t at)
{
	const struct gtrace *t = j->t;
	uint32_t mark = promise_mark(j, at);
	size_t last = last_visible(j), barrier = passed_barrier(j, last);

	for (size_t i = 0; i < t->nops; i++) {
		const struct gop *op = &t->op[i];
		bool own = !(op->flags & GOP_VOID) &&
			   ((op->flags & (GOP_FUA | GOP_PREFLUSH | GOP_BARRIER | GOP_EACH)) ||
			    t->promise_each);

		j->promised[i] =
			changes(op) && op->issue < at && !(op->ack != NEVER && op->status) &&
			((succeeded(op, at) && (own || op->ack < mark)) ||
			 (barrier < t->nops && (i < barrier || (i == barrier && i < last)) &&
			  (op->flags & GOP_RING)));
	}
}

/* The request after which what `w' wrote cannot be there any more (w: NULL for what was there at
 * first); NULL if there is none. */
static const struct gop *superseded(const struct judge *j, const struct gop *w,
				    const struct touch *from, const struct touch *to)
{
	for (; from < to; from++) {
		const struct gop *later = &j->t->op[from->op];

		if (later != w && j->promised[from->op] &&
		    (!w || (w->ack != NEVER && w->ack < later->issue)))
			return later;
	}
	return NULL;
}

static uint32_t initial_tag(const struct gtrace *t, uint64_t sector)
{
	return t->initial_every && sector / t->initial_every % 2 == 0 ? TAG_ZERO : t->initial;
}

static void blame(struct verdict *v, const char *rule, uint64_t sector, const char *text)
{
	v->rule = rule;
	v->sector = sector;
	snprintf(v->text, sizeof v->text, "%s", text);
}

static void blame_lost(const struct judge *j, struct verdict *v, uint64_t sector, uint32_t tag,
		       const struct gop *later)
{
	char what[64];

	v->rule = "I1";
	for (size_t i = 0; i < j->t->nops; i++)
		if (j->visible[i] && &j->t->op[i] > later &&
		    (j->t->op[i].flags & later->flags & GOP_RING))
			v->rule = "I1 or I2";
	v->sector = sector;
	snprintf(v->text, sizeof v->text,
		 "it holds %s, but request %zu wrote it later and that was promised",
		 judge_tag(tag, what, sizeof what), (size_t)(later - j->t->op) + 1);
}

/* A discarded sector may hold anything, until it is written again. */
static bool undefined(const struct judge *j, uint32_t at, const struct touch *from,
		      const struct touch *to)
{
	for (const struct touch *i = from; i < to; i++) {
		const struct gop *op = &j->t->op[i->op];

		if (op->kind == GOP_DISCARD && op->issue < at && !superseded(j, op, from, to))
			return true;
	}
	return false;
}

/* Zeroes, and no request that would have written them is still good; the text says why not what was
 * there at first. */
static const struct gop *zero_blamed(const struct judge *j, uint32_t at, const struct touch *from,
				     const struct touch *to)
{
	const struct gop *later = superseded(j, NULL, from, to);

	for (const struct touch *i = from; later && i < to; i++) {
		const struct gop *op = &j->t->op[i->op];

		if (op->kind == GOP_ZERO && op->issue < at && !superseded(j, op, from, to))
			return NULL;
	}
	return later;
}

static void judge_sector(const struct judge *j, uint32_t at, uint64_t sector, uint32_t tag,
			 const struct touch *from, const struct touch *to, struct verdict *v)
{
	const struct gtrace *t = j->t;
	const struct gop *w = tag > 0 && tag <= t->nops ? &t->op[tag - 1] : NULL, *later;
	bool first = tag == initial_tag(t, sector);
	char what[64];

	if (undefined(j, at, from, to))
		return;
	if (tag == TAG_TORN) {
		blame(v, "I3", sector, "it is torn, or holds what was never written there");
	} else if (w && (w->kind != GOP_WRITE || !covers(w, sector) || w->issue >= at)) {
		blame(v, "I3", sector, "it holds what no request had written there");
	} else if (w) {
		later = superseded(j, w, from, to);
		if (later)
			blame_lost(j, v, sector, tag, later);
	} else if (first && !superseded(j, NULL, from, to)) {
		return;
	} else if (tag == TAG_ZERO) {
		later = zero_blamed(j, at, from, to);
		if (later) {
			blame_lost(j, v, sector, tag, later);
		} else if (!first) {
			bool zeroed = false;

			for (const struct touch *i = from; i < to; i++)
				zeroed |= t->op[i->op].kind == GOP_ZERO && t->op[i->op].issue < at;
			if (!zeroed)
				blame(v, "I4", sector,
				      "it reads zeroes, and nobody wrote them over what was there "
				      "at first");
		}
	} else if (first) {
		blame_lost(j, v, sector, tag, superseded(j, NULL, from, to));
	} else {
		snprintf(v->text, sizeof v->text,
			 "it holds %s, which was not there and which nobody wrote",
			 judge_tag(tag, what, sizeof what));
		v->rule = "I4";
		v->sector = sector;
	}
}

void judge_cut(struct judge *j, uint32_t at, const uint64_t *sector, const uint32_t *tag, size_t n,
	       struct verdict *v)
{
	const struct touch *from = j->touch, *end = j->touch + j->ntouch, *to;

	memset(j->visible, 0, j->t->nops);
	for (size_t i = 0; i < n; i++)
		if (tag[i] > 0 && tag[i] <= j->t->nops)
			j->visible[tag[i] - 1] = true;
	find_promises(j, at);
	v->rule = NULL;
	for (size_t i = 0; i < n && !v->rule; i++) {
		while (from < end && from->sector < sector[i])
			from++;
		for (to = from; to < end && to->sector == sector[i];)
			to++;
		judge_sector(j, at, sector[i], tag[i], from, to, v);
	}
}

/* --- while it runs --- */

/* Was `w' over and done with, and another on top of it, before the read was issued? */
static bool stale(const struct gtrace *t, const struct gop *read, uint64_t sector,
		  const struct gop *w)
{
	for (size_t i = 0; i < t->nops; i++) {
		const struct gop *later = &t->op[i];

		if (later != w && changes(later) && covers(later, sector) &&
		    later->ack < read->issue && !later->status &&
		    (!w || (w->ack != NEVER && w->ack < later->issue)))
			return true;
	}
	return false;
}

static bool read_ok(const struct gtrace *t, const struct gop *read, uint64_t sector, uint32_t tag)
{
	const struct gop *w = tag > 0 && tag <= t->nops ? &t->op[tag - 1] : NULL;

	if (w && w->kind == GOP_WRITE && covers(w, sector) && !stale(t, read, sector, w))
		return true;
	if (tag == initial_tag(t, sector) && !stale(t, read, sector, NULL))
		return true;
	for (size_t i = 0; i < t->nops; i++) {
		const struct gop *op = &t->op[i];

		if (covers(op, sector) && !stale(t, read, sector, op) &&
		    (op->kind == GOP_DISCARD || (op->kind == GOP_ZERO && tag == TAG_ZERO)))
			return true;
	}
	return false;
}

void judge_read(const struct gtrace *t, size_t i, const void *data, struct verdict *v)
{
	const struct gop *read = &t->op[i];
	char what[64];

	v->rule = NULL;
	for (uint32_t k = 0; k < read->n; k++) {
		uint64_t sector = read->sector + k;
		uint32_t tag = sector_tag((const char *)data + (size_t)k * SECTOR, t->seed, sector);

		if (read_ok(t, read, sector, tag))
			continue;
		v->rule = "R";
		v->sector = sector;
		snprintf(v->text, sizeof v->text, "read %zu, issued at %u, gave %s", i + 1,
			 read->issue, judge_tag(tag, what, sizeof what));
		return;
	}
}

void judge_answers(const struct gtrace *t, struct verdict *v)
{
	const struct gop *failed = NULL;

	v->rule = NULL;
	for (size_t i = 0; i < t->nops; i++) {
		const struct gop *op = &t->op[i];

		if (op->ack == NEVER || !op->status)
			continue;
		if (!t->hard_fault) {
			blame(v, "I7", op->sector,
			      "a request failed, and nothing had been made to fail that cannot be "
			      "hidden");
			snprintf(v->text + strlen(v->text), sizeof v->text - strlen(v->text),
				 " (request %zu, status %d)", i + 1, op->status);
			return;
		}
		if (op->kind == GOP_FLUSH && !(op->flags & GOP_BARRIER) &&
		    (!failed || op->ack < failed->ack))
			failed = op;
	}
	for (size_t i = 0; failed && i < t->nops; i++) {
		const struct gop *op = &t->op[i];

		if (op->issue <= failed->ack || op->ack == NEVER || op->status ||
		    op->kind == GOP_READ || op->kind == GOP_SETTLE)
			continue;
		blame(v, "I7", op->sector, "");
		snprintf(v->text, sizeof v->text,
			 "request %zu succeeded after the flush of request %zu had failed", i + 1,
			 (size_t)(failed - t->op) + 1);
		return;
	}
}

/* --- for people --- */

const char *judge_tag(uint32_t tag, char *buf, size_t len)
{
	if (tag == TAG_ZERO)
		snprintf(buf, len, "zeroes");
	else if (tag == TAG_TORN)
		snprintf(buf, len, "garbage");
	else if (tag == TAG_FILLED)
		snprintf(buf, len, "what lay on the device before");
	else if (tag == TAG_INITIAL)
		snprintf(buf, len, "the parent's data");
	else
		snprintf(buf, len, "the data of request %u", tag);
	return buf;
}

void judge_history(const struct gtrace *t, uint64_t sector, uint32_t at,
		   void (*line)(const char *text, void *arg), void *arg)
{
	static const char *const kinds[] = {"READ",    "WRITE", "WRITE_ZEROES",
					    "DISCARD", "FLUSH", "CLOSE"};
	char text[200], ack[32];

	for (size_t i = 0; i < t->nops; i++) {
		const struct gop *op = &t->op[i];

		if (op->issue >= at || !(covers(op, sector) || is_flush(op)))
			continue;
		if (op->ack < at)
			snprintf(ack, sizeof ack, "answered at %u%s", op->ack,
				 op->status ? " (failed)" : "");
		else
			snprintf(ack, sizeof ack, "not answered");
		snprintf(text, sizeof text,
			 "request %zu: %s%s%s%s, sectors %llu+%u%s, issued at %u, %s", i + 1,
			 kinds[op->kind], op->flags & GOP_FUA ? " FUA" : "",
			 op->flags & GOP_PREFLUSH ? " PREFLUSH" : "",
			 op->flags & GOP_BARRIER ? " BARRIER" : "", (unsigned long long)op->sector,
			 op->n, op->flags & GOP_RING ? "" : ", not on the ring", op->issue, ack);
		line(text, arg);
	}
}
