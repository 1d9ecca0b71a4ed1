/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The simulated disk: an I/O engine in memory that logs what it is asked.  Nothing happens by
 * itself: an operation completes when the lab says so, in an order that the lab's seed chooses.
 *
 * Of direct I/O it insists on what the kernel insists on; a misaligned operation fails with EINVAL.
 */
#ifndef CRASH_SIM_H
#define CRASH_SIM_H

#include "tests/crash/pages.h"
#include "tests/crash/rng.h"
#include "tests/crash/trace.h"
#include "td/io.h"

#define SIM_FILES     6
#define SIM_PROCESSES 3 /* that may have files open */

enum sim_fault_kind {
	SIM_NONE,
	SIM_EIO,
	SIM_ENOSPC,
	SIM_EINTR,
	SIM_EAGAIN,
	SIM_SHORT_READ,
	SIM_SHORT_WRITE,
	SIM_ESTALE,
	SIM_SYNC,
	SIM_OPEN,
	SIM_SIZE,
	SIM_TRUNCATE,
	SIM_TRUNCATE_SPACE,
	SIM_IMAGE_KINDS, /* those of a process without records */
	SIM_RECORD = SIM_IMAGE_KINDS,
	SIM_KINDS
};

/* The k-th call that the kind is about fails (1: the first), and the times - 1 calls after it. */
struct sim_fault {
	enum sim_fault_kind kind;
	uint32_t k, times;
};

struct sim_file {
	char name[64];
	struct pages now;
	bool blockdev;
	unsigned openers[SIM_PROCESSES];
	bool written[SIM_PROCESSES]; /* one of them writes */
	bool beneath[SIM_PROCESSES]; /* one of them does, what no child sees (td/io.h) */
	bool claimed[SIM_PROCESSES]; /* and lets no other come to read it (TD_FILE_CLAIM) */
};

struct sim {
	struct td_io *io;
	struct sim_file file[SIM_FILES];
	unsigned nfiles;
	uint32_t off_align; /* bytes, of direct I/O */
	uint32_t *clock;    /* the run's events */
	struct flog *log;   /* NULL: nothing is logged */
	struct rng rng;
	unsigned who;                           /* the process that runs */
	void (*given)(const struct td_iop *op); /* it has got one; or NULL */
	void (*opened)(unsigned file);          /* one is open for writing, as itself; or NULL */
	void (*event)(const char *what); /* something is about to happen, which the process need not
					    live to see; or NULL */

	struct sim_fault fault;
	uint32_t ncalls, nreads, nwrites, nsyncs, nopens, nsizes, ntruncates, nrecords;
	unsigned fills;   /* the file, from 1 on, that alone becomes full; 0: any */
	unsigned nfired;  /* faults that happened */
	bool sync_failed; /* and what it was to make durable is in doubt */
	unsigned spared;  /* a file, from 1 on, whose failures are nobody's; 0: none */
	bool hard;        /* one of them cannot be hidden from the guest */

	struct td_list queued, running; /* td_iop.link; before and after the commit */
	unsigned nrunning;
};

void sim_init(struct sim *s, struct ev_loop *loop, uint32_t *clock, struct flog *log,
	      uint64_t seed);
void sim_free(struct sim *s); /* nothing is running */

/* The file is borrowed: of must stay. */
void sim_add(struct sim *s, const char *name, const struct pages *of, bool blockdev);

/* One more engine on the same disk, in the place of the first for a process that comes after. */
struct td_io *sim_engine(struct sim *s, struct ev_loop *loop);
/*
 * That process is dead, and `who' runs no more.  working: what the disk has been given is that
 * one's; of it, each is done yet or never. An fdatasync that is done is one that did well.
 */
void sim_death(struct sim *s, unsigned who, bool working);

/* A record is to be written: can it not be?  Of SIM_RECORD, by which a file is full as well. */
bool sim_no_record(struct sim *s);

/* Was there no space for something? */
bool sim_no_space(const struct sim *s);

/* Completes one that is running, at random; false when there is none. */
bool sim_step(struct sim *s);

#endif
