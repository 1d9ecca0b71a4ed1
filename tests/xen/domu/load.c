/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * load: a guest's work on a disk, past its page cache, that knows what every block must hold.
 *
 *   load sync DEV N           N times a write of 4 KiB and an fsync, one after the other
 *   load run DEV MB STOPFILE  writes, reads back and syncs blocks of the first MB until STOPFILE
 *                             exists, then reads all of them
 *
 * Each 4 KiB block is filled from its number and a generation, kept in memory, so that a lost,
 * stale or misplaced write shows. Several threads, each with its own blocks, keep several requests
 * in the ring.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 4096, THREADS = 4 };

struct worker {
	pthread_t thread;
	int fd;
	uint64_t first, count; /* its blocks */
	uint32_t *generation;  /* what each of them holds; 0: not written by us */
	const char *stop;
	uint64_t seed, writes, reads, syncs, errors, wrong, longest_ms;
};

static uint64_t next(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

static void fill(uint64_t *buf, uint64_t block, uint32_t generation)
{
	uint64_t x = (block + 1) * 0x9e3779b97f4a7c15u ^ generation;

	for (int i = 0; i < BLOCK / 8; i++)
		buf[i] = next(&x);
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void fail(struct worker *w, const char *what, uint64_t block, int err)
{
	if (w->errors++ < 3)
		printf("%s of block %llu: %s\n", what, (unsigned long long)block, strerror(err));
}

static void check_block(struct worker *w, uint64_t i, uint64_t *buf, uint64_t *want)
{
	ssize_t n = pread(w->fd, buf, BLOCK, (off_t)((w->first + i) * BLOCK));

	w->reads++;
	if (n != BLOCK) {
		fail(w, "read", w->first + i, n < 0 ? errno : EIO);
		return;
	}
	fill(want, w->first + i, w->generation[i]);
	if (memcmp(buf, want, BLOCK) && w->wrong++ < 3)
		printf("block %llu is not what was written (generation %u)\n",
		       (unsigned long long)(w->first + i), w->generation[i]);
}

static void step(struct worker *w, uint64_t *buf, uint64_t *want)
{
	uint64_t r = next(&w->seed), i = (r >> 8) % w->count, t = now_ms();

	if (r % 32 == 0) {
		w->syncs++;
		if (fdatasync(w->fd))
			fail(w, "fdatasync", w->first, errno);
	} else if (r % 4 == 1 && w->generation[i]) {
		check_block(w, i, buf, want);
	} else {
		fill(buf, w->first + i, w->generation[i] + 1);
		w->writes++;
		ssize_t n = pwrite(w->fd, buf, BLOCK, (off_t)((w->first + i) * BLOCK));
		if (n == BLOCK)
			w->generation[i]++;
		else
			fail(w, "write", w->first + i, n < 0 ? errno : EIO);
	}
	t = now_ms() - t;
	if (t > w->longest_ms)
		w->longest_ms = t;
}

static void *work(void *arg)
{
	struct worker *w = arg;
	uint64_t *buf = NULL, *want = NULL;

	if (posix_memalign((void **)&buf, BLOCK, BLOCK) ||
	    posix_memalign((void **)&want, BLOCK, BLOCK))
		exit(2);
	while (access(w->stop, F_OK) && w->errors < 100)
		step(w, buf, want);
	for (uint64_t i = 0; i < w->count && w->errors < 100; i++)
		if (w->generation[i])
			check_block(w, i, buf, want);
	free(buf);
	free(want);
	return NULL;
}

static int run(const char *dev, uint64_t mb, const char *stop)
{
	struct worker w[THREADS] = {0}, sum = {0};
	uint64_t each = mb * (1048576 / BLOCK) / THREADS;
	int fd = open(dev, O_RDWR | O_DIRECT | O_CLOEXEC);

	if (fd < 0 || !each) {
		printf("load: cannot open %s: %s\n", dev, strerror(errno));
		return 2;
	}
	for (int i = 0; i < THREADS; i++) {
		w[i] = (struct worker){.fd = fd,
				       .first = each * (uint64_t)i,
				       .count = each,
				       .stop = stop,
				       .seed = 88172645463325252u + (uint64_t)i};
		w[i].generation = calloc(each, sizeof(*w[i].generation));
		if (!w[i].generation || pthread_create(&w[i].thread, NULL, work, &w[i]))
			return 2;
	}
	for (int i = 0; i < THREADS; i++) {
		pthread_join(w[i].thread, NULL);
		sum.writes += w[i].writes;
		sum.reads += w[i].reads;
		sum.syncs += w[i].syncs;
		sum.errors += w[i].errors;
		sum.wrong += w[i].wrong;
		if (w[i].longest_ms > sum.longest_ms)
			sum.longest_ms = w[i].longest_ms;
	}
	printf("load: %llu writes, %llu reads, %llu syncs, longest %llu ms, %llu errors, %llu "
	       "wrong\n",
	       (unsigned long long)sum.writes, (unsigned long long)sum.reads,
	       (unsigned long long)sum.syncs, (unsigned long long)sum.longest_ms,
	       (unsigned long long)sum.errors, (unsigned long long)sum.wrong);
	return sum.errors || sum.wrong;
}

static int sync_writes(const char *dev, long n)
{
	int fd = open(dev, O_RDWR | O_DIRECT | O_CLOEXEC);
	uint64_t *buf = NULL, t = now_ms();

	if (fd < 0 || posix_memalign((void **)&buf, BLOCK, BLOCK)) {
		printf("cannot open %s: %s\n", dev, strerror(errno));
		return 2;
	}
	for (long i = 0; i < n; i++) {
		fill(buf, (uint64_t)i, 1);
		if (pwrite(fd, buf, BLOCK, i * BLOCK) != BLOCK || fdatasync(fd)) {
			printf("write or fsync %ld of %s: %s\n", i, dev, strerror(errno));
			return 1;
		}
	}
	t = now_ms() - t;
	printf("%ld writes and fsyncs, %llu us each\n", n,
	       (unsigned long long)(n ? t * 1000 / (uint64_t)n : 0));
	free(buf);
	close(fd);
	return 0;
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 4 && !strcmp(argv[1], "sync"))
		return sync_writes(argv[2], atol(argv[3]));
	if (argc == 5 && !strcmp(argv[1], "run"))
		return run(argv[2], strtoull(argv[3], NULL, 10), argv[4]);
	fprintf(stderr, "usage: load sync DEV N | load run DEV MB STOPFILE\n");
	return 2;
}
