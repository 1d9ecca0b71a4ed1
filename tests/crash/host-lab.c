/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hostlab: histories of a simulated host, each ended by power cuts, and judged; see
 * tests/crash/README.
 *
 * Its last line is "RESULT" and, separated by tabs, format, mode, histories, cuts, deaths,
 * successors, upgrades, taken back, pauses, refusals, faults, violations, the last seed, and a
 * digest of all that happened. Exit code: 0 without a violation, 1 with one, 2 for a wrong call, 3
 * when the tapdisk crashed or hung, 77 when there is nothing to test it with.
 */
#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "lib/ctl-client.h"
#include "td/cache.h"
#include "td/log.h"
#include "tests/crash/clock.h"
#include "tests/crash/disk.h"
#include "tests/crash/host.h"
#include "tests/crash/process.h"
#include "tests/crash/stack.h"

#define SPIN     60 /* s of CPU time in one history, after which it spins */
#define CUTS_MAX 64
#define SHOWN    3
#define SAMPLE   61 /* one of so many sectors is looked at, whether anybody has written it or not */

struct lab {
	const struct format *format;
	struct template template;
	const char *mode;
	unsigned cuts_per_run;
	bool stop, verbose, shrink, dead;
	const char *parts, *dir, *not ;
	uint64_t at, runs, cuts, violations, digest;
	uint64_t deaths, revived, upgrades, taken_back, pauses, refused, faults;
	struct history_disk disk;
};

static LAB struct lab L = {0};

static const int signals[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGPROF};

static void replay(char *buf, size_t len, const char *parts)
{
	snprintf(buf, len,
		 "gdb --args tests/crash/hostlab --format %s --mode %s --seed %llu%s%s%s%s",
		 L.format->name, L.mode, (unsigned long long)L.at, L.not ? " --not " : "",
		 L.not ? L.not : "", *parts ? " --without " : "", parts);
}

static int result(char *buf, size_t len)
{
	return snprintf(buf, len,
			"RESULT\t%s\t%s\t%llu\t%llu\t%llu\t%llu\t%llu\t%llu\t%llu\t%llu\t%llu\t%"
			"llu\t%llu\t%016llx\n",
			L.format->name, L.mode, (unsigned long long)L.runs,
			(unsigned long long)L.cuts, (unsigned long long)L.deaths,
			(unsigned long long)L.revived, (unsigned long long)L.upgrades,
			(unsigned long long)L.taken_back, (unsigned long long)L.pauses,
			(unsigned long long)L.refused, (unsigned long long)L.faults,
			(unsigned long long)L.violations, (unsigned long long)L.at,
			(unsigned long long)L.digest);
}

static void remove_dir(void)
{
	char cmd[300];

	snprintf(cmd, sizeof cmd, "rm -rf %s", L.dir);
	if (system(cmd) < 0)
		return;
}

static void on_crash(int sig)
{
	static LAB char text[2048] = "", again[512] = "";
	int n;

	for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
		signal(signals[i], SIG_DFL);
	process_lab();
	replay(again, sizeof again, L.parts ? L.parts : "");
	L.violations++;
	n = snprintf(text, sizeof text,
		     "VIOLATION I6: %s, cache=%s, seed %llu: the tapdisk %s\n  replay: %s\n",
		     L.format->name, L.mode, (unsigned long long)L.at,
		     sig == SIGPROF ? "spins" : "crashed", again);
	n += result(text + n, sizeof text - (size_t)n);
	if (write(1, text, (size_t)n) < 0)
		_exit(4);
	remove_dir();
	_exit(3);
}

static void watch(void)
{
	static LAB char stack[65536] = "";
	const stack_t alt = {.ss_sp = stack, .ss_size = sizeof stack};
	struct sigaction a = {.sa_handler = on_crash, .sa_flags = SA_ONSTACK};

	sigaltstack(&alt, NULL);
	for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
		sigaction(signals[i], &a, NULL);
}

static void restart_watch(void)
{
	struct itimerval t = {.it_value.tv_sec = SPIN};

	setitimer(ITIMER_PROF, &t, NULL);
}

/* --- cuts --- */

struct exam {
	struct host_run *r;
	struct judge *judge;
	const uint64_t *sector;
	uint32_t *tag;
	size_t n;
	struct template template; /* as it is; examine() has the leaf first */
	struct left left;
	int rc;
};

static void reopen_main(void *arg)
{
	struct exam *e = arg;

	e->rc = stack_reopen(&e->left);
}

static void blame(struct verdict *v, const char *rule, const char *text)
{
	v->rule = rule;
	v->sector = 0;
	snprintf(v->text, sizeof v->text, "%s", text);
}

#define EXAMINER 0

/* The disk's size at that event. */
static uint64_t sectors_at(const struct host_run *r, uint32_t at)
{
	uint64_t n = L.format->sectors;

	for (unsigned i = 0; i < r->ngrown; i++)
		n += r->grown[i] < at ? r->grows : 0;
	return n;
}

static void examine(struct exam *e, uint32_t at, const struct pages *files, struct verdict *v)
{
	struct pages ordered[SIM_FILES];
	struct template t = e->template;
	unsigned leaf = host_leaf_at(e->r, at);
	char text[200], name[sizeof t.name[0]];

	v->rule = NULL;
	L.cuts++;
	if (host_check(e->r, at, leaf, files, text, sizeof text)) {
		blame(v, "I5", text);
		return;
	}
	if (host_changed_check(e->r, at, files, text, sizeof text)) {
		blame(v, "I10", text);
		return;
	}
	memcpy(ordered, files, sizeof ordered);
	for (unsigned i = 0; i < t.n; i++)
		if (host_is_gone(e->r, i, at))
			strcpy(t.name[i], "/sim/gone");
	ordered[0] = files[leaf];
	ordered[leaf] = files[0];
	memcpy(name, t.name[0], sizeof name);
	memcpy(t.name[0], t.name[leaf], sizeof name);
	memcpy(t.name[leaf], name, sizeof name);
	e->left = (struct left){.format = L.format,
				.template = &t,
				.type = host_type_of(L.format, &files[leaf]),
				.files = ordered,
				.mode = L.mode,
				.seed = e->r->guest.seed,
				.sectors = sectors_at(e->r, at),
				.sector = e->sector,
				.n = e->n,
				.tag = e->tag};
	while (e->left.n && e->sector[e->left.n - 1] >= e->left.sectors)
		e->left.n--;
	process_new(EXAMINER);
	e->rc = -EIO;
	process_run(EXAMINER, reopen_main, e);
	process_end(EXAMINER);
	if (e->rc < 0)
		blame(v, strstr(e->left.text, "hangs") ? "I6" : "I5", e->left.text);
	else
		judge_cut(e->judge, at, e->sector, e->tag, e->left.n, v);
}

struct cut {
	uint32_t at;
	unsigned i;
};

static int by_value(const void *a, const void *b)
{
	const struct cut *x = a, *y = b;

	return x->at < y->at ? -1 : x->at > y->at;
}

/* The first is the end; the i-th is the same however many there are. */
static uint32_t pick_cut(const struct host_run *r, unsigned i)
{
	struct rng rng = rng_seed(r->history->seed * CUTS_MAX + i, 'c');
	const struct gop *op = r->guest.nops ? &r->guest.op[rng_below(&rng, r->guest.nops)] : NULL;
	uint32_t at = !i ? r->end
		      : op && op->ack < r->end && rng_chance(&rng, 50)
			      ? op->ack + 1
			      : (uint32_t)rng_below(&rng, r->end + 1);

	for (unsigned k = 0; k < r->ngrown; k++)
		at += at == r->grown[k];
	return at;
}

static struct fate draw_fate(const struct host_run *run, unsigned i)
{
	static const unsigned percents[] = {5, 30, 50, 70, 95};
	struct rng r = rng_seed(run->history->seed * CUTS_MAX + i, 'f');
	struct fate f = {.percent = percents[rng_below(&r, 5)], .rng = rng_seed(rng_next(&r), 'f')};
	unsigned dice = (unsigned)rng_below(&r, 10);

	f.how = dice < 3 ? FATE_NONE : dice == 3 ? FATE_ALL : dice < 6 ? FATE_UNITS : FATE_OPS;
	return f;
}

/* Those, and some of all others. */
static uint64_t *with_others(const uint64_t *sector, size_t *n)
{
	uint64_t *out = malloc((*n + L.format->sectors / SAMPLE + 1) * sizeof *out);
	size_t i = 0, to = 0;

	for (uint64_t s = 0; s < L.format->sectors; s += SAMPLE) {
		while (i < *n && sector[i] < s)
			out[to++] = sector[i++];
		if (i == *n || sector[i] != s)
			out[to++] = s;
	}
	while (i < *n)
		out[to++] = sector[i++];
	*n = to;
	return out;
}

static void cut(struct host_run *r, unsigned ncuts)
{
	struct exam e = {.r = r, .judge = judge_new(&r->guest), .template = L.template};
	uint64_t *more = NULL;
	struct cut at[CUTS_MAX];
	struct disk d;

	e.sector = judge_sectors(e.judge, &e.n);
	if (host_commits(L.format)) /* what nobody has written is moved as well */
		e.sector = more = with_others(e.sector, &e.n);
	e.tag = malloc((e.n + 1) * sizeof *e.tag);
	for (unsigned i = 0; i < ncuts; i++)
		at[i] = (struct cut){pick_cut(r, i), i};
	qsort(at, ncuts, sizeof *at, by_value);
	disk_init(&d, &r->log, r->history->seed % 2 ? 512 : 4096, L.template.file,
		  L.template.blockdev, L.template.n);
	for (unsigned i = 0; i < ncuts && !r->bad.rule; i++) {
		struct pages out[DISK_FILES];
		struct fate fate = draw_fate(r, at[i].i);
		struct verdict v;

		if (!host_promised(r, at[i].at))
			continue;
		disk_to(&d, at[i].at);
		disk_build(&d, &fate, out);
		examine(&e, at[i].at, out, &v);
		for (unsigned k = 0; k < d.nfiles; k++)
			pages_free(&out[k]);
		if (v.rule) {
			r->bad = v;
			r->bad_at = at[i].at;
		}
	}
	disk_free(&d);
	free(e.tag);
	free(more);
	judge_free(e.judge);
}

/* --- one history --- */

static void live(const struct history *h, unsigned ncuts, struct host_run *r, bool verbose)
{
	*r = (struct host_run){.format = L.format,
			       .template = &L.template,
			       .mode = L.mode,
			       .history = h,
			       .verbose = verbose};
	restart_watch();
	clock_reset();
	host_run(r);
	if (!r->bad.rule)
		cut(r, ncuts);
}

/* Does it still go wrong, in the same way? */
static bool goes_wrong(const struct history *h, const char *rule)
{
	struct host_run r;
	bool wrong;

	live(h, 12, &r, false);
	wrong = r.bad.rule && r.bad.rule[0] == rule[0] && r.bad.rule[1] == rule[1];
	host_run_free(&r);
	return wrong;
}

/* Leaves out as much as can be, by halves, quarters and so on, for as long as anything can. */
static void shrink(struct history *h, const char *rule)
{
	for (bool less = true; less;) {
		less = false;
		for (unsigned size = h->n / 2 ? h->n / 2 : 1; size; size /= 2)
			for (unsigned from = 0; from < h->n; from += size) {
				struct history try = *h;
				bool any = false;

				for (unsigned i = from; i < from + size && i < h->n; i++) {
					any |= !try.left_out[i];
					try.left_out[i] = true;
				}
				if (any && goes_wrong(&try, rule)) {
					*h = try;
					less = true;
				}
			}
	}
	while (h->n && h->left_out[h->n - 1])
		h->n--;
}

static void print_line(const char *text, void *arg)
{
	printf("    %s\n", text);
}

/* The operations on files that carried this sector's data, and the syncs. */
static void print_file_history(const struct host_run *r, uint64_t sector, uint32_t at)
{
	for (size_t i = 0; i < r->log.nops && r->log.op[i].begin < at; i++) {
		const struct fop *op = &r->log.op[i];
		char what[64];

		if (op->kind == FOP_SYNC && op->end < at)
			printf("    file %u: fdatasync, from %u to %u%s\n", op->file, op->begin,
			       op->end, op->res < 0 ? " (failed)" : "");
		for (uint64_t o = 0; op->kind == FOP_WRITE && op->data && o + SECTOR <= op->len;
		     o += SECTOR) {
			uint32_t tag = sector_tag(op->data + o, r->guest.seed, sector);

			if (tag != TAG_TORN && tag != TAG_ZERO && tag != TAG_FILLED)
				printf("    file %u: write%s at byte %llu of %s, begun at %u, %s\n",
				       op->file, op->dsync ? " (durable)" : "",
				       (unsigned long long)(op->off + o),
				       judge_tag(tag, what, sizeof what), op->begin,
				       op->end < at ? op->res < 0 ? "failed" : "ended"
						    : "under way");
		}
	}
}

static void tell(const struct history *h, const struct host_run *r)
{
	char parts[400], again[700], words[300];
	struct history full = *h;

	full.n = HISTORY_MAX; /* those that were cut off at the end are left out, too */
	for (unsigned i = h->n; i < HISTORY_MAX; i++)
		full.left_out[i] = true;
	history_parts(&full, parts, sizeof parts);
	replay(again, sizeof again, parts);
	printf("VIOLATION %s: %s, cache=%s, seed %llu, at event %u, sector %llu: %s\n", r->bad.rule,
	       L.format->name, L.mode, (unsigned long long)L.at, r->bad_at,
	       (unsigned long long)r->bad.sector, r->bad.text);
	printf("    %u rings, %u threads beside the main one%s; a log of %u bytes; the image is "
	       "opened in mode %s; then:\n",
	       h->rings, h->lanes, h->persistent ? ", persistent grants" : "", h->redo_bytes,
	       L.mode);
	for (unsigned i = 0; i < h->n; i++) {
		if (h->left_out[i])
			continue;
		history_words(&h->ev[i], words, sizeof words);
		printf("    - %s\n", words);
	}
	if (r->bad.sector || r->bad.rule[0] == 'R' || !strncmp(r->bad.rule, "I1", 2))
		judge_history(&r->guest, r->bad.sector, r->bad_at + 1, print_line, NULL);
	if (!strncmp(r->bad.rule, "I", 1) && r->bad.rule[1] < '5')
		print_file_history(r, r->bad.sector, r->bad_at);
	printf("  replay: %s\n", again);
	fflush(stdout);
}

static void violation(struct history *h, const char *rule)
{
	struct host_run r;

	if (L.violations++ >= SHOWN)
		return;
	if (L.shrink)
		shrink(h, rule);
	live(h, 12, &r, L.verbose);
	if (r.bad.rule)
		tell(h, &r);
	else
		printf("VIOLATION %s: %s, cache=%s, seed %llu: it does not happen twice\n", rule,
		       L.format->name, L.mode, (unsigned long long)L.at);
	host_run_free(&r);
}

static void count(const struct host_run *r)
{
	uint64_t h = L.digest;

	for (size_t i = 0; i < r->guest.nops; i++)
		h = mix64(h ^ r->guest.op[i].issue ^ (uint64_t)r->guest.op[i].ack << 32 ^
			  (uint64_t)(unsigned)r->guest.op[i].status << 20);
	for (size_t i = 0; i < r->log.nops; i++)
		h = mix64(h ^ r->log.op[i].begin ^ (uint64_t)r->log.op[i].end << 32 ^
			  r->log.op[i].off ^ r->log.op[i].len << 20);
	L.digest = h;
	L.runs++;
	L.deaths += r->n.deaths;
	L.revived += r->n.revived;
	L.upgrades += r->n.upgrades;
	L.taken_back += r->n.taken_back;
	L.pauses += r->n.pauses;
	L.refused += r->n.refused;
	L.faults += r->n.faults;
}

static bool one(uint64_t seed)
{
	struct history h;
	struct host_run r;
	const char *rule;

	L.at = seed;
	history_draw(&h, &L.disk, seed);
	if (L.parts && !history_leave_out(&h, L.parts)) {
		fprintf(stderr, "--without %s: numbers and commas\n", L.parts);
		exit(2);
	}
	live(&h, L.parts ? 12 : L.cuts_per_run, &r, L.verbose);
	count(&r);
	rule = r.bad.rule;
	host_run_free(&r);
	if (rule)
		violation(&h, rule);
	return !L.dead && !(rule && L.stop);
}

/* --- the call --- */

static const struct option options[] = {
	{"format", required_argument, NULL, 'f'},
	{"mode", required_argument, NULL, 'm'},
	{"seed", required_argument, NULL, 's'},
	{"cuts", required_argument, NULL, 'c'},
	{"without", required_argument, NULL, 'w'},
	{"stop", no_argument, NULL, 'S'},
	{"no-shrink", no_argument, NULL, 'n'},
	{"verbose", no_argument, NULL, 'v'},
	{"list", no_argument, NULL, 'l'},
	{"not", required_argument, NULL, 'N'},
	{0},
};

static void usage(void)
{
	fputs("usage: hostlab --list\n"
	      "       hostlab --format F --mode M --seed FROM[-TO] [--cuts N a history] [--stop] "
	      "[--no-shrink] [--not KIND,KIND]\n"
	      "       hostlab --format F --mode M --seed N --without EVENTS [--verbose]\n",
	      stderr);
	exit(2);
}

static void list(void)
{
	for (const struct format *f = formats_host; f->name; f++)
		printf("%s\t%s\n", f->name, format_has_driver(f) ? "present" : "missing");
	exit(0);
}

static void range(const char *text, uint64_t *from, uint64_t *to)
{
	char *end;

	*from = *to = strtoull(text, &end, 10);
	if (*end == '-')
		*to = strtoull(end + 1, &end, 10);
	if (*end || end == text || *to < *from)
		usage();
}

static void parse(int argc, char **argv, uint64_t *from, uint64_t *to)
{
	bool seed = false;
	int o;

	while ((o = getopt_long(argc, argv, "v", options, NULL)) != -1)
		switch (o) {
		case 'f':
			L.format = format_find_host(optarg);
			break;
		case 'm':
			L.mode = td_cache_mode_find(optarg) ? optarg : NULL;
			break;
		case 's':
			range(optarg, from, to);
			seed = true;
			break;
		case 'c':
			L.cuts_per_run = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'w':
			L.parts = optarg;
			break;
		case 'N':
			L.not = optarg;
			break;
		case 'S':
			L.stop = true;
			break;
		case 'n':
			L.shrink = false;
			break;
		case 'v':
			L.verbose = true;
			break;
		case 'l':
			list();
			break;
		default:
			usage();
		}
	if (!L.format || !L.mode || !seed || optind != argc || !L.cuts_per_run ||
	    L.cuts_per_run > CUTS_MAX)
		usage();
}

static void control_dir(void)
{
	static LAB char dir[] = "/dev/shm/hostlab.XXXXXX";
	static LAB char more[64] = "";

	if (!mkdtemp(dir) && !mkdtemp(strcpy(dir, "/tmp/hostlab.XXXXXX"))) {
		perror(dir);
		exit(2);
	}
	L.dir = dir;
	snprintf(more, sizeof more, "%s/tapdisk", dir);
	mkdir(more, 0700);
	setenv("TAPDISK_CONTROL_DIR", dir, 1);
	snprintf(more, sizeof more, "%s/conf", dir);
	setenv("TAPDISK_CONF", more, 1);
	fclose(fopen(more, "w"));
}

/* Is it one of those, with commas between? */
static bool named(const char *list, const char *name)
{
	size_t len = strlen(name);

	for (const char *p = list; (p = strstr(p, name)); p += len)
		if ((p == list || p[-1] == ',') && (!p[len] || p[len] == ','))
			return true;
	return false;
}

static struct history_disk describe(void)
{
	struct history_disk d = {
		.disk = {.sectors = L.format->sectors, .edge = L.format->edge, .extras = true},
		.raw = !strcmp(L.format->type, "aio"),
		.commits = L.format->commits != COMMITS_NONE,
		.joins = L.format->joins != JOINS_NOT};

	/* who closes such a disk opens it with a new leaf, and nobody else has its image */
	d.never[H_CREATE] = d.never[H_OTHER] = d.never[H_LIST] = d.never[H_TAMPER] =
		d.never[H_REOPEN] = d.joins;
	d.grows = d.raw && !d.joins && !L.format->blockdev && L.format->align == 512;
	for (unsigned k = 0; L.not &&k < H_KINDS; k++)
		d.never[k] |= named(L.not, history_kinds[k]);
	for (unsigned i = 0; i < L.template.n; i++)
		d.snapshot |= strstr(L.template.name[i], "/snap") != NULL;
	return d;
}

int main(int argc, char **argv)
{
	uint64_t from = 0, to = 0;
	char line[400];
	bool go_on = true;
	int rc;

	/* for the commands of the table of formats */
	if (argc == 5 && !strcmp(argv[1], "--pattern"))
		return format_pattern(argv[2], strtoull(argv[3], NULL, 10),
				      strtoull(argv[4], NULL, 10)) != 0;
	L.cuts_per_run = 3;
	L.shrink = true;
	setvbuf(stdout, NULL, _IOLBF, 0);
	parse(argc, argv, &from, &to);
	td_log_level(-1);
	if (L.verbose)
		stack_verbose();
	if (!format_has_driver(L.format)) {
		fprintf(stderr, "%s: this build has no driver for it\n", L.format->name);
		return 77;
	}
	if (format_template(L.format, &L.template) < 0) {
		fprintf(stderr, "%s: its image cannot be made; a tool is missing?\n",
			L.format->name);
		return 77;
	}
	L.disk = describe();
	host_changed_add(&L.template, L.format);
	host_mirror_add(&L.template, L.format);
	control_dir();
	td_ctl_dir();
	tzset();
	watch();
	host_init();
	for (uint64_t n = from; n <= to && go_on; n++)
		go_on = one(n);
	result(line, sizeof line);
	fputs(line, stdout);
	fflush(stdout);
	remove_dir();
	rc = L.dead ? 3 : L.violations != 0;
	_exit(rc);
}
