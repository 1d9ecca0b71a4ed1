/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Is a log of changed blocks what whoever makes backups may rely on, after a power cut?  From its
 * bytes and the guest's trace alone; nothing here is shared with the tapdisk.
 *
 * I10 A disk that was paused or closed, with success, before the cut: the storage manager marks its
 *     log as consistent then.  So each change that was answered before has its bits.  Of later
 *     changes a cut may take bits along: the mark is off while the disk runs.  What stands in the
 *     log beside those bits, and what was set at first, stays as it was.
 */
#ifndef CRASH_CHANGED_CHECK_H
#define CRASH_CHANGED_CHECK_H

#include "tests/crash/pages.h"
#include "tests/crash/trace.h"

#define CHANGED_NAME "/sim/changes" /* in the simulated disk */

/* The log of a disk of so many sectors as it is at first; with bits that are set, and longer than
 * it need be. */
void changed_make(struct pages *log, uint64_t sectors);

/* What is left of that log after a cut at event `at'; sectors: of the disk, those that are looked
 * at.  0; or -1 with a text. */
int changed_check(const struct pages *log, uint64_t log_sectors, const struct gtrace *t,
		  uint64_t sectors, uint32_t at, char *text, size_t len);

#endif
