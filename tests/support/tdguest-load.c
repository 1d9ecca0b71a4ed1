/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Random requests in flight at once, of which every read is compared with the last acknowledged
 * write. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tests/support/tdguest.h"

#define UNITS_MAX 65536

struct place {
	uint32_t seed;  /* 0: not written yet */
	uint32_t bytes; /* of that write */
	bool busy;
};

struct flight {
	uint32_t place, seed, bytes;
	bool write;
};

/* Sectors: a place that is written and read as a whole, or from its start on. */
static unsigned unit(const struct guest *g)
{
	return g->max_bytes / 512;
}

static volatile sig_atomic_t enough;

static void on_term(int sig)
{
	enough = sig;
}

void tdguest_load_prepare(void)
{
	signal(SIGTERM, on_term);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void issue(struct guest *g, struct place *places, unsigned n, struct flight *f)
{
	static uint32_t seed;
	int slot = guest_slot(g);
	unsigned i = (unsigned)random() % n;
	struct place *p;

	while (places[i].busy)
		i = (i + 1) % n;
	p = &places[i];
	p->busy = true;
	f += slot;
	*f = (struct flight){
		.place = i, .write = !p->seed || random() % 2, .bytes = p->bytes, .seed = p->seed};
	if (f->write) {
		f->seed = ++seed;
		f->bytes = 512 * (1 + (unsigned)random() % unit(g));
		guest_fill(guest_data(g, slot), (uint64_t)i * unit(g), f->bytes, f->seed);
	}
	guest_queue(g, slot, f->write ? BLKIF_WRITE : BLKIF_READ, (uint64_t)i * unit(g), f->bytes);
}

static int finish(struct guest *g, struct place *places, const struct flight *f, int slot,
		  int status)
{
	struct place *p = &places[f->place];
	long bad = -1;

	p->busy = false;
	if (status) {
		printf("%s at sector %llu: status %d\n", f->write ? "write" : "read",
		       (unsigned long long)f->place * unit(g), status);
		return 1;
	}
	if (f->write) {
		p->seed = f->seed;
		p->bytes = f->bytes;
		return 0;
	}
	bad = guest_check(guest_data(g, slot), (uint64_t)f->place * unit(g), f->bytes, f->seed);
	if (bad >= 0)
		printf("wrong data at byte %llu\n",
		       (unsigned long long)f->place * g->max_bytes + (unsigned long long)bad);
	return bad >= 0;
}

int tdguest_load(struct guest *g, double seconds, unsigned depth)
{
	static struct flight flights[BLKIF_MAX_SLOTS];
	unsigned n = (unsigned)(g->sectors / unit(g) < UNITS_MAX ? g->sectors / unit(g)
								 : UNITS_MAX),
		 inflight = 0;
	struct place *places = calloc(n ? n : 1, sizeof(*places));
	double start = now(), end = start + seconds;
	unsigned long long done = 0;
	int slot, status, rc = 0;

	if (depth > g->slots)
		depth = g->slots;
	if (!places || !depth || n < 2 * depth) {
		fprintf(stderr, "tdguest: the disk is too small for %u requests at once\n", depth);
		free(places);
		return 2;
	}
	for (;;) {
		bool over = rc || enough || now() >= end;

		for (; !over && inflight < depth; inflight++)
			issue(g, places, n, flights);
		guest_push(g);
		if (!inflight)
			break;
		if (guest_wait(g, 60000)) {
			printf("no answer for a minute, %u requests in flight\n", inflight);
			rc = 1;
			break;
		}
		for (; guest_reap(g, &slot, &status); inflight--, done++)
			rc |= finish(g, places, &flights[slot], slot, status);
	}
	printf("%.0f\n", (double)done / (now() - start));
	free(places);
	return rc;
}
