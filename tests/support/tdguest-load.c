/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Random requests in flight at once, of which every read is compared with the last acknowledged
 * write.  What the disk must hold may be kept in a file, as a guest's memory that moves with it. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

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

static uint32_t last_seed;

static void issue(struct guest *g, struct place *places, unsigned n, struct flight *f)
{
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
		f->seed = ++last_seed;
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

static unsigned places_of(const struct guest *g)
{
	return (unsigned)(g->sectors / unit(g) < UNITS_MAX ? g->sectors / unit(g) : UNITS_MAX);
}

/* In `file', which is made if it does not exist, or in memory alone when that is NULL. */
static struct place *get_places(const char *file, unsigned n)
{
	size_t bytes = (n ? n : 1) * sizeof(struct place);
	struct place *places;
	int fd = -1;

	if (file && ((fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0666)) < 0 ||
		     ftruncate(fd, (off_t)bytes))) {
		fprintf(stderr, "tdguest: cannot make %s: %s\n", file, strerror(errno));
		return NULL;
	}
	places = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		      file ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, fd, 0);
	if (fd >= 0)
		close(fd);
	if (places == MAP_FAILED) {
		fprintf(stderr, "tdguest: no memory for %u places: %s\n", n, strerror(errno));
		return NULL;
	}
	for (unsigned i = 0; i < n; i++) {
		if (places[i].busy) /* of a load that was killed: who knows? */
			places[i] = (struct place){0};
		if (places[i].seed > last_seed)
			last_seed = places[i].seed;
	}
	return places;
}

static void put_places(struct place *places, unsigned n)
{
	munmap(places, (n ? n : 1) * sizeof(*places));
}

static int read_all(struct guest *g, const struct place *places, unsigned n)
{
	unsigned written = 0;
	int rc = 0;

	for (unsigned i = 0; i < n && !rc; i++) {
		const struct place *p = &places[i];

		if (!p->seed)
			continue;
		written++;
		rc = guest_span(g, BLKIF_READ, (uint64_t)i * unit(g) * 512, p->bytes, p->seed);
	}
	if (rc)
		printf("that was place %u of %u\n", written, n);
	return rc;
}

int tdguest_loaded(struct guest *g, const char *file)
{
	unsigned n = places_of(g);
	struct place *places = get_places(file, n);
	int rc;

	if (!places)
		return 2;
	rc = read_all(g, places, n);
	if (!rc && !last_seed) {
		fprintf(stderr, "tdguest: %s says that nothing was written\n", file);
		rc = 2;
	}
	put_places(places, n);
	return rc;
}

int tdguest_load(struct guest *g, double seconds, unsigned depth, const char *file)
{
	static struct flight flights[BLKIF_MAX_SLOTS];
	unsigned n = places_of(g), inflight = 0;
	struct place *places = get_places(file, n);
	double start, end;
	unsigned long long done = 0;
	int slot, status, rc = 0;

	if (depth > g->slots)
		depth = g->slots;
	if (!places)
		return 2;
	if (!depth || n < 2 * depth) {
		fprintf(stderr, "tdguest: the disk is too small for %u requests at once\n", depth);
		put_places(places, n);
		return 2;
	}
	if (file)
		rc = read_all(g, places, n);
	start = now();
	end = start + seconds;
	for (;;) {
		/* on a busy machine, too, it has done something */
		bool over = rc || (done && (enough || now() >= end));

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
	put_places(places, n);
	return rc;
}
