/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What vbd.c and vbd-ring.c know of each other. */
#ifndef TAPDISK_VBD_INSIDE_H
#define TAPDISK_VBD_INSIDE_H

#include "tapdisk/vbd.h"

/* --- vbd.c: on a fiber ---------------------------------------------------------------------------------------------- */

void vbd_lock(struct vbd *v); /* one operation at a time */
void vbd_unlock(struct vbd *v);
/* Waits until `ready' holds; false when the time is over.  deadline: of ev_time(), 0: none. */
bool vbd_wait_until(struct vbd *v, bool (*ready)(const struct vbd *v), double deadline);

/* --- vbd-ring.c ----------------------------------------------------------------------------------------------------- */

void vbd_hold_rings(struct vbd *v);
void vbd_run_rings(struct vbd *v);
void vbd_drop_rings(struct vbd *v); /* on a fiber: answers all that is in them, and lets go of them */
bool vbd_any_live_ring(const struct vbd *v);
const char *vbd_broken_ring(const struct vbd *v); /* why one is broken, or NULL */

#endif
