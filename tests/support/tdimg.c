/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A disk image through our drivers, without ring or process around them:
 *
 *   tdimg [-r] [-d] SPEC info               size, and the images of the chain
 *   tdimg [-r] [-d] SPEC dump FILE          the whole disk, as a raw file
 *   tdimg [-d] SPEC load FILE               writes what is not zero in a raw file
 *   tdimg [-d] [-q DEPTH] SPEC storm SEED STEPS MODEL
 *                                           random reads, writes, discards, zeroes and flushes,
 *                                           many at a time, and reopens; each read is compared
 *                                           with a plain model, which is a raw file: made from the
 *                                           disk if it is not there, and brought up to date at the
 *                                           end
 *   tdimg [-d] SPEC writes SEED COUNT LEN   that many random writes of LEN bytes, DEPTH at a time;
 *                                           prints seconds
 *
 * -r read-only, -d O_DIRECT, -q how many at a time (default 16), -m the largest request in bytes,
 * -k FILE the key.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "lib/fiber/await.h"
#include "lib/fiber/fiber.h"
#include "lib/fiber/fiber-lock.h"
#include "lib/io/file.h"
#include "tapdisk/chain.h"

static struct ev_loop *loop;
static struct td_io *io;
static struct td_image *leaf;
static const char *spec;
static unsigned flags, depth = 16;
static size_t biggest = 1u << 20;
static struct td_key key;
static int result = 1;
static bool finished;
static char **args;
static int nargs;

static __attribute__((noreturn)) void die(const char *what, const char *why)
{
	fprintf(stderr, "tdimg: %s%s%s\n", what, why[0] ? ": " : "", why);
	exit(1);
}

/* --- one request, waited for --- */

static int request(enum td_op op, unsigned f, void *buf, uint64_t off, uint64_t len)
{
	struct iovec iov[2] = {{buf, len / 1024 * 512},
			       {(char *)buf + len / 1024 * 512, len - len / 1024 * 512}};
	bool data = op == TD_READ || op == TD_WRITE;
	int skip = !iov[0].iov_len; /* two pieces, where it can be */

	return td_await_request(leaf, io, op, f, off, len, data ? iov + skip : NULL,
				data ? 2 - skip : 0);
}

static void must(int rc, const char *what)
{
	if (rc)
		die(what, strerror(-rc));
}

static void open_it(void)
{
	struct td_err err = {0};

	if (chain_open(spec, &(struct td_how){.flags = flags, .key = &key, .trusted = true}, io,
		       &leaf, &err) < 0)
		die(err.text, "");
}

static void *buffer(size_t len)
{
	void *p;

	if (posix_memalign(&p, 4096, len))
		die("out of memory", "");
	memset(p, 0, len);
	return p;
}

/* --- whole disks --- */

#define CHUNK (1u << 20)

static bool all_zero(const unsigned char *p, size_t len)
{
	return !p[0] && !memcmp(p, p + 1, len - 1);
}

static void dump(void)
{
	int fd = open(args[0], O_RDWR | O_CREAT | O_TRUNC, 0644);
	unsigned char *buf = buffer(CHUNK);

	if (fd < 0 || ftruncate(fd, (off_t)leaf->info.size) < 0)
		die(args[0], strerror(errno));
	for (uint64_t off = 0; off < leaf->info.size; off += CHUNK) {
		size_t n = leaf->info.size - off < CHUNK ? leaf->info.size - off : CHUNK;

		must(request(TD_READ, 0, buf, off, n), "read");
		if (!all_zero(buf, n) && pwrite(fd, buf, n, (off_t)off) != (ssize_t)n)
			die(args[0], strerror(errno));
	}
	close(fd);
	free(buf);
}

static void load(void)
{
	int fd = open(args[0], O_RDONLY);
	unsigned char *buf = buffer(CHUNK);

	if (fd < 0)
		die(args[0], strerror(errno));
	for (uint64_t off = 0; off < leaf->info.size; off += CHUNK) {
		size_t n = leaf->info.size - off < CHUNK ? leaf->info.size - off : CHUNK;

		memset(buf, 0, n);
		if (pread(fd, buf, n, (off_t)off) < 0)
			die(args[0], strerror(errno));
		if (!all_zero(buf, n))
			must(request(TD_WRITE, 0, buf, off, n), "write");
	}
	must(request(TD_FLUSH, 0, NULL, 0, 0), "flush");
	close(fd);
	free(buf);
}

static void info(void)
{
	printf("size=%llu\n", (unsigned long long)leaf->info.size);
	for (const struct td_image *i = leaf; i; i = i->backing)
		printf("%s:%s\n", i->driver->name, i->path);
}

/* --- random writes, timed --- */

static unsigned long long rng;

static uint64_t rnd(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng;
}

static unsigned running;
static struct td_cond changed;

struct writer {
	uint64_t *left;
	size_t len;
};

static void writer(void *arg)
{
	struct writer *w = arg;
	void *buf = buffer(w->len);

	memset(buf, 0x5a, w->len);
	while (*w->left) {
		--*w->left;
		must(request(TD_WRITE, 0, buf, rnd() % (leaf->info.size / w->len) * w->len, w->len),
		     "write");
	}
	free(buf);
	running--;
	td_cond_wake(&changed);
}

static void writes(void)
{
	uint64_t left = strtoull(args[1], NULL, 0), n = left;
	struct writer w = {&left, strtoull(args[2], NULL, 0)};
	struct timespec a, b;
	double s;

	rng = strtoull(args[0], NULL, 0) * 2654435761u + 1;
	clock_gettime(CLOCK_MONOTONIC, &a);
	running = depth;
	for (unsigned i = 0; i < depth; i++)
		if (td_fiber_start(loop, writer, &w) < 0)
			die("no fiber", "");
	while (running)
		td_cond_wait(&changed);
	must(request(TD_FLUSH, 0, NULL, 0, 0), "flush");
	clock_gettime(CLOCK_MONOTONIC, &b);
	s = (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9;
	printf("%.3f s, %.0f a second\n", s, (double)n / s);
}

/* --- against a model --- */

/* unknown: sectors that were discarded, and may read as zeroes or as before */
static unsigned char *model, *unknown;
static unsigned char *busy; /* sectors with an operation under way */
static uint64_t steps;

static bool claim(uint64_t off, uint64_t len)
{
	if (memchr(busy + off / 512, 1, len / 512))
		return false;
	memset(busy + off / 512, 1, len / 512);
	return true;
}

/* Half of them small, some of a cluster's kind of alignment, some large. */
static void choose(uint64_t *off, uint64_t *len)
{
	static const unsigned align[] = {512, 512, 4096, 65536, 65536, 1u << 20};
	uint64_t size = leaf->info.size, a = align[rnd() % 6], most = rnd() % 4 ? 65536 : biggest;

	*len = (rnd() % (most / 512) + 1) * 512;
	if (a > 512)
		*len = (*len + a - 1) / a * a;
	if (*len > size)
		*len = size;
	*off = rnd() % 8 ? rnd() % size / a * a
			 : rnd() % (size < (1u << 22) ? size : 1u << 22) / a * a;
	if (*off + *len > size)
		*off = (size - *len) / 512 * 512;
}

static void check_read(const unsigned char *buf, uint64_t off, uint64_t len)
{
	for (uint64_t s = 0; s < len; s += 512) {
		if (unknown[(off + s) / 512] && all_zero(buf + s, 512)) {
			memset(model + off + s, 0, 512);
			unknown[(off + s) / 512] = 0;
		}
		if (memcmp(buf + s, model + off + s, 512)) {
			fprintf(stderr, "tdimg: sector %llu reads wrong (%llu steps left)\n",
				(unsigned long long)(off + s) / 512, (unsigned long long)steps);
			exit(2);
		}
		unknown[(off + s) / 512] = 0;
	}
}

static void one(unsigned char *buf)
{
	uint64_t off, len;
	unsigned what = (unsigned)(rnd() % 100), fua = rnd() % 40 ? 0 : TD_FUA;

	choose(&off, &len);
	if (what < 3) {
		must(request(TD_FLUSH, 0, NULL, 0, 0), "flush");
		return;
	}
	if (!claim(off, len))
		return;
	if (what < 35) {
		must(request(TD_READ, 0, buf, off, len), "read");
		check_read(buf, off, len);
	} else if (what < 85) {
		uint64_t x = rnd();

		for (size_t i = 0; i < len; i += 8)
			memcpy(buf + i, &(uint64_t){x + i / 512}, 8);
		must(request(TD_WRITE, fua, buf, off, len), "write");
		memcpy(model + off, buf, len);
		memset(unknown + off / 512, 0, len / 512);
	} else if (what < 93) {
		int rc = request(TD_WRITE_ZEROES, rnd() % 2 ? TD_UNMAP : 0, NULL, off, len);

		if (rc != -EOPNOTSUPP) {
			must(rc, "write zeroes");
			memset(model + off, 0, len);
			memset(unknown + off / 512, 0, len / 512);
		}
	} else {
		must(request(TD_DISCARD, 0, NULL, off, len), "discard");
		memset(unknown + off / 512, 1, len / 512);
	}
	memset(busy + off / 512, 0, len / 512);
}

static void stormer(void *arg)
{
	unsigned char *buf = buffer(biggest + (1u << 20));

	while (steps) {
		steps--;
		one(buf);
		if (rnd() % 500 == 0)
			break; /* the disk is opened anew when all have left */
	}
	free(buf);
	running--;
	td_cond_wake(&changed);
}

static void map_model(const char *path, uint64_t size)
{
	bool fresh = access(path, F_OK) < 0;
	int fd = open(path, O_RDWR | O_CREAT, 0644);

	if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
		die(path, strerror(errno));
	model = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	unknown = calloc(size / 512, 1);
	busy = calloc(size / 512, 1);
	if (model == MAP_FAILED || !unknown || !busy)
		die("out of memory", "");
	for (uint64_t off = 0; fresh && off < size; off += CHUNK) {
		unsigned char *buf = buffer(CHUNK);
		size_t n = size - off < CHUNK ? size - off : CHUNK;

		must(request(TD_READ, 0, buf, off, n), "read");
		memcpy(model + off, buf, n);
		free(buf);
	}
	close(fd);
}

static void storm(void)
{
	unsigned char *buf = buffer(CHUNK);

	rng = strtoull(args[0], NULL, 0) * 2654435761u + 1;
	steps = strtoull(args[1], NULL, 0);
	map_model(args[2], leaf->info.size);
	while (steps) {
		running = depth;
		for (unsigned i = 0; i < depth; i++)
			if (td_fiber_start(loop, stormer, NULL) < 0)
				die("no fiber", "");
		while (running)
			td_cond_wait(&changed);
		if (rnd() % 2)
			must(request(TD_FLUSH, 0, NULL, 0, 0), "flush");
		chain_close(leaf);
		open_it();
	}
	for (uint64_t off = 0; off < leaf->info.size; off += CHUNK) {
		uint64_t n = leaf->info.size - off < CHUNK ? leaf->info.size - off : CHUNK;

		must(request(TD_READ, 0, buf, off, n), "read");
		check_read(buf, off, n);
	}
	free(buf);
}

static void run(void *arg)
{
	static const struct {
		const char *name;
		int nargs;
		void (*fn)(void);
	} commands[] = {{"info", 0, info},
			{"dump", 1, dump},
			{"load", 1, load},
			{"storm", 3, storm},
			{"writes", 3, writes}};
	const char *name = args[0];

	args++, nargs--;
	open_it();
	for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
		if (!strcmp(name, commands[i].name) && nargs == commands[i].nargs) {
			commands[i].fn();
			result = 0;
		}
	chain_close(leaf);
	if (result)
		die("no command with these arguments", name);
	finished = true;
}

static void read_key(const char *path)
{
	FILE *f = fopen(path, "re");

	if (!f)
		die(path, strerror(errno));
	key.len = (unsigned)fread(key.bytes, 1, sizeof key.bytes, f);
	fclose(f);
}

int main(int argc, char **argv)
{
	struct td_err err = {0};
	int c;

	while ((c = getopt(argc, argv, "rdq:m:k:")) != -1) {
		if (c == 'r')
			flags |= TD_FILE_RDONLY;
		else if (c == 'd')
			flags |= TD_FILE_DIRECT;
		else if (c == 'q')
			depth = (unsigned)atoi(optarg);
		else if (c == 'm')
			biggest = strtoull(optarg, NULL, 0);
		else if (c == 'k')
			read_key(optarg);
		else
			return 22;
	}
	if (argc - optind < 2)
		return 22;
	spec = argv[optind];
	args = argv + optind + 1;
	nargs = argc - optind - 1;
	td_log_open("tdimg", 1);
	td_cond_init(&changed);
	loop = ev_loop_new(EVFLAG_AUTO);
	if (td_io_new(loop, getenv("TAPDISK_IO"), flags & TD_FILE_DIRECT, &io, &err) < 0)
		die(err.text, "");
	if (td_fiber_start(loop, run, NULL) < 0)
		return 1;
	while (!finished)
		ev_run(loop, EVRUN_ONCE);
	td_io_free(io);
	ev_loop_destroy(loop);
	return result;
}
