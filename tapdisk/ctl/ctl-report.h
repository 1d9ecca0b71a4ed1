/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * SIGUSR1 and SIGUSR2: the state of all disks into the log.  A host's status report sends one of
 * them to every tapdisk.
 */
#ifndef TAPDISK_CTL_REPORT_H
#define TAPDISK_CTL_REPORT_H

#include <ev.h>

/* Before this both must be ignored, as they would end the process. */
void ctl_report_start(struct ev_loop *loop);

#endif
