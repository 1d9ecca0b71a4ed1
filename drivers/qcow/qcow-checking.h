/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A check of a qcow2 under way, shared by its files: qcow-check.c compares and leads,
 * qcow-check-count.c counts what is referred to, qcow-check-mend.c has the flags that say "mine
 * alone" and a new refcount structure.  All on a fiber; 0 or -errno.
 */
#ifndef DRIVERS_QCOW_CHECKING_H
#define DRIVERS_QCOW_CHECKING_H

#include "drivers/qcow/qcow-check.h"

struct qcow_checking {
	struct td_file *file;
	struct qcow_header h;
	struct qcow_check *c;
	uint64_t n;      /* clusters that are looked at */
	uint16_t *count; /* references found to each, up to 65535 */
	uint8_t *buf;    /* a cluster */
	uint64_t *ref;   /* the refcount table; 0 where its entry makes no sense */
	uint32_t nref;
	bool rebuild;  /* the refcount structure cannot be mended in place */
	bool anew;     /* a mark in the header is to come off: see the top of qcow-check.c */
	uint64_t last; /* data: host offset behind the last cluster, for the fragmentation */
};

static inline uint64_t qcow_check_csize(const struct qcow_checking *k)
{
	return qcow_cluster(&k->h);
}

static inline unsigned long long qcow_check_llu(uint64_t v)
{
	return v;
}

/* One line of what is found. */
void qcow_check_say(struct qcow_checking *k, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* n entries of a table at off, in host byte order, in new memory. */
int qcow_check_table(struct qcow_checking *k, uint64_t off, uint64_t n, uint64_t **out);
int qcow_check_sync(struct qcow_checking *k);
/* The header's first sector, changed as a whole and durable. */
int qcow_check_patch(struct qcow_checking *k, void (*patch)(struct qcow_checking *k, uint8_t *p));

/* --- qcow-check-count.c --- */
int qcow_check_count(struct qcow_checking *k, struct td_err *err);

/* --- qcow-check-mend.c --- */
/* A pass over the active tables: takes flags away that are wrong, or (set) sets those that may be;
 * without fix_errors it only tells. */
int qcow_check_flags(struct qcow_checking *k, bool set);
int qcow_check_rebuild(struct qcow_checking *k);

#endif
