/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A VHD offline: looked at.  Changes nothing, takes no lock. */
#ifndef TD_DRIVERS_VHD_CHECK_H
#define TD_DRIVERS_VHD_CHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "td/log.h"

enum {
	VHD_CHECK_NO_LAST = 1u << 0,    /* the footer at the end may be missing */
	VHD_CHECK_NO_UUID = 1u << 1,    /* the parent may be another one */
	VHD_CHECK_NO_TIME = 1u << 2,    /* nor is a word said of a parent that was written since */
	VHD_CHECK_NO_BITMAPS = 1u << 3, /* the bitmaps are not read */
	VHD_CHECK_PARENTS = 1u << 4,    /* all of the chain */
};

struct vhd_stats {
	uint32_t blocks, allocated, full; /* full: all sectors of it written */
	uint64_t sectors;                 /* written ones */
};

/* what: a sentence that begins with the path.  fatal: the image must not be used as it is. */
typedef void vhd_finding(const char *what, bool fatal, void *arg);

/* 0; or -errno, err with the first fatal finding; each finding goes to `say' too, and each good
 * image's path to `good'. */
int vhd_check(const char *path, unsigned flags, vhd_finding *say,
	      void (*good)(const char *path, void *arg), void *arg, struct vhd_stats *stats,
	      struct td_err *err);

#endif
