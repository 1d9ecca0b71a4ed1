/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The dirty bitmaps of a qcow2 image, held against what its guest has done.  It shares no code with
 * the driver. */
#ifndef CRASH_BITMAP_CHECK_H
#define CRASH_BITMAP_CHECK_H

#include "tests/crash/pages.h"
#include "tests/crash/trace.h"

/*
 * A bitmap that follows the disk and is not marked as in use is believed by backups: it has a bit
 * for each change that was answered before the event `at'.  0, or -1 with text.
 */
int bitmap_check(const struct pages *file, const struct gtrace *guest, uint32_t at, char *text,
		 size_t len);

#endif
