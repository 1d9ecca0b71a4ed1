/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The names in the control directory (td/ctl.h): sockets, records and markers.  Nothing here talks
 * to a tapdisk.
 */
#ifndef TD_LIB_CTL_DIR_H
#define TD_LIB_CTL_DIR_H

#include <stdbool.h>
#include <sys/types.h>

#include "td/ctl.h"
#include "td/log.h"

/* The control directory in force ($TAPDISK_CONTROL_DIR or /run/blktap-control); a static string. */
const char *td_ctl_dir(void);

/* Makes the control directory and its tapdisk/ (0700) where they are missing.  0 or -errno with
 * text. */
int td_ctl_mkdirs(struct td_err *err);

/* What /proc says of pid: whether it runs (a zombie does not), and whether its name is a tapdisk's.
 */
bool td_ctl_running(pid_t pid, bool *tapdisk);

/* Removes the sockets of a tapdisk of that pid: ctl<pid> and the NBD server's. */
void td_ctl_unlink_sockets(pid_t pid);

/*
 * The record of a ring's requests in flight (tapdisk/blkif/inflight.h): its path (PATH_MAX bytes),
 * 0 or -ENAMETOOLONG; and are there any of this minor.
 */
int td_ctl_ring_path(int minor, unsigned domid, unsigned devid, unsigned queue, char *path);
bool td_ctl_ring_any(int minor);
/* The record of how a minor's disk is open (tapdisk/vbd/record.h). */
int td_ctl_disk_path(int minor, char *path);
/* The note of its flushes (lib/syncmark.h). */
int td_ctl_flush_path(int minor, char *path);
/* The log of a format's changes that wait for a commit (lib/redo.h). */
int td_ctl_redo_path(int minor, char *path);
/* What a connection to an NBD server has left (drivers/nbd/nbd.h). */
int td_ctl_left_path(int minor, char *path);
/* By which a toolstack knows that a disk's leaf is full (MI10 of tapdisk/mirror/mirror.h). */
int td_ctl_full_path(int minor, char *path);
/* Takes all of these away, and the notes of td_ctl_move(). */
void td_ctl_record_sweep(int minor);

/*
 * A disk that has gone from one tapdisk to another (tapdisk/ctl/handover.h): the old one's NBD
 * sockets become names of the new one's, so that clients find it where it was.  td_ctl_moved: who
 * has the disk that tapdisk pid had, as long as that one lives; 0: nobody is known to.
 */
void td_ctl_move(pid_t from, pid_t to, int minor);
pid_t td_ctl_moved(pid_t from, int minor);

/* Marker of a minor number (td/ctl.h); pid may be NULL.  It takes no lock of an allocated one, and
 * waits up to 2 s for that of a process that is just being killed. */
enum td_marker {
	TD_MARKER_NONE,
	TD_MARKER_FREE, /* allocated, no tapdisk */
	TD_MARKER_HELD,
	TD_MARKER_STALE
};
enum td_marker td_ctl_marker(int minor, pid_t *pid);

#endif
