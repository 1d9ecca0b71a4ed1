/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Runs rounds of a target (bulk.h), counts, and says how it goes.
 *
 *   TARGET [-n COUNT] [-t SECONDS] [-s SEED] [-r ROUND] [-w THREADS] [-p SECONDS] [-v]
 *
 * Until it has counted COUNT, or for so many seconds; without both, one round.  -r: that round of
 * the seed alone.  -w: threads that scribble, of a target that has them; what they find no seed
 * repeats.  -p: seconds between lines of progress (60).  Exit status 0: nothing was found.
 *
 * A report is what tests/fuzz/README calls one, and also: descriptors, or memory, of which there
 * are ever more.  The line before it tells the command that runs the round again.
 */
#include <dirent.h>
#include <malloc.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "tests/fuzz/bulk.h"
#include "tests/fuzz/ends.h"

#define PATIENCE  600 /* s for a round, of a process that gets what time others leave */
#define LOOK      64  /* rounds between looks at descriptors and memory, */
#define WARM      256 /* after so many: caches have been filled */
#define LOOK_LEAK 16384
#define GROWTH    (8 << 20) /* bytes */

uint64_t bulk_state;
unsigned bulk_scribblers;
bool bulk_verbose;

static const char *program;
static uint64_t seed, round_no;
static volatile bool running;
static volatile sig_atomic_t patience;

#if defined __GNUC__ && !defined __clang__ && defined TD_FUZZ_LED
/* Nothing leads it, in a build that would. */
void __sanitizer_cov_trace_pc(void);
__attribute__((no_sanitize_coverage)) void __sanitizer_cov_trace_pc(void)
{
}
#endif

static void report(void)
{
	if (!running)
		return;
	running = false;
	fprintf(stderr, "%s: REPORT in round %llu of seed %llu; again: %s -s %llu -r %llu",
		bulk_name, (unsigned long long)round_no, (unsigned long long)seed, program,
		(unsigned long long)seed, (unsigned long long)round_no);
	if (bulk_scribblers)
		fprintf(stderr, " -w %u", bulk_scribblers);
	fputc('\n', stderr);
}

static void on_second(void)
{
	if (!running || --patience)
		return;
	fprintf(stderr, "%s: a round takes longer than %d s\n", bulk_name, PATIENCE);
	abort();
}

/* --- what grows --- */

#ifdef TD_SANITIZED
size_t __sanitizer_get_current_allocated_bytes(void) __attribute__((weak));
#endif

static size_t allocated(void)
{
#ifdef TD_SANITIZED
	return __sanitizer_get_current_allocated_bytes ? __sanitizer_get_current_allocated_bytes()
						       : 0;
#else
	return mallinfo2().uordblks;
#endif
}

static unsigned descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

static void look_at_growth(uint64_t rounds)
{
	static size_t bytes;
	static unsigned fds;
	size_t now = allocated();
	unsigned n = descriptors();

	if (rounds <= WARM || !fds) {
		bytes = now;
		fds = n;
	}
	if (n > fds) {
		fprintf(stderr, "%s: %u descriptors are open, and were %u\n", bulk_name, n, fds);
		abort();
	}
	if (now > bytes + GROWTH) {
		fprintf(stderr, "%s: %zu bytes are allocated, and were %zu\n", bulk_name, now,
			bytes);
		abort();
	}
	ends_check_size(bulk_name);
	if (rounds % LOOK_LEAK == 0 && ends_leaks())
		abort();
}

/* --- the loop --- */

static void run(uint64_t r)
{
	uint64_t z = seed * 0x9e3779b97f4a7c15 + r * 0xbf58476d1ce4e5b9 + 1;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	bulk_state = (z ^ z >> 31) | 1;
	round_no = r;
	patience = PATIENCE;
	running = true;
	bulk_round();
}

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void say(uint64_t rounds, double took)
{
	printf("%s: %llu %s, %llu rounds of seed %llu, %.0f s, %.0f a second\n", bulk_name,
	       (unsigned long long)bulk_rows[0].n, bulk_rows[0].what, (unsigned long long)rounds,
	       (unsigned long long)seed, took, (double)bulk_rows[0].n / (took > 0 ? took : 1));
	fflush(stdout);
}

static void say_all(void)
{
	for (const struct bulk_row *r = bulk_rows; r->what; r++)
		printf("  %14llu  %s\n", (unsigned long long)r->n, r->what);
	printf("%s: no report\n", bulk_name);
}

int main(int argc, char **argv)
{
	uint64_t count = 0, one = 0, rounds = 0;
	unsigned long seconds = 0, every = 60;
	bool alone = false;
	double start, told;
	int c;

	program = argv[0];
	seed = (uint64_t)time(NULL);
	while ((c = getopt(argc, argv, "n:t:s:r:w:p:v")) != -1) {
		uint64_t v = optarg ? strtoull(optarg, NULL, 10) : 0;

		switch (c) {
		case 'n':
			count = v;
			break;
		case 't':
			seconds = v;
			break;
		case 's':
			seed = v;
			break;
		case 'r':
			one = v;
			alone = true;
			break;
		case 'w':
			bulk_scribblers = (unsigned)v;
			break;
		case 'p':
			every = v;
			break;
		case 'v':
			bulk_verbose = true;
			break;
		default:
			fprintf(stderr,
				"usage: %s [-n COUNT] [-t SECONDS] [-s SEED] [-r ROUND] "
				"[-w THREADS] [-p SECONDS] [-v]\n",
				program);
			return 2;
		}
	}
	bulk_start();
	ends_watch(report);
	ends_each_second(on_second);
	start = told = now_s();
	do {
		run(alone ? one : rounds);
		rounds++;
		if (rounds % LOOK == 0)
			look_at_growth(rounds);
		if (now_s() - told >= (double)every) {
			told = now_s();
			say(rounds, told - start);
		}
	} while (!alone && (bulk_rows[0].n < count || now_s() - start < (double)seconds));
	if (ends_leaks())
		abort();
	running = false;
	say(rounds, now_s() - start);
	say_all();
	return 0;
}
