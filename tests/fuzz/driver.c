/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A plain loop around a target: runs its seeds and the files of its corpus, then what it makes of
 * them by small changes, which follow from the seed that it prints.  Built with gcc and
 * --enable-sanitizers=fuzz it sees which code an input reaches, and keeps those that reach more.
 *
 *   TARGET [-t SECONDS] [-n INPUTS] [-s SEED] [-o DIR] [-k FILE] [FILE | DIR]...
 *
 * -t and -n 0 (default): only the seeds and files; only the files, where there are any.  -o: where
 * an input that is a report goes (default: here).  -k: writes those inputs into FILE, or a
 * directory, that are needed to reach all that all of them reach, short ones first.  A file
 * NAME.hex has inputs in hexadecimal, one a line; any other is one.  Exit status 0: nothing was
 * found.
 *
 * A report: a crash, a sanitizer's complaint, a target's own assertion, an input that uses the
 * processor for PATIENCE or waits for ten times as long, a process larger than ENDS_MEMORY, a leak
 * (where LeakSanitizer is there).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "lib/bytes.h"
#include "tests/fuzz/ends.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/mutate.h"

#define KEPT_MAX 4096 /* inputs in memory */
#define PATIENCE 60   /* s of the processor */
#define WINDOW   8192 /* inputs between looks for leaks, */
#define FIRST    512  /* and at first: most leak soon */

uint64_t fuzz_count;
static struct fuzz_input kept[KEPT_MAX];
static unsigned nkept;
static const char *reports = ".", *program;
static struct fuzz_input now;          /* what runs; data NULL: nothing does */
static volatile sig_atomic_t patience; /* s */
static volatile time_t began;          /* s of the processor */
static int spare; /* a descriptor for the report of one that has used up all others */

/* --- coverage --- */

static volatile bool fresh; /* something was reached for the first time since it was cleared */

#if defined __GNUC__ && !defined __clang__ && defined TD_FUZZ_LED
static uint8_t reached[1 << 16];

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

static void forget_reached(void)
{
	memset(reached, 0, sizeof reached);
}
#define LED true
#else
static void forget_reached(void)
{
}
#define LED false
#endif

/* --- what ends the process --- */

static void write_input(const char *dir, const char *prefix, const struct fuzz_input *in)
{
	uint64_t sum = 0xcbf29ce484222325;
	char path[4096];
	FILE *f;

	for (size_t i = 0; i < in->size; i++)
		sum = (sum ^ in->data[i]) * 0x100000001b3;
	snprintf(path, sizeof path, "%s/%s%016llx", dir, prefix, (unsigned long long)sum);
	f = fopen(path, "w");
	if (!f) {
		fprintf(stderr, "%s: cannot write %s: %s\n", fuzz_name, path, strerror(errno));
		return;
	}
	fwrite(in->data, 1, in->size, f);
	fclose(f);
	if (*prefix)
		fprintf(stderr, "%s: REPORT, and its input is kept; again: %s %s\n", fuzz_name,
			program, path);
}

static void write_report(void)
{
	char prefix[64];

	if (!now.data)
		return;
	close(spare);
	snprintf(prefix, sizeof prefix, "%s-", fuzz_name);
	write_input(reports, prefix, &now);
	now.data = NULL;
}

static time_t processor(void)
{
	struct timespec t;

	return clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t) ? 0 : t.tv_sec;
}

static void on_second(void)
{
	if (!now.data || (--patience && processor() - began < PATIENCE))
		return;
	fprintf(stderr, "%s: an input takes longer than %d s\n", fuzz_name, PATIENCE);
	abort();
}

static void watch_out(void)
{
	spare = open("/dev/null", O_RDONLY);
	ends_watch(write_report);
	ends_each_second(on_second);
}

/* --- inputs --- */

static void copy(struct fuzz_input *to, const uint8_t *data, size_t size)
{
	free(to->data);
	to->data = malloc(size ? size : 1);
	FUZZ_ASSERT(to->data);
	memcpy(to->data, data, size);
	to->size = size;
}

static void keep(const uint8_t *data, size_t size)
{
	copy(&kept[nkept < KEPT_MAX ? nkept++ : mutate_below(KEPT_MAX)], data, size);
}

/* In a block of its own size, so that what reads beyond it is seen. */
static void run_one(const uint8_t *data, size_t size)
{
	static struct fuzz_input own;

	copy(&own, data, size);
	patience = 10 * PATIENCE;
	began = processor();
	now = own;
	fuzz_one(own.data, own.size);
	ends_check_size(fuzz_name);
	now.data = NULL;
}

static struct fuzz_input window[WINDOW];
static unsigned nwindow, window_size = FIRST;

/* A leak is seen long after the input that it comes from. */
static void look_for_leaks(void)
{
	if (ends_leaks()) {
		for (unsigned i = 0; i < nwindow; i++) {
			run_one(window[i].data, window[i].size);
			now = window[i];
			if (ends_leaks())
				abort();
		}
		fprintf(stderr, "%s: none of the last %u inputs leaks again\n", fuzz_name, nwindow);
		abort();
	}
	nwindow = 0;
	window_size = WINDOW;
}

static void run(const uint8_t *data, size_t size)
{
	run_one(data, size);
#ifdef TD_SANITIZED
	copy(&window[nwindow++], data, size);
	if (nwindow == window_size)
		look_for_leaks();
#endif
}

static bool is_hex(const char *path)
{
	size_t n = strlen(path);

	return n > 4 && !strcmp(path + n - 4, ".hex");
}

static void load_lines(FILE *f)
{
	static uint8_t data[FUZZ_SIZE_MAX];
	char *line = NULL;
	size_t room = 0;
	ssize_t n;

	while ((n = getline(&line, &room, f)) > 0) {
		size_t bytes = (size_t)n / 2;

		FUZZ_ASSERT(bytes <= sizeof data);
		line[bytes * 2] = 0;
		FUZZ_ASSERT(td_get_hex(line, data, bytes));
		keep(data, bytes);
	}
	free(line);
}

static void load(const char *path)
{
	static uint8_t data[FUZZ_SIZE_MAX];
	struct dirent **e;
	int n = scandir(path, &e, NULL, alphasort);
	FILE *f;

	if (n >= 0) {
		for (int i = 0; i < n; free(e[i++])) {
			char name[4096];

			snprintf(name, sizeof name, "%s/%s", path, e[i]->d_name);
			if (e[i]->d_name[0] != '.')
				load(name);
		}
		free(e);
		return;
	}
	f = fopen(path, "r");
	if (!f) {
		fprintf(stderr, "%s: cannot read %s: %s\n", fuzz_name, path, strerror(errno));
		exit(1);
	}
	if (is_hex(path))
		load_lines(f);
	else
		keep(data, fread(data, 1, sizeof data, f));
	fclose(f);
}

static void mutate_and_run(void)
{
	static uint8_t data[FUZZ_SIZE_MAX];
	const struct fuzz_input *from = &kept[mutate_below(nkept)];
	size_t size = from->size;

	memcpy(data, from->data, size);
	size = mutate(data, size, &kept[mutate_below(nkept)]);
	fresh = false;
	run(data, size);
	if (fresh)
		keep(data, size);
}

static int by_size(const void *a, const void *b)
{
	size_t x = ((const struct fuzz_input *)a)->size, y = ((const struct fuzz_input *)b)->size;

	return (x > y) - (x < y);
}

static void write_line(FILE *f, const struct fuzz_input *in)
{
	for (size_t i = 0; i < in->size; i++)
		fprintf(f, "%02x", in->data[i]);
	fputc('\n', f);
}

static void write_needed(const char *path)
{
	FILE *lines = is_hex(path) ? fopen(path, "w") : NULL;
	unsigned n = 0;

	qsort(kept, nkept, sizeof *kept, by_size);
	forget_reached();
	for (unsigned i = 0; i < nkept; i++) {
		fresh = false;
		run(kept[i].data, kept[i].size);
		if (!fresh)
			continue;
		if (lines)
			write_line(lines, &kept[i]);
		else
			write_input(path, "", &kept[i]);
		n++;
	}
	if (lines)
		fclose(lines);
	printf("%s: %u of %u inputs reach all that is reached\n", fuzz_name, n, nkept);
}

struct options {
	unsigned long seconds, inputs;
	uint64_t seed;
	const char *needed; /* file or directory; NULL: none */
};

static int parse(int argc, char **argv, struct options *o)
{
	int c;

	while ((c = getopt(argc, argv, "t:n:s:o:k:")) != -1)
		switch (c) {
		case 't':
			o->seconds = strtoul(optarg, NULL, 10);
			break;
		case 'n':
			o->inputs = strtoul(optarg, NULL, 10);
			break;
		case 's':
			o->seed = strtoull(optarg, NULL, 10);
			break;
		case 'o':
			reports = optarg;
			break;
		case 'k':
			o->needed = optarg;
			break;
		default:
			fprintf(stderr,
				"usage: %s [-t SECONDS] [-n INPUTS] [-s SEED] [-o DIR] [-k FILE] "
				"[FILE | DIR]...\n",
				argv[0]);
			return -1;
		}
	return 0;
}

int main(int argc, char **argv)
{
	static uint8_t seed[FUZZ_SIZE_MAX];
	struct options o = {.seed = (uint64_t)time(NULL)};
	time_t start = time(NULL);
	unsigned long done = 0;
	size_t n;

	program = argv[0];
	if (parse(argc, argv, &o) < 0)
		return 2;
	printf("%s: seed %llu%s\n", fuzz_name, (unsigned long long)o.seed,
	       LED ? ", led by what is reached" : "");
	fflush(stdout);
	mutate_seed(o.seed);
	fuzz_start();
	watch_out();
	if (optind == argc || o.seconds || o.inputs)
		for (unsigned i = 0; (n = fuzz_seed(i, seed)) != 0; i++)
			keep(seed, n);
	while (optind < argc)
		load(argv[optind++]);
	for (; done < nkept; done++)
		run(kept[done].data, kept[done].size);
	if (!nkept)
		keep(seed, 0);
	while (o.inputs ? done < o.inputs : time(NULL) - start < (time_t)o.seconds) {
		mutate_and_run();
		done++;
	}
	look_for_leaks();
	if (o.needed)
		write_needed(o.needed);
	printf("%s: %lu inputs, %llu %s, no report\n", fuzz_name, done,
	       (unsigned long long)fuzz_count, fuzz_unit);
	return 0;
}
