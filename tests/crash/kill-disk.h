/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The tapdisk that the kill lab kills: its own code, from the ring down to the engine, in a child
 * process with a real file.
 */
#ifndef CRASH_KILL_DISK_H
#define CRASH_KILL_DISK_H

#include <stdatomic.h>

#include "lib/kill.h"
#include "tests/support/guest.h"

/* Between the lab and all its tapdisks. */
struct kill_shared {
	_Atomic int armed;     /* a TD_KILL point; -1: none */
	atomic_uint countdown; /* it dies when it comes there for that many'th time */
	_Atomic int last;      /* the point at which the last one has died; -1: at none */
	atomic_uint died_at[TD_KILL_COUNT];
	atomic_bool fail_sync; /* each fdatasync fails with EIO */
	_Atomic uint64_t leaf; /* an inode; and the bytes of that beyond which there is no room */
	_Atomic uint64_t room; /* for what has none yet */
	atomic_uint linger;    /* us between the beginning and the end of a death at a record */
	atomic_bool ready;     /* the ring runs */
	atomic_bool quit;
};

extern struct kill_shared *kill_shared;
extern const char *const kill_names[];

struct kill_disk {
	const char *spec, *mode;
	const char *changed; /* its log of changed blocks, or NULL */
	/* type:path of a copy that is a part of the disk (MI9 of tapdisk/mirror/mirror.h), or NULL;
	 * and what both stand on, or NULL: it stands by */
	const char *secondary, *base;
	const char *engine; /* $TAPDISK_IO */
	const struct guest *guest;
	int quit; /* an eventfd: let go of the guest, close the image, end with 0 */
};

void kill_disk_init(void);
/* A child that serves it; reopen: in the place of one that has died. */
pid_t kill_disk_start(const struct kill_disk *d, bool reopen);
void kill_disk_fill(const char *spec, uint64_t room); /* the leaf, from here on */
bool kill_disk_redirected(void);                      /* as its record says */

#endif
