/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/crash/kill-guest.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

int kill_guest_new(struct kill_guest *k, uint64_t seed, struct td_err *err)
{
	memset(k, 0, sizeof *k);
	k->rng = rng_seed(seed, 'k');
	k->next = 1;
	return guest_new(&k->g, 0, 51712,
			 &(struct guest_how){.abi = BLKIF_NATIVE, .segs = KILL_MOST}, err);
}

void kill_guest_free(struct kill_guest *k)
{
	munmap(k->g.mem, k->g.bytes);
	close(k->g.memfd);
	close(k->g.kick);
	close(k->g.call);
}

static void bad(struct kill_guest *k, const char *what, int slot)
{
	const struct kill_flight *f = &k->flight[slot];

	if (!k->bad[0])
		snprintf(k->bad, sizeof k->bad, "%s (slot %d, operation %u, block %u, %u blocks)",
			 what, slot, f->op, f->block, f->n);
}

/* --- issuing --- */

static bool may(const struct kill_guest *k, unsigned block, unsigned n)
{
	for (unsigned i = block; i < block + n; i++)
		if (k->inflight[i] && k->epoch_of[i] == k->epoch)
			return false;
	return true;
}

static void put(struct kill_guest *k, uint8_t op, unsigned block, unsigned n)
{
	int slot = guest_slot(&k->g);
	struct kill_flight *f = &k->flight[slot];
	char *data = guest_data(&k->g, slot);

	*f = (struct kill_flight){.there = true, .op = op, .block = block, .n = n};
	for (unsigned i = 0; i < n; i++) {
		if (op == BLKIF_READ) {
			f->want[i] = k->version[block + i];
			memset(data + i * 4096, 0x5a, 4096);
		} else {
			k->version[block + i] = k->next;
			guest_fill(data + i * 4096, (block + i) * 8, 4096, k->next);
		}
		k->inflight[block + i]++;
		k->epoch_of[block + i] = k->epoch;
	}
	k->next++;
	guest_queue(&k->g, slot, op, block * 8, n * 4096);
}

/* A write, a barrier, and the same blocks again: written over, or read. */
static void put_ordered(struct kill_guest *k, unsigned block, unsigned n)
{
	put(k, BLKIF_WRITE, block, n);
	k->epoch++;
	put(k, BLKIF_WRITE_BARRIER, block, n);
	k->epoch++;
	put(k, rng_chance(&k->rng, 50) ? BLKIF_WRITE : BLKIF_READ, block, n);
}

static void issue_one(struct kill_guest *k)
{
	unsigned n = 1 + (unsigned)rng_below(&k->rng, rng_chance(&k->rng, 10) ? KILL_MOST : 4);
	unsigned block = (unsigned)rng_below(&k->rng, KILL_BLOCKS - KILL_MOST),
		 what = (unsigned)rng_below(&k->rng, 100);

	if (what < 4) {
		put(k, BLKIF_FLUSH_DISKCACHE, block, 0);
	} else if (!may(k, block, n)) {
		return;
	} else if (what < 10) {
		/* there is no indirect barrier worth the name in Linux */
		if (k->g.idle_n >= 3 && n <= BLKIF_MAX_SEGS)
			put_ordered(k, block, n);
	} else {
		put(k, what < 55 ? BLKIF_WRITE : BLKIF_READ, block, n);
	}
}

void kill_guest_issue(struct kill_guest *k, unsigned n)
{
	while (n-- && k->g.idle_n)
		issue_one(k);
	guest_push(&k->g);
}

bool kill_guest_waits(const struct kill_guest *k)
{
	return k->g.idle_n < k->g.slots;
}

/* --- judging --- */

static bool is_zero(const char *p, unsigned n)
{
	return !p[0] && !memcmp(p, p + 1, n - 1);
}

static void judge_read(struct kill_guest *k, int slot)
{
	const struct kill_flight *f = &k->flight[slot];
	const char *p = guest_data(&k->g, slot);

	for (unsigned i = 0; i < f->n; i++, p += 4096)
		if (f->want[i] ? guest_check(p, (f->block + i) * 8, 4096, f->want[i]) >= 0
			       : !is_zero(p, 4096))
			bad(k, "KG2: a read brought other bytes than were written last", slot);
}

/* Its bytes, and nothing of the tapdisk's: a header of 48, then a bit for each 64 KiB. */
static void judge_change(struct kill_guest *k, int slot)
{
	const struct kill_flight *f = &k->flight[slot];

	for (unsigned i = f->block; k->changed && i < f->block + f->n; i++)
		if (!(k->changed[48 + i / 16 / 8] >> i / 16 % 8 & 1))
			bad(k, "KG5: a write has no bit in the log of changed blocks", slot);
}

static void judge(struct kill_guest *k, int slot, int status)
{
	struct kill_flight *f = &k->flight[slot];

	if (slot < 0 || slot >= (int)k->g.slots || !f->there) {
		bad(k, "KG1: an answer to a request that is not in flight", 0);
		return;
	}
	f->there = false;
	k->answers++;
	if (status)
		bad(k, "KG1: an error", slot);
	else if (f->op == BLKIF_READ)
		judge_read(k, slot);
	else
		judge_change(k, slot);
	for (unsigned i = f->block; i < f->block + f->n; i++)
		k->inflight[i]--;
}

static void reap(struct kill_guest *k)
{
	uint32_t ready = __atomic_load_n(&k->g.ring->rsp_prod, __ATOMIC_ACQUIRE) - k->g.rsp_cons;
	int slot, status;

	if (ready > k->g.slots - k->g.idle_n)
		bad(k, "KG3: more answers than requests", 0);
	while (!k->bad[0] && guest_reap(&k->g, &slot, &status))
		judge(k, slot, status);
}

/* Only an event makes it look at the ring, as in a driver: one that does not come is a guest that
 * hangs. */
void kill_guest_wait(struct kill_guest *k, int ms)
{
	struct pollfd p = {.fd = k->g.call, .events = POLLIN};
	eventfd_t n;

	if (poll(&p, 1, ms) <= 0)
		return;
	eventfd_read(k->g.call, &n);
	do {
		reap(k);
		k->g.ring->rsp_event = k->g.rsp_cons + 1;
		__atomic_thread_fence(__ATOMIC_SEQ_CST); /* the wish is out before the last look */
	} while (!k->bad[0] &&
		 __atomic_load_n(&k->g.ring->rsp_prod, __ATOMIC_ACQUIRE) != k->g.rsp_cons);
}

void kill_guest_check_all(struct kill_guest *k)
{
	for (unsigned b = 0; b < KILL_BLOCKS && !k->bad[0]; b += 4) {
		put(k, BLKIF_READ, b, 4);
		guest_push(&k->g);
		for (int tries = 0; kill_guest_waits(k) && tries < 200 && !k->bad[0]; tries++)
			kill_guest_wait(k, 100);
		if (kill_guest_waits(k))
			bad(k, "KG4: no answer", 0);
	}
}
