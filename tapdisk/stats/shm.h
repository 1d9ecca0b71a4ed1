/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Counters where other programs read them: /dev/shm/td3-<pid>/vdi-<minor> for each open disk and
 * vbd-<domid>-<devid> for each ring.
 *
 * libxenstat (xentop) and XenServer's rrdd find the second through the backend's key kthread-pid.
 * Facts: the layout is struct vbd3_stats of libxenstat since Xen 4.19, which refuses another
 * version than 1; rrdd maps a file once and reads it for as long as it is mapped, and takes a tick
 * for a microsecond.  It hears of the second kind by the directory that lib/shm-dir.h describes,
 * which stands as long as the file.
 *
 * They help those who look and nobody else: where such a file cannot be made, that is logged and
 * the disk goes on without. With TAPDISK_CONTROL_DIR in the environment the directory is
 * shm/td3-<pid> below it.  Main thread only; on a fiber, others run while a file is made or
 * removed.
 */
#ifndef TAPDISK_SHM_H
#define TAPDISK_SHM_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/shm-dir.h"

/* One file.  A zeroed one is closed. */
struct shm {
	struct td_shm_counters *at; /* the mapped page; NULL: there is none */
	char name[40];
};

/* always leaves s in a state that shm_close_file takes */
void shm_open_file(struct shm *s, const char *name);
void shm_close_file(struct shm *s); /* removes it, and with the last one the directory */

#endif
