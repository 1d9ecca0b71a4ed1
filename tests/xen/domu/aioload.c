/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A closed loop of direct I/O on a disk of the guest, for the bench: always DEPTH requests of BS
 * bytes in flight, as fio's libaio does it, by system calls alone so that it can be static.
 *
 *   aioload DEVICE read|write|randread|randwrite BS DEPTH SECONDS
 *
 * Prints "aioload: N requests, S seconds, p50 US us, p99 US us".
 */
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MAX_DEPTH 256
#define MAX_TIMES (1u << 20) /* of requests; what comes later is counted and not timed */

static struct iocb cbs[MAX_DEPTH], *todo[MAX_DEPTH];
static struct io_event events[MAX_DEPTH];
static uint64_t blocks, next_block;
static double begun[MAX_DEPTH];
static float times[MAX_TIMES]; /* in us */
static size_t bs;
static int is_random;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint64_t rnd(void)
{
	static uint64_t x = 88172645463325252;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return x;
}

static void place(struct iocb *cb)
{
	cb->aio_offset = (int64_t)((is_random ? rnd() % blocks : next_block++ % blocks) * bs);
}

static int by_size(const void *a, const void *b)
{
	float d = *(const float *)a - *(const float *)b;

	return (d > 0) - (d < 0);
}

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

int main(int argc, char **argv)
{
	aio_context_t ctx = 0;
	unsigned depth, n, inflight = 0;
	uint64_t done = 0;
	double began, end, t;
	int fd, is_write;

	if (argc != 6) {
		fprintf(stderr,
			"usage: aioload DEVICE read|write|randread|randwrite BS DEPTH SECONDS\n");
		return 2;
	}
	is_random = !strncmp(argv[2], "rand", 4);
	is_write = strstr(argv[2], "write") != NULL;
	bs = strtoul(argv[3], NULL, 0);
	depth = (unsigned)atoi(argv[4]);
	fd = open(argv[1], O_RDWR | O_DIRECT);
	if (fd < 0)
		fail(argv[1]);
	if (!bs || !depth || depth > MAX_DEPTH || !(blocks = (uint64_t)lseek(fd, 0, SEEK_END) / bs))
		return 2;
	if (syscall(SYS_io_setup, depth, &ctx) < 0)
		fail("io_setup");
	for (n = 0; n < depth; n++) {
		void *buf = aligned_alloc(4096, bs);

		if (!buf)
			fail("memory");
		memset(buf, (int)n, bs);
		cbs[n] =
			(struct iocb){.aio_data = n,
				      .aio_lio_opcode = is_write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD,
				      .aio_fildes = (uint32_t)fd,
				      .aio_buf = (uintptr_t)buf,
				      .aio_nbytes = bs};
		place(&cbs[n]);
		todo[n] = &cbs[n];
	}
	began = now();
	end = began + atof(argv[5]);
	for (n = depth; n || inflight;) {
		long rc;

		t = now();
		for (unsigned i = 0; i < n; i++)
			begun[todo[i]->aio_data] = t;
		rc = n ? syscall(SYS_io_submit, ctx, (long)n, todo) : 0;
		if (rc < 0)
			fail("io_submit");
		memmove(todo, todo + rc, (n - (unsigned)rc) * sizeof todo[0]);
		n -= (unsigned)rc;
		inflight += (unsigned)rc;
		rc = syscall(SYS_io_getevents, ctx, 1L, (long)depth, events, NULL);
		if (rc < 0)
			fail("io_getevents");
		inflight -= (unsigned)rc;
		t = now();
		for (long i = 0; i < rc; i++) {
			if (events[i].res != (int64_t)bs) {
				fprintf(stderr, "aioload: a request ended with %lld\n",
					(long long)events[i].res);
				return 1;
			}
			if (done < MAX_TIMES)
				times[done] = (float)((t - begun[events[i].data]) * 1e6);
			done++;
			if (t >= end)
				continue;
			place(&cbs[events[i].data]);
			todo[n++] = &cbs[events[i].data];
		}
	}
	t = now() - began;
	n = done < MAX_TIMES ? (unsigned)done : MAX_TIMES;
	qsort(times, n, sizeof(times[0]), by_size);
	printf("aioload: %llu requests, %.3f seconds, p50 %.0f us, p99 %.0f us\n",
	       (unsigned long long)done, t, (double)times[n / 2], (double)times[n * 99ull / 100]);
	return 0;
}
