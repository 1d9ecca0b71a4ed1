/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Runs, cuts and verdicts: random, exhaustive, and with faults. */
#ifndef CRASH_CAMPAIGN_H
#define CRASH_CAMPAIGN_H

#include "tests/crash/stack.h"

struct campaign {
	const struct format *format;
	struct template template;
	int changes; /* of these, the log of changed blocks; -1: none */
	const char *mode;
	unsigned cuts_per_run;
	unsigned qemu_every; /* cuts; 0: never */
	bool stop;           /* at the first violation */
	long only_cut;       /* replay: examine this one alone; -1: all */
	bool verbose;

	/* one run, for a replay: */
	struct sim_fault fault;
	bool report_enospc;

	/* counted */
	uint64_t runs, cuts, faults, violations, qemu;
	uint64_t digest;  /* of all that happened: the same seeds give the same */
	bool dead;        /* a hang: this process cannot go on */
	uint64_t at;      /* the seed or sequence at work, for the handler of crashes */
	const char *what; /* "seed", "sequence" */
};

/* Each takes a seed (or a number of a sequence) and adds to the counters.  False: stop. */
bool campaign_random(struct campaign *c, uint64_t seed);
bool campaign_exhaustive(struct campaign *c, uint64_t n); /* n below 2 * WORK_SEQUENCES */
bool campaign_faults(struct campaign *c, uint64_t seed);
bool campaign_one_fault(struct campaign *c, uint64_t seed);

/* The command that replays what is at work. */
void campaign_replay(const struct campaign *c, char *buf, size_t len);

extern const char *const fault_names[SIM_IMAGE_KINDS];

#endif
