/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * All disks of this process go to another one, which runs the same or a newer program, while their
 * guests run (tap-ctl upgrade).
 *
 * H1 nothing is begun unless the other process reports our layout of the table of requests in
 *    flight
 * H2 one process at a time has a disk: its image is closed and its rings are unmapped before the
 *    other process is asked to adopt it
 * H3 the marker's lock is held from beginning to end, by one of them or both, so that nobody else
 *    can take the minor number for that of a dead process
 * H4 all or nothing: when a disk cannot be given, or is not taken, or when the other process dies
 *    or hangs within a second of the last disk, then that process is killed, its end is awaited,
 *    and all its disks are taken back, by the same records that a successor of a dead process uses
 * H5 no operation on a disk is answered here between its giving and its return: operations on it
 *    wait
 *
 * A process that dies in the middle leaves what any death leaves (tapdisk/blkif/inflight.h,
 * tapdisk/vbd/record.h).
 */
#ifndef TAPDISK_HANDOVER_H
#define TAPDISK_HANDOVER_H

#include <sys/types.h>

#include "td/log.h"

struct vbd;

/* A disk is the other's.  pause: s for which its guest got no answer. */
typedef void handover_told(void *arg, const struct vbd *v, double pause);

/*
 * On a fiber.  0: the other has them, and this process is to end (server_end).  -errno with text:
 * they are here and go on, and the other is dead, or will not be used.
 */
int handover(pid_t to, handover_told *told, void *arg, struct td_err *err);

#endif
