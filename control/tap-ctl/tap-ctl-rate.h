/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a disk did between two looks at its counters. */
#ifndef CONTROL_TAP_CTL_RATE_H
#define CONTROL_TAP_CTL_RATE_H

#include <jansson.h>

#include "control/tap-ctl/tap-ctl-rows.h"

/* The row of `rows' that is the same disk (pid and minor) as this one; NULL. */
const json_t *tc_rate_before(const struct tc_rows *rows, const json_t *row);

/*
 * row: of the operation stats_all.  before: the same disk's, `seconds' earlier; NULL: unknown, all
 * rates are 0.  A new object:
 *
 * {pid, minor, args, state, mode, guest: "domid/devid" or absent, queue, reason or absent,
 *  read, write, flush, discard: {per_s, bytes_per_s, errors,
 *                                latency_ns: {mean, p50, p99, p99.9}}}
 *
 * errors are those of the time between, and so are the latencies, of which there are none (absent)
 * when nothing was done.
 */
json_t *tc_rate(const json_t *row, const json_t *before, double seconds);

#endif
