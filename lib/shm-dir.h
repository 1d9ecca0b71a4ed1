/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where a tapdisk's counters stand for other programs to read (tapdisk/shm.h): the directory td3-<pid>, which its tapdisk makes and
 * removes, and which tap-ctl removes when the tapdisk is dead.
 */
#ifndef TD_LIB_SHM_DIR_H
#define TD_LIB_SHM_DIR_H

#include <stddef.h>
#include <sys/types.h>

/* The directory of process pid: below /dev/shm, or below $TAPDISK_CONTROL_DIR where that is set.  0 or -ENAMETOOLONG. */
int td_shm_path(pid_t pid, char *path, size_t size);

/* Removes all files in the directory behind fd. */
void td_shm_empty(int fd);

/* Removes what a dead process has left, or (pid 0) what all dead ones have.  Touches nothing that is another user's. */
void td_shm_sweep(pid_t pid);

#endif
