/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which domains are one machine, and may therefore use one disk at the same time. */
#ifndef TD_CONTROL_SAME_MACHINE_H
#define TD_CONTROL_SAME_MACHINE_H

#include "control/store.h"

/*
 * A guest and its stub domain (whose `target' is the guest), or the two domains of a guest that
 * migrates to the same host (whose `vm' is the same).  Both keys stand in the domain's home
 * directory, which a guest may read alone.  A domain is not beside itself: two devices of one guest
 * on one disk are two writers.
 */
bool same_machine(struct store *s, unsigned a, unsigned b);

#endif
