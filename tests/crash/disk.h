/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What may be on the disk after a power cut.
 *
 * D1 An operation that had completed before the begin of an fdatasync that completed is durable.
 * D2 A write that was asked to be durable is, when it has completed.
 * D3 Of every other operation, completed or under way, each unit (512 bytes, or 4096) survives or
 *    not, on its own.
 * D4 A file's size is one between what was durable and what it was at the cut; what survived
 *    beyond it is gone, what did not survive within it is zeroes.  A block device has its size
 *    always.
 * D5 What a failed fdatasync was to make durable stays in doubt for good: no later fdatasync
 *    makes up for it.  A durable write through the page cache that fails is as bad: the kernel
 *    tells of a failed write-back once, and it has told the wrong one.
 */
#ifndef CRASH_DISK_H
#define CRASH_DISK_H

#include "tests/crash/pages.h"
#include "tests/crash/rng.h"
#include "tests/crash/trace.h"

#define DISK_FILES 6

/* completed, and not folded into the base */
struct pending {
	uint32_t op;
	bool durable, doubtful;
};

struct disk_file {
	struct pages base; /* what is durable for sure, up to the first pending operation */
	bool blockdev;
	struct pending *pending; /* in order of completion */
	size_t npending;
};

struct disk {
	const struct flog *log;
	size_t next;   /* event */
	unsigned unit; /* bytes */
	unsigned nfiles;
	struct disk_file file[DISK_FILES];
	uint32_t *inflight; /* operations begun and not ended, but for fdatasync */
	size_t ninflight;
};

/* The files as they were, durable, before the log's first event; borrowed. */
void disk_init(struct disk *d, const struct flog *log, unsigned unit, const struct pages *files,
	       const bool *blockdev, unsigned n);
void disk_free(struct disk *d);

/* All events below `at' have happened; goes forwards only. */
void disk_to(struct disk *d, uint32_t at);

/* How the cut decides; NONE to ALL are the corners, OP has whole operations survive, MASK takes bit
 * i for the i-th unit in doubt. */
struct fate {
	enum { FATE_NONE, FATE_ALL, FATE_UNITS, FATE_OPS, FATE_MASK } how;
	unsigned percent; /* UNITS and OPS: that survive */
	uint64_t mask;
	struct rng rng;
	unsigned ndecided; /* out: units in doubt */
};

/* One possible disk, into out[0..nfiles), to be freed; it borrows from d, which must stay until
 * then. */
void disk_build(const struct disk *d, struct fate *fate, struct pages *out);

#endif
