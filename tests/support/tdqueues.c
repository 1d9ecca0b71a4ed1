/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest whose device has several rings, each used by a thread of its own, for shell tests.
 *
 *   tdqueues [--queues N] [--discard] [--flush] [--barrier] [--polling US] [--persistent]
 *            PID MINOR COMMAND
 *
 *     load SECONDS DEPTH    random requests on all rings at once, for so long or until a SIGTERM;
 *                           every read is compared.  A place belongs to all rings: it is
 *                           written by one and read by another.  With --flush, --barrier, --discard
 *                           such requests are among them
 *     order COUNT           COUNT times: a write on one ring, and when it is answered a FLUSH on
 *                           another
 *     write RING OFF LEN SEED, verify RING OFF LEN SEED, flush RING, discard RING OFF LEN
 *                           one request after the other, on that ring; several commands, with `,'
 *                           between
 *
 * Exits 0 when all went well, 1 when data or an answer was wrong, 2 when it could not be tried.
 */
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/support/guest.h"

#define PLACES 2048 /* of BYTES */
#define BYTES  8192

static struct guest g[BLKIF_MAX_QUEUES];
static unsigned queues = 2, depth;
static bool with_flush, with_barrier, with_discard;
static double seconds;
static atomic_bool failed;
static atomic_ullong done;

/* What stands in a place; whoever has a request there holds it. */
static struct place {
	atomic_bool busy;
	uint64_t seed; /* 0: anything */
} places[PLACES];

struct flight {
	unsigned place;
	uint64_t seed;
	uint8_t op;
};

static atomic_int enough; /* a signal sets it, in one thread of many */

static void on_term(int sig)
{
	atomic_store(&enough, sig);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static uint8_t pick(unsigned r, const struct place *p)
{
	if (with_flush && r % 64 == 0)
		return BLKIF_FLUSH_DISKCACHE;
	if (with_discard && r % 64 == 1)
		return BLKIF_DISCARD;
	if (with_barrier && r % 64 == 2)
		return BLKIF_WRITE_BARRIER;
	return !p->seed || r % 2 ? BLKIF_WRITE : BLKIF_READ;
}

static void issue(unsigned q, struct flight *flights, unsigned *rng, uint64_t *seed)
{
	int slot = guest_slot(&g[q]);
	struct flight *f = &flights[slot];
	unsigned i = (unsigned)rand_r(rng) % PLACES;

	while (atomic_exchange(&places[i].busy, true))
		i = (i + 1) % PLACES;
	*f = (struct flight){i, places[i].seed, pick((unsigned)rand_r(rng), &places[i])};
	if (f->op == BLKIF_WRITE || f->op == BLKIF_WRITE_BARRIER) {
		f->seed = *seed += BLKIF_MAX_QUEUES;
		guest_fill(guest_data(&g[q], slot), i * (BYTES / 512), BYTES, f->seed);
	} else if (f->op == BLKIF_DISCARD) {
		struct blkif_desc d = {.op = BLKIF_DISCARD,
				       .id = (uint64_t)slot,
				       .sector = i * (BYTES / 512),
				       .nr_sectors = BYTES / 512};

		guest_queue_raw(&g[q], &d);
		return;
	}
	guest_queue(&g[q], slot, f->op, f->op == BLKIF_FLUSH_DISKCACHE ? 0 : i * (BYTES / 512),
		    f->op == BLKIF_FLUSH_DISKCACHE ? 0 : BYTES);
}

static void finish(unsigned q, const struct flight *f, int slot, int status)
{
	struct place *p = &places[f->place];
	long bad = -1;

	if (status) {
		printf("ring %u: operation %u at place %u: status %d\n", q, f->op, f->place,
		       status);
		atomic_store(&failed, true);
	}
	if (f->op == BLKIF_READ)
		bad = guest_check(guest_data(&g[q], slot), f->place * (BYTES / 512), BYTES,
				  f->seed);
	else if (f->op != BLKIF_FLUSH_DISKCACHE)
		p->seed = f->op == BLKIF_DISCARD ? 0 : f->seed;
	if (bad >= 0) {
		printf("ring %u: wrong data at byte %ld of place %u\n", q, bad, f->place);
		atomic_store(&failed, true);
	}
	atomic_store(&p->busy, false);
	atomic_fetch_add(&done, 1);
}

static void *run_ring(void *arg)
{
	unsigned q = (unsigned)((struct guest *)arg - g), inflight = 0, rng = q + 1;
	static struct flight flights[BLKIF_MAX_QUEUES][BLKIF_MAX_SLOTS];
	uint64_t seed = q + 1;
	double end = now() + seconds;
	int slot, status;

	for (;;) {
		for (; now() < end && !atomic_load(&enough) && !atomic_load(&failed) &&
		       inflight < depth;
		     inflight++)
			issue(q, flights[q], &rng, &seed);
		guest_push(&g[q]);
		if (!inflight)
			return NULL;
		if (guest_wait(&g[q], 60000)) {
			printf("ring %u: no answer for a minute, %u requests in flight\n", q,
			       inflight);
			atomic_store(&failed, true);
			return NULL;
		}
		for (; guest_reap(&g[q], &slot, &status); inflight--)
			finish(q, &flights[q][slot], slot, status);
	}
}

static int load(void)
{
	pthread_t t[BLKIF_MAX_QUEUES];

	if (g[0].sectors < (uint64_t)PLACES * (BYTES / 512) || depth * queues > PLACES / 2 ||
	    depth > g[0].slots) {
		fprintf(stderr, "tdqueues: the disk is too small, or the depth too large\n");
		return 2;
	}
	for (unsigned q = 0; q < queues; q++)
		if (pthread_create(&t[q], NULL, run_ring, &g[q]))
			return 2;
	for (unsigned q = 0; q < queues; q++)
		pthread_join(t[q], NULL);
	printf("%.0f\n", (double)done / seconds);
	return atomic_load(&failed);
}

static int order(unsigned count)
{
	static char buf[4096];

	for (unsigned i = 0; i < count; i++) {
		guest_fill(buf, i * 8, sizeof buf, i);
		if (guest_do(&g[1 + i % (queues - 1)], BLKIF_WRITE, i * 8, buf, sizeof buf) ||
		    guest_do(&g[0], BLKIF_FLUSH_DISKCACHE, 0, NULL, 0))
			return 1;
	}
	return 0;
}

/* As guest_span() of tdguest. */
static int span(struct guest *r, uint8_t op, uint64_t off, uint64_t len, uint64_t seed)
{
	static char buf[GUEST_BYTES_MAX];

	for (uint64_t pos = off; pos < off + len;) {
		unsigned n =
			(unsigned)(off + len - pos < r->max_bytes ? off + len - pos : r->max_bytes);

		if (op != BLKIF_READ)
			guest_fill(buf, pos / 512, n, seed);
		if (guest_do(r, op, pos / 512, buf, n) ||
		    (op == BLKIF_READ && guest_check(buf, pos / 512, n, seed) >= 0)) {
			printf("an error or wrong data in %u bytes at %llu\n", n,
			       (unsigned long long)pos);
			return 1;
		}
		pos += n;
	}
	return 0;
}

static int discard(struct guest *r, uint64_t off, uint64_t len)
{
	int slot = guest_slot(r), status;
	struct blkif_desc d = {.op = BLKIF_DISCARD,
			       .id = (uint64_t)slot,
			       .sector = off / 512,
			       .nr_sectors = len / 512};

	guest_queue_raw(r, &d);
	guest_push(r);
	if (guest_wait(r, 60000) || !guest_reap(r, &slot, &status))
		return 1;
	return status != 0;
}

/* One command; how many words it took, or 0 when they make no sense.  *rc: its result. */
static int one(int n, char **w, int *rc)
{
	struct guest *r = n > 1 && (unsigned)atoi(w[1]) < queues ? &g[atoi(w[1])] : NULL;

	if (!r)
		return 0;
	if (!strcmp(w[0], "flush"))
		return *rc = guest_do(r, BLKIF_FLUSH_DISKCACHE, 0, NULL, 0) != 0, 2;
	if (n >= 4 && !strcmp(w[0], "discard"))
		return *rc = discard(r, strtoull(w[2], NULL, 0), strtoull(w[3], NULL, 0)), 4;
	if (n >= 5 && (!strcmp(w[0], "write") || !strcmp(w[0], "verify"))) {
		*rc = span(r, *w[0] == 'w' ? BLKIF_WRITE : BLKIF_READ, strtoull(w[2], NULL, 0),
			   strtoull(w[3], NULL, 0), strtoull(w[4], NULL, 0));
		return 5;
	}
	return 0;
}

static int command(int n, char **w)
{
	int used, rc = 0;

	if (n == 3 && !strcmp(w[0], "load")) {
		seconds = atof(w[1]);
		depth = (unsigned)atoi(w[2]);
		return load();
	}
	if (n == 2 && !strcmp(w[0], "order"))
		return order((unsigned)atoi(w[1]));
	for (; n > 0; n -= used + 1, w += used + 1) {
		used = one(n, w, &rc);
		if (!used || (n > used && strcmp(w[used], ","))) {
			fprintf(stderr, "tdqueues: what is '%s'?\n", w[0]);
			return 2;
		}
		if (rc) {
			printf("%s on ring %s went wrong\n", w[0], w[1]);
			return 1;
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{"queues", 1, NULL, 'q'},  {"discard", 0, NULL, 'd'}, {"flush", 0, NULL, 'f'},
		{"barrier", 0, NULL, 'b'}, {"polling", 1, NULL, 'p'}, {"persistent", 0, NULL, 'P'},
		{NULL, 0, NULL, 0}};
	struct guest_how how = {.order = 1};
	static struct td_err err;
	int c, rc;

	while ((c = getopt_long(argc, argv, "+", longs, NULL)) != -1)
		if (c == 'q')
			queues = (unsigned)atoi(optarg);
		else if (c == 'd')
			with_discard = true;
		else if (c == 'f')
			with_flush = true;
		else if (c == 'b')
			with_barrier = true;
		else if (c == 'p')
			how.says_polling = true, how.polling_us = (unsigned)atoi(optarg);
		else if (c == 'P')
			how.persistent = true;
		else
			return 2;
	argc -= optind;
	argv += optind;
	if (argc < 3 || queues < 2 || queues > BLKIF_MAX_QUEUES)
		return fputs("usage: tdqueues [--queues N] [--discard] [--flush] [--barrier] "
			     "[--polling US] [--persistent] PID MINOR COMMAND...\n",
			     stderr),
		       2;
	if (!strcmp(argv[2], "load"))
		signal(SIGTERM, on_term);
	if (guest_connect_queues(g, queues, atoi(argv[0]), atoi(argv[1]), 51712, &how, &err)) {
		fprintf(stderr, "tdqueues: %s\n", err.text);
		return 2;
	}
	rc = command(argc - 2, argv + 2);
	fflush(stdout);
	guest_disconnect_queues(g, queues);
	return rc;
}
