/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * crashlab: cuts the power of one format under one cache mode, and judges.  `make check-crash' runs
 * it over all of them; see tests/crash/README.
 *
 * Its last line is "RESULT" and, separated by tabs, format, mode, runs, cuts, faults, violations,
 * cuts that qemu-img has looked at too, the last seed or sequence, and a digest of all that
 * happened, which the same call gives again. Exit code: 0 without a violation, 1 with one, 2 for a
 * wrong call, 3 when the tapdisk crashed or hung, 77 when there is nothing to test it with.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "td/cache.h"
#include "td/log.h"
#include "tests/crash/campaign.h"
#include "tests/crash/clock.h"

#define SPIN 60 /* s of CPU time in one run, after which it spins */

static const int signals[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGPROF};

static struct campaign c = {.cuts_per_run = 24, .only_cut = -1};

static const struct option options[] = {
	{"format", required_argument, NULL, 'f'},
	{"mode", required_argument, NULL, 'm'},
	{"seed", required_argument, NULL, 's'},
	{"sequence", required_argument, NULL, 'q'},
	{"faults", required_argument, NULL, 'F'},
	{"fault", required_argument, NULL, 'k'},
	{"cuts", required_argument, NULL, 'c'},
	{"cut", required_argument, NULL, 'C'},
	{"qemu-every", required_argument, NULL, 'Q'},
	{"stop", no_argument, NULL, 'S'},
	{"report-enospc", no_argument, NULL, 'e'},
	{"verbose", no_argument, NULL, 'v'},
	{"list", no_argument, NULL, 'l'},
	{0},
};

static void usage(void)
{
	fputs("usage: crashlab --list\n"
	      "       crashlab --format F --mode M (--seed | --sequence | --faults) FROM[-TO] "
	      "[--cuts N a run] [--qemu-every N] [--stop]\n"
	      "       crashlab --format F --mode M (--seed | --sequence) N [--cut N] [--fault "
	      "KIND:K[:TIMES]] [--report-enospc] [--verbose]\n",
	      stderr);
	exit(2);
}

static int result(char *buf, size_t len)
{
	return snprintf(buf, len, "RESULT\t%s\t%s\t%llu\t%llu\t%llu\t%llu\t%llu\t%llu\t%016llx\n",
			c.format->name, c.mode, (unsigned long long)c.runs,
			(unsigned long long)c.cuts, (unsigned long long)c.faults,
			(unsigned long long)c.violations, (unsigned long long)c.qemu,
			(unsigned long long)c.at, (unsigned long long)c.digest);
}

/* I6.  What is at work is told, and that is all that a process in this state can do: its heap may
 * be what is broken. */
static void on_crash(int sig)
{
	static char text[1024], replay[256];
	int n;

	for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
		signal(signals[i], SIG_DFL);
	campaign_replay(&c, replay, sizeof replay);
	c.violations++;
	n = snprintf(text, sizeof text,
		     "VIOLATION I6: %s, cache=%s, %s %llu: the tapdisk %s\n  replay: %s\n",
		     c.format->name, c.mode, c.what, (unsigned long long)c.at,
		     sig == SIGPROF ? "spins" : "crashed", replay);
	n += result(text + n, sizeof text - (size_t)n);
	if (write(1, text, (size_t)n) < 0)
		_exit(4);
	_exit(3);
}

static void watch(void)
{
	for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
		signal(signals[i], on_crash);
}

static void restart_watch(void)
{
	struct itimerval t = {.it_value.tv_sec = SPIN};

	setitimer(ITIMER_PROF, &t, NULL);
}

static void list(void)
{
	for (const struct format *f = formats; f->name; f++)
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

static void parse_fault(const char *text)
{
	for (unsigned i = 1; i < SIM_IMAGE_KINDS; i++) {
		size_t n = strlen(fault_names[i]);

		c.fault.times = 1;
		c.fault.kind = i;
		if (!strncmp(text, fault_names[i], n) &&
		    sscanf(text + n, ":%u:%u", &c.fault.k, &c.fault.times) >= 1)
			return;
	}
	usage();
}

static void parse(int argc, char **argv, char *kind, uint64_t *from, uint64_t *to)
{
	int o;

	while ((o = getopt_long(argc, argv, "v", options, NULL)) != -1)
		switch (o) {
		case 'f':
			c.format = format_find(optarg);
			break;
		case 'm':
			c.mode = td_cache_mode_find(optarg) ? optarg : NULL;
			break;
		case 's':
		case 'q':
		case 'F':
			*kind = (char)o;
			range(optarg, from, to);
			break;
		case 'k':
			parse_fault(optarg);
			break;
		case 'c':
			c.cuts_per_run = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'C':
			c.only_cut = strtol(optarg, NULL, 10);
			break;
		case 'Q':
			c.qemu_every = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'S':
			c.stop = true;
			break;
		case 'e':
			c.report_enospc = true;
			break;
		case 'v':
			c.verbose = true;
			break;
		case 'l':
			list();
			break;
		default:
			usage();
		}
	if (!c.format || !c.mode || !*kind || optind != argc || !c.cuts_per_run ||
	    c.cuts_per_run > 1000)
		usage();
}

int main(int argc, char **argv)
{
	uint64_t from = 0, to = 0;
	char kind = 0, line[256];
	bool go_on = true;

	/* for the commands of the table of formats */
	if (argc == 5 && !strcmp(argv[1], "--pattern"))
		return format_pattern(argv[2], strtoull(argv[3], NULL, 10),
				      strtoull(argv[4], NULL, 10)) != 0;
	parse(argc, argv, &kind, &from, &to);
	td_log_level(-1);
	if (c.verbose)
		stack_verbose();
	if (!format_has_driver(c.format)) {
		fprintf(stderr, "%s: this build has no driver for it\n", c.format->name);
		return 77;
	}
	if (format_template(c.format, &c.template) < 0) {
		fprintf(stderr, "%s: its image cannot be made; a tool is missing?\n",
			c.format->name);
		return 77;
	}
	c.changes = template_add_log(&c.template, c.format->sectors);
	watch();
	for (uint64_t n = from; n <= to && go_on; n++) {
		restart_watch();
		go_on = kind == 'q'    ? campaign_exhaustive(&c, n)
			: kind == 'F'  ? campaign_faults(&c, n)
			: c.fault.kind ? campaign_one_fault(&c, n)
				       : campaign_random(&c, n);
	}
	result(line, sizeof line);
	fputs(line, stdout);
	template_free(&c.template);
	return c.dead ? 3 : c.violations != 0;
}
