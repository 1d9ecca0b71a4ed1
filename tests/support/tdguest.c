/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A guest on the command line, for shell tests and quickstart: see usage. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/ctl-client.h"
#include "tests/support/guest.h"
#include "tests/support/tdguest.h"

static const char usage[] =
	"usage: tdguest [--abi native|x86_64|x86_32] [--order 0..4] [--devid N] [--segs N] "
	"[--polling US] [--persistent]\n"
	"               [--trace FILE] PID MINOR COMMAND\n"
	"  --polling US          asks the tapdisk to stay awake for that long after work, however "
	"busy the host is\n"
	"  --persistent          persistent grants: the tapdisk uses the guest's pages without a "
	"copy\n"
	"  --trace FILE          logs when each request went out and when its response was seen, "
	"for tests/support/judge-syncs\n"
	"  --segs N              requests of up to N pages, indirect beyond 11; 512 at most\n"
	"  write OFF LEN SEED    writes bytes that depend on SEED and place (OFF and LEN in bytes, "
	"multiples of 512)\n"
	"  verify OFF LEN SEED   reads, and compares every byte\n"
	"  barrier OFF LEN SEED  as write, each request a WRITE_BARRIER\n"
	"  read OFF LEN          to stdout\n"
	"  discard OFF LEN       one DISCARD\n"
	"  flush [COUNT]         FLUSH_DISKCACHE; prints the mean in microseconds\n"
	"  single COUNT SEED     COUNT writes of 4 KiB, one at a time\n"
	"  pairs COUNT DEPTH SEED  COUNT writes of 4 KiB and as many FLUSHes, in turns of DEPTH at "
	"once: writes, answers, FLUSHes, answers\n"
	"  full SEED             writes the whole disk, flushes, reads it and compares every byte\n"
	"  stream SEED           the same, as many requests at once as the ring holds\n"
	"  load SECONDS DEPTH [FILE]  random reads and writes, every read compared, for so long or "
	"until a SIGTERM; prints IOPS.  FILE keeps what was written: another load goes on with it\n"
	"  loaded FILE           reads, and compares all that loads with this FILE have written\n"
	"  promise               what the disk's cache mode promises, in the tapdisk's words\n"
	"  sectors               size in 512 bytes, logical and physical sector size as the guest "
	"is told\n"
	"  hostile CASE          what no honest guest sends; `hostile list' names the cases\n"
	"Exits 0 when all went well, 1 when data or an answer was wrong, 2 when it could not be "
	"tried.\n";

int guest_span(struct guest *g, uint8_t op, uint64_t off, uint64_t len, uint64_t seed)
{
	static char buf[GUEST_BYTES_MAX];

	for (uint64_t pos = off; pos < off + len;) {
		unsigned n =
			(unsigned)(off + len - pos < g->max_bytes ? off + len - pos : g->max_bytes);
		long bad = -1;
		int status;

		if (op != BLKIF_READ)
			guest_fill(buf, pos / 512, n, seed);
		status = guest_do(g, op, pos / 512, buf, n);
		if (status) {
			printf("request of %u bytes at %llu: status %d\n", n,
			       (unsigned long long)pos, status);
			return 1;
		}
		if (op == BLKIF_READ)
			bad = guest_check(buf, pos / 512, n, seed);
		if (bad >= 0) {
			printf("wrong data at byte %llu\n",
			       (unsigned long long)pos + (unsigned long long)bad);
			return 1;
		}
		pos += n;
	}
	return 0;
}

static int dump(struct guest *g, uint64_t off, uint64_t len)
{
	static char buf[GUEST_BYTES_MAX];

	while (len) {
		unsigned n = (unsigned)(len < g->max_bytes ? len : g->max_bytes);
		int status = guest_do(g, BLKIF_READ, off / 512, buf, n);

		if (status) {
			fprintf(stderr, "read of %u bytes at %llu: status %d\n", n,
				(unsigned long long)off, status);
			return 1;
		}
		if (fwrite(buf, 1, n, stdout) != n)
			return 2;
		off += n;
		len -= n;
	}
	return 0;
}

static int discard(struct guest *g, uint64_t off, uint64_t len)
{
	struct blkif_desc d = {.op = BLKIF_DISCARD, .sector = off / 512, .nr_sectors = len / 512};
	int slot = guest_slot(g), status;

	d.id = (uint64_t)slot;
	guest_queue_raw(g, &d);
	guest_push(g);
	if (guest_wait(g, 30000) || !guest_reap(g, &slot, &status))
		status = -ETIMEDOUT;
	if (status)
		printf("discard of %llu bytes at %llu: status %d\n", (unsigned long long)len,
		       (unsigned long long)off, status);
	return status != 0;
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Each flush follows a write, so that it has something to do. */
static int flushes(struct guest *g, unsigned count)
{
	static char buf[4096];
	double sum = 0;

	for (unsigned i = 0; i < count; i++) {
		double t;
		int status = count > 1 ? guest_do(g, BLKIF_WRITE, 0, buf, sizeof(buf)) : 0;

		t = now();
		if (!status)
			status = guest_do(g, BLKIF_FLUSH_DISKCACHE, 0, NULL, 0);
		if (status) {
			printf("flush: status %d\n", status);
			return 1;
		}
		sum += now() - t;
	}
	printf("%.0f\n", count ? sum / count * 1e6 : 0);
	return 0;
}

static int single(struct guest *g, unsigned count, uint64_t seed)
{
	for (unsigned i = 0; i < count; i++)
		if (guest_span(g, BLKIF_WRITE, i * 4096ull % (g->sectors * 512 & ~4095ull), 4096,
			       seed))
			return 1;
	return 0;
}

static int promise(struct guest *g)
{
	json_t *info = NULL;

	if (td_ctl_call(g->pid, json_pack("{s:s,s:i}", "op", "info", "minor", g->minor), NULL, 0,
			10, NULL, NULL, &info, NULL))
		return 2;
	puts(json_string_value(json_object_get(info, "promise")));
	json_decref(info);
	return 0;
}

static int sectors(struct guest *g)
{
	json_t *info = NULL;

	if (td_ctl_call(g->pid, json_pack("{s:s,s:i}", "op", "info", "minor", g->minor), NULL, 0,
			10, NULL, NULL, &info, NULL))
		return 2;
	printf("%llu %d %d\n",
	       (unsigned long long)json_integer_value(json_object_get(info, "sectors")),
	       (int)json_integer_value(json_object_get(info, "sector_size")),
	       (int)json_integer_value(json_object_get(info, "physical_sector_size")));
	json_decref(info);
	return 0;
}

static int command(struct guest *g, int argc, char **argv)
{
	const char *c = argv[0];
	uint64_t a = argc > 1 ? strtoull(argv[1], NULL, 0) : 0,
		 b = argc > 2 ? strtoull(argv[2], NULL, 0) : 0;
	uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 0) : 0;

	if (!strcmp(c, "write") && argc == 4)
		return guest_span(g, BLKIF_WRITE, a, b, seed);
	if (!strcmp(c, "verify") && argc == 4)
		return guest_span(g, BLKIF_READ, a, b, seed);
	if (!strcmp(c, "barrier") && argc == 4)
		return guest_span(g, BLKIF_WRITE_BARRIER, a, b, seed);
	if (!strcmp(c, "discard") && argc == 3)
		return discard(g, a, b);
	if (!strcmp(c, "read") && argc == 3)
		return dump(g, a, b);
	if (!strcmp(c, "flush") && argc <= 2)
		return flushes(g, argc > 1 ? (unsigned)a : 1);
	if (!strcmp(c, "single") && argc == 3)
		return single(g, (unsigned)a, b);
	if (!strcmp(c, "pairs") && argc == 4)
		return tdguest_pairs(g, (unsigned)a, (unsigned)b, seed);
	if (!strcmp(c, "full") && argc == 2) {
		int rc = guest_span(g, BLKIF_WRITE, 0, g->sectors * 512, a);

		if (!rc)
			rc = guest_do(g, BLKIF_FLUSH_DISKCACHE, 0, NULL, 0);
		return rc ? 1 : guest_span(g, BLKIF_READ, 0, g->sectors * 512, a);
	}
	if (!strcmp(c, "stream") && argc == 2)
		return tdguest_stream(g, a);
	if (!strcmp(c, "load") && (argc == 3 || argc == 4))
		return tdguest_load(g, atof(argv[1]), (unsigned)b, argv[3]);
	if (!strcmp(c, "loaded") && argc == 2)
		return tdguest_loaded(g, argv[1]);
	if (!strcmp(c, "promise") && argc == 1)
		return promise(g);
	if (!strcmp(c, "sectors") && argc == 1)
		return sectors(g);
	if (!strcmp(c, "hostile") && argc == 2)
		return tdguest_hostile(g, argv[1]);
	fputs(usage, stderr);
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{"abi", 1, NULL, 'a'},   {"order", 1, NULL, 'o'},   {"devid", 1, NULL, 'd'},
		{"segs", 1, NULL, 's'},  {"polling", 1, NULL, 'p'}, {"persistent", 0, NULL, 'P'},
		{"trace", 1, NULL, 't'}, {"help", 0, NULL, 'h'},    {NULL, 0, NULL, 0}};
	static struct td_err err;
	static struct guest g;
	int c, abi = BLKIF_NATIVE, order = 0, devid = 51712, segs = BLKIF_MAX_SEGS, polling = -1,
	       rc;
	struct guest_how how;
	bool persistent = false;
	FILE *trace = NULL;

	while ((c = getopt_long(argc, argv, "+h", longs, NULL)) != -1)
		if (c == 'a')
			abi = blkif_abi_find(optarg);
		else if (c == 'o')
			order = atoi(optarg);
		else if (c == 'd')
			devid = atoi(optarg);
		else if (c == 's')
			segs = atoi(optarg);
		else if (c == 'p')
			polling = atoi(optarg);
		else if (c == 'P')
			persistent = true;
		else if (c == 't' && (trace = fopen(optarg, "we")) != NULL)
			continue;
		else if (c == 't')
			return fprintf(stderr, "tdguest: cannot write %s: %s\n", optarg,
				       strerror(errno)),
			       2;
		else
			return fputs(usage, c == 'h' ? stdout : stderr), c == 'h' ? 0 : 2;
	argc -= optind;
	argv += optind;
	if (argc == 2 && !strcmp(argv[0], "hostile") && !strcmp(argv[1], "list"))
		return tdguest_hostile(NULL, "list");
	if (argc < 3 || abi < 0 || order < 0 || order > BLKIF_MAX_RING_ORDER || segs < 1 ||
	    segs > BLKIF_MAX_INDIRECT)
		return fputs(usage, stderr), 2;
	if (!strcmp(argv[2], "load"))
		tdguest_load_prepare();
	how = (struct guest_how){.abi = (enum blkif_abi)abi,
				 .order = (unsigned)order,
				 .segs = (unsigned)segs,
				 .says_polling = polling >= 0,
				 .polling_us = (unsigned)polling,
				 .persistent = persistent};
	if (guest_connect_how(&g, atoi(argv[0]), atoi(argv[1]), devid, &how, &err)) {
		fprintf(stderr, "tdguest: %s\n", err.text);
		return 2;
	}
	guest_trace(&g, trace);
	rc = command(&g, argc - 2, argv + 2);
	fflush(stdout);
	if (trace && fclose(trace)) {
		fprintf(stderr, "tdguest: the trace could not be written: %s\n", strerror(errno));
		rc = 2;
	}
	guest_disconnect(&g);
	return rc;
}
