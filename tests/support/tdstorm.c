/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest whose backends die, for tests/it/tapback-storm.sh: it makes its memory and its event
 * channel where tests/support/xenmem.c finds them, and keeps its ring full, each block in one
 * request at a time, so that what a read must give is known.
 *
 *   tdstorm DIR DOMID PORT SECTORS SEED
 *
 * Prints `ring' when its ring is there, and keeps the number of its answers in DIR/DOMID.done.
 * Fails on a wrong byte, an error, an answer to no request, or when no answer comes for PATIENCE.
 * After a SIGTERM it awaits all answers, reads every block, and prints how many requests it has
 * made.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/guest.h"

#define BLOCK    4096
#define BLOCKS   1024
#define PATIENCE 120000 /* ms */

static struct guest g;
static unsigned blocks;
static uint64_t version[BLOCKS], next_version = 1, rng, done; /* version 0: never written */
static bool busy[BLOCKS];
static struct flight {
	bool there;
	uint8_t op;
	unsigned block;
	uint64_t version;
} flights[BLKIF_MAX_SLOTS];
static int counter; /* DIR/DOMID.done */
static volatile sig_atomic_t ending;

static void on_term(int sig)
{
	ending = 1;
}

static unsigned rnd(unsigned n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (unsigned)(rng >> 16) % n;
}

static void bad(const char *what, int slot)
{
	const struct flight *f = &flights[slot];

	fprintf(stderr,
		"tdstorm: %s: slot %d, operation %u, block %u, version %llu, request %llu\n", what,
		slot, f->op, f->block, (unsigned long long)f->version, (unsigned long long)done);
	exit(1);
}

static void start(uint8_t op, unsigned block)
{
	int slot = guest_slot(&g);
	struct flight *f = &flights[slot];

	*f = (struct flight){.there = true, .op = op, .block = block, .version = version[block]};
	if (op == BLKIF_FLUSH_DISKCACHE) {
		guest_queue(&g, slot, op, 0, 0);
		return;
	}
	busy[block] = true;
	if (op != BLKIF_READ) {
		f->version = next_version++;
		guest_fill(guest_data(&g, slot), block * 8ull, BLOCK, f->version);
	} else {
		memset(guest_data(&g, slot), 0xa5, BLOCK);
	}
	guest_queue(&g, slot, op, block * 8ull, BLOCK);
}

static bool read_well(const struct flight *f, const char *data)
{
	if (f->version)
		return guest_check(data, f->block * 8ull, BLOCK, f->version) < 0;
	for (unsigned i = 0; i < BLOCK; i++)
		if (data[i])
			return false;
	return true;
}

static void finish(int slot, int status)
{
	struct flight *f = &flights[slot];

	if (!f->there)
		bad("an answer to no request", slot);
	if (status)
		bad("an error", slot);
	if (f->op == BLKIF_READ && !read_well(f, guest_data(&g, slot)))
		bad("wrong data", slot);
	if (f->op != BLKIF_FLUSH_DISKCACHE) {
		version[f->block] = f->version;
		busy[f->block] = false;
	}
	f->there = false;
	done++;
}

static void answers(void)
{
	char text[24];
	int slot, status;

	if (guest_wait(&g, PATIENCE)) {
		fprintf(stderr, "tdstorm: no answer for %d s, after %llu requests\n",
			PATIENCE / 1000, (unsigned long long)done);
		exit(1);
	}
	while (guest_reap(&g, &slot, &status))
		finish(slot, status);
	snprintf(text, sizeof text, "%020llu\n", (unsigned long long)done);
	if (pwrite(counter, text, strlen(text), 0) < 0)
		bad("its counter cannot be written", 0);
}

static void fill_ring(void)
{
	while (g.idle_n) {
		unsigned block = rnd(blocks), what = rnd(16);

		if (what == 0)
			start(BLKIF_FLUSH_DISKCACHE, 0);
		else if (!busy[block])
			start(what == 1  ? BLKIF_WRITE_BARRIER
			      : what < 9 ? BLKIF_WRITE
					 : BLKIF_READ,
			      block);
	}
	guest_push(&g);
}

/* The event channel's two ends, instead of the eventfds of the memory transport. */
static void channel(const char *dir, const char *domid, const char *port, const char *name, int fd)
{
	char path[512];
	int fifo;

	snprintf(path, sizeof path, "%s/%s.%s.%s", dir, domid, port, name);
	if (mkfifo(path, 0600) < 0 || (fifo = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC)) < 0 ||
	    dup2(fifo, fd) < 0) {
		perror(path);
		exit(2);
	}
	close(fifo);
}

static void make(char *argv[])
{
	struct guest_how how = {.abi = BLKIF_X86_64};
	struct td_err err = {};
	char path[512], memory[64];

	if (guest_new(&g, 0, 0, &how, &err)) {
		fprintf(stderr, "tdstorm: %s\n", err.text);
		exit(2);
	}
	channel(argv[1], argv[2], argv[3], "kick", g.kick);
	channel(argv[1], argv[2], argv[3], "call", g.call);
	snprintf(path, sizeof path, "%s/%s.mem", argv[1], argv[2]);
	snprintf(memory, sizeof memory, "/proc/%d/fd/%d", (int)getpid(), g.memfd);
	if (symlink(memory, path) < 0) {
		perror(path);
		exit(2);
	}
	snprintf(path, sizeof path, "%s/%s.done", argv[1], argv[2]);
	counter = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (counter < 0) {
		perror(path);
		exit(2);
	}
}

int main(int argc, char *argv[])
{
	if (argc != 6) {
		fprintf(stderr, "usage: tdstorm DIR DOMID PORT SECTORS SEED\n");
		return 2;
	}
	blocks = (unsigned)(strtoul(argv[4], NULL, 10) / 8);
	blocks = blocks < BLOCKS ? blocks : BLOCKS;
	rng = strtoull(argv[5], NULL, 10) * 0x9e3779b97f4a7c15 + 1;
	signal(SIGTERM, on_term);
	make(argv);
	puts("ring");
	fflush(stdout);
	while (!ending) {
		fill_ring();
		answers();
	}
	while (g.idle_n < g.slots)
		answers();
	for (unsigned b = 0; b < blocks; b++) {
		start(BLKIF_READ, b);
		guest_push(&g);
		while (g.idle_n < g.slots)
			answers();
	}
	printf("%llu requests\n", (unsigned long long)done);
	return 0;
}
