/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The judge: what the guest may find after a cut, from its own trace alone.
 *
 * I1 A sector holds the last value acknowledged before the last completed FLUSH or BARRIER, or
 *    one issued later; where each write is promised, the last acknowledged value, or one issued
 *    later.
 * I2 Nothing issued after a barrier, and nothing of the barrier itself, is visible without all
 *    that came before it; and nothing of a FLUSH that carries data without what was acknowledged
 *    before it was issued.
 * I3 A sector is never torn.
 * I4 A sector never written reads its parent or zeroes, whatever lay on the store before.
 * I5 The image opens and is sound: the lab looks at that, not the judge.
 * I6 There is no crash and no hang: likewise.
 * I7 A request fails only where something was made to fail; after a FLUSH that failed, no write
 *    and no flush succeeds.
 * R  A read gives the last acknowledged value or one that was under way.
 */
#ifndef CRASH_JUDGE_H
#define CRASH_JUDGE_H

#include "tests/crash/trace.h"

struct judge;

struct verdict {
	const char *rule; /* NULL: nothing to blame */
	uint64_t sector;
	char text[400];
};

struct judge *judge_new(const struct gtrace *t); /* t stays as it is from here on */
void judge_free(struct judge *j);

/* The sectors that requests have touched, ascending, with a neighbour on each side; the judge's
 * memory. */
const uint64_t *judge_sectors(const struct judge *j, size_t *n);

/* tag[i]: what the i-th of `sector' reads after a cut at event `at'. */
void judge_cut(struct judge *j, uint32_t at, const uint64_t *sector, const uint32_t *tag, size_t n,
	       struct verdict *v);

/* A read that the guest made: data as it came. */
void judge_read(const struct gtrace *t, size_t op, const void *data, struct verdict *v);

/* The answers of the whole run: I7. */
void judge_answers(const struct gtrace *t, struct verdict *v);

/* For people: all requests of a sector up to `at'. */
void judge_history(const struct gtrace *t, uint64_t sector, uint32_t at,
		   void (*line)(const char *text, void *arg), void *arg);
const char *judge_tag(uint32_t tag, char *buf, size_t len);

#endif
