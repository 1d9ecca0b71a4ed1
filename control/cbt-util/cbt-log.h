/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A log of changed blocks (lib/changed-log.h), offline.  Nothing is locked: the caller must keep
 * other programs off the log that it changes, and pause a tapdisk that has it open and adds bits to
 * it.
 *
 * Each function returns 0 or -errno with text.  Its changes are durable when it returns.
 */
#ifndef CONTROL_CBT_LOG_H
#define CONTROL_CBT_LOG_H

#include <stdbool.h>

#include "lib/changed-log.h"
#include "td/log.h"

struct cbt_log {
	const char *path;
	int fd;
	bool blockdev;
	uint64_t room; /* bytes of the file or device */
	uint8_t head[CHANGED_HEADER];
	uint64_t size; /* bytes of the disk */
};

#define CBT_SIZE_MAX (UINT64_C(1) << 50) /* bytes of a disk */

/* Makes it, empty, for a disk of so many bytes; what was there is overwritten. */
int cbt_create(const char *path, uint64_t size, struct td_err *err);

/* -EIO for one that is too short for its bits. */
int cbt_open(struct cbt_log *l, const char *path, bool write, struct td_err *err);
void cbt_close(struct cbt_log *l);

int cbt_put_head(struct cbt_log *l, struct td_err *err); /* l->head */
/* Its disk has grown: new bits are 0.  -EINVAL for a smaller one. */
int cbt_grow(struct cbt_log *l, uint64_t size, struct td_err *err);
/* Calls fn with all bits, in pieces, until it fails. */
int cbt_read_bits(const struct cbt_log *l, int (*fn)(const void *bits, size_t len, void *arg),
		  void *arg, struct td_err *err);
/* Sets in `into' what is set in `from', whose disk is not larger. */
int cbt_merge(const struct cbt_log *from, struct cbt_log *into, struct td_err *err);

#endif
