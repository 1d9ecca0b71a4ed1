/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Notices a store that does not answer, such as an NFS server that is away.  It reports that, and
 * does nothing else: a request that the store has is never answered before the store has answered
 * it, since a write that was given up could land later, on top of newer data.
 */
#ifndef TAPDISK_STALL_H
#define TAPDISK_STALL_H

#include "tapdisk/cache/cache.h"

struct stall {
	ev_timer timer;
	struct ev_loop *loop;
	const struct cache *cache;
	uint64_t seen;                    /* progress at the last look */
	bool waiting;                     /* at the last look requests were with the store */
	bool stalled;                     /* and they still are, and nothing has come back since */
	void (*changed)(struct stall *s); /* stalled has changed */
};

void stall_init(struct stall *s, struct ev_loop *loop, const struct cache *cache,
		void (*changed)(struct stall *s));
/* Looks every `seconds' from now on; 0: not at all, and no timer wakes the process.  So it tells
 * after one to two times that long. */
void stall_watch(struct stall *s, int seconds);

#endif
