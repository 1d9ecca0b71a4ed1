/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest under load whose tapdisk is killed again and again, and replaced by another that takes
 * its ring over.
 *
 *   tdsurvive TAP-CTL TYPE:PATH MODE KILLS SEED [kill|upgrade [QUEUES]]
 *
 * Reads, writes, flushes and barriers at each ring's full depth, each block in one request at a
 * time, so that what a read must give is known. It fails on a wrong byte, an error, an answer too
 * many, too few or to nobody; at the end every block is read once more.  Prints the kills, the
 * requests and the pauses (from the kill to the first answer after it).  With `upgrade' each kill
 * is a `tap-ctl upgrade', and the pauses are what that prints; where $FALLS_BACK is set it must
 * fail, and the tapdisk stay.  Where $HOLD is set, a successor may be tried for again, for so many
 * seconds, as `tapback --when-lost=hold' does.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/guest.h"

#define BLOCKS   2048 /* of 4 KiB */
#define MAX_SEGS 48   /* of a request; a few are so large that they go as INDIRECTs */

static struct guest g[BLKIF_MAX_QUEUES]; /* its rings */
static unsigned queues = 1;
static const char *tap_ctl, *spec, *mode;
static char option[64];
static pid_t tapdisk;
static int minor, kills, hold;
static unsigned patience = 60000; /* ms without an answer */
static atomic_uint reaped;        /* answers so far, for the killer */
static atomic_bool stop, failed;
static uint64_t rng;

static uint64_t version[BLOCKS], next_version = 1; /* what each block holds; 0: never written */
static bool busy[BLOCKS];
static struct flight {
	bool there;
	uint8_t op;
	unsigned block, n;
	uint64_t version;
} flights[BLKIF_MAX_QUEUES][BLKIF_MAX_SLOTS];

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static uint64_t rnd(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

static void bad(const char *what, unsigned q, int slot)
{
	const struct flight *f = &flights[q][slot];

	fprintf(stderr, "tdsurvive: %s (queue %u, slot %d, operation %u, block %u, %u blocks)\n",
		what, q, slot, f->op, f->block, f->n);
	atomic_store(&failed, true);
}

/* --- tap-ctl --- */

/* Runs it; its first line into out. */
static int ctl(char *out, size_t size, char *const argv[])
{
	int p[2], status;
	ssize_t n;
	pid_t pid;

	if (pipe(p) < 0)
		return -1;
	pid = fork();
	if (pid == 0) {
		dup2(p[1], 1);
		close(p[0]);
		close(p[1]);
		execv(tap_ctl, argv);
		_exit(127);
	}
	close(p[1]);
	n = read(p[0], out, size - 1);
	out[n > 0 ? n : 0] = 0;
	close(p[0]);
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define CTL(out, ...) ctl(out, sizeof out, (char *[]){(char *)"tap-ctl", __VA_ARGS__, NULL})

/* A new tapdisk with the disk open under the same minor. */
static int start_tapdisk(void)
{
	char out[256], pid[16], num[16];

	if (CTL(out, (char *)"spawn"))
		return -1;
	tapdisk = (pid_t)atoi(out);
	snprintf(pid, sizeof pid, "%d", (int)tapdisk);
	snprintf(num, sizeof num, "%d", minor);
	if (CTL(out, (char *)"attach", (char *)"-p", pid, (char *)"-m", num))
		return -1;
	if (!strcmp(mode, "unsafe"))
		return CTL(out, (char *)"open", (char *)"-p", pid, (char *)"-m", num, (char *)"-a",
			   (char *)spec, (char *)"-o", option, (char *)"-o", (char *)"unsafe=yes");
	return CTL(out, (char *)"open", (char *)"-p", pid, (char *)"-m", num, (char *)"-a",
		   (char *)spec, (char *)"-o", option);
}

/* In the place of a dead one. */
static int revive(void)
{
	char out[256], num[16];
	uint64_t until = now_us() + (uint64_t)hold * 1000000;

	snprintf(num, sizeof num, "%d", minor);
	while (CTL(out, (char *)"revive", (char *)"-m", num))
		if (now_us() >= until)
			return -1;
	tapdisk = (pid_t)atoi(out);
	return 0;
}

/* By the program in $TAPDISK_OF_UPGRADE, or the one that runs. */
static int upgrade(void)
{
	char out[256], pid[16];
	const char *now, *pause;
	bool back = getenv("FALLS_BACK");
	int rc;

	snprintf(pid, sizeof pid, "%d", (int)tapdisk);
	if (getenv("TAPDISK_OF_UPGRADE"))
		setenv("TAPDISK", getenv("TAPDISK_OF_UPGRADE"), 1);
	rc = CTL(out, (char *)"upgrade", (char *)"-p", pid);
	if (back)
		return rc ? 0 : -1;
	now = strstr(out, "now=");
	pause = strstr(out, "pause=");
	if (rc || !now || !pause)
		return -1;
	waitpid(tapdisk, NULL, 0);
	tapdisk = (pid_t)atoi(now + 4);
	printf("pause %.0f\n", atof(pause + 6) * 1000);
	return 0;
}

static void *upgrader(void *arg)
{
	uint64_t s = *(uint64_t *)arg;

	for (int i = 0; i < kills && !atomic_load(&failed); i++) {
		unsigned seen;

		usleep((useconds_t)(rnd(&s) % 30000));
		if (upgrade()) {
			fprintf(stderr, "tdsurvive: upgrade %d did not go as it must\n", i);
			atomic_store(&failed, true);
		}
		seen = atomic_load(&reaped);
		for (unsigned t = 0;
		     t < patience && atomic_load(&reaped) == seen && !atomic_load(&failed); t++)
			usleep(1000);
	}
	g[0].pid = tapdisk;
	atomic_store(&stop, true);
	return NULL;
}

static void *killer(void *arg)
{
	uint64_t s = *(uint64_t *)arg;
	struct td_err err = {0};

	for (int i = 0; i < kills && !atomic_load(&failed); i++) {
		uint64_t began;
		unsigned seen;

		usleep((useconds_t)(rnd(&s) % 30000));
		kill(tapdisk, SIGKILL);
		began = now_us();
		waitpid(tapdisk, NULL, 0);
		if (revive() || guest_take_over_queues(g, queues, tapdisk, &err) < 0) {
			fprintf(stderr, "tdsurvive: kill %d: no successor: %s\n", i, err.text);
			atomic_store(&failed, true);
			break;
		}
		seen = atomic_load(&reaped);
		while (atomic_load(&reaped) == seen && !atomic_load(&failed) &&
		       now_us() - began < patience * 1000ull)
			usleep(100);
		printf("pause %llu\n", (unsigned long long)(now_us() - began));
	}
	atomic_store(&stop, true);
	return NULL;
}

/* --- the guest --- */

static bool claim(unsigned block, unsigned n)
{
	for (unsigned i = block; i < block + n; i++)
		if (busy[i])
			return false;
	for (unsigned i = block; i < block + n; i++)
		busy[i] = true;
	return true;
}

static void send_one(unsigned q)
{
	unsigned n = 1 + (unsigned)(rnd(&rng) % (rnd(&rng) % 8 ? 4 : MAX_SEGS)),
		 block = (unsigned)(rnd(&rng) % (BLOCKS - MAX_SEGS)),
		 what = (unsigned)(rnd(&rng) % 100);
	uint8_t op = what < 45   ? BLKIF_WRITE
		     : what < 93 ? BLKIF_READ
		     : what < 97 ? BLKIF_FLUSH_DISKCACHE
				 : BLKIF_WRITE_BARRIER;
	struct flight *f;
	int slot;

	if (op == BLKIF_FLUSH_DISKCACHE)
		n = 0;
	if (op == BLKIF_WRITE_BARRIER && n > BLKIF_MAX_SEGS)
		n = BLKIF_MAX_SEGS;
	if (!claim(block, n))
		return;
	slot = guest_slot(&g[q]);
	f = &flights[q][slot];
	*f = (struct flight){
		.there = true, .op = op, .block = block, .n = n, .version = next_version++};
	if (op != BLKIF_READ)
		guest_fill(guest_data(&g[q], slot), block * 8, n * 4096, f->version);
	else
		memset(guest_data(&g[q], slot), 0x5a, n * 4096);
	guest_queue(&g[q], slot, op, block * 8, n * 4096);
}

static bool is_zero(const char *p, unsigned n)
{
	return !p[0] && !memcmp(p, p + 1, n - 1);
}

static void check_read(unsigned q, int slot)
{
	const struct flight *f = &flights[q][slot];

	for (unsigned i = 0; i < f->n; i++) {
		unsigned b = f->block + i;
		const char *p = (char *)guest_data(&g[q], slot) + i * 4096;

		if (version[b] ? guest_check(p, b * 8, 4096, version[b]) >= 0 : !is_zero(p, 4096))
			bad("a read gave other bytes than were written", q, slot);
	}
}

static void take(unsigned q, int slot, int status)
{
	struct flight *f = slot < 0 || slot >= (int)g[q].slots ? NULL : &flights[q][slot];

	if (!f || !f->there) {
		bad("an answer to a request that is not in flight", q, 0);
		return;
	}
	f->there = false;
	if (status)
		bad("an error", q, slot);
	else if (f->op == BLKIF_READ)
		check_read(q, slot);
	for (unsigned i = f->block; i < f->block + f->n; i++) {
		busy[i] = false;
		if (f->op != BLKIF_READ)
			version[i] = f->version;
	}
}

static bool any_in_flight(void)
{
	for (unsigned q = 0; q < queues; q++)
		if (g[q].idle_n < g[q].slots)
			return true;
	return false;
}

/* Waits for an answer in any of the rings, and takes all that are there. */
static void reap(void)
{
	int slot, status, wait = queues == 1 ? patience : 1;
	uint64_t began = now_us();
	bool some = false;

	while (!some && !atomic_load(&failed)) {
		for (unsigned q = 0; q < queues; q++) {
			if (g[q].idle_n < g[q].slots)
				guest_wait(&g[q], wait);
			while (!atomic_load(&failed) && guest_reap(&g[q], &slot, &status)) {
				take(q, slot, status);
				atomic_fetch_add(&reaped, 1);
				some = true;
			}
		}
		if (!some && now_us() - began > patience * 1000ull)
			bad("no answer", 0, 0);
	}
}

static void load(void)
{
	while (!atomic_load(&stop) && !atomic_load(&failed)) {
		for (unsigned q = 0; q < queues; q++) {
			for (unsigned i = 0; i < 8 && g[q].idle_n; i++)
				send_one(q);
			guest_push(&g[q]);
		}
		if (any_in_flight())
			reap();
	}
	while (any_in_flight() && !atomic_load(&failed))
		reap();
}

static void check_all(void)
{
	char buf[4096];

	for (unsigned b = 0; b < BLOCKS && !atomic_load(&failed); b++)
		if (guest_do(&g[b % queues], BLKIF_READ, b * 8, buf, 4096) != 0 ||
		    (version[b] ? guest_check(buf, b * 8, 4096, version[b]) >= 0
				: !is_zero(buf, 4096))) {
			fprintf(stderr, "tdsurvive: block %u is not what was written\n", b);
			atomic_store(&failed, true);
		}
}

int main(int argc, char **argv)
{
	static struct td_err err;
	char out[256], num[16], pid[16];
	uint64_t seed;
	pthread_t t;

	if (argc == 8)
		queues = (unsigned)atoi(argv[7]);
	if (argc < 6 || argc > 8 || queues < 1 || queues > BLKIF_MAX_QUEUES) {
		fprintf(stderr, "usage: tdsurvive TAP-CTL TYPE:PATH MODE KILLS SEED [kill|upgrade "
				"[QUEUES]]\n");
		return 2;
	}
	tap_ctl = argv[1];
	spec = argv[2];
	mode = argv[3];
	kills = atoi(argv[4]);
	hold = getenv("HOLD") ? atoi(getenv("HOLD")) : 0;
	patience += (unsigned)hold * 1000;
	rng = seed = strtoull(argv[5], NULL, 0) * 0x9e3779b97f4a7c15 | 1;
	snprintf(option, sizeof option, "cache=%s", mode);
	prctl(PR_SET_CHILD_SUBREAPER, 1); /* the tapdisks come to us when tap-ctl has ended */
	if (CTL(out, (char *)"allocate") || !strrchr(out, '-'))
		return 2;
	minor = atoi(strrchr(out, '-') + 1);
	if (start_tapdisk() ||
	    guest_connect_queues(g, queues, tapdisk, minor, 51712,
				 &(struct guest_how){.segs = MAX_SEGS}, &err) < 0) {
		fprintf(stderr, "tdsurvive: cannot start: %s\n", err.text);
		return 2;
	}
	pthread_create(&t, NULL, argc > 6 && !strcmp(argv[6], "upgrade") ? upgrader : killer,
		       &seed);
	load();
	pthread_join(t, NULL);
	check_all();
	printf("%d times, %u answers, %s\n", kills, atomic_load(&reaped),
	       atomic_load(&failed) ? "FAILED" : "every byte right");
	guest_disconnect_queues(g, queues);
	snprintf(pid, sizeof pid, "%d", (int)tapdisk);
	snprintf(num, sizeof num, "%d", minor);
	if (CTL(out, (char *)"destroy", (char *)"-p", pid, (char *)"-m", num))
		return 1;
	return atomic_load(&failed);
}
