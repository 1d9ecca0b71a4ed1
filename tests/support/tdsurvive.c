/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest under load whose tapdisk is killed again and again, and replaced by another that takes its ring over.
 *
 *   tdsurvive TAP-CTL TYPE:PATH MODE KILLS SEED [upgrade]
 *
 * Reads, writes, flushes and barriers at the ring's full depth, each block in one request at a time, so that what a read must give is known.
 * It fails on a wrong byte, an error, an answer too many, too few or to nobody; at the end every block is read once more.  Prints
 * the kills, the requests and the pauses (from the kill to the first answer after it).  With `upgrade' each kill is a `tap-ctl upgrade',
 * and the pauses are what that prints; where $FALLS_BACK is set it must fail, and the tapdisk stay.
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
#define MAX_SEGS 48 /* of a request; a few are so large that they go as INDIRECTs */
#define PATIENCE 60000 /* ms without an answer */

static struct guest g;
static const char *tap_ctl, *spec, *mode;
static char option[64];
static pid_t tapdisk;
static int minor, kills;
static atomic_uint reaped;        /* answers so far, for the killer */
static atomic_bool stop, failed;
static uint64_t rng;

static uint64_t version[BLOCKS], next_version = 1; /* what each block holds; 0: never written */
static bool busy[BLOCKS];
static struct {
	bool there;
	uint8_t op;
	unsigned block, n;
	uint64_t version;
} flight[BLKIF_MAX_SLOTS];

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

static void bad(const char *what, int slot)
{
	fprintf(stderr, "tdsurvive: %s (slot %d, operation %u, block %u, %u blocks)\n", what, slot, flight[slot].op, flight[slot].block,
		flight[slot].n);
	atomic_store(&failed, true);
}

/* --- tap-ctl -------------------------------------------------------------------------------------------------------- */

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
		return CTL(out, (char *)"open", (char *)"-p", pid, (char *)"-m", num, (char *)"-a", (char *)spec, (char *)"-o", option,
			   (char *)"-o", (char *)"unsafe=yes");
	return CTL(out, (char *)"open", (char *)"-p", pid, (char *)"-m", num, (char *)"-a", (char *)spec, (char *)"-o", option);
}

/* In the place of a dead one. */
static int revive(void)
{
	char out[256], num[16];

	snprintf(num, sizeof num, "%d", minor);
	if (CTL(out, (char *)"revive", (char *)"-m", num))
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
		for (unsigned t = 0; t < PATIENCE && atomic_load(&reaped) == seen && !atomic_load(&failed); t++)
			usleep(1000);
	}
	g.pid = tapdisk;
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
		if (revive() || guest_take_over(&g, tapdisk, &err) < 0) {
			fprintf(stderr, "tdsurvive: kill %d: no successor: %s\n", i, err.text);
			atomic_store(&failed, true);
			break;
		}
		seen = atomic_load(&reaped);
		while (atomic_load(&reaped) == seen && !atomic_load(&failed) && now_us() - began < PATIENCE * 1000ull)
			usleep(100);
		printf("pause %llu\n", (unsigned long long)(now_us() - began));
	}
	atomic_store(&stop, true);
	return NULL;
}

/* --- the guest ------------------------------------------------------------------------------------------------------ */

static bool claim(unsigned block, unsigned n)
{
	for (unsigned i = block; i < block + n; i++)
		if (busy[i])
			return false;
	for (unsigned i = block; i < block + n; i++)
		busy[i] = true;
	return true;
}

static void send_one(void)
{
	unsigned n = 1 + (unsigned)(rnd(&rng) % (rnd(&rng) % 8 ? 4 : MAX_SEGS)), block = (unsigned)(rnd(&rng) % (BLOCKS - MAX_SEGS)), what = (unsigned)(rnd(&rng) % 100);
	uint8_t op = what < 45 ? BLKIF_WRITE : what < 93 ? BLKIF_READ : what < 97 ? BLKIF_FLUSH_DISKCACHE : BLKIF_WRITE_BARRIER;
	int slot;

	if (op == BLKIF_FLUSH_DISKCACHE)
		n = 0;
	if (op == BLKIF_WRITE_BARRIER && n > BLKIF_MAX_SEGS)
		n = BLKIF_MAX_SEGS;
	if (!claim(block, n))
		return;
	slot = guest_slot(&g);
	flight[slot].there = true;
	flight[slot].op = op;
	flight[slot].block = block;
	flight[slot].n = n;
	flight[slot].version = next_version++;
	if (op != BLKIF_READ)
		guest_fill(guest_data(&g, slot), block * 8, n * 4096, flight[slot].version);
	else
		memset(guest_data(&g, slot), 0x5a, n * 4096);
	guest_queue(&g, slot, op, block * 8, n * 4096);
}

static bool is_zero(const char *p, unsigned n)
{
	return !p[0] && !memcmp(p, p + 1, n - 1);
}

static void check_read(int slot)
{
	for (unsigned i = 0; i < flight[slot].n; i++) {
		unsigned b = flight[slot].block + i;
		const char *p = (char *)guest_data(&g, slot) + i * 4096;

		if (version[b] ? guest_check(p, b * 8, 4096, version[b]) >= 0 : !is_zero(p, 4096))
			bad("a read gave other bytes than were written", slot);
	}
}

static void take(int slot, int status)
{
	if (slot < 0 || slot >= (int)g.slots || !flight[slot].there) {
		bad("an answer to a request that is not in flight", 0);
		return;
	}
	flight[slot].there = false;
	if (status)
		bad("an error", slot);
	else if (flight[slot].op == BLKIF_READ)
		check_read(slot);
	for (unsigned i = flight[slot].block; i < flight[slot].block + flight[slot].n; i++) {
		busy[i] = false;
		if (flight[slot].op != BLKIF_READ)
			version[i] = flight[slot].version;
	}
}

static void reap(void)
{
	int slot, status;

	if (guest_wait(&g, PATIENCE) < 0) {
		bad("no answer", 0);
		return;
	}
	while (!atomic_load(&failed) && guest_reap(&g, &slot, &status)) {
		take(slot, status);
		atomic_fetch_add(&reaped, 1);
	}
}

static void load(void)
{
	while (!atomic_load(&stop) && !atomic_load(&failed)) {
		for (unsigned i = 0; i < 8 && g.idle_n; i++)
			send_one();
		guest_push(&g);
		if (g.idle_n < g.slots)
			reap();
	}
	while (g.idle_n < g.slots && !atomic_load(&failed))
		reap();
}

static void check_all(void)
{
	char buf[4096];

	for (unsigned b = 0; b < BLOCKS && !atomic_load(&failed); b++)
		if (guest_do(&g, BLKIF_READ, b * 8, buf, 4096) != 0 ||
		    (version[b] ? guest_check(buf, b * 8, 4096, version[b]) >= 0 : !is_zero(buf, 4096))) {
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

	if (argc != 6 && argc != 7) {
		fprintf(stderr, "usage: tdsurvive TAP-CTL TYPE:PATH MODE KILLS SEED [upgrade]\n");
		return 2;
	}
	tap_ctl = argv[1];
	spec = argv[2];
	mode = argv[3];
	kills = atoi(argv[4]);
	rng = seed = strtoull(argv[5], NULL, 0) * 0x9e3779b97f4a7c15 | 1;
	snprintf(option, sizeof option, "cache=%s", mode);
	prctl(PR_SET_CHILD_SUBREAPER, 1); /* the tapdisks come to us when tap-ctl has ended */
	if (CTL(out, (char *)"allocate") || !strrchr(out, '-'))
		return 2;
	minor = atoi(strrchr(out, '-') + 1);
	if (start_tapdisk() || guest_connect_segs(&g, tapdisk, minor, 51712, BLKIF_NATIVE, 0, MAX_SEGS, &err) < 0) {
		fprintf(stderr, "tdsurvive: cannot start: %s\n", err.text);
		return 2;
	}
	pthread_create(&t, NULL, argc == 7 ? upgrader : killer, &seed);
	load();
	pthread_join(t, NULL);
	check_all();
	printf("%d times, %u answers, %s\n", kills, atomic_load(&reaped), atomic_load(&failed) ? "FAILED" : "every byte right");
	guest_disconnect(&g);
	snprintf(pid, sizeof pid, "%d", (int)tapdisk);
	snprintf(num, sizeof num, "%d", minor);
	if (CTL(out, (char *)"destroy", (char *)"-p", pid, (char *)"-m", num))
		return 1;
	return atomic_load(&failed);
}
