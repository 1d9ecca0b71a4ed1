/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The system calls that change one file, recorded, and failing on demand; and what a disk may hold
 * when the power goes among them.  For programs that are linked with --wrap for each of them
 * (tests/unit/local.mk), whose syncs then cost nothing.
 */
#ifndef TESTS_CUT_CALLS_H
#define TESTS_CUT_CALLS_H

#include <stddef.h>
#include <stdint.h>

enum kind { WRITE, SYNC, TRUNCATE };
struct event {
	enum kind kind;
	uint64_t off, len;
	uint8_t *data;
};
extern struct event *events;
extern size_t nevents;
extern unsigned names_synced; /* directories that were synced while it was recorded, before the
				 file's first change */

void start_recording(const char *path);
void stop_recording(void);
void forget_events(void);

/* The fault_at'th recorded call fails with fault_errno, or is short; 0: none.  calls: so many there
 * have been. */
enum { SHORT = -1 };
extern unsigned fault_at, calls;
extern int fault_errno;

struct disk {
	uint8_t *b;
	uint64_t len, room;
};

/* What it may hold when the power goes after `cut' events; d->b has room for it. */
void disk_after(struct disk *d, const uint8_t *before, uint64_t len, size_t cut);

uint8_t *slurp(const char *path, uint64_t *len); /* a file's bytes; the caller's */
void spill(const char *path, const uint8_t *b, uint64_t len);

#endif
