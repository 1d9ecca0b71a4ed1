/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tapdisk/limit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NS UINT64_C(1000000000)

/* What threads look at while it is set: each number is right or another right one. */
#define GET(x)    __atomic_load_n(&(x), __ATOMIC_RELAXED)
#define PUT(x, v) __atomic_store_n(&(x), (v), __ATOMIC_RELAXED)

static void set_rate(struct limit_rate *rate, uint64_t per_s, uint64_t now)
{
	PUT(rate->per_s, per_s);
	PUT(rate->next, now);
}

void limit_set(struct limit *l, const struct limit_rates *r, uint64_t now)
{
	uint32_t version = l->version + 1;
	bool on = false;

	PUT(l->burst, (uint64_t)(r->burst ? r->burst : LIMIT_BURST) * (NS / 1000));
	for (int of = 0; of < LIMIT_OF; of++) {
		set_rate(&l->iops[of], r->iops[of], now);
		set_rate(&l->bytes[of], r->bytes[of], now);
		on = on || r->iops[of] || r->bytes[of];
	}
	__atomic_store_n(&l->version, version ? version : 1, __ATOMIC_RELEASE);
	PUT(l->on, on);
}

/* ns that it takes for so many to come together. */
static uint64_t cost(uint64_t n, uint64_t per_s)
{
	return n / per_s * NS + n % per_s * NS / per_s;
}

/* RT2: pays for n; the time from which on they may go. */
static uint64_t pay(struct limit_rate *rate, uint64_t n, uint64_t least)
{
	uint64_t per_s = GET(rate->per_s), was, start, next;

	if (!per_s || !n)
		return 0;
	was = GET(rate->next);
	do {
		start = was > least ? was : least;
		next = start + cost(n, per_s);
	} while (!__atomic_compare_exchange_n(&rate->next, &was, next, true, __ATOMIC_RELAXED,
					      __ATOMIC_RELAXED));
	return start;
}

static uint64_t later(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static uint64_t pay_all(struct limit *l, bool write, uint64_t bytes, uint64_t now)
{
	enum limit_of of = write ? LIMIT_WRITE : LIMIT_READ;
	uint64_t burst = GET(l->burst), least = now > burst ? now - burst : 0;

	return later(
		later(pay(&l->iops[LIMIT_ALL], 1, least), pay(&l->iops[of], 1, least)),
		later(pay(&l->bytes[LIMIT_ALL], bytes, least), pay(&l->bytes[of], bytes, least)));
}

static bool same(const struct limit_place *p, uint32_t version, bool write, uint64_t bytes)
{
	return p->version == version && p->write == write && p->bytes == bytes;
}

uint64_t limit_take(struct limit *l, struct limit_place *p, bool write, uint64_t bytes,
		    uint64_t now)
{
	uint32_t version = __atomic_load_n(&l->version, __ATOMIC_ACQUIRE);
	uint64_t due;

	if (same(p, version, write, bytes)) {
		if (now < p->due)
			return p->due;
		if (p->since)
			__atomic_fetch_add(&l->n.ns, now - p->since, __ATOMIC_RELAXED);
		p->version = 0;
		return 0;
	}
	/* a guest that changes what it has put into the ring pays anew */
	due = pay_all(l, write, bytes, now);
	if (due <= now) {
		p->version = 0;
		return 0;
	}
	__atomic_fetch_add(&l->n.waits, 1, __ATOMIC_RELAXED);
	*p = (struct limit_place){version, write, bytes, due, now};
	return due;
}

void limit_keep(struct limit *l, struct limit_place *p, bool write, uint64_t bytes)
{
	*p = (struct limit_place){.version = __atomic_load_n(&l->version, __ATOMIC_ACQUIRE),
				  .write = write,
				  .bytes = bytes};
}

static void take_off(struct limit_rate *rate, uint64_t bytes)
{
	uint64_t per_s = GET(rate->per_s), was = GET(rate->next), back;

	if (!per_s)
		return;
	back = cost(bytes, per_s);
	while (!__atomic_compare_exchange_n(&rate->next, &was, was > back ? was - back : 0, true,
					    __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

void limit_give_back(struct limit *l, bool write, uint64_t bytes)
{
	take_off(&l->bytes[LIMIT_ALL], bytes);
	take_off(&l->bytes[write ? LIMIT_WRITE : LIMIT_READ], bytes);
}

double limit_delay(uint64_t due, uint64_t now)
{
	uint64_t ns = due > now ? due - now : 0;

	return (double)(ns < LIMIT_LOOK ? ns : LIMIT_LOOK) / (double)NS;
}

/* --- words --- */

static const struct {
	const char *key;
	size_t at; /* of a uint64_t in struct limit_rates */
	uint64_t least;
	const char *of;
} words[] = {
	{"limit-iops", offsetof(struct limit_rates, iops[LIMIT_ALL]), 1, "requests"},
	{"limit-iops-read", offsetof(struct limit_rates, iops[LIMIT_READ]), 1, "reads"},
	{"limit-iops-write", offsetof(struct limit_rates, iops[LIMIT_WRITE]), 1, "writes"},
	{"limit-bytes", offsetof(struct limit_rates, bytes[LIMIT_ALL]), 4096, "bytes"},
	{"limit-bytes-read", offsetof(struct limit_rates, bytes[LIMIT_READ]), 4096, "bytes"},
	{"limit-bytes-write", offsetof(struct limit_rates, bytes[LIMIT_WRITE]), 4096, "bytes"},
};

#define WORDS    (sizeof words / sizeof *words)
#define RATE_MAX (UINT64_C(1) << 50)

static uint64_t *rate_at(const struct limit_rates *r, size_t i)
{
	return (uint64_t *)((char *)r + words[i].at);
}

static bool is(const char *key, size_t len, const char *word)
{
	return strlen(word) == len && !strncmp(key, word, len);
}

bool limit_is_word(const char *key, size_t len)
{
	bool found = is(key, len, "limit") || is(key, len, "limit-burst");

	for (size_t i = 0; i < WORDS && !found; i++)
		found = is(key, len, words[i].key);
	return found;
}

/* A number with K, M, G or T behind it, of 1024 each; false: it is none, or too large. */
static bool parse_rate(const char *v, uint64_t max, uint64_t *out)
{
	static const char units[] = "KMGT";
	const char *unit;
	char *end;

	errno = 0;
	*out = strtoull(v, &end, 10);
	if (*v < '0' || *v > '9' || errno)
		return false;
	unit = *end ? strchr(units, *end) : NULL;
	if (*end && (!unit || end[1]))
		return false;
	for (; unit && unit >= units && *out <= max; unit--)
		*out *= 1024;
	return *out <= max;
}

static int set_burst(struct limit_rates *r, const char *value, struct td_err *err)
{
	uint64_t ms;

	if (!parse_rate(value, LIMIT_BURST_MAX, &ms) || !ms)
		return td_fail(
			err, EINVAL,
			"limit-burst=%.100s: say for how many ms an idle disk saves up, from "
			"1 to %d",
			value, LIMIT_BURST_MAX);
	r->burst = (uint32_t)ms;
	return 0;
}

int limit_set_word(struct limit_rates *r, const char *key, size_t len, const char *value,
		   struct td_err *err)
{
	uint64_t n;
	size_t i;

	r->said = true;
	if (is(key, len, "limit")) {
		if (strcmp(value, "none"))
			return td_fail(err, EINVAL, "limit=%.100s: say none, or one of %s", value,
				       LIMIT_WORDS);
		*r = (struct limit_rates){.said = true};
		return 0;
	}
	if (is(key, len, "limit-burst"))
		return set_burst(r, value, err);
	for (i = 0; i < WORDS && !is(key, len, words[i].key); i++)
		;
	if (i == WORDS)
		return td_fail(err, EINVAL, "'%.*s' is no limit: there are %s",
			       (int)(len > 100 ? 100 : len), key, LIMIT_WORDS);
	if (!parse_rate(value, RATE_MAX, &n) || (n && n < words[i].least))
		return td_fail(err, EINVAL,
			       "%s=%.100s: say a number of %s a second, from %" PRIu64
			       " on, with K, M, G or T for 1024 and so on; 0 for no limit",
			       words[i].key, value, words[i].of, words[i].least);
	*rate_at(r, i) = n;
	return 0;
}

bool limit_word(const struct limit_rates *r, unsigned i, char word[64])
{
	for (size_t k = 0; k < WORDS; k++)
		if (*rate_at(r, k) && !i--) {
			snprintf(word, 64, "%s=%" PRIu64, words[k].key, *rate_at(r, k));
			return true;
		}
	if (!r->burst || i)
		return false;
	snprintf(word, 64, "limit-burst=%u", r->burst);
	return true;
}
