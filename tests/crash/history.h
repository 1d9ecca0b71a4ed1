/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What happens on the simulated host, in words of events: drawn from a seed, and any part of it can
 * be left out. */
#ifndef CRASH_HISTORY_H
#define CRASH_HISTORY_H

#include "tests/crash/sim.h"
#include "tests/crash/work.h"

#define HISTORY_MAX   96
#define HISTORY_RINGS 3

enum event_kind {
	H_WRITE,
	H_READ,
	H_FLUSH,
	H_BARRIER,
	H_ZERO,
	H_DISCARD, /* the guest's */
	H_LET,     /* nothing: it goes on */
	H_DRAIN,   /* the guest waits for all of its answers */
	H_PAUSE,
	H_UNPAUSE, /* arg: with another mode; other: with another image, where there is one */
	H_DIE,     /* the tapdisk, at the after-th thing that it does from now on */
	H_REVIVE,  /* a successor, as its record says; check: all that was answered is read */
	H_CREATE,  /* the image is opened anew, as another disk */
	H_OTHER,   /* another opens it, writes, and closes it */
	H_LIST,    /* somebody looks at what disks there are */
	H_TAMPER,  /* the dead one's log is lost, or of another version */
	H_UPGRADE, /* the disk is given to another process, which serves on trial */
	H_TRIAL, /* the trial ends: well; or (arg) the new one is killed; or (other) the old one has
		    died meanwhile */
	H_FAULT, /* something fails from now on */
	H_GROW,  /* the image is made larger */
	H_REOPEN, /* closed, and opened in mode arg */
	/* of a format that commits alone, so that the seeds of others stay as they are: */
	H_COMMIT, /* an image goes into its parent; other: slowly */
	H_QUERY,  /* somebody asks how far that is; other: and cancels it */
	H_KINDS
};

struct event {
	enum event_kind kind;
	unsigned flags; /* GOP_* */
	unsigned ring, arg, after, let;
	bool other, check;
	uint64_t sector;
	uint32_t n;
	struct sim_fault fault;
	uint64_t seed; /* of what is drawn while it, and what follows it, goes on */
};

struct history {
	uint64_t seed;
	unsigned rings;      /* 0: clients that come by NBD, and are gone with the tapdisk */
	unsigned lanes;      /* threads beside the main one */
	unsigned eager;      /* percent: how soon the disk completes what it has */
	unsigned redo_bytes; /* of the log of changes: little is soon full */
	bool persistent, copies;
	struct event ev[HISTORY_MAX];
	unsigned n;
	bool left_out[HISTORY_MAX];
};

struct history_disk {
	struct work_disk disk;
	bool snapshot, grows, raw, commits, joins;
	bool never[H_KINDS]; /* events that are left out: others take their place */
};

void history_draw(struct history *h, const struct history_disk *d, uint64_t seed);
void history_words(const struct event *e, char *buf, size_t len);

/* The part that is left out, as numbers for a replay: 1,4-7; and back.  False: no such list. */
void history_parts(const struct history *h, char *buf, size_t len);
bool history_leave_out(struct history *h, const char *parts);

extern const char *const history_kinds[H_KINDS];
extern const char *const history_modes[5];
extern const char *const sim_fault_names[SIM_KINDS];

#endif
