/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A disk's numbers as JSON: the line that `tap-ctl stats' prints. */
#ifndef TAPDISK_STATS_H
#define TAPDISK_STATS_H

#include <jansson.h>

#include "tapdisk/vbd.h"

json_t *stats_json(const struct vbd *v); /* a new reference; NULL: no memory */

#endif
