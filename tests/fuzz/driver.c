/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A plain loop around a target: runs its seeds and the files of its corpus, then what it makes of
 * them by small changes, by a seed that it prints.  Built with gcc and --enable-sanitizers=fuzz it
 * sees which code an input reaches, and keeps those that reach more.
 *
 *   TARGET [-t SECONDS] [-n INPUTS] [-s SEED] [-o DIR] [FILE | DIR]...
 *
 * -t and -n 0 (default): only the seeds and files.  -o: where an input that ends the process goes,
 * as TARGET.report (default: here).  Exit status 0: nothing was found.
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"

#define KEPT_MAX 4096 /* inputs in memory */
#define PATIENCE 60   /* s for an input: one that takes longer hangs */

struct input {
	uint8_t *data;
	size_t size;
};

uint64_t fuzz_count;
static struct input kept[KEPT_MAX];
static unsigned nkept;
static uint64_t state;
static char report[4096];
static struct input now; /* what runs; data NULL: nothing does */

/* --- coverage --- */

static uint8_t reached[1 << 16];
static volatile bool
	fresh; /* since it was last cleared, something was reached for the first time */

#if defined __GNUC__ && !defined __clang__ && defined TD_FUZZ_LED
void __sanitizer_cov_trace_pc(void);

__attribute__((no_sanitize_coverage, no_sanitize("address", "undefined"))) void
__sanitizer_cov_trace_pc(void)
{
	static _Thread_local uintptr_t last;
	uintptr_t pc = (uintptr_t)__builtin_return_address(0);
	unsigned i = (unsigned)((pc ^ last) & 0xffff);

	last = pc >> 1;
	if (!reached[i]) {
		reached[i] = 1;
		fresh = true;
	}
}
#define SEES true
#else
#define SEES false
#endif

/* --- what ends the process --- */

static void write_report(void)
{
	FILE *f = now.data ? fopen(report, "w") : NULL;

	if (!f)
		return;
	fwrite(now.data, 1, now.size, f);
	fclose(f);
	fprintf(stderr, "%s: the input is in %s: run %s with it\n", fuzz_name, report, fuzz_name);
	now.data = NULL;
}

static void on_signal(int sig)
{
	if (sig == SIGALRM)
		fprintf(stderr, "%s: an input takes longer than %d s\n", fuzz_name, PATIENCE);
	write_report();
	signal(sig, SIG_DFL);
	raise(sig);
}

#ifdef TD_SANITIZED
void __sanitizer_set_death_callback(void (*fn)(void));
#endif

static void watch_out(void)
{
	signal(SIGABRT, on_signal);
	signal(SIGALRM, on_signal);
#ifdef TD_SANITIZED
	__sanitizer_set_death_callback(write_report); /* which has the other signals */
#else
	signal(SIGSEGV, on_signal);
	signal(SIGBUS, on_signal);
	signal(SIGFPE, on_signal);
#endif
	atexit(write_report); /* a test's helper that failed ends by exit() */
}

/* --- inputs --- */

static uint64_t rnd(uint64_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % below;
}

static void keep(const uint8_t *data, size_t size)
{
	struct input *i = &kept[nkept < KEPT_MAX ? nkept++ : rnd(KEPT_MAX)];

	free(i->data);
	i->data = malloc(size ? size : 1);
	FUZZ_ASSERT(i->data);
	memcpy(i->data, data, size);
	i->size = size;
}

/* In a block of its own size, so that what reads beyond it is seen. */
static void run(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);

	FUZZ_ASSERT(copy);
	memcpy(copy, data, size);
	now = (struct input){copy, size};
	alarm(PATIENCE);
	fuzz_one(copy, size);
	alarm(0);
	now.data = NULL;
	free(copy);
}

static void load(const char *path)
{
	static uint8_t data[FUZZ_SIZE_MAX];
	struct dirent *e;
	struct stat st;
	size_t n;
	FILE *f;
	DIR *d;

	if (!stat(path, &st) && S_ISDIR(st.st_mode) && (d = opendir(path))) {
		while ((e = readdir(d))) {
			char name[4096];

			snprintf(name, sizeof name, "%s/%s", path, e->d_name);
			if (e->d_name[0] != '.')
				load(name);
		}
		closedir(d);
		return;
	}
	f = fopen(path, "r");
	if (!f) {
		fprintf(stderr, "%s: cannot read %s: %s\n", fuzz_name, path, strerror(errno));
		exit(1);
	}
	n = fread(data, 1, sizeof data, f);
	fclose(f);
	keep(data, n);
}

/* --- changes --- */

static uint64_t interesting(void)
{
	static const uint64_t values[] = {
		0,          1,          2,          7,           8,         9,         16,
		63,         64,         127,        128,         255,       256,       511,
		512,        4095,       4096,       32767,       32768,     65535,     65536,
		0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, INT64_MAX, UINT64_MAX};
	uint64_t v = values[rnd(sizeof values / sizeof *values)];

	return rnd(4) ? v : v + rnd(3) - 1;
}

static void put_number(uint8_t *at, size_t room)
{
	unsigned n = 1u << rnd(4);
	uint64_t v = rnd(3) ? interesting() : rnd(UINT64_MAX);
	bool little = rnd(2);

	for (unsigned i = 0; i < n && i < room; i++)
		at[i] = (uint8_t)(v >> 8 * (little ? i : n - 1 - i));
}

/* Opens a hole of n bytes; how many it has room for. */
static size_t open_hole(uint8_t *data, size_t *size, size_t at, size_t n)
{
	if (n > FUZZ_SIZE_MAX - *size)
		n = FUZZ_SIZE_MAX - *size;
	memmove(data + at + n, data + at, *size - at);
	*size += n;
	return n;
}

static void insert(uint8_t *data, size_t *size, size_t at, const uint8_t *what, size_t n)
{
	n = open_hole(data, size, at, n);
	memcpy(data + at, what, n);
}

static void change(uint8_t *data, size_t *size)
{
	size_t at = *size ? rnd(*size) : 0, left = *size - at, n = left ? 1 + rnd(left) : 0;
	const struct input *other = &kept[rnd(nkept)];
	unsigned words = 0;
	size_t from;

	if (n > 64 && rnd(8))
		n = 1 + rnd(64);
	while (fuzz_words[words])
		words++;
	switch (rnd(words ? 10 : 8)) {
	case 0:
	case 1:
		if (left)
			data[at] ^= (uint8_t)(1u << rnd(8));
		break;
	case 2:
	case 3:
		put_number(data + at, left);
		break;
	case 4:
		memmove(data + at, data + at + n, left - n);
		*size -= n;
		break;
	case 5: /* a piece of another, over it or between */
	case 6:
		from = other->size ? rnd(other->size) : 0;
		n = other->size - from < 512 ? other->size - from : 1 + rnd(512);
		if (rnd(2))
			insert(data, size, at, other->data + from, n);
		else
			memcpy(data + at, other->data + from, n < left ? n : left);
		break;
	case 7:
		n = open_hole(data, size, at, 1 + rnd(16));
		memset(data + at, (int)rnd(256), n);
		break;
	default: {
		const char *w = fuzz_words[rnd(words)];

		if (rnd(2))
			insert(data, size, at, (const uint8_t *)w, strlen(w));
		else
			memcpy(data + at, w, strlen(w) < left ? strlen(w) : left);
	}
	}
}

static void mutate_and_run(void)
{
	static uint8_t data[FUZZ_SIZE_MAX];
	const struct input *from = &kept[rnd(nkept)];
	size_t size = from->size;

	memcpy(data, from->data, size);
	for (unsigned n = 1 + (unsigned)rnd(rnd(4) ? 4 : 32); n; n--)
		change(data, &size);
	fresh = false;
	run(data, size);
	if (fresh)
		keep(data, size);
}

int main(int argc, char **argv)
{
	static uint8_t seed[FUZZ_SIZE_MAX];
	unsigned long seconds = 0, inputs = 0, done = 0;
	const char *dir = ".";
	time_t start = time(NULL);
	size_t n;
	int c;

	state = (uint64_t)start;
	while ((c = getopt(argc, argv, "t:n:s:o:")) != -1)
		switch (c) {
		case 't':
			seconds = strtoul(optarg, NULL, 10);
			break;
		case 'n':
			inputs = strtoul(optarg, NULL, 10);
			break;
		case 's':
			state = strtoull(optarg, NULL, 10);
			break;
		case 'o':
			dir = optarg;
			break;
		default:
			fprintf(stderr,
				"usage: %s [-t SECONDS] [-n INPUTS] [-s SEED] [-o DIR] "
				"[FILE | DIR]...\n",
				argv[0]);
			return 2;
		}
	snprintf(report, sizeof report, "%s/%s.report", dir, fuzz_name);
	printf("%s: seed %llu%s\n", fuzz_name, (unsigned long long)state,
	       SEES ? ", led by what is reached" : "");
	fflush(stdout);
	state = state * 0x9e3779b97f4a7c15 + 1;
	fuzz_start();
	watch_out();
	for (unsigned i = 0; (optind == argc || seconds || inputs) && (n = fuzz_seed(i, seed)); i++)
		keep(seed, n);
	while (optind < argc)
		load(argv[optind++]);
	for (; done < nkept; done++)
		run(kept[done].data, kept[done].size);
	if (!nkept)
		keep(seed, 0);
	while (inputs ? done < inputs : seconds && time(NULL) - start < (time_t)seconds) {
		mutate_and_run();
		done++;
	}
	for (unsigned i = 0; i < nkept; i++)
		free(kept[i].data);
	printf("%s: %lu inputs, %llu %s, no report\n", fuzz_name, done,
	       (unsigned long long)fuzz_count, fuzz_unit);
	return 0;
}
