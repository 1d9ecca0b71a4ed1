/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A closed loop of requests through a tapdisk's ring: always DEPTH in flight, one request a block
 * of BS bytes.
 *
 *   ringbench [--rw read|write|randread|randwrite] [--bs BYTES] [--depth N] [--seconds S]
 *             [--order 0..4] [--spin | --awake US] [--polling US] [--idle PERCENT] [--persistent]
 *             [--queues N] [--pairs] PID MINOR
 *
 * Prints iops, p50_us and p99_us (from push to reap), cpu (of the tapdisk, in percent of one core)
 * and switches (its voluntary context switches a second).
 *
 *   --spin      the guest looks at the ring all the time, and is never woken
 *   --awake     it does so for US microseconds before it sleeps, as a guest does whose idle CPU
 *               polls
 *   --polling   the tapdisk stays awake for up to US after work, however busy the host; 0: not at
 *               all; without it, as it does by default
 *   --idle      it does so only while so many percent of the host are idle; 0: in any case
 *   --queues    so many rings, each with a thread of ours and DEPTH requests; the numbers are of
 *               all together
 *   --pairs     the first ring's two threads, ours and the tapdisk's, share the first processor,
 *               the second's the second, and so on: what further rings gain, each at the same price
 */
#include <dirent.h>
#include <getopt.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/guest.h"

#define SUB     32 /* buckets for each power of two of nanoseconds: 3 % */
#define BUCKETS (64 * SUB)

struct job {
	bool random, write, spin, persistent, pairs, says_polling, says_idle;
	unsigned bs, depth, order, awake, polling, idle, queues;
	double seconds;
	uint64_t blocks, next;
};

/* A ring, and what its thread has counted. */
struct lap {
	struct guest *g;
	struct job job;
	unsigned ring;
	int rc;
	uint64_t histogram[BUCKETS], done, start_ns[BLKIF_MAX_SLOTS], rng;
};

static uint64_t histogram[BUCKETS], done; /* of all */

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void count(struct lap *l, uint64_t ns)
{
	int top = ns < SUB ? 0 : 63 - __builtin_clzll(ns) - 5;

	l->histogram[top * SUB + (int)(ns >> top)]++; /* ns >> top is below 2 * SUB */
	l->done++;
}

static double percentile(double p)
{
	uint64_t want = (uint64_t)((double)done * p), seen = 0;

	for (int top = 0; top < 58; top++)
		for (int i = top ? SUB : 0; i < 2 * SUB; i++) {
			seen += histogram[top * SUB + i];
			if (seen > want)
				return (double)((uint64_t)i << top) / 1000;
		}
	return 0;
}

static uint64_t rnd(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

static void issue(struct lap *l, uint64_t t)
{
	struct guest *g = l->g;
	struct job *j = &l->job;
	int slot = guest_slot(g);
	uint64_t block = j->random ? rnd(&l->rng) % j->blocks : j->next++ % j->blocks;

	l->start_ns[slot] = t;
	guest_queue(g, slot, j->write ? BLKIF_WRITE : BLKIF_READ, block * (j->bs / 512), j->bs);
}

static int run(struct lap *l)
{
	struct guest *g = l->g;
	struct job *j = &l->job;
	uint64_t t = now_ns(), end = t + (uint64_t)(j->seconds * 1e9);
	unsigned inflight = 0;
	int slot, status;

	for (unsigned i = 0; i < g->slots; i++)
		memset((char *)g->mem + (size_t)guest_ref(g, (int)i) * 4096, (int)i, j->bs);
	while (t < end || inflight) {
		for (; t < end && inflight < j->depth; inflight++)
			issue(l, t);
		guest_push(g);
		if (!j->spin && guest_wait_awake(g, j->awake, 60000)) {
			fprintf(stderr, "ringbench: no answer for a minute\n");
			return 1;
		}
		bool some = guest_reap(g, &slot, &status);

		if (some)
			t = now_ns();
		for (; some; some = guest_reap(g, &slot, &status), inflight--) {
			if (status) {
				fprintf(stderr, "ringbench: a request failed with status %d\n",
					status);
				return 1;
			}
			count(l, t - l->start_ns[slot]);
		}
	}
	return 0;
}

/* The tapdisk's thread that serves the ring; 0: it has none of its own. */
static pid_t thread_of(pid_t pid, unsigned ring)
{
	char path[300], name[32] = "", want[32];
	struct dirent *e;
	pid_t tid = ring ? 0 : pid;
	DIR *d;

	snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
	snprintf(want, sizeof want, "tapdisk-ring%u\n", ring);
	d = opendir(path);
	while (d && !tid && (e = readdir(d))) {
		FILE *f;

		snprintf(path, sizeof path, "/proc/%d/task/%s/comm", (int)pid, e->d_name);
		f = fopen(path, "r");
		if (f && fgets(name, sizeof name, f) && !strcmp(name, want))
			tid = atoi(e->d_name);
		if (f)
			fclose(f);
	}
	if (d)
		closedir(d);
	return tid;
}

/* Ours and the tapdisk's on the processor with the ring's number. */
static void pair(const struct lap *l)
{
	pid_t tid = thread_of(l->g->pid, l->ring);
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(l->ring, &set);
	if (!tid || sched_setaffinity(tid, sizeof set, &set) ||
	    sched_setaffinity(0, sizeof set, &set)) {
		fprintf(stderr,
			"ringbench: ring %u has no thread of its own, or there is no processor "
			"%u\n",
			l->ring, l->ring);
		exit(1);
	}
}

static void *run_thread(void *arg)
{
	struct lap *l = arg;

	if (l->job.pairs)
		pair(l);
	l->rc = run(l);
	return NULL;
}

/* All rings at once, each for as long as the job says. */
static int run_all(struct lap *laps, unsigned n)
{
	pthread_t thread[BLKIF_MAX_QUEUES];
	int rc = 0;

	for (unsigned i = 1; i < n; i++)
		if (pthread_create(&thread[i], NULL, run_thread, &laps[i]))
			exit(1);
	run_thread(&laps[0]);
	for (unsigned i = 0; i < n; i++) {
		if (i)
			pthread_join(thread[i], NULL);
		rc |= laps[i].rc;
		done += laps[i].done;
		for (unsigned b = 0; b < BUCKETS; b++)
			histogram[b] += laps[i].histogram[b];
	}
	return rc;
}

/* Ticks of CPU of all the tapdisk's threads; voluntary switches are those of its main thread. */
static double cpu_ticks(pid_t pid)
{
	char path[64], line[1024], *p;
	unsigned long u = 0, s = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "r");
	if (!f)
		return 0;
	p = fgets(line, sizeof(line), f) ? strrchr(line, ')') : NULL;
	if (p)
		sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &u, &s);
	fclose(f);
	return (double)(u + s);
}

static unsigned long switches(pid_t pid)
{
	char path[64], line[256];
	unsigned long n = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f))
		sscanf(line, "voluntary_ctxt_switches: %lu", &n);
	if (f)
		fclose(f);
	return n;
}

static int parse(int argc, char **argv, struct job *j)
{
	static const struct option longs[] = {
		{"rw", 1, NULL, 'r'},      {"bs", 1, NULL, 'b'},      {"depth", 1, NULL, 'd'},
		{"seconds", 1, NULL, 's'}, {"order", 1, NULL, 'o'},   {"spin", 0, NULL, 'p'},
		{"awake", 1, NULL, 'a'},   {"polling", 1, NULL, 'P'}, {"persistent", 0, NULL, 'm'},
		{"idle", 1, NULL, 'i'},    {"queues", 1, NULL, 'q'},  {"pairs", 0, NULL, '2'},
		{NULL, 0, NULL, 0}};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1)
		switch (c) {
		case 'r':
			j->random = !strncmp(optarg, "rand", 4);
			j->write = strstr(optarg, "write") != NULL;
			break;
		case 'b':
			j->bs = (unsigned)atoi(optarg);
			break;
		case 'd':
			j->depth = (unsigned)atoi(optarg);
			break;
		case 's':
			j->seconds = atof(optarg);
			break;
		case 'o':
			j->order = (unsigned)atoi(optarg);
			break;
		case 'p':
			j->spin = true;
			break;
		case '2':
			j->pairs = true;
			break;
		case 'm':
			j->persistent = true;
			break;
		case 'a':
			j->awake = (unsigned)atoi(optarg);
			break;
		case 'P':
			j->polling = (unsigned)atoi(optarg);
			j->says_polling = true;
			break;
		case 'i':
			j->says_idle = true;
			j->idle = (unsigned)atoi(optarg);
			break;
		case 'q':
			j->queues = (unsigned)atoi(optarg);
			break;
		default:
			return -1;
		}
	return j->queues >= 1 && j->queues <= BLKIF_MAX_QUEUES && argc - optind == 2 && j->bs &&
			       j->bs % 512 == 0 && j->bs <= GUEST_BYTES_MAX &&
			       j->order <= BLKIF_MAX_RING_ORDER
		       ? 0
		       : -1;
}

int main(int argc, char **argv)
{
	static struct guest rings[BLKIF_MAX_QUEUES];
	static struct lap laps[BLKIF_MAX_QUEUES];
	static struct td_err err;
	struct job j = {.random = true, .bs = 4096, .depth = 32, .seconds = 2, .queues = 1};
	struct guest *g = &rings[0];
	double cpu, elapsed;
	unsigned long sw;
	uint64_t t;
	int rc;

	if (parse(argc, argv, &j)) {
		fprintf(stderr,
			"usage: ringbench [--rw read|write|randread|randwrite] [--bs BYTES, at "
			"most %u] [--depth N]\n"
			"                 [--seconds S] [--order 0..4] [--spin | --awake US] "
			"[--polling US] [--idle PERCENT]\n"
			"                 [--persistent] [--queues N] [--pairs] PID MINOR\n",
			GUEST_BYTES_MAX);
		return 2;
	}
	if (guest_connect_queues(rings, j.queues, atoi(argv[optind]), atoi(argv[optind + 1]), 51712,
				 &(struct guest_how){.order = j.order,
						     .segs = (j.bs + 4095) / 4096,
						     .says_polling = j.says_polling,
						     .says_idle = j.says_idle,
						     .polling_us = j.polling,
						     .polling_idle = j.idle,
						     .persistent = j.persistent},
				 &err)) {
		fprintf(stderr, "ringbench: %s\n", err.text);
		return 2;
	}
	j.blocks = g->sectors / (j.bs / 512);
	if (!j.blocks || j.depth < 1 || j.depth > g->slots) {
		fprintf(stderr,
			"ringbench: the disk is smaller than a block, or the ring (%u slots) than "
			"the depth\n",
			g->slots);
		return 2;
	}
	for (unsigned i = 0; i < j.queues; i++) {
		laps[i].g = &rings[i];
		laps[i].job = j;
		laps[i].ring = i;
		laps[i].rng = (now_ns() << 8) + 1 + i; /* no two runs read the same */
	}
	cpu = cpu_ticks(g->pid);
	sw = switches(g->pid);
	t = now_ns();
	rc = run_all(laps, j.queues);
	elapsed = (double)(now_ns() - t) / 1e9;
	printf("iops=%.0f p50_us=%.1f p99_us=%.1f cpu=%.1f switches=%.0f\n", (double)done / elapsed,
	       percentile(0.5), percentile(0.99),
	       (cpu_ticks(g->pid) - cpu) / (double)sysconf(_SC_CLK_TCK) / elapsed * 100,
	       (double)(switches(g->pid) - sw) / elapsed);
	guest_disconnect_queues(rings, j.queues);
	return rc;
}
