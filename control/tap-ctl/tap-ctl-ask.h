/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef CONTROL_TAP_CTL_ASK_H
#define CONTROL_TAP_CTL_ASK_H

#include "control/tap-ctl/tap-ctl-rows.h"

/*
 * Asks all tapdisks (or only_pid alone; -1: all) one question without a disk, and adds their rows
 * to `rows', each with its "pid". One that answers without a row is the row {pid}; one that does
 * not answer within timeout_s is {pid, "answers": false}; what a dead one has left is removed.  0
 * or -errno with text.
 */
int tc_ask_all(const char *op, pid_t only_pid, int timeout_s, struct tc_rows *rows,
	       struct td_err *err);

#endif
