/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A driver against a plain array of bytes: random reads, writes, zeroes, discards, flushes,
 * reopenings, snapshots and merges, many at once and completed in any order, on a store that
 * insists on alignment.  SEED=n in the environment repeats a run; it is printed.
 */
#ifndef TESTS_MODEL_H
#define TESTS_MODEL_H

#include "td/block.h"
#include "tests/support/fault-io.h"

struct model {
	const char *type;             /* as a spec begins */
	uint64_t size;                /* bytes of the disk */
	uint32_t off_align;           /* of the store */
	unsigned flags;               /* TD_FILE_* */
	int steps, chain_max, reopen; /* reopen: once in so many steps */
	bool grows;                   /* the driver writes beyond the end of its file */
	const struct td_key *key;
	/* All on a fiber.  Image n, empty, in the file model_name(n), upon image n - 1 but for the
	 * first. */
	void (*make)(struct fault_io *f, int n, const void *arg);
	void (*closed)(struct fault_io *f, int n, const void *arg); /* looks at what is closed */
	/* what it holds goes into image n - 1; or NULL: never */
	void (*merge)(struct fault_io *f, int n, const void *arg);
	const void *arg;
};

void model_run(const struct model *w);
const char *model_name(int n); /* valid for some calls more */

#endif
