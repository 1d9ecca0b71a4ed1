/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a disk has done, as JSON for control clients. */
#ifndef TAPDISK_CTL_STATS_H
#define TAPDISK_CTL_STATS_H

#include <jansson.h>
#include <stdbool.h>

struct vbd;

/* The line that `tap-ctl stats' prints.  full: with the histograms.  A new reference; NULL: no
 * memory. */
/* ctl-limit.c: the limits, and who has waited for them */
json_t *ctl_limit_json(const struct vbd *v);

json_t *ctl_stats_json(const struct vbd *v, bool full);

#endif
