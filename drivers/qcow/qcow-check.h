/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Is a qcow2 consistent, and can it be made so?  Every reference in the image is counted - tables,
 * data, compressed clusters, internal snapshots, bitmaps - and compared with the refcounts and the
 * flags that say "mine alone".  On a fiber; the image is open nowhere else.
 */
#ifndef DRIVERS_QCOW_CHECK_H
#define DRIVERS_QCOW_CHECK_H

#include "drivers/qcow/qcow-format.h"
#include "lib/io/file.h"

struct qcow_check {
	/* what is wanted */
	bool fix_leaks, fix_errors;                          /* errors includes leaks */
	void (*say)(struct qcow_check *c, const char *line); /* each thing that is found, or NULL */
	void *data;                                          /* the caller's */
	/* what was found */
	/* clusters or entries; those that were mended are counted below */
	uint64_t corruptions, leaks;
	uint64_t corruptions_fixed, leaks_fixed;
	uint64_t lost; /* of the corruptions: what is referred to, and lies beyond the end of the
			  file */
	uint64_t total, allocated, fragmented, compressed; /* clusters of the disk */
	uint64_t end;   /* bytes: behind the last cluster in use */
	unsigned lines; /* said so far; beyond a bound nothing is said any more */
};

/*
 * h: decoded from the file, its tables checked against the file's size.  0 when the image could be
 * looked through, whatever was found; -errno when it could not (an error of I/O, no memory, a
 * directory that makes no sense).  With fix_errors, and nothing left to mend, the marks "dirty" and
 * "corrupt" are taken away.  Where something is lost, the file was cut off, and nothing is mended:
 * what counts, or makes the file longer, would make new clusters of the lost ones.
 */
int qcow_check(struct td_file *file, const struct qcow_header *h, struct qcow_check *c,
	       struct td_err *err);

/* An internal snapshot, as its directory has it. */
struct qcow_snapshot {
	uint64_t l1_off;
	uint32_t l1_size;
	char id[64], name[256]; /* cut off where they are longer */
	uint32_t seconds, nanoseconds;
	uint64_t clock;      /* ns that the guest had been running */
	uint64_t state_size; /* bytes */
	uint64_t disk_size;  /* bytes; 0: not recorded */
	uint64_t icount;     /* instructions that the guest had run; UINT64_MAX: not recorded */
};

/* All of them, into new memory (h->nsnapshots; *end: bytes of the directory); fiber. */
int qcow_snapshots(struct td_file *file, const struct qcow_header *h, struct qcow_snapshot **out,
		   uint64_t *end, struct td_err *err);

#endif
