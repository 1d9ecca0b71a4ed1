/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Limits of a disk: how many requests, and how many bytes, it takes per second, of reads, of
 * writes, and of both together.
 *
 * RT1 A request that has to wait is not taken: it stays in the ring, or in the NBD client's socket.
 *     So it holds no memory and no grant here, and a pause, a close or another disk never waits for
 *     it.  What is behind it in the same ring or connection waits as well, and keeps its order.
 * RT2 Each rate is kept as the time from which on the next request may go.  A request moves this
 *     time forward by its cost; before that, a time earlier than now minus the burst is set to
 *     that: so far an idle disk saves up.  So a request of any size goes once its time has come,
 *     and those behind it wait the longer.
 * RT3 A ring or NBD client whose request has to wait has paid for it, and so has a place; each has
 *     at most one.  They take turns, request by request, however quick each of them is.
 * RT4 There is no lock: each time is one number that threads replace by compare-and-swap.  Without
 *     a limit, a look at `on' is all.
 * RT5 A ring or client that waits looks again after LIMIT_LOOK at the latest, so that a changed
 *     limit needs to wake nobody.  A change of a limit starts afresh: nothing is saved up, and
 *     places are forgotten.
 * RT6 Reads, writes and zeroes count with their bytes, a discard as a write without any; a flush
 *     without data is free.  Requests that a successor repeats have been paid for.
 */
#ifndef TAPDISK_LIMIT_H
#define TAPDISK_LIMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "td/log.h"

enum limit_of { LIMIT_ALL, LIMIT_READ, LIMIT_WRITE, LIMIT_OF };

struct limit_rates {
	uint64_t iops[LIMIT_OF], bytes[LIMIT_OF]; /* a second; 0: as many as there are */
	uint32_t burst;                           /* ms; 0: LIMIT_BURST */
	bool said; /* a word has been said of it, be it that there is none */
};

#define LIMIT_BURST     100 /* ms */
#define LIMIT_BURST_MAX 600000
#define LIMIT_LOOK      UINT64_C(500000000) /* ns */

struct limit_rate {
	uint64_t per_s; /* 0: no limit */
	uint64_t next;  /* ns of CLOCK_MONOTONIC: from when on the next may go */
};

struct limit {
	bool on;
	uint32_t version; /* of the rates; from 1 on */
	uint64_t burst;   /* ns */
	struct limit_rate iops[LIMIT_OF], bytes[LIMIT_OF];
	struct {
		uint64_t waits, ns; /* requests that had to wait, and how long those have that went
				     */
	} n;
};

/* The place of a ring or an NBD client: its own thread's. */
struct limit_place {
	uint32_t version; /* 0: none */
	bool write;
	uint64_t bytes;
	uint64_t due, since; /* ns */
};

/* In one thread at a time; others may be within the functions below. */
void limit_set(struct limit *l, const struct limit_rates *r, uint64_t now);

static inline bool limit_on(const struct limit *l)
{
	return __atomic_load_n(&l->on, __ATOMIC_RELAXED);
}

/*
 * May a request of so many bytes go now?  0: yes, and it has paid; else the time at which to ask
 * again, with the same request.  now: ns of CLOCK_MONOTONIC.
 */
uint64_t limit_take(struct limit *l, struct limit_place *p, bool write, uint64_t bytes,
		    uint64_t now);
/* It could not go for another reason: the next call lets it pass. */
void limit_keep(struct limit *l, struct limit_place *p, bool write, uint64_t bytes);
/* It was shorter than it looked, by so many bytes. */
void limit_give_back(struct limit *l, bool write, uint64_t bytes);
/* s from now to `due', or to the next look (RT5). */
double limit_delay(uint64_t due, uint64_t now);

/* --- words: limit-iops=500, limit-bytes-write=10M, limit-burst=1000, limit=none --- */

bool limit_is_word(const char *key, size_t len);
int limit_set_word(struct limit_rates *r, const char *key, size_t len, const char *value,
		   struct td_err *err);
#define LIMIT_WORDS                                                                                \
	"limit-iops, limit-iops-read, limit-iops-write, limit-bytes, limit-bytes-read, "           \
	"limit-bytes-write, limit-burst, limit"
/* The i-th word that says something of them, into `word'; false: there is none. */
bool limit_word(const struct limit_rates *r, unsigned i, char word[64]);

#endif
