/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The table of cache modes.  Only tapdisk/cache/cache.c and the files beside it act on it; all
 * other code sees TD_FUA, TD_FLUSH and file flags.
 *
 *               page      a write is             volatile    a FLUSH
 * mode          cache     acknowledged           cache told  is            durable
 *
 * none          bypassed  after the write        yes         fdatasync     all before a flush
 * directsync    bypassed  after write + durable  no          fdatasync     acknowledged writes
 * writethrough  used      after write + durable  no          fdatasync     acknowledged writes
 * writeback     used      after the copy         yes         fdatasync     all before a flush
 * unsafe        used      after the copy         yes         nothing       nothing
 */
#ifndef TD_CACHE_H
#define TD_CACHE_H

#include <stdbool.h>

struct td_cache_mode {
	const char *name;
	unsigned file_flags;  /* TD_FILE_* that every file of the disk is opened with */
	bool fua_every_write; /* a write is durable before it is acknowledged */
	bool advertise_flush; /* the guest is told of a volatile cache (feature-flush-cache,
				 feature-barrier) */
	bool drop_flush;      /* a flush promises nothing: needs the second word unsafe=yes */
	bool shareable;       /* another host sees an acknowledged write at once (raw, w!) */
	const char *promise;  /* one line for people */
};

/* ends with name == NULL; the first is the default */
extern const struct td_cache_mode td_cache_modes[];

const struct td_cache_mode *td_cache_mode_find(const char *name); /* NULL when unknown */

#endif
