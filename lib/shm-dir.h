/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where a tapdisk's counters are for other programs to read (tapdisk/stats/shm.h): in the directory
 * td3-<pid>, which the tapdisk makes and removes, and which tap-ctl removes when the tapdisk is
 * dead.
 *
 * Beside it is a directory vbd3-<domid>-<devid> for each device of a guest whose counters are
 * there.  XenServer's rrdd finds a device when this directory is made, forgets it when the
 * directory is removed, and keeps what it has mapped in between.  So a tapdisk that begins to serve
 * a device makes the directory again, after the file of counters, and removes it before that file.
 * The directory holds one empty file, named by its owner's pid.  To remove it, a process removes
 * its own name, and the directory if no other name is left: so a successor's stays, however late
 * the dead process is cleaned up after.
 */
#ifndef TD_LIB_SHM_DIR_H
#define TD_LIB_SHM_DIR_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define TD_SHM_VERSION 1

/* of reads, or of writes; the latter with flushes that carry data */
struct td_shm_dir {
	uint64_t submitted, completed; /* requests */
	uint64_t sectors;              /* of 512 bytes, of those completed without an error */
	uint64_t ticks;                /* microseconds that those completed took, all together */
};

/* A file there, as others read it: struct vbd3_stats of libxenstat since Xen 4.19. */
struct td_shm_counters {
	uint32_t version, pad;
	uint64_t outstanding; /* requests submitted and not completed, of any kind */
	struct td_shm_dir read, write;
	uint64_t io_errors; /* requests completed with an error, of any kind */
	uint64_t flags;     /* 0 */
};

_Static_assert(sizeof(struct td_shm_counters) == 96 &&
		       offsetof(struct td_shm_counters, write) == 48,
	       "libxenstat's layout");

/* The directory of process pid: below /dev/shm, or below $TAPDISK_CONTROL_DIR where that is set.  0
 * or -ENAMETOOLONG. */
int td_shm_path(pid_t pid, char *path, size_t size);

/* The directory of a device, whose counters stand in this process's file `name'
 * (vbd-<domid>-<devid>).  One that another process has left is removed first.  0 or -errno. */
int td_shm_device_make(const char *name);
/* Removes it, if it is that process's. */
void td_shm_device_remove(const char *name, pid_t pid);

/* Removes all files in pid's directory, which is behind fd, and the directories of its devices. */
void td_shm_empty(int fd, pid_t pid);

/* Removes what a dead process has left, or (pid 0) what all dead ones have.  Touches nothing that
 * belongs to another user. */
void td_shm_sweep(pid_t pid);

#endif
