/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An I/O engine in memory, with faults on demand.  It insists on what real direct I/O insists on:
 * offsets, lengths and memory aligned as the file says; and it writes down what it was asked, in
 * order.
 */
#ifndef TESTS_FAULT_IO_H
#define TESTS_FAULT_IO_H

#include "td/io.h"

#define FAULT_FILES 48
#define FAULT_RULES 64
#define FAULT_LOG   65536

struct fault_file {
	char name[64];
	unsigned char *data;
	uint64_t size;
	uint64_t held; /* lazy: bytes of data; the rest, up to size, is zeroes */
	uint64_t room; /* lazy: bytes that data was made for */
	bool blockdev;
};

/* What happens to the k-th READ, WRITE, SYNC, PUNCH or ZERO (1: the first) since fault_io_new() or
 * fault_io_clear(). */
struct fault_rule {
	uint64_t k;
	long res; /* negative: -errno; else: at most so many bytes are transferred */
};

struct fault_record {
	enum td_io_op op;
	unsigned flags;
	uint64_t off, len; /* of this round */
};

struct fault_io {
	struct td_io *io;
	struct td_io_ops ops;
	struct fault_file file[FAULT_FILES];
	uint32_t off_align, mem_align; /* of direct files; others take anything */
	bool manual;   /* operations complete when the test says so; CALLs always at once */
	bool grows;    /* a write beyond the end of a file makes it longer; otherwise it is a bug */
	bool lazy;     /* what a file grows by costs nothing before it is written */
	uint64_t most; /* bytes that a file may grow to; 0: any */
	bool reorder;  /* those of a turn complete in random order */

	struct fault_rule rule[FAULT_RULES];
	unsigned nrules;
	uint64_t k;                  /* operations so far */
	struct fault_record *log;    /* FAULT_LOG entries */
	uint8_t log_file[FAULT_LOG]; /* of which file[] */
	unsigned nlog, ncommits;

	struct td_list queued, running; /* td_iop.link: before and after commit */
	unsigned nrunning;
	ev_prepare finish; /* never started: fed */
};

/* f is filled; f->io is the engine.  off_align, mem_align: bytes. */
void fault_io_new(struct fault_io *f, struct ev_loop *loop, uint32_t off_align, uint32_t mem_align);
/* what continues each other comes as one; no alignment */
void fault_io_new_merging(struct fault_io *f, struct ev_loop *loop);
void fault_io_free(struct fault_io *f);

/* A file of `size' bytes, zeroes; its name is what td_file_open() is given. */
struct fault_file *fault_io_file(struct fault_io *f, const char *name, uint64_t size);

void fault_io_rule(struct fault_io *f, uint64_t k, long res);
void fault_io_clear(struct fault_io *f); /* forgets rules and the log, and counts from 1 again */

/* Manual: completes the i-th of those that are running; false when there is none. */
bool fault_io_complete(struct fault_io *f, unsigned i);

#endif
