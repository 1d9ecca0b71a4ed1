/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The whole tapdisk in one thread on a simulated disk: a guest on the memory transport's ring,
 * blkif, cache layer, chain, driver. And, after a cut, the driver alone on what is left.
 */
#ifndef CRASH_STACK_H
#define CRASH_STACK_H

#include "tests/crash/formats.h"
#include "tests/crash/judge.h"
#include "tests/crash/work.h"

struct run {
	/* what to do */
	const struct format *format;
	const struct template *template;
	const char *mode;
	uint64_t seed;
	const struct work *work;
	struct sim_fault fault;
	bool report_enospc;
	bool logged; /* a log of changed blocks is kept: the last of the template's files */

	/* what came of it */
	struct gtrace guest;
	struct flog log;
	uint32_t clock;  /* events */
	unsigned nfired; /* faults that happened */
	/* the first read that was wrong, or a request that was never answered (I6) */
	struct verdict read;
};

/* Opens the disk, has the guest do its work, closes.  -errno with text on stderr when the disk does
 * not even open. */
int stack_run(struct run *r);
void run_free(struct run *r);

/* A disk as a cut left it. */
struct left {
	const struct format *format;
	const struct template *template; /* names */
	const struct pages *files;
	const char *mode;
	const char *type; /* the leaf's; NULL: the format's */
	uint64_t seed;    /* of the data, and of the order of completions */
	uint64_t sectors;
	const uint64_t *sector; /* which to read, ascending */
	size_t n;
	uint32_t *tag;    /* out: what they read */
	uint32_t clock;   /* events of the recovery */
	struct flog *log; /* out: what the recovery did; may be NULL */
	char text[300];   /* out: why it does not open or read */
};

/* Opens it with our driver and reads: 0, or -errno with text. */
int stack_reopen(struct left *l);

void stack_verbose(void); /* the tapdisk's log on stderr */

#endif
