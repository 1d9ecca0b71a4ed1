/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One call that the opener was asked for: what came, and how it is made here. */
#ifndef TAPDISK_OPENER_JOB_H
#define TAPDISK_OPENER_JOB_H

#include "td/log.h"
#include "tapdisk/opener/opener-calls.h"

struct job {
	struct opener_ask ask;
	/* aligned, as some are structures */
	char part[OPENER_PARTS][OPENER_PART_MAX + 8] __attribute__((aligned(8)));
	char path[OPENER_PARTS][OPENER_PART_MAX + 64]
		__attribute__((aligned(8)));   /* the same, as this process sees it */
	char full[OPENER_PARTS][2 * PATH_MAX]; /* absolute, by its text; "": it has ".." */
	const char *asked[OPENER_PARTS];       /* as the host may have named it */
	int dir;                               /* of a socket's name; -1: none */
	union {
		char out[OPENER_PART_MAX];
		struct td_err err;
	};
	int paths; /* of full */
	int fds[1 + OPENER_FDS], nfds;
	int seal[OPENER_PARTS], nseals; /* of the minors whose files it changes */
};

/* Nobody waits for it any more (OP4). */
bool job_is_late(const struct job *j);
/* Its tapdisk is dead (OP5): that one's end of the pair is closed with the rest of what it had. */
bool job_is_orphan(const struct job *j);

/* The call's arguments as this process makes it.  0 or -errno. */
int job_prepare(struct job *j, const struct opener_call *c, long *args);

/* opener-seal.c.  Takes the seals of the minors that its names belong to (-1: none): 0 or -errno.
 */
int seal_take(struct job *j, long first, long other);
void seal_drop(struct job *j);

/* A descriptor of the tapdisk's own, by its name in /proc; -1: it is none. */
int job_own_fd(const char *full);

#endif
