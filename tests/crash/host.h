/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The simulated host: a disk, a guest, the tapdisks that serve it one after the other (process.h),
 * what they leave in the control directory, and the toolstack that pauses, upgrades and revives
 * them.  A history (history.h) says what happens.
 *
 * The judge knows what the guest was told.  A death of a tapdisk takes none of it away: what is
 * read after it is what was answered, in every mode; a flush that failed goes on failing.  A power
 * cut leaves what the mode had promised.
 */
#ifndef CRASH_HOST_H
#define CRASH_HOST_H

#include "tests/crash/formats.h"
#include "tests/crash/history.h"
#include "tests/crash/judge.h"

#define HOST_GROWN  4
#define HOST_UNSAFE 16
#define HOST_TURNS  64
#define HOST_GROWS  64 /* sectors at a time; of a format: a MiB */

struct host_run {
	/* what to do */
	const struct format *format;
	const struct template *template;
	const char *mode;
	const struct history *history;
	bool verbose;

	/* what came of it */
	struct gtrace guest;
	struct flog log;
	uint32_t clock;
	struct verdict bad;
	uint32_t bad_at;
	uint32_t end; /* event of the last thing that was not for the judge's sake */
	/* events between which nothing was promised, and so nothing need be left */
	struct {
		uint32_t from, to;
	} unsafe[HOST_UNSAFE];
	unsigned nunsafe;
	/* event at which an image was opened anew after a sync that failed, or a close that told of
	 * a loss: what a cut leaves after that, nobody can say */
	uint32_t doubt;
	uint32_t grown[HOST_GROWN]; /* events at which it was made larger */
	unsigned ngrown, grows;     /* times; sectors each time */
	bool logged;                /* a log of changed blocks was kept */
	unsigned leaf;              /* the file that is the disk's, at the end */
	/* of a format that commits any image: from which event on which file was the disk's */
	struct {
		uint32_t at;
		unsigned leaf;
	} turned[HOST_TURNS];
	unsigned nturned;
	uint32_t gone[SIM_FILES]; /* event at which it was removed; 0: it was not */
	struct {
		unsigned deaths, revived, upgrades, taken_back, pauses, refused, faults;
		unsigned commits, committed; /* that were begun, and told as concluded */
		unsigned mirrors;            /* that were whole at the end */
	} n;
	const char *last; /* what it was about to do when it last died */
};

void host_init(void); /* once */
/* Adds a log of changed blocks to a format's files. */
void host_changed_add(struct template *t, const struct format *f);
/* The image that has all of a disk whose secondary is a part of it, after a cut. */
unsigned host_joined_leaf(const struct host_run *r);
/* Adds the copy of a disk that is mirrored. */
void host_mirror_add(struct template *t, const struct format *f);
/* Looks at it, as a cut at that event has left it: 0, or text (I10). */
int host_changed_check(const struct host_run *r, uint32_t at, const struct pages *files, char *text,
		       size_t len);
/* The file that is the disk's at that event; whether one has been removed by then; an image's type.
 */
unsigned host_leaf_at(const struct host_run *r, uint32_t at);
bool host_is_gone(const struct host_run *r, unsigned file, uint32_t at);
const char *host_type_of(const struct format *f, const struct pages *file);
bool host_commits(const struct format *f); /* any image of its chain, also the leaf */
void host_run(struct host_run *r);
void host_run_free(struct host_run *r);
/* was anything promised at that event, or before it for good? */
bool host_promised(const struct host_run *r, uint32_t at);

/* Looks at the disk's files as they are at that event, or as a cut left them: 0, or text. */
int host_check(const struct host_run *r, uint32_t at, unsigned leaf, const struct pages *files,
	       char *text, size_t len);

#endif
